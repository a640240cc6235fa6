"""The loss over the pairs of a batch that DSH, deep supervised hashing, learns hash codes with."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from caffe2torch.errors import LayerError
from caffe2torch.layers.gradient import with_slopes
from caffe2torch.layers.loss import Loss
from caffe2torch.layers.registry import Message, Shape, register


@register("HashingLoss")
class HashingLoss(Loss):
    """DSH's loss: similar codes together, others ``bi_margin`` apart, and all values near 1 or -1.

    The sum over the N (N - 1) / 2 pairs of d^2 (similar) or max(bi_margin - d^2, 0), divided by N (N - 1); plus
    ``tradeoff`` / N times the sum of ||x| - 1| over all values. Of one code alone it is not a number.

    Codes (N, C), with labels (N, 1) or (N, L). One label for each: similar are equal ones, cut to whole numbers. More:
    similar are those with a positive inner product, such as 0 and 1 for each of L classes.

    The pairs' gradient is the fork's: x_i - x_j over N (N - 1), which is half of the derivative. That of ||x| - 1| is
    1 for 1 <= x and -1 <= x <= 0, else -1.
    """

    no_gradient = (1,)

    def __init__(self, bi_margin: float = 1.0, tradeoff: float = 0.01) -> None:
        super().__init__()
        self.bi_margin, self.tradeoff = bi_margin, tradeoff

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> HashingLoss:
        cls.check_batch(bottom_shapes)
        if any(len(shape) > 4 or math.prod(shape[2:]) != 1 for shape in bottom_shapes):
            codes, labels = bottom_shapes
            raise LayerError(f"the bottoms have shapes {codes} and {labels}: expected codes (N, C) and labels (N, L)")
        p = layer.hashing_loss_param
        return cls(p.bi_margin, p.tradeoff)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        codes, rows = (t.detach().reshape(t.shape[0], -1) for t in (x, labels))
        items = codes.shape[0]
        similar = rows @ rows.T > 0 if rows.shape[1] > 1 else rows.trunc() == rows.trunc().T
        squared = (codes.unsqueeze(1) - codes).square().sum(2)
        gap = self.bi_margin - squared
        others = ~torch.eye(items, dtype=torch.bool, device=x.device)
        count = others.count_nonzero()
        pairs = torch.where(others, torch.where(similar, squared, gap.clamp(min=0.0)), 0.0).sum() / 2
        value = pairs / count + self.tradeoff * (codes.abs() - 1.0).abs().sum() / items
        pull = torch.where(others, torch.where(similar, 1.0, -(gap > 0).to(x.dtype)), 0.0)
        slope = (pull.sum(1, keepdim=True) * codes - pull @ codes) / count.clamp(min=1)
        outward = torch.where((codes >= 1) | ((codes <= 0) & (codes >= -1)), 1.0, -1.0).to(x.dtype)
        return with_slopes(value, (x, (slope + self.tradeoff / items * outward).reshape(x.shape)))

    def extra_repr(self) -> str:
        return f"bi_margin={self.bi_margin:g}, tradeoff={self.tradeoff:g}"
