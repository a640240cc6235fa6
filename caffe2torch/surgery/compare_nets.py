"""What differs between two nets, layer by layer and field by field, whatever syntax each is written in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from caffe2torch.schema import Message, is_repeated
from caffe2torch.upgrade.compare import canonical


@dataclass(frozen=True)
class FieldChange:
    """One setting: what it is in the first net and in the second; None where it is absent."""

    field: str
    first: str | None
    second: str | None

    def __str__(self) -> str:
        return f"{self.field}: {'absent' if self.first is None else self.first} -> " + (
            "absent" if self.second is None else self.second
        )


@dataclass(frozen=True)
class NetDifferences:
    """Layers by name (repeated names are told apart as ``name#2``), and fields of the net beside its layers."""

    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    changed: tuple[tuple[str, tuple[FieldChange, ...]], ...]
    net: tuple[FieldChange, ...]
    order: bool
    """The layers both have come in another order."""
    common: int

    @property
    def equal(self) -> bool:
        """Whether the nets mean the same."""
        return not (self.only_first or self.only_second or self.changed or self.net or self.order)


def compare_nets(first: Message, second: Message, *, splits: bool = True) -> NetDifferences:
    """Compare two NetParameters of any syntax by meaning: upgraded, defaults left out (``upgrade.canonical``).

    Without ``splits`` the Split layers that Caffe inserts are undone first, as for nets from weights files.
    """
    one, other = (canonical(net) if splits else _without_splits(canonical(net)) for net in (first, second))
    ours, theirs = _by_name(one.layer), _by_name(other.layer)
    common = [name for name in ours if name in theirs]
    changed = [(name, tuple(_changes(ours[name], theirs[name], ""))) for name in common]
    rest = [type(net)() for net in (one, other)]
    for copy, net in zip(rest, (one, other), strict=True):
        copy.CopyFrom(net)
        copy.ClearField("layer")
    return NetDifferences(
        only_first=tuple(name for name in ours if name not in theirs),
        only_second=tuple(name for name in theirs if name not in ours),
        changed=tuple(each for each in changed if each[1]),
        net=tuple(_changes(rest[0], rest[1], "")),
        order=common != [name for name in theirs if name in ours],
        common=len(common),
    )


def _by_name(layers: Sequence[Message]) -> dict[str, Message]:
    found: dict[str, Message] = {}
    for layer in layers:
        name, number = layer.name, 1
        while name in found:
            number += 1
            name = f"{layer.name}#{number}"
        found[name] = layer
    return found


def _without_splits(net: Message) -> Message:
    """The net as before Caffe put in Split layers, and without the phase it noted in each layer."""
    result = type(net)()
    result.CopyFrom(net)
    result.ClearField("layer")
    names: dict[str, str] = {}
    for layer in net.layer:
        if layer.type == "Split" and all(f"{layer.bottom[0]}_" in top and "_split_" in top for top in layer.top):
            names.update(dict.fromkeys(layer.top, names.get(layer.bottom[0], layer.bottom[0])))
            continue
        copy = result.layer.add()
        copy.CopyFrom(layer)
        copy.ClearField("phase")
        copy.bottom[:] = [names.get(blob, blob) for blob in layer.bottom]
    return result


def _changes(first: Message, second: Message, path: str) -> Iterator[FieldChange]:
    for field in first.DESCRIPTOR.fields:
        if field.name == "blobs":
            continue
        where = f"{path}.{field.name}" if path else field.name
        ours, theirs = _values(first, field), _values(second, field)
        if not field.message_type:
            if ours != theirs:
                yield FieldChange(where, _shown(field, ours), _shown(field, theirs))
            continue
        for index in range(max(len(ours), len(theirs))):
            place = f"{where}[{index}]" if is_repeated(field) else where
            one = ours[index] if index < len(ours) else None
            other = theirs[index] if index < len(theirs) else None
            if one is not None and other is not None:
                yield from _changes(one, other, place)
            else:
                yield FieldChange(place, _brief(one), _brief(other))


def _values(message: Message, field: Any) -> list[Any]:
    value = getattr(message, field.name)
    if is_repeated(field):
        return list(value)
    return [value] if message.HasField(field.name) else []


def _shown(field: Any, values: Sequence[Any]) -> str | None:
    """The values as prototxt has them; a default that is not written out says so."""
    if not values:
        return f"{_shown(field, [field.default_value])} (default)" if field.has_default_value else None
    if field.enum_type:
        known = field.enum_type.values_by_number
        return ", ".join(known[value].name if value in known else str(value) for value in values)
    if field.cpp_type == field.CPPTYPE_BOOL:
        return ", ".join("true" if value else "false" for value in values)
    if field.cpp_type == field.CPPTYPE_FLOAT:
        return ", ".join(f"{value:.9g}" for value in values)
    return ", ".join(repr(value) if isinstance(value, str) else str(value) for value in values)


def _brief(message: Message | None) -> str | None:
    if message is None:
        return None
    text = " ".join(str(message).split())
    return f"{{ {text} }}" if len(text) <= 80 else f"{{ {text[:77]}... }}"
