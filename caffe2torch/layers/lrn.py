"""Local response normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from caffe2torch.errors import LayerError
from caffe2torch.layers.registry import Layer, Message, Shape, enum_name, register

_BLOCK = 1 << 18
"""Values that are normalised at a time on a CPU: those of every step stay in its cache."""


@register("LRN")
class LRN(Layer):
    """x / (k + alpha / n * sum of squares) ^ beta.

    The sum runs over ``size`` neighbouring channels (n = size), or with ``within_channel`` over a size x size square of
    the plane (n = size^2; there k is always 1, as in Caffe). Values outside the blob count as 0.
    """

    def __init__(
        self,
        size: int = 5,
        *,
        alpha: float = 1.0,
        beta: float = 0.75,
        k: float = 1.0,
        within_channel: bool = False,
    ) -> None:
        super().__init__()
        if size < 1 or size % 2 == 0:
            raise LayerError(f"local_size is {size}: expected an odd number")
        self.size, self.alpha, self.beta, self.within_channel = size, alpha, beta, within_channel
        self.k = 1.0 if within_channel else k

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> LRN:
        p = layer.lrn_param
        if len(bottom_shapes[0]) != 4:
            raise LayerError(f"the bottom has shape {bottom_shapes[0]}: expected 4 axes (N, C, H, W)")
        within = enum_name(p, "norm_region") == "WITHIN_CHANNEL"
        made = cls(p.local_size, alpha=p.alpha, beta=p.beta, k=p.k, within_channel=within)
        if not within and list(layer.top) != list(layer.bottom):
            made.backward_reads = frozenset({"top"})
        return made

    def forward(self, x: Tensor) -> Tensor:
        if self.within_channel or x.device.type != "cpu" or torch.compiler.is_compiling():
            return self.normalised(x)
        result: Tensor = _InBlocks.apply(x, self)  # type: ignore[no-untyped-call]
        return result

    def normalised(self, x: Tensor) -> Tensor:
        """The top of ``x``, in float32 on the way: squares of the first layers' activations are beyond float16."""
        wide = at_least_float32(x)
        return (wide * _inverse_power(self._scale(wide), self.beta)).to(x.dtype)

    def caffe_backward(self, gradient: Tensor, bottom: Tensor, top: Tensor) -> Tensor:
        wide, gradient = at_least_float32(bottom), at_least_float32(gradient)
        scale = self._scale(wide)
        pulled = self._over_channels(gradient * top / scale) * (2.0 * self.alpha * self.beta / self.size)
        return (gradient * _inverse_power(scale, self.beta) - wide * pulled).to(bottom.dtype)

    def _scale(self, x: Tensor) -> Tensor:
        square = x * x
        if not self.within_channel:
            return self._over_channels(square).mul_(self.alpha / self.size).add_(self.k)
        half = min(self.size // 2, max(x.shape[2:]))  # a larger window would only see more zeros
        size = 2 * half + 1
        # Windows that overlap the border still divide by size^2: padding counts.
        return F.avg_pool2d(square, size, 1, half).mul_(self.alpha * (size / self.size) ** 2).add_(self.k)

    def _over_channels(self, x: Tensor) -> Tensor:
        """The sums over ``size`` neighbouring channels, added from the first to the last."""
        channels = x.shape[1]
        half = min(self.size // 2, channels)
        if torch.is_grad_enabled():
            # Summing a window view costs a fifth of what local_response_norm does with avg_pool3d.
            return F.pad(x, (0, 0, 0, 0, half, half)).unfold(1, 2 * half + 1, 1).sum(-1)
        total = torch.zeros_like(x)
        for shift in range(-half, half + 1):
            below, above = max(-shift, 0), max(shift, 0)
            total[:, below : channels - above] += x[:, above : channels - below]
        return total

    def extra_repr(self) -> str:
        region = "within channel" if self.within_channel else "across channels"
        return f"{self.size}, alpha={self.alpha:g}, beta={self.beta:g}, k={self.k:g}, {region}"


class _InBlocks(torch.autograd.Function):
    """Some images at a time: the dozen passes over a blob then find it in the cache, which takes a fifth of the time.

    The gradient is Caffe's formula, in as few passes as that.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: LRN) -> Tensor:
        top = torch.empty_like(x)
        for part, target in _blocks(x, top):
            target.copy_(layer.normalised(part))
        ctx.layer = layer
        ctx.save_for_backward(x, top)
        return top

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        x, top = ctx.saved_tensors
        found = torch.empty_like(x)
        for *parts, target in _blocks(gradients[0], x, top, found):
            target.copy_(ctx.layer.caffe_backward(*parts))
        return found, None


def _blocks(*blobs: Tensor) -> zip[tuple[Tensor, ...]]:
    """The same images of each blob, as many at a time as make up a block."""
    images = max(1, _BLOCK * blobs[0].shape[0] // max(1, blobs[0].numel()))
    return zip(*(torch.split(blob, images) for blob in blobs), strict=True)


def at_least_float32(x: Tensor) -> Tensor:
    """``x``, in float32 if it is in half precision, where squares are soon infinite and a small eps is 0."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _inverse_power(scale: Tensor, beta: float) -> Tensor:
    """scale ^ -beta; the usual exponents go by square roots, several times faster than pow."""
    if beta == 0.75:
        root = scale.rsqrt()
        return root * root.sqrt()
    if beta == 0.5:
        return scale.rsqrt()
    if beta == 1.0:
        return scale.reciprocal()
    return scale.pow(-beta)
