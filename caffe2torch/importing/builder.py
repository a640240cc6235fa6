"""Collects the layers of the net that is made, with their blobs and names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from caffe2torch import schema
from caffe2torch.blobs import Array
from caffe2torch.importing.place import Place
from caffe2torch.importing.values import Refused, Shape, Value
from caffe2torch.schema import Message


@dataclass(frozen=True)
class Origin:
    """What a constant is in the module."""

    path: str
    """Name of the parameter or buffer; empty for what is computed from some."""
    learned: bool


@dataclass
class MadeLayer:
    """A layer, its blobs, and for each blob the parameter it is, if it is one as it stands."""

    message: Message
    blobs: list[Array] = field(default_factory=list)
    origins: list[Origin] = field(default_factory=list)
    path: str = ""
    """The module it was made in, if that has no modules inside."""


class Builder:
    """The layers made so far. Converters add to it; ``place`` says for which call."""

    def __init__(self, module: nn.Module, *, round_mode: bool = False) -> None:
        self.round_mode = round_mode
        """Whether Pooling may be told to round down, which Caffe 1.0 does not know."""
        self.layers: list[MadeLayer] = []
        self.notes: list[str] = []
        self.place = Place("", type(module).__name__, False, False, "")
        self.operation = ""
        self.indices: dict[str, int] = {}
        """Blob of whole numbers -> how many rows the smallest table has that it looks things up in."""
        self._taken: set[str] = set()
        self._origins: dict[int, Origin] = {}
        self._kept: list[Tensor] = []  # an id stands for its object only while that lives
        for name, parameter in module.named_parameters():
            self.remember(parameter, Origin(name, parameter.requires_grad))
        for name, buffer in module.named_buffers():
            self.remember(buffer, Origin(name, False))

    def remember(self, tensor: Tensor, origin: Origin) -> None:
        """Note where a constant comes from."""
        self._origins[id(tensor)] = origin
        self._kept.append(tensor)

    def origin(self, tensor: Tensor) -> Origin:
        """Where a constant comes from; one that nobody noted is not learned."""
        return self._origins.get(id(tensor), Origin("", False))

    def source(self, blob: str, shape: Shape) -> Value:
        """An input of the net."""
        name = self.unique(blob)
        message = schema.new("LayerParameter")
        message.name, message.type = name, "Input"
        message.top.append(name)
        message.input_param.shape.add(dim=shape)
        self.layers.append(MadeLayer(message))
        return Value(name, shape)

    def add(
        self,
        layer_type: str,
        bottoms: Sequence[Value],
        shape: Sequence[int],
        *,
        part: str = "",
        blobs: Sequence[Tensor] = (),
        **settings: Any,
    ) -> Value:
        """Add a layer with one top of this shape. ``part`` tells helpers from the layer that has the call's name."""
        return self.add_many(layer_type, bottoms, [shape], part=part, blobs=blobs, **settings)[0]

    def add_many(
        self,
        layer_type: str,
        bottoms: Sequence[Value],
        shapes: Sequence[Sequence[int]],
        *,
        part: str = "",
        blobs: Sequence[Tensor] = (),
        **settings: Any,
    ) -> list[Value]:
        """Add a layer with tops of these shapes; ``settings`` are fields of LayerParameter."""
        name = self.unique(self._base() + (f".{part}" if part else ""))
        tops = [name] if len(shapes) == 1 else [self.unique(f"{name}.{index}") for index in range(len(shapes))]
        given = {field: values for field, values in settings.items() if values}
        message = schema.message_type("LayerParameter")(
            name=name, type=layer_type, bottom=[value.blob for value in bottoms], top=tops, **given
        )
        path = self.place.path if self.place.alone else ""
        made = MadeLayer(message, [_array(blob) for blob in blobs], [self.origin(blob) for blob in blobs], path)
        self.layers.append(made)
        return [Value(top, tuple(int(dim) for dim in shape)) for top, shape in zip(tops, shapes, strict=True)]

    def reshaped(self, tensor: Tensor, shape: Sequence[int]) -> Tensor:
        """A constant under another shape, of the same origin: still the same parameter."""
        result = tensor.detach().reshape(tuple(shape))
        self.remember(result, self.origin(tensor))
        return result

    def note(self, text: str) -> None:
        """Add something the user has to know, with the place of the call."""
        self.notes.append(f"{self.place}: {text}")

    def unique(self, name: str) -> str:
        """This name, or with a number behind it where it is taken."""
        found, number = name, 2
        while found in self._taken:
            found, number = f"{name}_{number}", number + 1
        self._taken.add(found)
        return found

    def _base(self) -> str:
        if self.place.leaf and self.place.path:
            return self.place.path
        return f"{self.place.path}.{self.operation}" if self.place.path else self.operation


def _array(tensor: Tensor) -> Array:
    if tensor.is_complex():
        raise Refused("its constants are complex numbers, which Caffe has not")
    array: Array = tensor.detach().to("cpu", torch.float32).contiguous().numpy().copy()
    return array
