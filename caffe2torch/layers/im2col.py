"""Im2col: the windows a convolution would see, written out."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from caffe2torch.errors import LayerError
from caffe2torch.layers.conv import extended, per_axis, reach_beyond
from caffe2torch.layers.registry import Layer, Message, Shape, canonical_axis, register


@register("Im2col")
class Im2col(Layer):
    """Each channel becomes one channel for every place of the kernel: the values that lie there, window by window.

    Axes before ``axis`` are batch axes, those after it spatial ones (any number).
    """

    def __init__(
        self,
        kernel: Sequence[int],
        *,
        stride: Sequence[int] | None = None,
        pad: Sequence[int] | None = None,
        dilation: Sequence[int] | None = None,
        axis: int = 1,
    ) -> None:
        super().__init__()
        self.kernel = tuple(kernel)
        self.stride = tuple(stride or (1,) * len(self.kernel))
        self.pad = tuple(pad or (0,) * len(self.kernel))
        self.dilation = tuple(dilation or (1,) * len(self.kernel))
        self.axis = axis
        self.beyond: tuple[int, ...] = ()
        """As Convolution's."""
        for field, values, least in (
            ("kernel size", self.kernel, 1),
            ("stride", self.stride, 1),
            ("dilation", self.dilation, 1),
            ("pad", self.pad, 0),
        ):
            if not self.kernel or len(values) != len(self.kernel) or min(values) < least:
                raise LayerError(f"the {field} is {values}: expected a value of at least {least} for each spatial axis")

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> Im2col:
        p, shape = layer.convolution_param, bottom_shapes[0]
        axis = canonical_axis(p.axis, shape, "convolution_param.axis")
        spatial = len(shape) - axis - 1
        if not spatial:
            raise LayerError(f"the bottom {shape} has no axis after axis {axis}: expected at least one spatial axis")
        made = cls(
            per_axis(p, "kernel_size", "kernel", spatial, default=None),
            stride=per_axis(p, "stride", "stride", spatial, default=1),
            pad=per_axis(p, "pad", "pad", spatial, default=0),
            dilation=per_axis(p, "dilation", None, spatial, default=1),
            axis=axis,
        )
        made.beyond = reach_beyond(shape, axis, made.kernel, made.stride, made.pad, made.dilation)
        return made

    def extents(self) -> tuple[int, ...]:
        """How many values the kernel covers on each spatial axis."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        x = extended(x, self.beyond)
        if len(self.kernel) == 2 and x.requires_grad and torch.is_grad_enabled():
            return self._with_fast_gradient(x)
        batch, first, spatial = x.shape[: self.axis], self.axis + 1, len(self.kernel)
        windows = self._padded(x)
        # The start is not named: torch.compile of torch 2.4 does not know the name.
        for place, (extent, stride, dilation) in enumerate(
            zip(self.extents(), self.stride, self.dilation, strict=True), first
        ):
            windows = windows.unfold(place, extent, stride)[..., ::dilation]
        # The axes are now batch, channel, places of the windows, places of the kernel, which belong after the channel.
        order = (*range(first), *range(first + spatial, first + 2 * spatial), *range(first, first + spatial))
        channels = x.shape[self.axis] * math.prod(self.kernel)
        return windows.permute(order).reshape(*batch, channels, *windows.shape[first : first + spatial])

    def _with_fast_gradient(self, x: Tensor) -> Tensor:
        """The same of planes by torch's unfold: going forward it takes longer than views, but less than them in all."""
        batch, (channels, *sizes) = x.shape[: self.axis], x.shape[self.axis :]
        columns = F.unfold(x.reshape(-1, channels, *sizes), self.kernel, self.dilation, self.pad, self.stride)
        places = [
            (size + 2 * pad - extent) // stride + 1
            for size, pad, extent, stride in zip(sizes, self.pad, self.extents(), self.stride, strict=True)
        ]
        return columns.reshape(*batch, -1, *places)

    def _padded(self, x: Tensor) -> Tensor:
        if not any(self.pad):
            return x
        return F.pad(x, tuple(p for pad in reversed(self.pad) for p in (pad, pad)))

    def extra_repr(self) -> str:
        return f"kernel={self.kernel}, stride={self.stride}, pad={self.pad}, dilation={self.dilation}"
