"""What error messages add: the nearest field, the block a field belongs to, the values a field takes."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor import FieldDescriptor as Field

from caffe2torch.prototxt.tokens import INTEGER_RANGES


@dataclass(frozen=True)
class UnknownField:
    """A field that the schema's message ``parent`` lacks, and where it stands (line and column from 1)."""

    path: str
    line: int
    column: int
    name: str
    parent: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}: no field {self.name!r} in {self.parent}"


def wanted(field: Any) -> str:
    """The values a scalar field takes."""
    kind = field.type
    if kind == Field.TYPE_ENUM:
        names = sorted(field.enum_type.values_by_name)
        return "one of " + ", ".join(names if len(names) <= 8 else [*names[:8], "..."])
    if kind == Field.TYPE_BOOL:
        return "true or false"
    if kind in INTEGER_RANGES:
        return "an integer" if INTEGER_RANGES[kind][0] else "an integer >= 0"
    return "a number" if kind in (Field.TYPE_FLOAT, Field.TYPE_DOUBLE) else "a string in quotes"


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate most like ``name``, capitals aside; None if none is near."""
    by_lower = {candidate.lower(): candidate for candidate in candidates}
    near = difflib.get_close_matches(name[:80].lower(), by_lower, 1)
    return by_lower[near[0]] if near else None


def unknown_message(name: str, descriptor: Descriptor) -> str:
    """Why the field ``name`` is refused, with the nearest one or the block that has it."""
    problem = f"no field {name!r} in {descriptor.name}"
    owners = [
        field.name for field in descriptor.fields if field.message_type and name in field.message_type.fields_by_name
    ]
    near = nearest(name, descriptor.fields_by_name)
    if near and not owners:
        return f"{problem}; did you mean {near!r}?"
    if owners:
        return f"{problem}; it belongs inside {' or '.join(repr(owner) for owner in owners[:3])}"
    messages = descriptor.file.message_types_by_name.values()
    others = [message.name for message in messages if name in message.fields_by_name]
    return f"{problem}; {others[0]} has one" if others else problem
