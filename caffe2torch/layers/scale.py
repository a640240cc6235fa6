"""Scale and Bias: multiply by, or add, a blob that spans some of the axes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from caffe2torch.errors import LayerError
from caffe2torch.fillers import Filler, fill
from caffe2torch.layers.registry import Layer, Message, Shape, canonical_axis, parameter, register


@register("Scale")
class Scale(Layer):
    """x * weight (+ bias), both spanning the axes from ``axis`` on.

    With a second bottom that bottom is the weight, and the bias, if any, is the only parameter blob.
    """

    blobs = ("weight", "bias")
    bottoms = (1, 2)

    def __init__(
        self, shape: Sequence[int], *, axis: int = 1, bias: bool = False, weight_is_bottom: bool = False
    ) -> None:
        super().__init__()
        self.axis = axis
        self.weight = None if weight_is_bottom else parameter(shape)
        self.bias = parameter(shape) if bias else None

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> Scale:
        p = layer.scale_param
        axis, shape = spanned(p, bottom_shapes, "scale_param")
        return cls(shape, axis=axis, bias=p.bias_term, weight_is_bottom=len(bottom_shapes) > 1)

    def fill(self, layer: Message, generator: torch.Generator | None = None) -> None:
        p = layer.scale_param
        if self.weight is not None:
            fill(self.weight, p.filler if p.HasField("filler") else Filler(value=1.0), generator=generator)
        if self.bias is not None:
            fill(self.bias, p.bias_filler, generator=generator)

    def overwritten_gradients(self, bottom_shapes: Sequence[Shape]) -> tuple[str, ...]:
        """The weight's, where it is as large as the bottom, or meets no axis before it (a batch of one picture)."""
        if self.weight is None:
            return ()
        x, count = bottom_shapes[0], self.weight.numel()
        once = math.prod(x) == count or (math.prod(x[: self.axis]) == 1 and count > 1)
        return ("weight",) if once else ()

    def forward(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        weight = self.weight if weight is None else weight
        assert weight is not None
        weight = spread(weight, x, self.axis)
        return x * weight if self.bias is None else torch.addcmul(spread(self.bias, x, self.axis), x, weight)


@register("Bias")
class Bias(Layer):
    """x + bias, the bias spanning the axes from ``axis`` on; with a second bottom that bottom is the bias."""

    blobs = ("bias",)
    bottoms = (1, 2)

    def __init__(self, shape: Sequence[int], *, axis: int = 1, bias_is_bottom: bool = False) -> None:
        super().__init__()
        self.axis = axis
        self.bias = None if bias_is_bottom else parameter(shape)

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> Bias:
        axis, shape = spanned(layer.bias_param, bottom_shapes, "bias_param")
        return cls(shape, axis=axis, bias_is_bottom=len(bottom_shapes) > 1)

    def fill(self, layer: Message, generator: torch.Generator | None = None) -> None:
        if self.bias is not None:
            fill(self.bias, layer.bias_param.filler, generator=generator)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        bias = self.bias if bias is None else bias
        assert bias is not None
        return x + spread(bias, x, self.axis)


def spanned(p: Message, bottom_shapes: Sequence[Shape], field: str) -> tuple[int, Shape]:
    """The first axis and the shape of the blob: ``num_axes`` axes of the first bottom, or the second bottom's shape."""
    shape = bottom_shapes[0]
    if len(bottom_shapes) > 1:
        given = bottom_shapes[1]
        # A scalar has no axis of its own; Caffe then ignores the field.
        axis = canonical_axis(p.axis, shape, f"{field}.axis") if given else 0
        if shape[axis : axis + len(given)] != given:
            raise LayerError(
                f"the second bottom has shape {given}: expected {shape[axis : axis + len(given)]}, "
                f"the first bottom {shape} from axis {axis} on"
            )
        return axis, given
    if p.num_axes < -1:
        raise LayerError(f"{field}.num_axes is {p.num_axes}: expected -1 (all) or more")
    if p.num_axes == 0 and not shape:
        return 0, ()
    axis = canonical_axis(p.axis, shape, f"{field}.axis")
    end = len(shape) if p.num_axes == -1 else axis + p.num_axes
    if end > len(shape):
        raise LayerError(
            f"{field} spans {p.num_axes} axes from axis {axis}, but the bottom {shape} has only {len(shape)} axes"
        )
    return axis, shape[axis:end]


def spread(blob: Tensor, x: Tensor, axis: int) -> Tensor:
    """``blob`` with axes of size 1 after it, so that it meets ``x`` from ``axis`` on, in the precision of ``x``."""
    blob = blob.to(x.dtype)
    return blob.reshape(*blob.shape, *(1,) * (x.ndim - axis - blob.ndim)) if blob.ndim else blob
