"""Softmax along one axis."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from caffe2torch.layers.registry import Layer, Message, Shape, canonical_axis, register


@register("Softmax")
class Softmax(Layer):
    """exp(x) / sum(exp(x)) along ``axis``, the maximum subtracted first."""

    backward_reads = frozenset({"top"})

    def __init__(self, axis: int = 1) -> None:
        super().__init__()
        self.axis = axis

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> Softmax:
        return cls(canonical_axis(layer.softmax_param.axis, bottom_shapes[0], "softmax_param.axis"))

    def caffe_backward(self, gradient: Tensor, bottom: Tensor, top: Tensor) -> Tensor:
        return top * (gradient - (gradient * top).sum(self.axis, keepdim=True))

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(x, self.axis)
