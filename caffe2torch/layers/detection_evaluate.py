"""DetectionEvaluate: which of SSD's detections are right, for the curves of precision and recall."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from caffe2torch.errors import FormatError, LayerError
from caffe2torch.layers.boxes import area, overlap
from caffe2torch.layers.ground_truth import check_labels, check_rows
from caffe2torch.layers.registry import Layer, Message, Shape, enum_name, register


@register("DetectionEvaluate")
class DetectionEvaluate(Layer):
    """Rows (1, 1, R, 5): of each class -1, label, boxes there are, -1, -1; of each detection whether it is right.

    The latter are image, label, score, true positive, false positive; by image, then label, then (where the image has
    such an object) falling score. Bottoms: detections (1, 1, K, 7) as DetectionOutput gives them, and the ground truth
    (1, 1, G, 8) as MultiBoxLoss takes it, read up to the first row of item -1. A detection belongs to the ground truth
    of its image and label that it overlaps most; it is a true positive if by ``overlap_threshold`` or more and no
    better detection belongs there. Without ``evaluate_difficult_gt`` difficult objects are not counted, and their
    detections are neither true nor false.

    With ``name_size_file``, whose lines are name, height and width of each image in the order of the data, boxes are
    cut to the image and compared in whole pixels, the last one included. The file, below the current folder unless its
    name is absolute, is read in the first pass. As in SSD, one line is used up for each image that has a detection.

    Not captured by torch.export because the number of detections depends on the values.
    """

    bottoms = (2, 2)
    no_gradient = (0, 1)

    def __init__(
        self,
        classes: int,
        *,
        background: int = 0,
        least_overlap: float = 0.5,
        difficult: bool = True,
        name_size_file: str = "",
    ) -> None:
        super().__init__()
        self.classes, self.background = classes, background
        self.least_overlap, self.difficult = least_overlap, difficult
        self.name_size_file, self.position = name_size_file, 0
        self._sizes: Tensor | None = None

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> DetectionEvaluate:
        p = layer.detection_evaluate_param
        check_rows(bottom_shapes[0], 7, "the first bottom")
        check_rows(bottom_shapes[1], 8, "the second bottom")
        if p.background_label_id >= p.num_classes:
            raise LayerError(
                f"detection_evaluate_param has num_classes {p.num_classes} and background_label_id "
                f"{p.background_label_id}: expected a background_label_id below num_classes"
            )
        if p.overlap_threshold <= 0:
            raise LayerError(
                f"detection_evaluate_param.overlap_threshold is {p.overlap_threshold:g}: expected more than 0"
            )
        if p.HasField("resize_param") and enum_name(p.resize_param, "resize_mode") != "WARP":
            raise LayerError(
                f"detection_evaluate_param.resize_param has resize_mode {enum_name(p.resize_param, 'resize_mode')}: "
                "only WARP is supported; remove name_size_file and resize_param to compare boxes as they are"
            )
        return cls(
            p.num_classes,
            background=p.background_label_id,
            least_overlap=p.overlap_threshold,
            difficult=p.evaluate_difficult_gt,
            name_size_file=p.name_size_file,
        )

    def top_shapes(self, bottom_shapes: Sequence[Shape]) -> list[Shape]:
        return [(1, 1, self.classes - 1 + bottom_shapes[0][2], 5)]

    def forward(self, detections: Tensor, ground_truth: Tensor) -> Tensor:
        found, true = detections.detach().reshape(-1, 7), ground_truth.detach().reshape(-1, 8)
        true = true[(true[:, 0].long() == -1).cumsum(0) == 0]
        check_labels(true[:, 1].long(), self.background, "a box of the ground truth")
        rows = int((found[:, 1] != -1).sum())
        found = found[found[:, 0].long() != -1]
        images, image = torch.unique(found[:, 0].long(), return_inverse=True)
        # Also of images without a detection, which have a row of label -1.
        sizes = self._of_images(len(images)).to(found.device)[image]
        some = found[:, 1].long() != -1
        found, sizes = found[some], sizes[some]
        check_labels(found[:, 1].long(), self.background, "a detection")
        top = found.new_zeros(1, 1, self.classes - 1 + rows, 5)
        top[0, 0, : self.classes - 1] = self._counts(true)
        top[0, 0, self.classes - 1 :][: len(found)] = self._judged(found, true, sizes)
        return top

    def _counts(self, true: Tensor) -> Tensor:
        """The rows of the classes: how many objects there are of each."""
        label = torch.tensor([c for c in range(self.classes) if c != self.background], device=true.device)
        counted = true[:, 1].long()[(true[:, 7] == 0) | self.difficult]
        rows = torch.full((len(label), 5), -1.0, dtype=true.dtype, device=true.device)
        rows[:, 1], rows[:, 2] = label, (counted == label[:, None]).sum(1)
        return rows

    def _judged(self, found: Tensor, true: Tensor, sizes: Tensor) -> Tensor:
        """The rows of the detections, in their order; ``sizes`` (detections, 2) of their images in pixels, or 0."""
        same = (found[:, None, :2].long() == true[None, :, :2].long()).all(2)
        score = torch.where(same.any(1), found[:, 2].float(), 0.0)  # where there is no such object the order stays
        order = score.sort(stable=True, descending=True).indices
        for key in (1, 0):
            order = order[found[order, key].long().sort(stable=True).indices]
        found, same, sizes = found[order], same[order], sizes[order]
        rows = torch.cat((found[:, :2].trunc(), found[:, 2:3].float(), torch.zeros_like(found[:, :2])), 1)
        if not len(found) or not len(true):
            rows[:, 4] = 1.0
            return rows
        overlaps = _overlaps(found[:, 3:7].float(), true[:, 3:7].float(), sizes)
        largest, best = torch.where(same, overlaps, -1.0).max(1)  # of equal ones the first
        hit = largest >= self.least_overlap
        counts = (true[:, 7] == 0)[best] | self.difficult
        mine = (hit & counts)[:, None] & (best[:, None] == torch.arange(len(true), device=best.device))
        right = (mine & (mine.cumsum(0) == 1)).any(1)
        rows[:, 3], rows[:, 4] = right, ~right & (counts | ~hit)
        return rows

    def _of_images(self, images: int) -> Tensor:
        """Height and width (images, 2) of so many images, the next ones of the file; 0 without a file."""
        if self._sizes is None and self.name_size_file:
            try:
                self._sizes = read_sizes(Path(self.name_size_file))
            except FormatError as error:
                raise LayerError(
                    f"layer {self.caffe_name!r} (DetectionEvaluate), its name_size_file: {error}; give the file, or "
                    "remove name_size_file to compare boxes in units of the image"
                ) from error
        if self._sizes is None or not len(self._sizes):
            return torch.zeros(images, 2)
        places = (self.position + torch.arange(images)) % len(self._sizes)
        self.position = (self.position + images) % len(self._sizes)
        return self._sizes[places]

    def extra_repr(self) -> str:
        return f"{self.classes} classes, overlap={self.least_overlap:g}, difficult={self.difficult}"


def _overlaps(found: Tensor, true: Tensor, sizes: Tensor) -> Tensor:
    """Intersection over union of every detection with every object; in pixels where the ``sizes`` are known."""
    found, true = found[:, None], true[None]
    if not sizes.any():
        return overlap(found, true)
    height, width = sizes.to(found).T
    scale = torch.stack((width, height, width, height), 1)[:, None]
    found, true = found.clamp(0.0, 1.0) * scale, true.clamp(0.0, 1.0) * scale
    apart = ((true[..., :2] > found[..., 2:]) | (true[..., 2:] < found[..., :2])).any(-1)
    sides = torch.minimum(found[..., 2:], true[..., 2:]) - torch.maximum(found[..., :2], true[..., :2]) + 1
    sides = torch.where(apart.unsqueeze(-1), 1.0, sides)  # SSD takes boxes that do not meet to share a pixel
    shared = sides.prod(-1)
    union = area(found, 1.0) + area(true, 1.0) - shared
    return torch.where((sides > 0).all(-1), shared / union, 0.0)


def read_sizes(path: Path) -> Tensor:
    """Height and width (images, 2) from lines of name, height and width; FormatError for any other line."""
    try:
        if not path.is_file():
            raise FormatError(f"{path}: no such file, expected a name, a height and a width on each line")
        lines = path.read_bytes().decode("utf-8", "surrogateescape").splitlines()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise FormatError(f"{path}: cannot be read: {error}") from error
    sizes = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        numbers = [int(word) for word in words[1:] if word.isdecimal() and len(word) < 10]
        if len(words) != 3 or len(numbers) != 2 or not min(numbers) or max(numbers) == 1:
            raise FormatError(f"{path}, line {number}: found {line!r}, expected a name, a height and a width in pixels")
        sizes.append(numbers)
    return torch.tensor(sizes, dtype=torch.float32).reshape(-1, 2)
