"""Stochastic pooling by the rule of Caffe's GPU code; its CPU code has none."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

Pair = tuple[int, int]


def windows(x: Tensor, kernel: Pair, stride: Pair, places: Pair) -> Tensor:
    """The values of each window on the last axis, (N, C, rows, columns, kernel); 0 where it leaves the plane."""
    spans = [(n - 1) * s + k for n, s, k in zip(places, stride, kernel, strict=True)]
    x = F.pad(x, (0, spans[1] - x.shape[3], 0, spans[0] - x.shape[2]))  # a negative pad cuts off what no window sees
    return x.unfold(2, kernel[0], stride[0]).unfold(3, kernel[1], stride[1]).flatten(4)


def expected(values: Tensor) -> Tensor:
    """In test: the sum of squares over the sum, each value weighted by its probability; 0 where the sum is not > 0."""
    total = values.sum(-1)
    positive = total > 0
    return torch.where(positive, values.square().sum(-1) / torch.where(positive, total, 1.0), 0.0)


def drawn(values: Tensor) -> Tensor:
    """In training: the first value at which the running sum reaches a random share of the sum."""
    sums = values.detach().cumsum(-1)
    share = torch.rand_like(sums[..., -1:]) * sums[..., -1:]
    return values.gather(-1, (sums >= share).int().argmax(-1, keepdim=True)).squeeze(-1)
