"""Batch normalisation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from caffe2torch.errors import LayerError
from caffe2torch.fillers import Filler, fill
from caffe2torch.layers.registry import Layer, Message, Shape, parameter, register


@register("BatchNorm")
class BatchNorm(Layer):
    """(x - mean) / sqrt(variance + eps) per channel (axis 1), with Caffe's three blobs.

    The blobs are running sums of means and variances, and the factor they must be divided by (0 divides as 0). With
    batch statistics (``use_global_stats`` false, or None in training) each pass multiplies the sums by
    ``moving_average_fraction`` and adds the batch's mean, its variance times m / (m - 1), and 1.

    The sums stay float32 when the net is cast to half precision: they are about 1000 times the statistics.
    With ``scale_bias`` this is NVCaffe's layer, which has five blobs (``FusedBatchNorm``).
    """

    blobs: tuple[str, ...] = ("mean", "variance", "scale_factor")
    mean: Tensor
    variance: Tensor
    scale_factor: Tensor

    def __init__(
        self,
        channels: int,
        *,
        eps: float = 1e-5,
        moving_average_fraction: float = 0.999,
        use_global_stats: bool | None = None,
    ) -> None:
        super().__init__()
        self.eps, self.fraction, self.use_global_stats = eps, moving_average_fraction, use_global_stats
        self.register_buffer("mean", torch.empty(channels))
        self.register_buffer("variance", torch.empty(channels))
        self.register_buffer("scale_factor", torch.empty(1))

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> BatchNorm:
        p = layer.batch_norm_param
        shape = bottom_shapes[0]
        if not shape:
            raise LayerError("the bottom is a scalar: expected at least 1 axis")
        channels = shape[1] if len(shape) > 1 else 1
        if p.scale_bias or p.HasField("scale_filler") or p.HasField("bias_filler"):
            return FusedBatchNorm(channels, eps=p.eps, moving_average_fraction=p.moving_average_fraction)
        return cls(
            channels,
            eps=p.eps,
            moving_average_fraction=p.moving_average_fraction,
            use_global_stats=p.use_global_stats if p.HasField("use_global_stats") else None,
        )

    def fill(self, layer: Message, generator: torch.Generator | None = None) -> None:
        for _, blob in self.blob_items():
            blob.zero_()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> BatchNorm:
        before = dict(self._buffers)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, blob in before.items():
            now = self._buffers[name]
            if blob is not None and now is not None and now.dtype in (torch.float16, torch.bfloat16):
                self._buffers[name] = blob.to(now.device)
        return self

    def forward(self, x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        """``weight`` and ``bias`` (C) are those of a Scale layer that follows, to be applied in the same pass."""
        stored = not self.training if self.use_global_stats is None else self.use_global_stats
        channels_second = x if x.ndim > 1 else x.unsqueeze(1)
        y = (self._by_stored if stored else self._by_batch)(channels_second, weight, bias)
        return y if x.ndim > 1 else y.view_as(x)

    def _by_stored(self, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        # 1 / factor, and 0 where the factor is 0.
        factor = self.scale_factor.reciprocal().nan_to_num(math.nan, 0.0, 0.0)
        return torch.batch_norm(
            x,
            weight,
            bias,
            self.mean * factor,
            self.variance * factor,
            False,
            0.0,
            self.eps,
            torch.backends.cudnn.enabled,
        )

    def _by_batch(self, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        y, mean, variance = normalise_batch(x, weight, bias, self.eps)
        with torch.no_grad():
            self.mean.mul_(self.fraction).add_(mean)
            self.variance.mul_(self.fraction).add_(variance)
            self.scale_factor.mul_(self.fraction).add_(1.0)
        return y

    def extra_repr(self) -> str:
        return f"{self.mean.numel()}, eps={self.eps:g}, use_global_stats={self.use_global_stats}"


class FusedBatchNorm(BatchNorm):
    """NVCaffe's BatchNorm with ``scale_bias``: its blobs are mean, variance, a factor of 1, scale and bias.

    The first two are the statistics themselves: the first training pass sets them, each later one moves them
    1 - ``moving_average_fraction`` of the way to the batch's (its variance times m / (m - 1), as cuDNN has it). The
    phase alone says which statistics are used, and ``eps`` is at least 1e-5.
    """

    blobs = ("mean", "variance", "scale_factor", "weight", "bias")
    started: Tensor

    def __init__(self, channels: int, *, eps: float = 1e-5, moving_average_fraction: float = 0.999) -> None:
        super().__init__(channels, eps=max(eps, 1e-5), moving_average_fraction=moving_average_fraction)
        self.weight = parameter((channels,))
        self.bias = parameter((channels,))
        self.register_buffer("started", torch.zeros(()), persistent=False)

    def fill(self, layer: Message, generator: torch.Generator | None = None) -> None:
        p = layer.batch_norm_param
        self.mean.zero_()
        self.variance.zero_()
        self.scale_factor.fill_(1.0)
        fill(self.weight, p.scale_filler if p.HasField("scale_filler") else Filler(value=1.0), generator=generator)
        fill(self.bias, p.bias_filler, generator=generator)

    def forward(self, x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        """Takes ``x`` alone; scale and bias are its own."""
        # In half precision torch wants them in the type of the statistics.
        return super().forward(x, self.weight.to(self.mean.dtype), self.bias.to(self.mean.dtype))

    def _by_batch(self, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        y, mean, variance = normalise_batch(x, weight, bias, self.eps)
        with torch.no_grad():
            share = torch.where(self.started > 0, 1.0 - self.fraction, 1.0).to(mean.dtype)
            self.mean.lerp_(mean, share)
            self.variance.lerp_(variance, share)
            self.started.fill_(1.0)
        return y


def normalise_batch(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """``x`` (channels second) normalised by its own statistics, its mean, and its variance times m / (m - 1).

    The statistics of half precision are float32.
    """
    channels = x.shape[1]
    wide = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
    mean, variance = (torch.zeros(channels, dtype=wide, device=x.device) for _ in range(2))
    if weight is not None and bias is not None:
        weight, bias = weight.to(wide), bias.to(wide)
    if x.numel() == channels:
        # One value per channel: its variance is 0 and Caffe's correction 1, where torch has m / (m - 1).
        y = x - x
        if weight is not None and bias is not None:
            y = (y * weight.view_as(y) + bias.view_as(y)).to(x.dtype)
        return y, x.detach().reshape(-1).to(wide), variance
    # With momentum 1 torch's running statistics are this batch's mean and its variance times m / (m - 1).
    y = torch.batch_norm(x, weight, bias, mean, variance, True, 1.0, eps, torch.backends.cudnn.enabled)
    return y, mean, variance
