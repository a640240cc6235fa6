"""Non-maximum suppression of boxes, for the layers that turn scores into detections."""

from __future__ import annotations

import torch
from torch import Tensor


def suppress(
    boxes: Tensor, candidates: Tensor, threshold: float, *, eta: float = 1.0, edge: float = 0.0, most: int | None = None
) -> Tensor:
    """Which boxes remain, (groups, boxes): each that overlaps no better one of its group by more than ``threshold``.

    ``boxes`` (groups, boxes, 4) holds corners, the best box first; ``candidates`` (groups, boxes) says which of them
    take part. After each box kept, a threshold above 0.5 is multiplied by ``eta``. ``edge`` is 1 where corners are
    pixels that belong to the box. A group ends at ``most`` boxes.
    """
    groups = torch.arange(len(boxes), device=boxes.device)
    waiting, kept = candidates.clone(), torch.zeros_like(candidates)
    worst = boxes.new_zeros(candidates.shape)  # the largest overlap with a box that was kept
    limit = boxes.new_full((len(boxes), 1), threshold)
    while True:
        alive = waiting & (worst <= limit)
        if most is not None:
            alive &= kept.sum(1, keepdim=True) < most
        found = alive.any(1)
        if not found.any():
            return kept
        best = alive.to(torch.uint8).argmax(1)  # of equal ones the first
        kept[groups, best] |= found
        waiting[groups, best] = False
        overlaps = overlap(boxes[groups, best].unsqueeze(1), boxes, edge=edge)
        worst = torch.where(found[:, None], torch.maximum(worst, overlaps), worst)
        if eta < 1:
            limit = torch.where(found[:, None] & (limit > 0.5), limit * eta, limit)


def overlap(a: Tensor, b: Tensor, *, edge: float = 0.0) -> Tensor:
    """Intersection over union of boxes (..., 4) given by their corners x1, y1, x2, y2; 0 where they do not meet."""
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    sides = high - low + edge
    shared = sides.prod(-1)
    meet = ((low <= high) & (sides > 0)).all(-1)
    return torch.where(meet, shared / (area(a, edge) + area(b, edge) - shared), 0.0)


def area(boxes: Tensor, edge: float) -> Tensor:
    """The area of each box; 0 where a box is turned inside out."""
    sides = boxes[..., 2:] - boxes[..., :2]
    return torch.where((sides >= 0).all(-1), (sides + edge).prod(-1), 0.0)


def nothing_found(images: Tensor) -> Tensor:
    """The top of a detector that finds nothing: for each of the ``images`` (N, ...) its index and six times -1."""
    rows = images.new_full((len(images), 7), -1.0)
    rows[:, 0] = torch.arange(len(images), device=images.device)
    return rows.reshape(1, 1, -1, 7)
