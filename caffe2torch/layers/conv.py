"""Convolution over any number of spatial axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from caffe2torch.errors import LayerError
from caffe2torch.fillers import fill
from caffe2torch.layers.registry import Layer, Message, Shape, canonical_axis, parameter, register

# Not an attribute of the class: torch.compile of torch 2.4 reads no dict there.
_CONVOLVE: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


@register("Convolution")
class Convolution(Layer):
    """Caffe's convolution: weight (out, in / group, *kernel), bias (out); the same filters for every bottom.

    ``axis`` is the channel axis: those before it are batch axes, those after it spatial ones (any number, also none).
    A kernel may reach beyond the padded input by less than a stride, as in Caffe; there it meets zeros.
    """

    blobs = ("weight", "bias")
    bottoms = (1, None)
    tops = (1, None)

    def __init__(
        self,
        in_channels: int,
        num_output: int,
        kernel: Sequence[int],
        *,
        stride: Sequence[int] | None = None,
        pad: Sequence[int] | None = None,
        dilation: Sequence[int] | None = None,
        group: int = 1,
        bias: bool = True,
        axis: int = 1,
    ) -> None:
        super().__init__()
        spatial = len(kernel)
        self.kernel = tuple(kernel)
        self.stride = tuple(stride or (1,) * spatial)
        self.pad = tuple(pad or (0,) * spatial)
        self.dilation = tuple(dilation or (1,) * spatial)
        self.group, self.axis = group, axis
        self.beyond: tuple[int, ...] = ()
        """On each spatial axis, how far the kernel reaches beyond the padding; (): nowhere."""
        self._check(in_channels, num_output)
        self.weight = parameter((*self.weight_shape(in_channels, num_output, group), *kernel))
        self.bias = parameter((num_output,)) if bias else None

    @staticmethod
    def by_torch() -> dict[int, Callable[..., Tensor]]:
        """torch's function by the number of spatial axes."""
        return _CONVOLVE

    @staticmethod
    def weight_shape(in_channels: int, num_output: int, group: int) -> Shape:
        """The first two axes of the weight; the kernel's follow."""
        return num_output, in_channels // group

    def _check(self, in_channels: int, num_output: int) -> None:
        if num_output < 1:
            raise LayerError(f"num_output is {num_output}: expected at least 1")
        for field, values, least in (
            ("kernel size", self.kernel, 1),
            ("stride", self.stride, 1),
            ("dilation", self.dilation, 1),
            ("pad", self.pad, 0),
        ):
            if len(values) != len(self.kernel) or min(values, default=least) < least:
                raise LayerError(f"the {field} is {values}: expected {len(self.kernel)} values of at least {least}")
        if self.group < 1 or in_channels % self.group or num_output % self.group:
            raise LayerError(
                f"group is {self.group}: expected a divisor of both the {in_channels} input channels "
                f"and num_output {num_output}"
            )

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> Convolution:
        p = layer.convolution_param
        shape = bottom_shapes[0]
        axis = canonical_axis(p.axis, shape, "convolution_param.axis")
        spatial = len(shape) - axis - 1
        made = cls(
            shape[axis],
            p.num_output,
            per_axis(p, "kernel_size", "kernel", spatial, default=None),
            stride=per_axis(p, "stride", "stride", spatial, default=1),
            pad=per_axis(p, "pad", "pad", spatial, default=0),
            dilation=per_axis(p, "dilation", None, spatial, default=1),
            group=p.group,
            bias=p.bias_term,
            axis=axis,
        )
        if len(layer.top) != len(bottom_shapes):
            raise LayerError(f"found {len(bottom_shapes)} bottoms and {len(layer.top)} tops: expected as many of each")
        for bottom in bottom_shapes:
            made.check_bottom(bottom, shape)
        return made

    def check_bottom(self, shape: Shape, first: Shape) -> None:
        """Raise LayerError unless this bottom has the first one's shape and room for the kernel."""
        if shape != first:
            raise LayerError(f"the bottoms have different shapes {first} and {shape}: expected all the same")
        self.beyond = reach_beyond(shape, self.axis, self.kernel, self.stride, self.pad, self.dilation)

    def fill(self, layer: Message, generator: torch.Generator | None = None) -> None:
        p = layer.convolution_param
        fill(self.weight, p.weight_filler, generator=generator)
        if self.bias is not None:
            fill(self.bias, p.bias_filler, generator=generator)

    def forward(self, *bottoms: Tensor) -> Tensor | tuple[Tensor, ...]:
        tops = tuple(self._convolve(x) for x in bottoms)
        return tops[0] if len(tops) == 1 else tops

    def _convolve(self, x: Tensor) -> Tensor:
        batch = x.shape[: self.axis]
        if self.axis != 1:
            x = x.reshape(math.prod(batch), *x.shape[self.axis :])
        y = self.compute(extended(x, self.beyond), self.weight, self.bias)
        return y if self.axis == 1 else y.reshape(*batch, *y.shape[1:])

    def compute(self, x: Tensor, weight: Tensor, bias: Tensor | None, first: int = 0) -> Tensor:
        """The top of ``x`` (N, C, ...), whose spatial axes are those of the layer from ``first`` on; any number."""
        spatial = weight.ndim - 2
        if spatial == 0:
            return self.by_torch()[1](x.unsqueeze(2), weight.unsqueeze(2), bias, groups=self.group).squeeze(2)
        if spatial not in self.by_torch():
            return self.by_places(x, weight, bias, first)
        return self.by_torch()[spatial](
            x,
            weight,
            bias,
            stride=self.stride[first:],
            padding=self.pad[first:],
            dilation=self.dilation[first:],
            groups=self.group,
        )

    def by_places(self, x: Tensor, weight: Tensor, bias: Tensor | None, first: int) -> Tensor:
        """Every place of the kernel's first axis convolves over the others, with the input's first one as batch."""
        stride, pad, dilation = self.stride[first], self.pad[first], self.dilation[first]
        rows = F.pad(x, (0, 0) * (x.ndim - 3) + (pad, pad)).transpose(1, 2)
        reach = dilation * (weight.shape[2] - 1)
        parts = []
        for place in range(weight.shape[2]):
            part = rows[:, place * dilation : rows.shape[1] - reach + place * dilation : stride]
            y = self.compute(part.flatten(0, 1), weight[:, :, place], None if place else bias, first + 1)
            parts.append(y.reshape(*part.shape[:2], *y.shape[1:]).transpose(1, 2))
        return torch.stack(parts).sum(0)

    def extra_repr(self) -> str:
        return (
            f"{tuple(self.weight.shape)}, stride={self.stride}, pad={self.pad}, dilation={self.dilation}, "
            f"group={self.group}, bias={self.bias is not None}"
        )


def reach_beyond(
    shape: Shape,
    axis: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    pad: Sequence[int],
    dilation: Sequence[int],
) -> tuple[int, ...]:
    """How far the kernel reaches beyond the padded input on each axis after ``axis``; (): nowhere.

    Caffe counts windows in whole numbers, rounded towards 0, so less than a stride may be missing: it takes zeros
    there. Raises LayerError where more is.
    """
    beyond = []
    for size, k, s, p, d in zip(shape[axis + 1 :], kernel, stride, pad, dilation, strict=True):
        extent = d * (k - 1) + 1
        beyond.append(max(0, extent - size - 2 * p))
        if beyond[-1] >= s:
            raise LayerError(
                f"the kernel covers {extent} values (size {k}, dilation {d}), but the input {shape} "
                f"has {size} + 2 x {p} padding: make the kernel smaller or the input or pad larger"
            )
    return tuple(beyond) if any(beyond) else ()


def extended(x: Tensor, beyond: tuple[int, ...]) -> Tensor:
    """``x`` with so many zeros behind each of its last axes."""
    return F.pad(x, [size for more in reversed(beyond) for size in (0, more)]) if beyond else x


def per_axis(p: Message, field: str, pair: str | None, spatial: int, *, default: int | None) -> tuple[int, ...]:
    """One value per spatial axis from a repeated field or from its ``_h`` / ``_w`` form (2-D only, not both forms)."""
    values = tuple(getattr(p, field))
    names = [f"{pair}_h", f"{pair}_w"] if pair else []
    if any(p.HasField(name) for name in names):
        if values or spatial != 2:
            raise LayerError(
                f"{names[0]}/{names[1]} are given with {field} {list(values)} on an input of {spatial} spatial axes: "
                f"use them alone and on 2 spatial axes, or use {field}"
            )
        return tuple(getattr(p, name) for name in names)
    if not values:
        if default is None and spatial:
            raise LayerError(f"there is no kernel size: give {field}, or {names[0]} and {names[1]}")
        return (default or 0,) * spatial
    if len(values) not in (1, spatial):
        raise LayerError(
            f"{field} has {len(values)} values {list(values)}: expected 1, or {spatial} (one a spatial axis)"
        )
    return values * spatial if len(values) == 1 else values  # on no spatial axis one value is allowed, and unused
