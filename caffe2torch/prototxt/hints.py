"""What error messages add: the nearest field, the block a field belongs to, the values a field takes."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor import FieldDescriptor as Field

from caffe2torch.prototxt.tokens import INTEGER_RANGES

# The three generations of a layer, current first
_FORMS = {
    "LayerParameter": "the current form ('layer { type: \"...\" }')",
    "V1LayerParameter": "the older form ('layers { type: ... }')",
    "V0LayerParameter": "the inner 'layer' of the oldest form ('layers { layer { ... } }')",
}


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


def hint_for(name: str, descriptor: Descriptor) -> str:
    """What may be meant by a field that there is not: the block or the form that has it, or the nearest field."""
    owners = [
        field.name for field in descriptor.fields if field.message_type and name in field.message_type.fields_by_name
    ]
    if owners:
        return f"; it belongs inside {' or '.join(repr(owner) for owner in owners[:3])}"
    messages = descriptor.file.message_types_by_name
    if descriptor.name in _FORMS:
        for form, words in _FORMS.items():
            if name in messages[form].fields_by_name:
                return f"; it belongs to {words}"
    near = nearest(name, descriptor.fields_by_name)
    if near:
        return f"; did you mean {near!r}?"
    others = [message.name for message in messages.values() if name in message.fields_by_name]
    return f"; {others[0]} has one" if others else ""
