"""Read proto2 ``.proto`` text into a FileDescriptorProto, so that no compiler and no generated code is needed.

Only what Caffe and its forks use: messages, enums, plain fields, ``default`` and ``packed``, nested types. Services,
extensions, groups, maps and oneofs are refused by name and line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TypeAlias

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)

from caffe2torch.errors import SchemaError

PACKAGE = "caffe"

_SCALARS = {
    name: getattr(FieldDescriptorProto, "TYPE_" + name.upper())
    for name in (
        *("double", "float", "int32", "int64", "uint32", "uint64", "sint32", "sint64"),
        *("fixed32", "fixed64", "sfixed32", "sfixed64", "bool", "string", "bytes"),
    )
}
_LABELS = {
    "optional": FieldDescriptorProto.LABEL_OPTIONAL,
    "required": FieldDescriptorProto.LABEL_REQUIRED,
    "repeated": FieldDescriptorProto.LABEL_REPEATED,
}
_FLOATS = (FieldDescriptorProto.TYPE_FLOAT, FieldDescriptorProto.TYPE_DOUBLE)
_LONG = {_SCALARS[name] for name in ("int64", "uint64", "sint64", "fixed64", "sfixed64")}
_UNSIGNED = {_SCALARS[name] for name in ("uint32", "uint64", "fixed32", "fixed64")}
_TEXTS = (FieldDescriptorProto.TYPE_STRING, FieldDescriptorProto.TYPE_BYTES)

_QUOTED = r"\"[^\"\\\n]*(?:\\.[^\"\\\n]*)*\"|'[^'\\\n]*(?:\\.[^'\\\n]*)*'"
_COMMENT = re.compile(rf"({_QUOTED})|//[^\n]*|/\*.*?\*/", re.DOTALL)
_OPTIONS = rf"(?:\[((?:[^\]\"']|{_QUOTED})*)\])?"
_STATEMENT = re.compile(
    rf"""\s*(?:
      (?P<label>optional|required|repeated)\s+(?P<type>\.?\w+(?:\.\w+)*)\s+(?P<name>\w+)\s*=\s*(?P<number>\w+)
        \s*{_OPTIONS}\s*;
    | (?P<open>message|enum)\s+(?P<opened>\w+)\s*\{{
    | (?P<close>\}}) \s*;?
    | (?P<ignored>(?:syntax|package|option|import|reserved|extensions)\b(?:[^;\"']|{_QUOTED})*;|;)
    | (?P<value>\w+)\s*=\s*(?P<value_number>-?\w+)\s*{_OPTIONS}\s*;
    | (?P<end>\Z)
    )""",
    re.VERBOSE,
)
_OPTION = re.compile(rf"\s*([\w.()]+)\s*=\s*((?:{_QUOTED}|[^,\"'])+?)\s*(?:,|\Z)")


@dataclass
class ProtoSource:
    """A parsed ``.proto``: its descriptors and, by full name, the file and line of every declaration."""

    path: str
    file: FileDescriptorProto
    places: dict[str, tuple[str, int]] = field(default_factory=dict)

    def declare(self, name: str, line: int) -> None:
        """Note where ``name`` is declared. Raises SchemaError for a second declaration."""
        if name in self.places:
            problem = f"{name} is declared twice (first on line {self.places[name][1]})"
            raise SchemaError(f"{self.path}:{line}: {problem}, expected once")
        self.places[name] = self.path, line

    def error(self, name: str, message: str) -> SchemaError:
        """The error ``message`` at the place where ``name`` (such as ``LayerParameter.top``) is declared."""
        path, line = self.places.get(name, (self.path, 1))
        return SchemaError(f"{path}:{line}: {message}")


def parse_proto(text: str, path: str) -> ProtoSource:
    """Parse ``text``; type names stay as written (see :func:`resolve`). Raises SchemaError with path and line."""
    text = _COMMENT.sub(_blank_comment, text)
    source = ProtoSource(path, FileDescriptorProto(name=path, package=PACKAGE, syntax="proto2"))
    stack: list[DescriptorProto | EnumDescriptorProto] = []
    prefix = ""
    position, line, counted = 0, 1, 0
    while True:
        match = _STATEMENT.match(text, position)
        start = len(text) - len(text[position:].lstrip()) if match is None else match.start(match.lastgroup or 0)
        line, counted = line + text.count("\n", counted, start), start
        if match is None:
            raise SchemaError(f"{path}:{line}: cannot read {_excerpt(text, start)}, expected a message, enum or field")
        position = match.end()
        place = f"{path}:{line}"
        if match["end"] is not None:
            break
        if match["label"]:
            owner = _message_on_top(stack, place, match["name"])
            source.declare(prefix + match["name"], line)
            source.declare(f"{prefix}{_add_field(owner, match, place)} (a number)", line)
        elif match["value"]:
            if not stack or not isinstance(stack[-1], EnumDescriptorProto):
                raise SchemaError(f"{place}: the value {match['value']!r} stands outside an enum")
            source.declare(prefix + match["value"], line)
            stack[-1].value.add(name=match["value"], number=_integer(match["value_number"], place))
        elif match["open"]:
            stack.append(_open(source.file, stack, match["open"], match["opened"], place))
            prefix += match["opened"] + "."
            source.declare(prefix[:-1], line)
        elif match["close"]:
            if not stack:
                raise SchemaError(f"{place}: '}}' without '{{'")
            stack.pop()
            prefix = prefix[: prefix.rfind(".", 0, -1) + 1]
    if stack:
        raise SchemaError(f"{path}:{line}: the file ends inside {prefix[:-1]}, expected '}}'")
    return source


def _blank_comment(match: re.Match[str]) -> str:
    """A comment becomes its newlines, so that lines keep their numbers; a quoted string stays."""
    return match[1] or " " + "\n" * match[0].count("\n")


def _excerpt(text: str, start: int) -> str:
    return repr(text[start : start + 60].split("\n")[0].rstrip()) if start < len(text) else "the end of the file"


def _open(
    file: FileDescriptorProto,
    stack: list[DescriptorProto | EnumDescriptorProto],
    kind: str,
    name: str,
    place: str,
) -> DescriptorProto | EnumDescriptorProto:
    if not stack:
        return file.message_type.add(name=name) if kind == "message" else file.enum_type.add(name=name)
    owner = _message_on_top(stack, place, name)
    return owner.nested_type.add(name=name) if kind == "message" else owner.enum_type.add(name=name)


def _message_on_top(stack: list[DescriptorProto | EnumDescriptorProto], place: str, name: str) -> DescriptorProto:
    if stack and isinstance(stack[-1], DescriptorProto):
        return stack[-1]
    where = f"inside the enum {stack[-1].name}" if stack else "outside a message"
    raise SchemaError(f"{place}: {name!r} stands {where}")


def _integer(text: str, place: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise SchemaError(f"{place}: found {text!r}, expected a number") from None


def _add_field(owner: DescriptorProto, match: re.Match[str], place: str) -> int:
    """Add the field and return its number."""
    number = _integer(match["number"], place)
    if not 0 < number < 1 << 29 or 19000 <= number < 20000:
        allowed = f"expected 1 to {(1 << 29) - 1} without 19000 to 19999"
        raise SchemaError(f"{place}: {number} cannot be the number of a field, {allowed}")
    new = owner.field.add(name=match["name"], label=_LABELS[match["label"]], number=number)
    scalar = _SCALARS.get(match["type"])
    if scalar is None:
        new.type_name = match["type"]
    else:
        new.type = scalar
    options = match[5]
    if not options:
        return new.number
    for key, value in _OPTION.findall(options):
        if key == "packed":
            new.options.packed = value == "true"
        elif key == "default":
            new.default_value = _default(new, value, place)
    return new.number


def _default(owner: FieldDescriptorProto, value: str, place: str) -> str:
    """The default as a FileDescriptorProto wants it: strings unquoted, numbers in plain decimal."""
    if owner.type in _TEXTS:
        if value[0] not in "\"'":
            raise SchemaError(f"{place}: found {value!r}, expected a string in quotes as default")
        return value[1:-1]
    if owner.type_name:
        return value
    if owner.type == FieldDescriptorProto.TYPE_BOOL:
        if value not in ("true", "false"):
            raise SchemaError(f"{place}: found {value!r}, expected true or false as default")
        return value
    if owner.type in _FLOATS:
        try:
            return repr(float(value))
        except ValueError:
            raise SchemaError(f"{place}: found {value!r}, expected a number as default") from None
    number = _integer(value, place)
    bits = 64 if owner.type in _LONG else 32
    low, high = (0, 1 << bits) if owner.type in _UNSIGNED else (-1 << bits - 1, 1 << bits - 1)
    if not low <= number < high:
        raise SchemaError(f"{place}: the default {number} is out of range, expected {low} to {high - 1}")
    return str(number)


# What a type name stands for: the values of an enum, or None for a message
_Types: TypeAlias = "dict[str, set[str] | None]"


def resolve(source: ProtoSource) -> None:
    """Turn every type name as written into ``.caffe.Name`` with its kind, by proto2's inside-out scoping."""
    types: _Types = {enum.name: {value.name for value in enum.value} for enum in source.file.enum_type}
    for message in source.file.message_type:
        _collect(message, message.name, types)
    for message in source.file.message_type:
        _resolve(message, message.name, types, source)


def _collect(message: DescriptorProto, name: str, types: _Types) -> None:
    types[name] = None
    for enum in message.enum_type:
        types[f"{name}.{enum.name}"] = {value.name for value in enum.value}
    for nested in message.nested_type:
        _collect(nested, f"{name}.{nested.name}", types)


def _resolve(message: DescriptorProto, name: str, types: _Types, source: ProtoSource) -> None:
    for member in message.field:
        if not member.type_name:
            continue
        written = member.type_name.lstrip(".").removeprefix(PACKAGE + ".")
        scope = name
        while scope and f"{scope}.{written}" not in types:
            scope = scope.rpartition(".")[0]
        full = f"{scope}.{written}" if scope else written
        if full not in types:
            raise source.error(f"{name}.{member.name}", f"unknown type {written!r} of the field {member.name!r}")
        values = types[full]
        member.type_name = f".{PACKAGE}.{full}"
        member.type = FieldDescriptorProto.TYPE_MESSAGE if values is None else FieldDescriptorProto.TYPE_ENUM
        if member.default_value and member.default_value not in (values or ()):
            problem = f"the default {member.default_value!r} of the field {member.name!r} is no value of {full}"
            raise source.error(f"{name}.{member.name}", problem)
    for nested in message.nested_type:
        _resolve(nested, f"{name}.{nested.name}", types, source)
