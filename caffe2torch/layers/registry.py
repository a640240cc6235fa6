"""The table from Caffe's layer type names to classes, and the base class of every layer.

A layer is one class::

    @register("Power")
    class Power(Layer):
        def __init__(self, power: float = 1.0, scale: float = 1.0, shift: float = 0.0) -> None: ...

        @classmethod
        def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> Power:
            p = layer.power_param
            return cls(p.power, p.scale, p.shift)

        def forward(self, x: Tensor) -> Tensor: ...
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from caffe2torch.errors import LayerError, UnsupportedLayerError

Shape = tuple[int, ...]
MAX_COUNT = 2**31 - 1
MAX_AXES = 32
Message = Any  # a caffe.LayerParameter; its fields are made at run time, so no static type exists


class Layer(nn.Module):
    """Base of all layers. ``from_caffe`` alone reads the prototxt message; ``forward`` is pure.

    Class attributes drive everything the net does with a layer:

    * ``caffe_type``: set by ``register`` (``type`` is a method of every torch module).
    * ``blobs``: attribute names of the parameter blobs in Caffe's order (``("weight", "bias")``). Attributes that
      are ``None`` (``bias_term: false``) are skipped. A blob may be a Parameter, or a buffer when Caffe never gives
      it a gradient (BatchNorm's statistics).
    * ``loss``: the first top has loss_weight 1 unless the prototxt says otherwise.
    * ``no_gradient``: indices of bottoms Caffe never propagates to, not even under ``force_backward`` (labels: Caffe's
      AllowForceBackward is false for them). The net detaches them, and so do the layers here, for use without one.
      ``propagate_down: false`` is another matter, which ``force_backward`` overrides.
    * ``sink``: the layer runs for what it does (writing a file), so it stays in the plan though nobody reads its tops.
    * ``bottoms`` / ``tops``: allowed counts as (least, most); most ``None`` means any number.

    ``forward`` takes the bottoms in order. It returns a Tensor for one top, and a tuple for none or several; a top may
    be the very tensor (or a view) of a bottom, so nobody may write into a blob that is read again.
    """

    caffe_type: ClassVar[str] = ""
    blobs: tuple[str, ...] = ()
    loss: ClassVar[bool] = False
    sink: bool = False
    no_gradient: tuple[int, ...] = ()
    bottoms: ClassVar[tuple[int, int | None]] = (1, 1)
    tops: ClassVar[tuple[int, int | None]] = (1, 1)

    backward_reads: frozenset[str] = frozenset()
    """What Caffe's backward reads of "top", "bottom" and "bottom's sign", for a layer that has ``caffe_backward``.

    "input" is what Caffe has kept of the bottom as it was: ``caffe_backward`` then gets that, also in place.
    The net uses that only where an in-place layer has overwritten what is read; otherwise autograd serves.
    """

    caffe_name: str = ""
    """Name of the layer in its prototxt, set by the net, for messages."""

    files: Mapping[str, str] = MappingProxyType({})
    """Buffers whose values come from a BlobProto file: attribute name -> path, as the prototxt gives it.

    ``from_caffe`` sets it and makes the buffers; the loader reads the files, since layers never do.
    """

    def blob_items(self) -> list[tuple[str, Tensor]]:
        """The parameter blobs this layer has, (attribute name, tensor), in Caffe's order."""
        return [(name, value) for name in self.blobs if (value := getattr(self, name)) is not None]

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> Layer:
        """Build the layer from its ``LayerParameter`` (V2, ``phase`` set) and the shapes of its bottoms."""
        raise NotImplementedError

    def caffe_backward(self, gradient: Tensor, bottom: Tensor, top: Tensor) -> Tensor:
        """What Caffe's backward makes of the top's gradient, given what the blobs then hold (one tensor in place)."""
        raise NotImplementedError

    def adapt(self, shapes: Sequence[Shape]) -> None:
        """Learn the shapes of the blobs in a weights file, before they are matched: some are known from there alone."""

    def overwritten_gradients(self, bottom_shapes: Sequence[Shape]) -> tuple[str, ...]:
        """Attribute names of the blobs whose gradient Caffe's backward overwrites, instead of adding to it.

        With ``iter_size`` above 1 only the last pass then counts.
        """
        return ()

    def top_shapes(self, bottom_shapes: Sequence[Shape]) -> list[Shape] | None:
        """The largest shapes the tops can have, for layers whose shapes depend on the values of their bottoms.

        None, the rule: the net finds the shapes by running the layer once on meta tensors.
        """
        return None

    def fill(self, layer: Message, generator: torch.Generator | None = None) -> None:
        """Initialise the parameter blobs with the layer's fillers, as Caffe does for blobs not in any weights file."""


L = TypeVar("L", bound=type[Layer])
_registry: dict[str, type[Layer]] = {}


def register(*types: str) -> Callable[[L], L]:
    """Class decorator: make a Layer known under its Caffe type name (and the other names forks gave it)."""

    def add(cls: L) -> L:
        cls.caffe_type = types[0]
        for name in types:
            _registry[name] = cls
        return cls

    return add


def find(layer_type: str) -> type[Layer] | None:
    """The class registered for a Caffe type name, or None."""
    return _registry.get(layer_type)


def parameter(shape: Sequence[int]) -> nn.Parameter:
    """An uninitialised parameter blob; Caffe allows no blob of more than 2^31 - 1 values."""
    check_count(shape, "a parameter blob")
    try:
        return nn.Parameter(torch.empty(tuple(shape)))
    except RuntimeError as error:
        raise LayerError(
            f"there is not enough memory for a parameter blob of shape {tuple(shape)}, "
            f"{4 * math.prod(shape) / 1e9:.1f} GB; check num_output, the kernel and the input shape"
        ) from error


def check_count(shape: Sequence[int], what: str) -> None:
    """Raise LayerError for a shape that no Caffe blob can have."""
    if len(shape) > MAX_AXES:
        raise LayerError(f"{what} has {len(shape)} axes: Caffe allows at most {MAX_AXES}")
    if any(dim < 0 for dim in shape) or math.prod(shape) > MAX_COUNT:
        raise LayerError(
            f"{what} of shape {tuple(shape)} is impossible: Caffe allows at most {MAX_COUNT} values; "
            "check num_output, the kernel and the input shape"
        )


def canonical_axis(axis: int, shape: Sequence[int], field: str) -> int:
    """The axis counted from the front; negative ones count from the end. ``field`` names it in the error."""
    ndim = len(shape)
    if not ndim:
        raise LayerError(f"{field} is {axis}, but the bottom is a scalar, which has no axes")
    if not -ndim <= axis < ndim:
        raise LayerError(
            f"{field} is {axis}, but the bottom has {ndim} axes {tuple(shape)}: expected {-ndim} to {ndim - 1}"
        )
    return axis % ndim


def refuse(p: Message, *fields: str) -> None:
    """Raise LayerError for fields of Caffe's forks that are set and would change what the layer computes."""
    for field in fields:
        value = getattr(p, field)
        if value and value != p.DESCRIPTOR.fields_by_name[field].default_value:
            raise LayerError(
                f"{p.DESCRIPTOR.name} has {field}: {value!r}, a fork's extension that is not supported; "
                "remove it, or register a class of your own for the layer"
            )


def enum_name(p: Message, field: str) -> str:
    """The name of an enum field's value."""
    name: str = p.DESCRIPTOR.fields_by_name[field].enum_type.values_by_number[getattr(p, field)].name
    return name


def types() -> tuple[str, ...]:
    """All registered type names, sorted."""
    return tuple(sorted(_registry))


def unregistered(wanted: Sequence[tuple[str, str]]) -> list[str]:
    """A line for each type among (layer name, type) that nobody registered, with its layers and a near type."""
    unknown: dict[str, list[str]] = {}
    for name, layer_type in wanted:
        if layer_type not in _registry:
            unknown.setdefault(layer_type, []).append(name)
    lines = []
    for layer_type, names in unknown.items():
        near = difflib.get_close_matches(layer_type, _registry, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        lines.append(f"  {layer_type!r} of layer {', '.join(repr(n) for n in names)}{hint}")
    return lines


def require(wanted: Sequence[tuple[str, str]], hint: str = "") -> None:
    """Raise one UnsupportedLayerError naming every (layer name, type) that nobody registered."""
    if lines := unregistered(wanted):
        raise UnsupportedLayerError(
            "no class is registered for these layer types:\n"
            + "\n".join(lines)
            + "\nAdd one with @caffe2torch.register(TYPE): docs/custom-layers.md shows how. Outside of training only "
            "those that the wanted blobs need have to be known (outputs, --blob)." + hint
        )
