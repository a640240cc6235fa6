"""Tying a parameter of one layer to another layer's, also under another shape."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from caffe2torch.layers.registry import Layer


def tie(layer: Layer, name: str, owner: Layer, owner_name: str) -> None:
    """Make ``layer.name`` the same parameter as ``owner.owner_name``; of another shape, a view of it.

    A view is a property of a class made for this one layer, so that gradients add up in the owner, moving the net
    keeps the tie, and ``torch.compile`` sees an ordinary attribute. Buffers are always tied so, since moving or casting
    a net replaces each module's buffers by copies.
    """
    theirs = getattr(owner, owner_name)
    shape = tuple(getattr(layer, name).shape)
    if shape == tuple(theirs.shape) and isinstance(theirs, nn.Parameter):
        layer._parameters[name] = theirs
        return
    layer._parameters.pop(name, None)
    layer._buffers.pop(name, None)
    ties = dict(getattr(layer, "_ties", {}))
    ties[name] = shape
    object.__setattr__(layer, "_ties", ties)
    # Kept out of _modules on purpose: the owner is already a child of the net.
    layer.__dict__[f"_owner_{name}"] = (owner, owner_name)
    layer.__class__ = _tied_class(_plain_class(type(layer)), tuple(ties.items()))


def owned(layer: Layer, name: str) -> Tensor:
    """The tensor that holds the blob and its gradient: the owner's where the layer has only a view of another shape."""
    tied = layer.__dict__.get(f"_owner_{name}")
    tensor: Tensor = getattr(*tied) if tied else getattr(layer, name)
    return tensor


def lenders(layer: Layer) -> set[Layer]:
    """The layers whose blobs this one has views of; it needs them wherever it goes."""
    return {layer.__dict__[f"_owner_{name}"][0] for name in getattr(layer, "_ties", {})} - {layer}


def _plain_class(cls: type[Layer]) -> type[Layer]:
    return cls.__mro__[1] if cls.__dict__.get("_tied") else cls


def _tied_class(cls: type[Layer], ties: tuple[tuple[str, tuple[int, ...]], ...]) -> type[Layer]:
    def view(name: str, shape: tuple[int, ...]) -> property:
        def get(self: Any) -> Tensor:
            owner, owner_name = self.__dict__[f"_owner_{name}"]
            value: Tensor = getattr(owner, owner_name)
            return value.view(shape)

        return property(get)

    def reduce(self: Any) -> tuple[Any, ...]:
        return _restore, (cls, ties), self.__dict__

    members: dict[str, Any] = {name: view(name, shape) for name, shape in ties}
    return type(cls.__name__, (cls,), {**members, "_tied": True, "__reduce__": reduce})


def _restore(cls: type[Layer], ties: tuple[tuple[str, tuple[int, ...]], ...]) -> Layer:
    made = _tied_class(cls, ties)
    return made.__new__(made)
