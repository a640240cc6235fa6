"""Layers that work on each value by itself."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from caffe2torch.errors import LayerError
from caffe2torch.fillers import Filler, fill
from caffe2torch.layers.gradient import with_slopes
from caffe2torch.layers.registry import Layer, Message, Shape, parameter, register


class _Plain(Layer):
    """An activation without parameters of any kind."""

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> _Plain:
        return cls()


@register("ReLU")
class ReLU(Layer):
    """max(x, 0) + negative_slope * min(x, 0); the gradient at 0 is the slope."""

    def __init__(self, negative_slope: float = 0.0) -> None:
        super().__init__()
        self.negative_slope = negative_slope
        self.backward_reads = frozenset({"bottom's sign" if negative_slope >= 0 else "bottom"})

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> ReLU:
        return cls(layer.relu_param.negative_slope)

    def caffe_backward(self, gradient: Tensor, bottom: Tensor, top: Tensor) -> Tensor:
        return torch.where(bottom > 0, gradient, gradient * self.negative_slope)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x, self.negative_slope) if self.negative_slope else F.relu(x)


@register("Sigmoid")
class Sigmoid(_Plain):
    """1 / (1 + exp(-x))."""

    backward_reads = frozenset({"top"})

    def caffe_backward(self, gradient: Tensor, bottom: Tensor, top: Tensor) -> Tensor:
        return gradient * top * (1.0 - top)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x)


@register("TanH")
class TanH(_Plain):
    """tanh(x)."""

    backward_reads = frozenset({"top"})

    def caffe_backward(self, gradient: Tensor, bottom: Tensor, top: Tensor) -> Tensor:
        return gradient * (1.0 - top * top)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x)


@register("AbsVal")
class AbsVal(_Plain):
    """|x|; the gradient at 0 is 0."""

    def forward(self, x: Tensor) -> Tensor:
        return x.abs()


@register("BNLL")
class BNLL(_Plain):
    """log(1 + exp(x)), computed without overflow."""

    backward_reads = frozenset({"bottom"})

    def caffe_backward(self, gradient: Tensor, bottom: Tensor, top: Tensor) -> Tensor:
        return gradient * torch.sigmoid(bottom)

    def forward(self, x: Tensor) -> Tensor:
        # torch switches to y = x above the threshold, where the difference is exp(-50).
        return F.softplus(x, threshold=50.0)


@register("Dropout")
class Dropout(Layer):
    """In training zeroes values with probability ``ratio`` and divides the rest by 1 - ratio; in test the identity.

    ``scale_train`` false (a fork's form) leaves the rest unscaled, and multiplies by 1 - ratio in test instead.
    ``sample_weights_test`` (Bayesian SegNet) does in test what is done in training. A ratio of 1 gives NaN there,
    0 / 0, unless ``scale_train`` is false.
    """

    def __init__(self, ratio: float = 0.5, *, scale_train: bool = True, sample_weights_test: bool = False) -> None:
        super().__init__()
        if not 0.0 <= ratio <= 1.0:
            raise LayerError(f"dropout_ratio is {ratio}: expected 0 to 1")
        self.ratio, self.scale_train, self.sample_weights_test = ratio, scale_train, sample_weights_test

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> Dropout:
        p = layer.dropout_param
        return cls(p.dropout_ratio, scale_train=p.scale_train, sample_weights_test=p.sample_weights_test)

    @property
    def drops(self) -> bool:
        """Whether the layer draws a mask as it is."""
        return self.training or self.sample_weights_test

    def forward(self, x: Tensor) -> Tensor:
        y = F.dropout(x, self.ratio) if self.drops else x
        if not self.scale_train:
            return y * (1.0 - self.ratio)
        return y * math.inf if self.drops and self.ratio == 1.0 else y  # torch leaves 0

    def extra_repr(self) -> str:
        return f"ratio={self.ratio:g}" + (", sample_weights_test=True" if self.sample_weights_test else "")


@register("Power")
class Power(Layer):
    """(shift + scale x) ^ power.

    The gradient for powers other than 0, 1 and 2 is power * scale * y / (shift + scale x): NaN where that is 0 / 0.
    """

    def __init__(self, power: float = 1.0, scale: float = 1.0, shift: float = 0.0) -> None:
        super().__init__()
        self.power, self.scale, self.shift = power, scale, shift
        if power * scale != 0.0:
            self.backward_reads = frozenset({"bottom"} if power in (1.0, 2.0) else {"bottom", "top"})

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> Power:
        p = layer.power_param
        return cls(p.power, p.scale, p.shift)

    def caffe_backward(self, gradient: Tensor, bottom: Tensor, top: Tensor) -> Tensor:
        base = bottom * self.scale + self.shift
        if self.power == 1.0:
            slope = torch.full_like(base, self.scale)
        else:
            slope = self.power * self.scale * (base if self.power == 2.0 else top / base)
        return _aliased(slope, gradient, bottom is top)

    def forward(self, x: Tensor) -> Tensor:
        if self.power * self.scale == 0.0:
            # A constant whatever x is, with a gradient of 0; sign keeps infinities from becoming NaN.
            return torch.full_like(x, 1.0 if self.power == 0.0 else _power(self.shift, self.power)) + 0.0 * x.sign()
        base = x if self.scale == 1.0 else x * self.scale
        base = base if self.shift == 0.0 else base + self.shift
        if self.power == 1.0:
            return base
        if self.power == 2.0 or not (torch.is_grad_enabled() and x.requires_grad):
            return base.pow(self.power)
        base = base.detach()
        y = base.pow(self.power)
        return with_slopes(y, (x, y / base * (self.power * self.scale)))


def _power(base: float, power: float) -> float:
    """base ^ power as C's pow gives it: NaN and infinity instead of exceptions."""
    return float(torch.tensor(base, dtype=torch.float64, device="cpu").pow(power))


@register("PReLU")
class PReLU(Layer):
    """max(x, 0) + slope * min(x, 0) with a learned slope per channel, or one (a 0-axis blob) when shared."""

    blobs = ("weight",)

    def __init__(self, channels: int, *, shared: bool = False) -> None:
        super().__init__()
        self.weight = parameter(() if shared else (channels,))

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> PReLU:
        shape = bottom_shapes[0]
        if len(shape) < 2:
            raise LayerError(f"the bottom has shape {shape}: expected at least 2 axes, channels second")
        return cls(shape[1], shared=layer.prelu_param.channel_shared)

    def fill(self, layer: Message, generator: torch.Generator | None = None) -> None:
        p = layer.prelu_param
        fill(self.weight, p.filler if p.HasField("filler") else Filler(value=0.25), generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        return F.prelu(x, self.weight.reshape(-1))


@register("ELU")
class ELU(Layer):
    """x for x > 0, alpha (exp(x) - 1) otherwise."""

    backward_reads = frozenset({"bottom's sign", "top"})

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = alpha

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> ELU:
        return cls(layer.elu_param.alpha)

    def caffe_backward(self, gradient: Tensor, bottom: Tensor, top: Tensor) -> Tensor:
        return torch.where(bottom > 0, gradient, gradient * (self.alpha + top))

    def forward(self, x: Tensor) -> Tensor:
        return F.elu(x, self.alpha)


@register("Exp")
class Exp(Layer):
    """base ^ (shift + scale x); base -1 means e."""

    backward_reads = frozenset({"top"})

    def __init__(self, base: float = -1.0, scale: float = 1.0, shift: float = 0.0) -> None:
        super().__init__()
        log_base = _log_base(base)
        self.inner = log_base * scale
        try:
            self.outer = math.exp(log_base * shift)
        except OverflowError as error:
            raise LayerError(f"base {base:g} to the power of shift {shift:g} overflows: make one smaller") from error

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> Exp:
        p = layer.exp_param
        return cls(p.base, p.scale, p.shift)

    def caffe_backward(self, gradient: Tensor, bottom: Tensor, top: Tensor) -> Tensor:
        return gradient * top * self.inner

    def forward(self, x: Tensor) -> Tensor:
        y = torch.exp(x if self.inner == 1.0 else x * self.inner)
        return y if self.outer == 1.0 else y * self.outer


@register("Log")
class Log(Layer):
    """Logarithm of shift + scale x to ``base``; base -1 means e."""

    backward_reads = frozenset({"bottom"})

    def __init__(self, base: float = -1.0, scale: float = 1.0, shift: float = 0.0) -> None:
        super().__init__()
        log_base = _log_base(base)
        if log_base == 0.0:
            raise LayerError("base is 1: expected another positive number, or -1 for e")
        self.scale, self.shift, self.outer = scale, shift, 1.0 / log_base

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> Log:
        p = layer.log_param
        return cls(p.base, p.scale, p.shift)

    def caffe_backward(self, gradient: Tensor, bottom: Tensor, top: Tensor) -> Tensor:
        return _aliased(self.scale * self.outer / (bottom * self.scale + self.shift), gradient, bottom is top)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.log(x if (self.scale, self.shift) == (1.0, 0.0) else x * self.scale + self.shift)
        return y if self.outer == 1.0 else y * self.outer


def _aliased(slope: Tensor, gradient: Tensor, in_place: bool) -> Tensor:
    """slope * gradient; in place Caffe has put the slope where the gradient was before it multiplies the two."""
    return slope * (slope if in_place else gradient)


def _log_base(base: float) -> float:
    if base != -1.0 and base <= 0.0:
        raise LayerError(f"base is {base}: expected a positive number, or -1 for e")
    return 1.0 if base == -1.0 else math.log(base)


@register("Threshold")
class Threshold(Layer):
    """1 where x > threshold, otherwise 0; passes no gradient."""

    no_gradient = (0,)

    def __init__(self, threshold: float = 0.0) -> None:
        super().__init__()
        self.threshold = threshold

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> Threshold:
        return cls(layer.threshold_param.threshold)

    def forward(self, x: Tensor) -> Tensor:
        return (x > self.threshold).to(x.dtype)
