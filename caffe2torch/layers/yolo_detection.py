"""The last layers of YOLO nets, from maps of predictions to boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from caffe2torch.errors import LayerError
from caffe2torch.layers.boxes import nothing_found
from caffe2torch.layers.registry import Layer, Message, Shape, refuse, register

Found = tuple[Tensor, Tensor, Tensor]
"""Scores (n), labels from 0 (n) and boxes (n, 4): centre x and y, width, height in units of the image."""


class YoloOutput(Layer):
    """Detections from maps that hold, for each anchor, x, y, width, height, objectness and one value per class."""

    bottoms: ClassVar[tuple[int, int | None]] = (1, None)

    def __init__(
        self,
        classes: int,
        anchors: Sequence[Sequence[tuple[float, float]]],
        *,
        scales: Sequence[int] | None = None,
        confidence: float = 0.01,
        overlap: float = 0.45,
    ) -> None:
        """``anchors``: for each bottom widths and heights, of which its scale (or 1) make a cell of its map."""
        super().__init__()
        self.classes, self.anchors = classes, [list(own) for own in anchors]
        self.scales = list(scales or [1] * len(anchors))
        self.confidence, self.overlap = confidence, overlap
        self.no_gradient = tuple(range(len(anchors)))

    @classmethod
    def check(cls, p: Message, shapes: Sequence[Shape]) -> None:
        """Raise LayerError unless the classes and boxes are given and the maps are square and hold just these."""
        if not p.HasField("num_classes") or not p.num_classes:
            raise LayerError(f"{p.DESCRIPTOR.name} gives no num_classes")
        channels = p.num_box * (5 + p.num_classes)
        for shape in shapes:
            if len(shape) != 4 or shape[1] != channels or not channels or shape[0] != shapes[0][0]:
                raise LayerError(
                    f"a bottom has shape {shape}: {p.num_box} boxes of {p.num_classes} classes need (N, {channels}, "
                    "side, side), with N the same for all bottoms; check num_box and num_classes"
                )
            if shape[2] != shape[3]:
                raise LayerError(
                    f"a bottom has shape {shape}, a map that is not square, where versions of the fork disagree: "
                    "give the net a square input"
                )

    def top_shapes(self, bottom_shapes: Sequence[Shape]) -> list[Shape]:
        places = sum(math.prod(shape[2:]) * len(own) for shape, own in zip(bottom_shapes, self.anchors, strict=True))
        return [(1, 1, bottom_shapes[0][0] * max(1, places * self._labels_of_a_box()), 7)]

    def _labels_of_a_box(self) -> int:
        """How many detections a box can become."""
        return 1

    def forward(self, *maps: Tensor) -> Tensor:
        found = [self._found(*own) for own in zip(maps, self.anchors, self.scales, strict=True)]
        scores, labels, boxes = (torch.cat(parts) for parts in zip(*found, strict=True))
        if not len(scores):
            return nothing_found(maps[0])
        scores, order = scores.sort(descending=True, stable=True)
        kept = best(boxes[order], self.overlap)
        low, high = corners(boxes[order][kept])
        label = (labels[order][kept] + 1)[:, None]
        rows = (torch.zeros_like(label), label, scores[kept][:, None], low, high)
        return torch.cat([row.to(maps[0].dtype) for row in rows], 1).reshape(1, 1, -1, 7)

    def _found(self, maps: Tensor, anchors: Sequence[tuple[float, float]], scale: int) -> Found:
        """All boxes of one bottom whose scores pass the threshold: by image, row, column, anchor and label."""
        # Half precision is too coarse to sort by.
        wide = maps.detach().to(torch.promote_types(maps.dtype, torch.float32))
        places = wide.reshape(len(wide), len(anchors), -1, *wide.shape[2:])
        places = places.permute(0, 3, 4, 1, 2)  # N, rows, columns, anchors, values
        scores, labels, passed = self._scores(places[..., 4].sigmoid(), places[..., 5:])
        where = passed.nonzero().unbind(1)
        return scores[where], labels[where], decode(places, anchors, scale)[where[:4]]

    def _scores(self, objectness: Tensor, classes: Tensor) -> Found:
        """Scores, labels and whether they pass the threshold, of boxes (...), or of boxes and labels (..., classes)."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        return (
            f"{self.classes} classes, anchors={self.anchors}, scales={self.scales}, "
            f"confidence={self.confidence:g}, overlap={self.overlap:g}"
        )


@register("YoloDetectionOutput")
class YoloDetectionOutput(YoloOutput):
    """Detections (1, 1, K, 7) of YOLO v2: image, label from 1, score, xmin, ymin, xmax, ymax; the best first.

    Bottoms: one or two maps (N, ``num_box`` x (5 + classes), side, side), both with the anchors ``biases``. In cells of
    the map a box has its centre at column + sigmoid(x), row + sigmoid(y) and its sides are anchor x exp(width, height);
    over ``side`` these are parts of the image. It has its likeliest label, and the score sigmoid(objectness) x
    softmax(classes), if that is at least ``confidence_threshold``. A box that a better one overlaps by
    ``nms_threshold`` or more is dropped, whatever the labels. As in the fork (MobileNet-YOLO), the boxes of a batch are
    one list, all of image 0, and nothing is cut at the edges of the image. Where nothing is found there is one row per
    image: its index and six times -1. No bottom gets a gradient.

    Only the map tells ``side``; ``coords`` and ``label_map_file`` do not matter. A map that is not square
    is refused.
    Not captured by torch.export because the number of detections depends on the values.
    """

    bottoms = (1, 2)

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> YoloDetectionOutput:
        p = layer.yolo_detection_output_param
        cls.check(p, bottom_shapes)
        anchors = [anchor(p.biases, index) for index in range(p.num_box)]
        return cls(
            p.num_classes, [anchors] * len(bottom_shapes), confidence=p.confidence_threshold, overlap=p.nms_threshold
        )

    def _scores(self, objectness: Tensor, classes: Tensor) -> Found:
        likeliest, labels = classes.softmax(-1).max(-1)
        scores = objectness * likeliest
        return scores, labels, scores >= self.confidence


@register("Yolov3DetectionOutput")
class Yolov3DetectionOutput(YoloOutput):
    """Detections (1, 1, K, 7) of YOLO v3: image, label from 1, score, xmin, ymin, xmax, ymax; the best first.

    Bottoms: ``mask_group_num`` maps (N, ``num_box`` x (5 + classes), side, side), one for each scale. A map has the
    anchors of ``biases`` that its share of ``mask`` names, in pixels of an input of side x ``anchors_scale`` pixels. A
    box has its centre at (column + sigmoid(x), row + sigmoid(y)) / side, and its sides are anchor x exp(width, height)
    / (side x ``anchors_scale``), in parts of the image. It stands once for each label whose score, sigmoid(objectness)
    x sigmoid(class), is above ``confidence_threshold``. A box that a better one overlaps by ``nms_threshold`` or more
    is dropped, whatever the labels, and so is the same box with a lesser label. As in the fork (MobileNet-YOLO), the
    boxes of a batch are one list, all of image 0, and nothing is cut at the edges of the image. Where nothing is found
    there is one row per image: its index and six times -1. No bottom gets a gradient.

    Refused: a map that is not square, where versions of the fork disagree, and ``gaussian_box`` of the latest.
    Not captured by torch.export because the number of detections depends on the values.
    """

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> Yolov3DetectionOutput:
        p, maps = layer.yolov3_detection_output_param, len(bottom_shapes)
        refuse(p, "gaussian_box")
        cls.check(p, bottom_shapes)
        if p.mask_group_num != maps or len(p.anchors_scale) < maps:
            raise LayerError(
                f"{maps} bottoms, mask_group_num {p.mask_group_num} and {len(p.anchors_scale)} anchors_scale: expected "
                "equally many"
            )
        anchors, scales = [], list(p.anchors_scale[:maps])
        for index, scale in enumerate(scales):
            mask = p.mask[index * (len(p.mask) // maps) :][: p.num_box]
            if len(mask) < p.num_box or not scale:
                raise LayerError(
                    f"bottom {index} has {len(mask)} mask and anchors_scale {scale}: expected num_box {p.num_box} of "
                    "the first and a positive number"
                )
            anchors.append([anchor(p.biases, place) for place in mask])
        return cls(p.num_classes, anchors, scales=scales, confidence=p.confidence_threshold, overlap=p.nms_threshold)

    def _labels_of_a_box(self) -> int:
        return self.classes

    def _scores(self, objectness: Tensor, classes: Tensor) -> Found:
        scores = objectness[..., None] * classes.sigmoid()
        labels = torch.arange(self.classes, device=scores.device).expand_as(scores)
        return scores, labels, scores > self.confidence


def anchor(biases: Sequence[float], index: int) -> tuple[float, float]:
    """Width and height of an anchor; LayerError where ``biases`` does not have it."""
    if len(biases) < 2 * index + 2:
        raise LayerError(f"{len(biases)} biases, which are pairs of width and height: anchor {index} is missing")
    return biases[2 * index], biases[2 * index + 1]


def decode(places: Tensor, anchors: Sequence[tuple[float, float]], scale: int) -> Tensor:
    """Boxes (..., 4) in parts of the image, from square maps (N, rows, columns, anchors, values)."""
    steps = torch.arange(places.shape[2], device=places.device, dtype=places.dtype)
    cells = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1)[:, :, None]
    centre = (cells + places[..., :2].sigmoid()) / len(steps)
    sides = places[..., 2:4].exp() * places.new_tensor(anchors) / (len(steps) * scale)
    return torch.cat((centre, sides), -1)


def best(boxes: Tensor, threshold: float) -> Tensor:
    """Places of the boxes (n, 4), the best first, that no better one kept overlaps by ``threshold`` or more.

    Corners and areas are float32 in every precision, as in the fork. An overlap that is NaN drops nothing.
    """
    low, high = corners(boxes)
    area = boxes[:, 2:].prod(1)
    waiting = torch.arange(len(boxes), device=boxes.device)
    kept = []
    while len(waiting):
        first, waiting = waiting[:1], waiting[1:]
        kept.append(first)
        sides = torch.minimum(high[first], high[waiting]) - torch.maximum(low[first], low[waiting])
        shared = torch.where((sides < 0).any(1), 0.0, sides.prod(1))
        union = (area[first] + area[waiting] - shared).float()
        waiting = waiting[~(shared.to(area.dtype) / union.to(area.dtype) >= threshold)]
    return torch.cat(kept)


def corners(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """The upper left and the lower right corners of boxes (n, 4), rounded to float32."""
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    return (centre - half).float(), (centre + half).float()
