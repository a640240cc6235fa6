"""The boxes that pictures really show, as SSD's data layer gives them, and which other boxes are matched with them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from caffe2torch.errors import LayerError
from caffe2torch.layers.boxes import overlap
from caffe2torch.layers.registry import Shape

MATCHED, UNMATCHED, LEFT_OUT = 0, -1, -2
"""Where boxes are matched, the index of the ground truth (``MATCHED`` or more); why there is none elsewhere."""


@dataclass(frozen=True)
class Truth:
    """The ground truth of each image: ``boxes`` (images, most, 4), ``labels`` and ``present`` (images, most)."""

    boxes: Tensor
    labels: Tensor
    present: Tensor


@dataclass(frozen=True)
class Matching:
    """Which boxes get a ground truth: the best pairs one to one, then (``all_above``) all that overlap enough."""

    all_above: bool = True
    overlap: float = 0.5
    inside: bool = False
    """Boxes that leave the picture are left out."""


def check_rows(shape: Shape, columns: int, what: str) -> None:
    """Raise LayerError unless the blob has the shape (1, 1, rows, columns)."""
    if len(shape) != 4 or shape[:2] != (1, 1) or shape[3] != columns:
        raise LayerError(f"{what} has shape {shape}: expected (1, 1, rows, {columns})")


def check_labels(labels: Tensor, background: int, what: str) -> None:
    """Raise LayerError where a label is the background's."""
    if bool((labels == background).any()):
        raise LayerError(
            f"{what} has label {background}, which is background_label_id: give only objects, or another "
            "background_label_id"
        )


def truth(rows: Tensor, images: int, *, background: int, difficult: bool) -> Truth:
    """The rows (item, label, instance, xmin, ymin, xmax, ymax, difficult), those of item -1 left out, by image."""
    rows = rows.reshape(-1, 8)
    rows = rows[rows[:, 0].long() != -1]
    check_labels(rows[:, 1].long(), background, "a box of the ground truth")
    if not difficult:
        rows = rows[rows[:, 7] == 0]
    image = rows[:, 0].long()
    known = (image >= 0) & (image < images)
    rows, image = rows[known], image[known]
    image, order = image.sort(stable=True)
    rows, count = rows[order], image.bincount(minlength=images)
    place = torch.arange(len(rows), device=rows.device) - (count.cumsum(0) - count)[image]
    most = max(1, int(count.max()))
    boxes = torch.zeros(images, most, 4, device=rows.device)
    labels = torch.full((images, most), -1, device=rows.device)
    boxes[image, place], labels[image, place] = rows[:, 3:7].float(), rows[:, 1].long()
    return Truth(boxes, labels, torch.arange(most, device=rows.device) < count[:, None])


def match(boxes: Tensor, true: Truth, how: Matching) -> tuple[Tensor, Tensor]:
    """For each box (images or 1, boxes, 4) the index of its ground truth, and its largest overlap with any.

    As long as a box and a ground truth, both free, overlap by more than 1e-6, the best such pair of the image is
    matched; of equal ones that of the first box, then of the first ground truth.
    """
    overlaps = overlap(boxes.unsqueeze(2), true.boxes.unsqueeze(1))
    left_out = ((boxes < 0) | (boxes > 1)).any(-1) if how.inside else boxes.new_zeros(boxes.shape[:2]).bool()
    able = (overlaps > 1e-6) & true.present.unsqueeze(1) & ~left_out.unsqueeze(2)
    overlaps = torch.where(able, overlaps, 0.0)
    images, count, most = overlaps.shape
    index = torch.full((images, count), UNMATCHED, device=boxes.device).masked_fill(left_out, LEFT_OUT)
    free = overlaps.clone()
    for _ in range(most if count else 0):
        place = free.flatten(1).argmax(1)  # of equal ones the first
        image = (free.flatten(1).gather(1, place[:, None]).squeeze(1) > 0).nonzero().squeeze(1)
        box, found = place[image] // most, place[image] % most
        index[image, box] = found
        free[image, box] = 0.0
        free[image, :, found] = 0.0
    largest, best = overlaps.max(2)
    if how.all_above:
        enough = (index == UNMATCHED) & (largest > 0) & (largest >= how.overlap)
        index = torch.where(enough, best, index)
    return index, largest


def of_matched(values: Tensor, index: Tensor, none: int) -> Tensor:
    """The values (images, most) of the ground truth that ``index`` (images, ...) names, else ``none``."""
    found = values.gather(1, index.clamp(min=0).flatten(1)).reshape(index.shape)
    return torch.where(index >= MATCHED, found, none)
