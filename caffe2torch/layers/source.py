"""DummyData: blobs that come from a filler instead of a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from caffe2torch.errors import LayerError
from caffe2torch.fillers import Filler, fill, from_caffe
from caffe2torch.layers.registry import Layer, Message, Shape, check_count, register

_T = TypeVar("_T")


@register("DummyData")
class DummyData(Layer):
    """One blob per shape, written by its filler: constants, or new random values in every pass."""

    bottoms = (0, 0)
    tops = (1, None)
    anchor: Tensor
    """A scalar that is moved and cast with the net; the tops follow it."""

    def __init__(self, shapes: Sequence[Shape], fillers: Sequence[Filler]) -> None:
        super().__init__()
        self.shapes, self.fillers = tuple(shapes), tuple(fillers)
        self.register_buffer("anchor", torch.zeros(()), persistent=False)

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> DummyData:
        p, count = layer.dummy_data_param, len(layer.top)
        fillers = [from_caffe(f) for f in p.data_filler] or [Filler()]
        return cls(_each(_shapes(p, count), count, "shape"), _each(fillers, count, "data_filler"))

    def forward(self) -> Tensor | tuple[Tensor, ...]:
        tops = tuple(self._top(shape, filler) for shape, filler in zip(self.shapes, self.fillers, strict=True))
        return tops[0] if len(tops) == 1 else tops

    def _top(self, shape: Shape, filler: Filler) -> Tensor:
        if filler.type == "constant":
            return self.anchor.new_full(shape, filler.value)
        return fill(self.anchor.new_empty(shape), filler)

    def extra_repr(self) -> str:
        return ", ".join(f"{f.type} {s}" for s, f in zip(self.shapes, self.fillers, strict=True))


def _shapes(p: Message, count: int) -> list[Shape]:
    """The shapes given by ``shape``, or by the older num, channels, height and width (one or ``count`` of each)."""
    old = [list(getattr(p, field)) for field in ("num", "channels", "height", "width")]
    if not any(old):
        shapes = [tuple(shape.dim) for shape in p.shape]
    elif p.shape:
        raise LayerError("dummy_data_param gives both shape and num/channels/height/width: remove one of them")
    else:
        shapes = list(zip(*(_each(values, count, "num/channels/height/width") for values in old), strict=True))
    for shape in shapes:
        check_count(shape, "a DummyData blob")
    return shapes


def _each(values: list[_T], count: int, field: str) -> list[_T]:
    if len(values) not in (1, count):
        expected = "1" if count == 1 else f"1 or {count}"
        raise LayerError(f"dummy_data_param has {len(values)} of {field} for {count} tops: expected {expected}")
    return values * count if len(values) == 1 else values
