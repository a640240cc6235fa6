"""Which of a detector's boxes it is trained on: those of large loss."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from caffe2torch.layers.boxes import area, suppress
from caffe2torch.layers.ground_truth import MATCHED, UNMATCHED


@dataclass(frozen=True)
class Mining:
    """Which boxes the losses are of.

    Negatives: the matched ones, and ``ratio`` times as many others of the image that overlap no object by ``overlap``
    or more, those of the largest loss. Hard examples: the ``samples`` boxes of an image of the largest loss.
    """

    hard: bool = False
    ratio: float = 3.0
    overlap: float = 0.5
    samples: int = 64
    suppression: tuple[float, int] | None = None
    """Greatest overlap of the boxes chosen, and how many of the largest loss may be chosen (-1: all)."""
    by_prior: bool = False
    """The overlap is that of the prior boxes, not of the predicted ones."""


def mine(mining: Mining, losses: Tensor, index: Tensor, overlaps: Tensor, objects: Tensor, boxes: Tensor) -> Tensor:
    """Which boxes (images, boxes) are chosen by their loss.

    ``index`` and ``overlaps`` are what they are matched with; ``objects`` says which images have any ground truth.
    ``boxes`` (images or 1, boxes, 4) are those that may not overlap where there is suppression.
    """
    if mining.hard:
        able, most = torch.ones_like(index, dtype=torch.bool), torch.full_like(index[:, 0], mining.samples)
    else:
        able = (index == UNMATCHED) & (overlaps < mining.overlap)
        most = ((index >= MATCHED).sum(1).float() * mining.ratio).long()
    able = able & objects[:, None]
    order = losses.masked_fill(~able, -math.inf).sort(dim=1, descending=True, stable=True).indices
    able = able.gather(1, order)
    if mining.suppression is not None:
        threshold, top = mining.suppression
        if top > -1:
            able = able & (able.cumsum(1) <= top)
        boxes = boxes.expand(len(order), -1, -1).gather(1, order.unsqueeze(2).expand(-1, -1, 4))
        able = suppress(boxes, able & (area(boxes, 0.0).double() >= 1e-5), threshold)
    taken = able & (able.cumsum(1) <= most[:, None])
    return torch.zeros_like(taken).scatter(1, order, taken)
