"""Pooling with Caffe's own rounding, clipping and divisor rules."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from caffe2torch.errors import LayerError
from caffe2torch.layers import stochastic
from caffe2torch.layers.registry import Layer, Message, Shape, enum_name, register

Pair = tuple[int, int]
FLT_MAX = torch.finfo(torch.float32).max
_MOST_PADDED = 1 << 24  # values of a padded copy that need no question


@register("Pooling")
class Pooling(Layer):
    """MAX, AVE or STOCHASTIC pooling over the last two of four axes.

    The output has ceil((size + 2 pad - kernel) / stride) + 1 rows; with padding the last one is dropped when its
    window would start beyond size + pad. An AVE window divides by its area inside the padded image. torch's pooling
    agrees, except that it has no windows that start outside the image (pad 0, stride > kernel; Caffe's MAX gives
    -FLT_MAX there and its AVE 0 / area), and refuses pad > kernel / 2. Both cases are computed on an explicitly padded
    copy. STOCHASTIC (without padding) takes a value with a probability of its share in the window's sum in training,
    and the mean of what it would take in test. With ``mask`` a second top gives the index of each maximum in its
    plane, as a float (-1: none).
    """

    tops = (1, 2)

    def __init__(
        self,
        method: str = "MAX",
        *,
        kernel: Pair | None = None,
        stride: Pair = (1, 1),
        pad: Pair = (0, 0),
        ceil: bool = True,
        mask: bool = False,
    ) -> None:
        """``kernel`` None is global pooling: one window over each plane, whatever its size."""
        super().__init__()
        self.method, self.kernel, self.stride, self.pad, self.ceil, self.mask = method, kernel, stride, pad, ceil, mask
        self._check()
        padded = kernel is not None and any(2 * p > k for p, k in zip(pad, kernel, strict=True))
        gaps = kernel is not None and any(s > k for s, k in zip(stride, kernel, strict=True))
        self._explicit = method == "STOCHASTIC" or padded or (ceil and not any(pad) and gaps)

    def _check(self) -> None:
        if self.method not in ("MAX", "AVE", "STOCHASTIC"):
            raise LayerError(f"pool is {self.method}: expected MAX, AVE or STOCHASTIC")
        if self.method == "STOCHASTIC" and any(self.pad):
            raise LayerError(f"pad is {self.pad}: pool: STOCHASTIC has no padding in Caffe; remove it")
        if self.mask and self.method != "MAX":
            raise LayerError("a second top (the mask of maxima) exists for pool: MAX only; remove it")
        if self.kernel is None:
            if any(self.pad) or self.stride != (1, 1):
                raise LayerError(
                    f"global pooling with pad {self.pad}, stride {self.stride}: expected pad 0 and stride 1"
                )
            return
        if min(self.kernel) < 1 or min(self.stride) < 1 or min(self.pad) < 0:
            raise LayerError(
                f"kernel {self.kernel}, stride {self.stride}, pad {self.pad}: expected kernel and stride of at least 1"
            )
        if any(p >= k for p, k in zip(self.pad, self.kernel, strict=True)):
            raise LayerError(f"pad {self.pad} must be smaller than the kernel {self.kernel} on both axes")

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> Pooling:
        p = layer.pooling_param
        made = cls(
            enum_name(p, "pool"),
            kernel=None if p.global_pooling else _kernel(p),
            stride=_pair(p, "stride"),
            pad=_pair(p, "pad"),
            ceil=p.ceil_mode if p.HasField("ceil_mode") else enum_name(p, "round_mode") == "CEIL",
            mask=len(layer.top) > 1,
        )
        if p.global_pooling and any(p.HasField(f) for f in ("kernel_size", "kernel_h", "kernel_w")):
            raise LayerError("global_pooling is given together with a kernel size: remove one of them")
        shape = bottom_shapes[0]
        if len(shape) != 4:
            raise LayerError(f"the bottom has shape {shape}: expected 4 axes (N, C, H, W)")
        if made.kernel is not None:
            made.check_bottom(shape)
        return made

    def check_bottom(self, shape: Shape) -> None:
        """Raise LayerError where no window fits, or where padding would take far more memory than the blobs."""
        windows = self.output_size(shape[2], shape[3])
        if self._explicit and self.kernel is not None:
            copy = [(n - 1) * s + k for n, s, k in zip(windows, self.stride, self.kernel, strict=True)]
            planes = math.prod(shape[:2])
            blobs = planes * (math.prod(shape[2:]) + math.prod(windows))
            if planes * math.prod(copy) > _MOST_PADDED + 16 * blobs:
                raise LayerError(
                    f"kernel {self.kernel}, stride {self.stride}, pad {self.pad} pads the plane of {shape[2]} x "
                    f"{shape[3]} to {copy[0]} x {copy[1]}: make them smaller"
                )

    def output_size(self, height: int, width: int) -> Pair:
        """Rows and columns Caffe gives for this plane; LayerError where Caffe would stop."""
        kernel = self.kernel or (height, width)
        sizes = []
        for size, k, s, p in zip((height, width), kernel, self.stride, self.pad, strict=True):
            span = size + 2 * p - k
            windows = (-(-span // s) if self.ceil else span // s) + 1
            if any(self.pad) and (windows - 1) * s >= size + p:
                windows -= 1
            if windows < 1 or (any(self.pad) and (windows - 1) * s >= size + p):
                raise LayerError(
                    f"no window of kernel {kernel}, stride {self.stride}, pad {self.pad} fits a plane of "
                    f"{height} x {width}: make the kernel smaller or the input larger"
                )
            sizes.append(windows)
        return sizes[0], sizes[1]

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        if self.method == "AVE":
            return self._average(x)
        if self.method == "STOCHASTIC":
            kernel = self.kernel or (x.shape[2], x.shape[3])
            values = stochastic.windows(x, kernel, self.stride, self.output_size(x.shape[2], x.shape[3]))
            return stochastic.drawn(values) if self.training else stochastic.expected(values)
        top, mask = self._maximum(x)
        return top if mask is None else (top, mask)

    def _average(self, x: Tensor) -> Tensor:
        if self.kernel is None:
            return x.mean((2, 3), keepdim=True)
        if not self._explicit:
            return F.avg_pool2d(x, self.kernel, self.stride, self.pad, self.ceil, True)
        height, width = self.output_size(x.shape[2], x.shape[3])
        total = F.avg_pool2d(self._padded(x, height, width, 0.0), self.kernel, self.stride, divisor_override=1)
        return total / (self._lengths(x, 0, height)[:, None] * self._lengths(x, 1, width))

    def _maximum(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.kernel is not None and self._explicit:
            height, width = self.output_size(x.shape[2], x.shape[3])
            padded = self._padded(x, height, width, max(-FLT_MAX, torch.finfo(x.dtype).min))
            kernel, stride, pad, ceil = self.kernel, self.stride, (0, 0), False
        else:
            padded = x
            kernel, stride, pad, ceil = self.kernel or (x.shape[2], x.shape[3]), self.stride, self.pad, self.ceil
        if not self.mask and self._by_axis(x):
            return self._maximum_by_axis(x), None
        if not self.mask:
            return F.max_pool2d(padded, kernel, stride, pad, ceil_mode=ceil), None
        top, index = F.max_pool2d(padded, kernel, stride, pad, ceil_mode=ceil, return_indices=True)
        if self._explicit:
            row = index // padded.shape[3] - self.pad[0]
            column = index % padded.shape[3] - self.pad[1]
            inside = (row >= 0) & (row < x.shape[2]) & (column >= 0) & (column < x.shape[3])
            index = torch.where(inside, row * x.shape[3] + column, -1)
        return top, index.to(x.dtype)

    def _by_axis(self, x: Tensor) -> bool:
        """Whether maxima along rows, then along columns, are the faster way: torch's CPU loop is not vectorised.

        Not where a gradient is wanted, since equal values would share it.
        """
        if self.kernel is None or self._explicit or any(self.pad) or max(self.kernel) > 5:
            return False
        plain = x.device.type == "cpu" and x.is_contiguous() and not torch.compiler.is_compiling()
        return plain and not (x.requires_grad and torch.is_grad_enabled())

    def _maximum_by_axis(self, x: Tensor) -> Tensor:
        assert self.kernel is not None
        windows = self.output_size(x.shape[2], x.shape[3])
        for axis, (kernel, stride, count) in enumerate(zip(self.kernel, self.stride, windows, strict=True), start=2):
            step = (slice(None),) * axis
            # The places of every window, one after another; the last window may have fewer.
            places = [x[(*step, slice(i, i + (count - 1) * stride + 1, stride))] for i in range(kernel)]
            top = places[0].clone()
            for place in places[1:]:
                part = top.narrow(axis, 0, place.shape[axis])
                torch.maximum(part, place, out=part)
            x = top
        return x

    def _padded(self, x: Tensor, height: int, width: int, value: float) -> Tensor:
        """``x`` with its padding written out, so that floor-mode pooling finds height x width windows."""
        assert self.kernel is not None
        after = [
            (windows - 1) * s + k - size - p
            for windows, s, k, size, p in zip(
                (height, width), self.stride, self.kernel, x.shape[2:], self.pad, strict=True
            )
        ]
        return F.pad(x, (self.pad[1], after[1], self.pad[0], after[0]), value=value)

    def _lengths(self, x: Tensor, axis: int, windows: int) -> Tensor:
        """Length of every window on one axis inside size + pad; zero or negative for those that start beyond it."""
        assert self.kernel is not None
        start = torch.arange(windows, dtype=x.dtype, device=x.device) * self.stride[axis] - self.pad[axis]
        return (start + self.kernel[axis]).clamp(max=x.shape[2 + axis] + self.pad[axis]) - start

    def extra_repr(self) -> str:
        return (
            f"{self.method}, kernel={self.kernel or 'global'}, stride={self.stride}, pad={self.pad}, ceil={self.ceil}"
        )


def _kernel(p: Message) -> Pair:
    single, height, width = (p.HasField(f) for f in ("kernel_size", "kernel_h", "kernel_w"))
    if single and not (height or width):
        return p.kernel_size, p.kernel_size
    if height and width and not single:
        return p.kernel_h, p.kernel_w
    given = [f for f in ("kernel_size", "kernel_h", "kernel_w") if p.HasField(f)]
    raise LayerError(
        f"the kernel size is given by {given or 'nothing'}: expected kernel_size, or kernel_h and kernel_w"
    )


def _pair(p: Message, field: str) -> Pair:
    """``stride`` or ``pad``: one value for both axes, or the ``_h`` and ``_w`` pair."""
    height, width = f"{field}_h", f"{field}_w"
    if not (p.HasField(height) or p.HasField(width)):
        value = getattr(p, field)
        return value, value
    if p.HasField(field) or not (p.HasField(height) and p.HasField(width)):
        given = [f for f in (field, height, width) if p.HasField(f)]
        raise LayerError(f"{' and '.join(given)} given: expected {field} alone, or both {height} and {width}")
    return getattr(p, height), getattr(p, width)
