"""Layers of the forks for small nets: depthwise convolution, ShuffleChannel, Axpy and bounded activations."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from caffe2torch.errors import LayerError
from caffe2torch.layers.conv import Convolution
from caffe2torch.layers.registry import Layer, Message, Shape, canonical_axis, refuse, register

# Older versions of torch's hardswish have other gradients at -3 and 3.
_FAST_HSWISH = torch.__version__ >= "2.9"  # compared as versions


@register("ConvolutionDepthwise", "DepthwiseConvolution", "ConvolutionDepthWise", "DepthwiseConv")
class ConvolutionDepthwise(Convolution):
    """A convolution of every channel by itself: weight (C, 1, kernel), bias (C).

    Some forks want ``group`` in the prototxt (the number of channels, but any other is taken as it is), the others have
    it understood: then ``num_output`` must be the number of channels too.
    """

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> Convolution:
        p = layer.convolution_param
        if p.group > 1:
            return super().from_caffe(layer, bottom_shapes)
        channels = bottom_shapes[0][canonical_axis(p.axis, bottom_shapes[0], "convolution_param.axis")]
        if p.HasField("num_output") and p.num_output != channels:
            raise LayerError(
                f"num_output is {p.num_output}, but the bottom has {channels} channels: expected as many, or give group"
            )
        depthwise = type(layer)()
        depthwise.CopyFrom(layer)
        depthwise.convolution_param.group = depthwise.convolution_param.num_output = channels
        return super().from_caffe(depthwise, bottom_shapes)


@register("ShuffleChannel", "ChannelShuffle")
class ShuffleChannel(Layer):
    """ShuffleNet's: channel g of C / ``group`` in group i becomes channel g * group + i."""

    def __init__(self, group: int = 1) -> None:
        super().__init__()
        self.group = group

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> ShuffleChannel:
        group, shape = layer.shuffle_channel_param.group, bottom_shapes[0]
        if layer.type != cls.caffe_type and not layer.shuffle_channel_param.HasField("group"):
            raise LayerError("shuffle_channel_param has no group: expected one, such as 3")
        if len(shape) < 2 or group < 1 or shape[1] % group:
            raise LayerError(f"group is {group}: expected a divisor of the channels, the bottom has shape {shape}")
        return cls(group)

    def forward(self, x: Tensor) -> Tensor:
        # torch's own takes three axes or more, and in torch 2.4 it has no gradient.
        if x.ndim > 2 and not (x.requires_grad and torch.is_grad_enabled()):
            return F.channel_shuffle(x, self.group)
        return x.reshape(len(x), self.group, -1, *x.shape[2:]).transpose(1, 2).flatten(1, 2)

    def extra_repr(self) -> str:
        return f"group={self.group}"


@register("Axpy")
class Axpy(Layer):
    """SENet's a * x + y; a is (N, C) or (N, C, 1, 1), one factor for each plane of x."""

    bottoms = (3, 3)

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> Axpy:
        refuse(layer.axpy_param, "axis")
        a, x, y = bottom_shapes
        if len(a) < 2 or len(x) < 2 or a[:2] != x[:2] or any(dim != 1 for dim in a[2:]) or x != y:
            raise LayerError(
                f"bottoms of shape {a}, {x} and {y}: expected factors (N, C) or (N, C, 1, 1) for two equal shapes"
            )
        return cls()

    def forward(self, a: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return torch.addcmul(y, a.reshape(*a.shape[:2], *(1,) * (x.ndim - 2)), x)


@register("ReLU6")
class ReLU6(Layer):
    """min(max(x, 0) + negative_slope * min(x, 0), 6); no gradient from 6 on. ``threshold`` or ``n`` replaces the 6."""

    backward_reads = frozenset({"bottom"})

    def __init__(self, threshold: float = 6.0, *, negative_slope: float = 0.0) -> None:
        super().__init__()
        self.threshold, self.negative_slope = threshold, negative_slope

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> ReLU6:
        p = layer.relu6_param
        if p.HasField("n") and p.HasField("threshold"):
            raise LayerError("relu6_param gives both n and threshold: remove one of them")
        return cls(p.n if p.HasField("n") else p.threshold, negative_slope=p.negative_slope)

    def caffe_backward(self, gradient: Tensor, bottom: Tensor, top: Tensor) -> Tensor:
        below = gradient * self.negative_slope
        return torch.where(bottom > 0, gradient, below) * (bottom < self.threshold)

    def forward(self, x: Tensor) -> Tensor:
        if self.negative_slope == 0.0 and self.threshold >= 0.0:
            return F.hardtanh(x, 0.0, self.threshold)
        return F.hardtanh(F.leaky_relu(x, self.negative_slope), -math.inf, self.threshold)

    def extra_repr(self) -> str:
        return f"threshold={self.threshold:g}, negative_slope={self.negative_slope:g}"


@register("CReLU")
class CReLU(Layer):
    """max(x, 0), then max(-x, 0), along ``axis``; ``negative_slope`` as in ReLU."""

    def __init__(self, axis: int = 1, *, negative_slope: float = 0.0) -> None:
        super().__init__()
        self.axis, self.negative_slope = axis, negative_slope

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> CReLU:
        p = layer.crelu_param
        axis = canonical_axis(p.concat_axis, bottom_shapes[0], "crelu_param.concat_axis")
        return cls(axis, negative_slope=p.negative_slope)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.cat((x, -x), self.axis)
        return F.leaky_relu(both, self.negative_slope) if self.negative_slope else F.relu(both)

    def extra_repr(self) -> str:
        return f"axis={self.axis}, negative_slope={self.negative_slope:g}"


class _Hard(Layer):
    """A piecewise function without settings."""

    backward_reads = frozenset({"bottom"})

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> _Hard:
        return cls()


@register("HSigmoid")
class HSigmoid(_Hard):
    """min(max(x + 3, 0), 6) / 6; the gradient at -3 and 3 is 0."""

    def caffe_backward(self, gradient: Tensor, bottom: Tensor, top: Tensor) -> Tensor:
        return gradient / 6.0 * ((bottom > -3.0) & (bottom < 3.0))

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == torch.float64:
            # The gradient of F.hardsigmoid is one sixth in float32.
            return F.hardtanh(x + 3.0, 0.0, 6.0) / 6.0
        return F.hardsigmoid(x)


@register("HSwish", "HardSwish")
class HSwish(_Hard):
    """x min(max(x + 3, 0), 6) / 6; the gradient at -3 is 0 and at 3 it is 1."""

    def caffe_backward(self, gradient: Tensor, bottom: Tensor, top: Tensor) -> Tensor:
        slope = bottom * ((bottom > -3.0) & (bottom < 3.0))
        return gradient * ((bottom + 3.0).clamp(0.0, 6.0) + slope) / 6.0

    def forward(self, x: Tensor) -> Tensor:
        if _FAST_HSWISH:
            return F.hardswish(x)
        return x * F.hardtanh(x + 3.0, 0.0, 6.0) / 6.0
