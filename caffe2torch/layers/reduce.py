"""Reduction: one number from all the axes from one on."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from caffe2torch.layers.registry import Layer, Message, Shape, canonical_axis, enum_name, register


@register("Reduction")
class Reduction(Layer):
    """coeff * the SUM, ASUM (of absolute values), SUMSQ (of squares) or MEAN over the axes from ``axis`` on.

    The mean of no values (behind a Filter that lets nothing through) is NaN, as in Caffe.
    """

    def __init__(self, operation: str = "SUM", *, axis: int = 0, coeff: float = 1.0) -> None:
        super().__init__()
        self.operation, self.axis, self.coeff = operation, axis, coeff

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> Reduction:
        p = layer.reduction_param
        axis = canonical_axis(p.axis, bottom_shapes[0], "reduction_param.axis")
        return cls(enum_name(p, "operation"), axis=axis, coeff=p.coeff)

    def forward(self, x: Tensor) -> Tensor:
        if self.operation == "ASUM":
            x = x.abs()
        elif self.operation == "SUMSQ":
            x = x.square()
        total = x.sum(tuple(range(self.axis, x.ndim)))
        coeff = self.coeff
        if self.operation == "MEAN":
            count = math.prod(x.shape[self.axis :])
            coeff = coeff / count if count else math.nan
        return total if coeff == 1.0 else total * coeff

    def extra_repr(self) -> str:
        return f"{self.operation}, axis={self.axis}, coeff={self.coeff:g}"
