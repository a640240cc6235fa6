"""Caffe's text files in and out: nets, solvers and any other message.

``parse`` reads what protobuf's C++ parser reads, and unlike protobuf's Python one it names line, column and a near name
for a field the schema lacks, and all such fields of a file at once. ``read_net`` and ``read_solver`` also upgrade.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from caffe2torch import schema as schemas
from caffe2torch.errors import PrototxtError
from caffe2torch.prototxt.parser import Parser
from caffe2torch.prototxt.printer import to_text
from caffe2torch.prototxt.problems import UnknownField, refusal
from caffe2torch.schema import Message, Schema
from caffe2torch.upgrade import upgrade_net, upgrade_solver

__all__ = ["UnknownField", "parse", "read", "read_net", "read_solver", "refusal", "require_layers", "to_text"]

_MAX_BYTES = 1 << 28
_CONTROL = frozenset(range(32)) - frozenset(b"\t\n\v\f\r")


def parse(
    text: str,
    message_type: str = "NetParameter",
    *,
    path: str = "<string>",
    unknown: list[UnknownField] | None = None,
    schema: Schema | None = None,
) -> Message:
    """Parse ``text`` into a message, without upgrading it.

    A field the schema lacks is an error, or, where a list is given as ``unknown``, is appended to it and skipped.
    Raises PrototxtError with ``path``, line and column.
    """
    message = (schema or schemas.default()).new(message_type)
    Parser(text, path, unknown).parse(message)
    return message


def read(
    path: str | os.PathLike[str],
    message_type: str = "NetParameter",
    unknown: list[UnknownField] | None = None,
    *,
    schema: Schema | None = None,
) -> Message:
    """Parse the file at ``path`` as it stands, without upgrading it.

    The text is UTF-8; where it is not, each byte is one character (Latin-1), which keeps names equal to themselves.
    """
    name = os.fspath(path)
    text, encoding = _decode(_read_bytes(name), name)
    message = (schema or schemas.default()).new(message_type)
    Parser(text, name, unknown, encoding).parse(message)
    return message


def read_net(
    path: str | os.PathLike[str], unknown: list[UnknownField] | None = None, *, schema: Schema | None = None
) -> Message:
    """The net at ``path`` in current (V2) form. Raises PrototxtError also for a file without layers."""
    found: list[UnknownField] = [] if unknown is None else unknown
    net = read(path, "NetParameter", found, schema=schema)
    require_layers(net, path, found)
    if unknown is None and found:
        raise refusal(found)
    return upgrade_net(net, path=os.fspath(path))


def require_layers(net: Message, path: str | os.PathLike[str], unknown: Sequence[UnknownField] = ()) -> None:
    """Raise PrototxtError for a net without layers; fields of a solver among the ``unknown`` tell what it is."""
    if net.layer or net.layers:
        return
    solver = schemas.message_type("SolverParameter").DESCRIPTOR.fields_by_name
    named = [field.name for field in unknown if field.name in solver]
    hint = f"; its {', '.join(named[:3])} make it a solver: give the net that the solver names" if named else ""
    raise PrototxtError(
        f"no layers in this file, expected a net ('layer {{' or 'layers {{'){hint}", path=os.fspath(path)
    )


def read_solver(
    path: str | os.PathLike[str], unknown: list[UnknownField] | None = None, *, schema: Schema | None = None
) -> Message:
    """The solver at ``path`` in current form, nets written inside it upgraded too."""
    solver = read(path, "SolverParameter", unknown, schema=schema)
    return upgrade_solver(solver, path=os.fspath(path))


def _read_bytes(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(4096)
            _refuse_binary(head, path)
            if size > _MAX_BYTES:
                raise PrototxtError(f"{size} bytes, expected a prototxt of at most {_MAX_BYTES}", path=path)
            rest = file.read(_MAX_BYTES)  # a pipe may have no end
            if len(rest) == _MAX_BYTES:
                raise PrototxtError(f"expected a prototxt of at most {_MAX_BYTES} bytes, found more", path=path)
            return head + rest
    except OSError as error:
        raise PrototxtError(f"cannot be read: {error.strerror}", path=path) from error
    except ValueError as error:  # a NUL in the name
        raise PrototxtError(f"{path!r} cannot be the name of a file: {error}", path="prototxt") from error


def _refuse_binary(head: bytes, path: str) -> None:
    zeros = (head[::2].count(0), head[1::2].count(0))
    if head[:2] in (b"\xff\xfe", b"\xfe\xff") or (min(zeros) == 0 and max(zeros) * 4 > len(head)):
        raise PrototxtError("the text is UTF-16, expected UTF-8; save the file as UTF-8", path=path)
    if head[:8] == b"\x89HDF\r\n\x1a\n":
        raise PrototxtError("this is an HDF5 file (weights?), expected a prototxt", path=path)
    if head.lstrip()[:5].lower() in (b"<!doc", b"<html"):
        problem = "this is a web page, saved in place of the prototxt; fetch the file itself (on GitHub its 'Raw' form)"
        raise PrototxtError(problem, path=path)
    for offset, byte in enumerate(head):
        if byte in _CONTROL:
            problem = f"byte {byte:#04x} at offset {offset}: this is a binary file (weights?), expected a prototxt"
            raise PrototxtError(problem, path=path)


def _decode(data: bytes, path: str) -> tuple[str, str]:
    if b"\0" in data:
        raise PrototxtError(f"byte 0x00 at offset {data.index(0)}: expected text", path=path)
    try:
        return data.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        return data.decode("latin-1"), "latin-1"
