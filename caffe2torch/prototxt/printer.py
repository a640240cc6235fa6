"""Print a message the way Caffe does: two spaces of indent, enum names, shortest numbers that read back equal."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor as Field

from caffe2torch.schema import Message, is_repeated

_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def to_text(message: Message) -> str:
    """``message`` as prototxt; parsing it gives an equal message."""
    return "".join(f"{line}\n" for line in _lines(message, ""))


def _lines(message: Message, indent: str) -> Iterator[str]:
    for field, value in message.ListFields():
        for item in value if is_repeated(field) else (value,):
            if field.type == Field.TYPE_MESSAGE:
                yield f"{indent}{field.name} {{"
                yield from _lines(item, indent + "  ")
                yield f"{indent}}}"
            else:
                yield f"{indent}{field.name}: {_scalar(field, item)}"


def _scalar(field: Any, value: Any) -> str:
    kind = field.type
    if kind == Field.TYPE_STRING:
        return '"' + "".join(_ESCAPES.get(char) or _printable(char) for char in value) + '"'
    if kind == Field.TYPE_BYTES:
        return '"' + "".join(_byte(byte) for byte in value) + '"'
    if kind == Field.TYPE_BOOL:
        return "true" if value else "false"
    if kind == Field.TYPE_ENUM:
        named = field.enum_type.values_by_number.get(value)
        return named.name if named else str(value)
    if kind == Field.TYPE_FLOAT:
        return _float32(value)
    if kind == Field.TYPE_DOUBLE:
        return _float64(value)
    return str(value)


def _printable(char: str) -> str:
    if char.isprintable():
        return char
    return "".join(f"\\{byte:03o}" for byte in char.encode())


def _byte(byte: int) -> str:
    char = chr(byte)
    return _ESCAPES.get(char) or (char if 32 <= byte < 127 else f"\\{byte:03o}")


def _float32(value: float) -> str:
    if not math.isfinite(value):
        return repr(value)
    exact = struct.pack("<f", value)
    for digits in range(6, 9):
        text = f"{value:.{digits}g}"
        if struct.pack("<f", float(text)) == exact:
            return text
    return f"{value:.9g}"


def _float64(value: float) -> str:
    text = repr(value)
    return text.removesuffix(".0")
