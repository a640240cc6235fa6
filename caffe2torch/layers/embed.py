"""Embed: a table of vectors, looked up by number."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from caffe2torch.errors import LayerError
from caffe2torch.fillers import fill
from caffe2torch.layers.registry import Layer, Message, Shape, parameter, register


@register("Embed")
class Embed(Layer):
    """Row i of the weight (in, out), plus the bias (out), for every number i of the bottom, on a new last axis."""

    blobs = ("weight", "bias")
    no_gradient = (0,)

    def __init__(self, input_dim: int, num_output: int, *, bias: bool = True) -> None:
        super().__init__()
        if input_dim < 1 or num_output < 1:
            raise LayerError(f"input_dim is {input_dim} and num_output {num_output}: expected at least 1 of each")
        self.weight = parameter((input_dim, num_output))
        self.bias = parameter((num_output,)) if bias else None

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> Embed:
        p = layer.embed_param
        return cls(p.input_dim, p.num_output, bias=p.bias_term)

    def fill(self, layer: Message, generator: torch.Generator | None = None) -> None:
        p = layer.embed_param
        fill(self.weight, p.weight_filler, generator=generator)
        if self.bias is not None:
            fill(self.bias, p.bias_filler, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        y = F.embedding(x.detach().long(), self.weight)
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        return f"{tuple(self.weight.shape)}, bias={self.bias is not None}"
