"""The net settings that a caffemodel holds beside its weights, parsed with the schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from google.protobuf.message import DecodeError

from caffe2torch import schema, wire
from caffe2torch.caffemodel.mapped import MappedFile
from caffe2torch.errors import FormatError

Rules: TypeAlias = "Mapping[int, Rules | None]"

# Messages on the way to blobs: field number -> the rules for the message inside, None for a blob.
_V0: Rules = {50: None}
_V1: Rules = {6: None, 1: _V0}
_V2: Rules = {7: None}
_NET: Rules = {2: _V1, 100: _V2}


def read_settings(file: MappedFile) -> schema.Message:
    """The file as a NetParameter in its own syntax, without the blobs: they are cut out before anything is parsed."""
    message = schema.new("NetParameter")
    if file.view.closed:
        raise FormatError(f"{file.path}: was closed; read the net settings before closing it")
    try:
        message.ParseFromString(_without_blobs(file.view, 0, file.size, _NET))
    except DecodeError as error:
        raise FormatError(f"{file.path}: the net settings in it cannot be read: {error}") from error
    return message


def _without_blobs(buffer: wire.Buffer, start: int, stop: int, rules: Rules) -> bytes:
    """The message in ``[start, stop)``, encoded again without the blobs in it."""
    parts: list[bytes] = []
    kept = start  # everything before it is in `parts` or left out
    for item in wire.fields(buffer, start, stop):
        if item.wire != wire.LENGTH or item.number not in rules:
            continue
        parts.append(bytes(buffer[kept : item.begin]))
        kept = item.stop
        inside = rules[item.number]
        if inside is not None:
            body = _without_blobs(buffer, item.start, item.stop, inside)
            parts += [wire.length_prefix(item.number, len(body)), body]
    parts.append(bytes(buffer[kept:stop]))
    return b"".join(parts)
