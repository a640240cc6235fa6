"""InnerProduct: the fully connected layer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from caffe2torch.errors import LayerError
from caffe2torch.fillers import fill
from caffe2torch.layers.registry import Layer, Message, Shape, canonical_axis, parameter, register


@register("InnerProduct")
class InnerProduct(Layer):
    """y = x W^T + b over the axes from ``axis`` on, flattened in C order.

    The weight is (out, in), or (in, out) with ``transpose``.
    """

    blobs = ("weight", "bias")

    def __init__(
        self, in_features: int, num_output: int, *, bias: bool = True, axis: int = 1, transpose: bool = False
    ) -> None:
        super().__init__()
        if num_output < 1 or in_features < 1:
            raise LayerError(f"{in_features} inputs and num_output {num_output}: expected at least 1 of each")
        self.axis, self.transpose = axis, transpose
        self.weight = parameter((in_features, num_output) if transpose else (num_output, in_features))
        self.bias = parameter((num_output,)) if bias else None

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> InnerProduct:
        p = layer.inner_product_param
        shape = bottom_shapes[0]
        axis = canonical_axis(p.axis, shape, "inner_product_param.axis")
        return cls(math.prod(shape[axis:]), p.num_output, bias=p.bias_term, axis=axis, transpose=p.transpose)

    def fill(self, layer: Message, generator: torch.Generator | None = None) -> None:
        p = layer.inner_product_param
        fill(self.weight, p.weight_filler, generator=generator)
        if self.bias is not None:
            fill(self.bias, p.bias_filler, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.t() if self.transpose else self.weight
        return F.linear(flattened(self, x, self.axis, weight.shape[1]), weight, self.bias)

    def extra_repr(self) -> str:
        return f"{tuple(self.weight.shape)}, axis={self.axis}, transpose={self.transpose}, bias={self.bias is not None}"


def flattened(layer: Layer, x: Tensor, axis: int, inputs: int) -> Tensor:
    """``x`` with its axes from ``axis`` on made one; LayerError unless that holds the ``inputs`` the layer takes."""
    flat = x.flatten(axis)
    if flat.shape[-1] != inputs:
        raise LayerError(
            f"layer {layer.caffe_name!r} ({layer.caffe_type}) takes {inputs} values an item and was given "
            f"{flat.shape[-1]} (a bottom of shape {tuple(x.shape)}); check the size of what is fed to the net"
        )
    return flat
