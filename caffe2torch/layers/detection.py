"""DetectionOutput: SSD's last layer, from predicted offsets and scores to boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from caffe2torch.errors import LayerError
from caffe2torch.layers.boxes import nothing_found, suppress
from caffe2torch.layers.registry import Layer, Message, Shape, enum_name, refuse, register

FLT_MAX = torch.finfo(torch.float32).max


@dataclass(frozen=True)
class Choice:
    """Which detections are kept. ``top_k`` counts candidates of a class, ``keep_top_k`` the boxes of an image."""

    confidence: float = -math.inf
    overlap: float = 0.3
    eta: float = 1.0
    top_k: int | None = None
    keep_top_k: int | None = None


@register("DetectionOutput")
class DetectionOutput(Layer):
    """Detections (1, 1, K, 7): image, label, score, xmin, ymin, xmax, ymax; by image, then label, then score.

    Bottoms: offsets (N, boxes x 4 [x classes]), scores (N, boxes x classes), prior boxes (1, 2, boxes x 4). Where
    nothing is found there is one row per image: its index and six times -1. Computed in float32, as in SSD.
    ``save_output_param`` and ``visualize`` concern files and windows, not the top, and are not read.
    Not captured by torch.export because the number of detections depends on the values.
    """

    bottoms = (3, 3)
    no_gradient = (0, 1, 2)

    def __init__(
        self,
        classes: int,
        choice: Choice | None = None,
        *,
        background: int = 0,
        share_location: bool = True,
        code: str = "CORNER",
        variance_in_target: bool = False,
    ) -> None:
        super().__init__()
        self.classes, self.choice, self.background = classes, choice or Choice(), background
        self.share_location, self.code, self.variance_in_target = share_location, code, variance_in_target

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> DetectionOutput:
        p = layer.detection_output_param
        refuse(p, "side", "num_box", "coords", "nms_threshold", "biases", "label_map_file")
        nms = p.nms_param
        if not p.num_classes:
            raise LayerError("detection_output_param gives no num_classes")
        if not 0 < nms.eta <= 1 or nms.nms_threshold < 0:
            raise LayerError(
                f"nms_param has eta {nms.eta:g} and nms_threshold {nms.nms_threshold:g}: "
                "expected more than 0 and at most 1, and at least 0"
            )
        check_boxes(bottom_shapes, p.num_classes, 1 if p.share_location else p.num_classes)
        choice = Choice(
            p.confidence_threshold if p.HasField("confidence_threshold") else -math.inf,
            nms.nms_threshold,
            nms.eta,
            nms.top_k if nms.HasField("top_k") and nms.top_k > -1 else None,
            p.keep_top_k if p.keep_top_k > -1 else None,
        )
        return cls(
            p.num_classes,
            choice,
            background=p.background_label_id,
            share_location=p.share_location,
            code=enum_name(p, "code_type"),
            variance_in_target=p.variance_encoded_in_target,
        )

    def top_shapes(self, bottom_shapes: Sequence[Shape]) -> list[Shape]:
        boxes = math.prod(bottom_shapes[2][2:]) // 4
        of_a_class = boxes if self.choice.top_k is None else min(boxes, self.choice.top_k)
        of_an_image = of_a_class * len(self._labels())
        if self.choice.keep_top_k is not None:
            of_an_image = min(of_an_image, self.choice.keep_top_k)
        return [(1, 1, bottom_shapes[0][0] * max(1, of_an_image), 7)]

    def _labels(self) -> list[int]:
        return [label for label in range(self.classes) if label != self.background]

    def forward(self, offsets: Tensor, scores: Tensor, priors: Tensor) -> Tensor:
        images, labels = len(offsets), torch.tensor(self._labels(), device=offsets.device)
        prior, variance = priors.detach()[0].float().reshape(2, -1, 4)
        locations = offsets.detach().float().reshape(images, len(prior), -1, 4).transpose(1, 2)
        boxes = decode(locations, prior, variance, self.code, variance_in_target=self.variance_in_target)
        boxes = boxes.expand(images, len(labels), -1, -1) if self.share_location else boxes[:, labels]
        own = scores.detach().float().reshape(images, len(prior), self.classes).transpose(1, 2)[:, labels]
        own, order, candidates = self._candidates(own)
        boxes = boxes.gather(2, order.unsqueeze(-1).expand(*order.shape, 4))
        kept = suppress(
            boxes.flatten(0, 1), candidates.flatten(0, 1), self.choice.overlap, eta=self.choice.eta
        ).reshape(candidates.shape)
        if self.choice.keep_top_k is not None:
            kept = strongest(kept, own, self.choice.keep_top_k)
        image, label, place = kept.nonzero().unbind(1)
        if not len(image):
            return nothing_found(offsets)
        rows = (image[:, None], labels[label][:, None], own[image, label, place][:, None], boxes[image, label, place])
        return torch.cat([row.to(offsets.dtype) for row in rows], 1).reshape(1, 1, -1, 7)

    def _candidates(self, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The scores above the threshold in falling order, the places of them all, and which of them take part."""
        able = scores > (self.choice.confidence if self.choice.confidence > -math.inf else -FLT_MAX)
        count = able.sum(-1, keepdim=True)
        if self.choice.top_k is not None:
            count = count.clamp(max=self.choice.top_k)
        most = int(count.max()) if count.numel() else 0
        ordered, order = scores.masked_fill(~able, -math.inf).sort(dim=-1, descending=True, stable=True)
        return ordered[..., :most], order[..., :most], torch.arange(most, device=scores.device) < count

    def extra_repr(self) -> str:
        return f"{self.classes} classes, {self.choice}, code={self.code}, share_location={self.share_location}"


def check_boxes(shapes: Sequence[Shape], classes: int, locations: int) -> None:
    """Raise LayerError unless the first three bottoms are offsets, scores and prior boxes that fit each other."""
    offsets, scores, priors = shapes[:3]
    if len(priors) < 3 or priors[1] != 2 or math.prod(priors[2:]) % 4:
        raise LayerError(f"the third bottom has shape {priors}: expected prior boxes (1, 2, 4 x boxes)")
    boxes = math.prod(priors[2:]) // 4
    wanted = (boxes * locations * 4, boxes * classes)
    if offsets[0] != scores[0] or (math.prod(offsets[1:]), math.prod(scores[1:])) != wanted:
        raise LayerError(
            f"the bottoms have shapes {offsets} and {scores}: {boxes} prior boxes and {classes} classes need "
            f"{wanted[0]} offsets and {wanted[1]} scores per image"
        )


def decode(offsets: Tensor, prior: Tensor, variance: Tensor, code: str, *, variance_in_target: bool) -> Tensor:
    """Boxes (..., boxes, 4) from offsets to prior boxes (boxes, 4).

    CORNER: added to the corners; CORNER_SIZE: in units of the prior's sides; CENTER_SIZE: of its centre in units of its
    sides, and the logarithm of its sides. Each is multiplied by its variance unless that is in the offsets already.
    """
    if not variance_in_target:
        offsets = offsets * variance
    sides = prior[:, 2:] - prior[:, :2]
    if code == "CORNER":
        return prior + offsets
    if code == "CORNER_SIZE":
        return prior + offsets * torch.cat((sides, sides), 1)
    centre = offsets[..., :2] * sides + (prior[:, :2] + prior[:, 2:]) / 2
    half = offsets[..., 2:].exp() * sides / 2
    return torch.cat((centre - half, centre + half), -1)


def encode(boxes: Tensor, prior: Tensor, variance: Tensor, code: str, *, variance_in_target: bool) -> Tensor:
    """The offsets (boxes, 4) that ``decode`` makes ``boxes`` of, all tensors of the same shape."""
    sides = prior[:, 2:] - prior[:, :2]
    if code == "CORNER":
        offsets = boxes - prior
    elif code == "CORNER_SIZE":
        offsets = (boxes - prior) / torch.cat((sides, sides), 1)
    else:
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2 - (prior[:, :2] + prior[:, 2:]) / 2
        offsets = torch.cat((centre / sides, ((boxes[:, 2:] - boxes[:, :2]) / sides).log()), 1)
    return offsets if variance_in_target else offsets / variance


def strongest(kept: Tensor, scores: Tensor, most: int) -> Tensor:
    """``kept`` (images, labels, boxes) without all but the ``most`` best of each image; of equal ones the first."""
    places = scores.masked_fill(~kept, -math.inf).flatten(1).sort(dim=1, descending=True, stable=True).indices
    chosen = torch.zeros_like(kept.flatten(1)).scatter(1, places[:, :most], True)
    return kept & chosen.reshape(kept.shape)
