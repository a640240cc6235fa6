"""Swish and Clip, the activations that Caffe got last."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from caffe2torch.layers.registry import Layer, Message, Shape, register


@register("Swish")
class Swish(Layer):
    """x * sigmoid(beta x). Caffe keeps the sigmoid, and takes the rest of the gradient from the top."""

    backward_reads = frozenset({"top", "input"})

    def __init__(self, beta: float = 1.0) -> None:
        super().__init__()
        self.beta = beta

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> Swish:
        return cls(layer.swish_param.beta)

    def caffe_backward(self, gradient: Tensor, bottom: Tensor, top: Tensor) -> Tensor:
        y = top * self.beta
        return gradient * (y + torch.sigmoid(bottom * self.beta) * (1.0 - y))

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x) if self.beta == 1.0 else x * torch.sigmoid(x * self.beta)

    def extra_repr(self) -> str:
        return f"beta={self.beta:g}"


@register("Clip")
class Clip(Layer):
    """Values below ``least`` become ``least``, those above ``most`` ``most``; both limits pass the gradient."""

    backward_reads = frozenset({"bottom"})

    def __init__(self, least: float, most: float) -> None:
        super().__init__()
        self.least, self.most = least, most

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> Clip:
        p = layer.clip_param
        # Caffe takes the lower limit last, so with limits in the wrong order everything becomes that.
        return cls(p.min, max(p.min, p.max))

    def caffe_backward(self, gradient: Tensor, bottom: Tensor, top: Tensor) -> Tensor:
        return gradient * ((bottom >= self.least) & (bottom <= self.most))

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(self.least, self.most)

    def extra_repr(self) -> str:
        return f"{self.least:g} to {self.most:g}"
