"""Parameter: a blob that is learned, without any input."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from caffe2torch.fillers import Filler, fill
from caffe2torch.layers.registry import Layer, Message, Shape, parameter, register


@register("Parameter")
class Parameter(Layer):
    """Its only parameter blob is its top. It starts at 0: Caffe has no filler for it."""

    blobs = ("weight",)
    bottoms = (0, 0)

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.weight = parameter(shape)

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> Parameter:
        return cls(tuple(layer.parameter_param.shape.dim))

    def fill(self, layer: Message, generator: torch.Generator | None = None) -> None:
        fill(self.weight, Filler())

    def overwritten_gradients(self, bottom_shapes: Sequence[Shape]) -> tuple[str, ...]:
        """The layer that reads the top writes its gradient, and the blob's is the same memory."""
        return self.blobs

    def forward(self) -> Tensor:
        return self.weight.view_as(self.weight)

    def extra_repr(self) -> str:
        return f"{tuple(self.weight.shape)}"
