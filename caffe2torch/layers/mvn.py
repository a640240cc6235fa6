"""Mean-variance normalisation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from caffe2torch.errors import LayerError
from caffe2torch.layers.registry import Layer, Message, Shape, register


@register("MVN")
class MVN(Layer):
    """(x - mean) / (deviation + eps) of each plane, or of each item with ``across_channels``.

    The top always has four axes, as in Caffe: a bottom (N, C) gives (N, C, 1, 1), each value a plane of its own.
    ``normalize_variance`` false only subtracts the mean. Caffe's gradient counts eps as part of the deviation, so it
    is finite where all values are equal.
    """

    def __init__(self, *, normalize_variance: bool = True, across_channels: bool = False, eps: float = 1e-9) -> None:
        super().__init__()
        self.normalize_variance, self.across_channels, self.eps = normalize_variance, across_channels, eps

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> MVN:
        p = layer.mvn_param
        if len(bottom_shapes[0]) > 4:
            raise LayerError(f"the bottom has shape {bottom_shapes[0]}: expected at most 4 axes (N, C, H, W)")
        made = cls(normalize_variance=p.normalize_variance, across_channels=p.across_channels, eps=p.eps)
        if p.normalize_variance:
            made.backward_reads = frozenset({"top", "input"})  # of the input its deviation, which Caffe keeps
        return made

    def caffe_backward(self, gradient: Tensor, bottom: Tensor, top: Tensor) -> Tensor:
        g, y = self._groups(gradient), self._groups(top)
        deviation = self._deviation(self._centred(bottom))
        pulled = g - (y * (y * g).sum(-1, keepdim=True) + g.sum(-1, keepdim=True)) / g.shape[-1]
        return (pulled / deviation).reshape(bottom.shape)

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype in (torch.float16, torch.bfloat16):
            # The default eps is 0 in float16, and squares of large values are infinite.
            return self._normalise(x.float()).to(x.dtype)
        return self._normalise(x)

    def _normalise(self, x: Tensor) -> Tensor:
        centred = self._centred(x)
        if not self.normalize_variance:
            return centred.reshape(_four_axes(x))
        deviation = self._deviation(centred.detach())
        y = centred.div_(deviation)
        if y.requires_grad:
            # The deviation was taken as a constant: what moves with it is y * sum(y dy) / (count * deviation).
            fixed = y.detach()
            moved = (fixed * self._groups(x)).mean(-1, keepdim=True) / deviation
            y = y - fixed * (moved - moved.detach())
        return y.reshape(_four_axes(x))

    def _groups(self, x: Tensor) -> Tensor:
        """The values that share a mean, on the last axis."""
        return x.reshape(_four_axes(x)).flatten(1 if self.across_channels else 2)

    def _centred(self, x: Tensor) -> Tensor:
        groups = self._groups(x)
        return groups - groups.mean(-1, keepdim=True)

    def _deviation(self, centred: Tensor) -> Tensor:
        length: Tensor = torch.linalg.vector_norm(centred, dim=-1, keepdim=True)
        return length / math.sqrt(centred.shape[-1]) + self.eps

    def extra_repr(self) -> str:
        return f"normalize_variance={self.normalize_variance}, across_channels={self.across_channels}, eps={self.eps:g}"


def _four_axes(x: Tensor) -> Shape:
    return (*x.shape, *(1,) * (4 - x.ndim))
