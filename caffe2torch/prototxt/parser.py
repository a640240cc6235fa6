"""The recursive-descent parser from text format to a message, with errors that say what was expected where."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any, NoReturn

from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor import FieldDescriptor as Field

from caffe2torch.errors import PrototxtError
from caffe2torch.prototxt import tokens
from caffe2torch.prototxt.hints import nearest, wanted
from caffe2torch.prototxt.problems import Problems, UnknownField
from caffe2torch.prototxt.tokens import INTEGER_RANGES, Token
from caffe2torch.schema import Message, is_repeated, required_names

_MAX_DEPTH = 100
_TRUE, _FALSE = ("true", "True", "t"), ("false", "False", "f")
_CLOSERS = {"{": "}", "<": ">"}
_FLOAT_TYPES = (Field.TYPE_FLOAT, Field.TYPE_DOUBLE)


class Parser:
    """Parses one text; ``unknown`` collects fields the schema lacks, None makes them an error."""

    def __init__(self, text: str, path: str, unknown: list[UnknownField] | None, encoding: str = "utf-8") -> None:
        text = text.removeprefix("\N{BYTE ORDER MARK}")
        if "\n" not in text:  # lines that end in CR alone: a comment must not swallow the rest of the file
            text = text.replace("\r", "\n")
        self._path, self._encoding = path, encoding
        self._problems = Problems(text, path, unknown)
        self._tokens = tokens.tokens(text)
        self._token = next(self._tokens)
        self._named: Counter[str] = Counter()

    def parse(self, message: Message) -> None:
        """Fill ``message`` with the whole text. Raises PrototxtError, naming all unknown fields at once."""
        try:
            self._message(message, "", 0)
        except RecursionError:
            raise PrototxtError("the text nests too deep", path=self._path) from None
        self._problems.raise_any()

    # ------------------------------------------------------------------------------------------------ errors

    def _fail(self, token: Token, message: str) -> NoReturn:
        self._problems.fail(token.start, message)

    def _expected(self, what: str) -> NoReturn:
        self._fail(self._token, f"found {self._token.describe()}, expected {what}")

    # ------------------------------------------------------------------------------------------------ structure

    def _advance(self) -> Token:
        token = self._token
        self._token = next(self._tokens)
        return token

    def _at(self, symbol: str) -> bool:
        return self._token.kind == "symbol" and self._token.text == symbol

    def _skip(self, symbol: str) -> bool:
        if self._at(symbol):
            self._advance()
            return True
        return False

    def _message(self, message: Message, closer: str, depth: int) -> None:
        """Fields up to ``closer`` (the end of the file where it is empty)."""
        descriptor = message.DESCRIPTOR
        fields = descriptor.fields_by_name
        seen: dict[str, int] = {}
        while True:
            token = self._token
            if token.kind == "name":
                self._advance()
                field = fields.get(token.text)
                if field is None:
                    self._unknown_field(token, descriptor, depth)
                else:
                    if not is_repeated(field):
                        self._refuse_second(token, descriptor, seen)
                    self._field(message, field, depth)
                if not self._skip(";"):
                    self._skip(",")
            elif token.kind == "end" and not closer:
                break
            elif closer and self._at(closer):
                self._advance()
                break
            else:
                end = f"{closer!r}" if closer else "the end of the file"
                self._expected(f"a field of {descriptor.name} or {end}")
        missing = [name for name in required_names(descriptor) if name not in seen]
        if missing:
            self._fail(token, f"{descriptor.name} lacks its required field {', '.join(missing)}")

    def _refuse_second(self, token: Token, descriptor: Descriptor, seen: dict[str, int]) -> None:
        first = seen.setdefault(token.text, token.start)
        if first != token.start:
            line, _ = self._problems.place(first)
            problem = f"{token.text!r} is given twice in this {descriptor.name} (first on line {line}), expected once"
            self._fail(token, problem)

    def _field(self, message: Message, field: Any, depth: int) -> None:
        if field.type == Field.TYPE_MESSAGE or field.type == Field.TYPE_GROUP:
            self._skip(":")
            if is_repeated(field):
                target = getattr(message, field.name)
                if self._skip("["):
                    self._list(lambda: self._item(target.add(), field, depth))
                else:
                    self._item(target.add(), field, depth)
            else:
                target = getattr(message, field.name)
                target.SetInParent()
                self._submessage(target, field, depth)
            return
        if not self._skip(":"):
            self._expected(f"':' and {wanted(field)} for {field.name!r}")
        if not is_repeated(field):
            setattr(message, field.name, self._value(field))
        elif self._skip("["):
            target = getattr(message, field.name)
            self._list(lambda: target.append(self._value(field)))
        else:
            getattr(message, field.name).append(self._value(field))

    def _item(self, message: Message, field: Any, depth: int) -> None:
        before = self._problems.count()
        self._submessage(message, field, depth)
        if field.name in ("layer", "layers"):
            name = (message.layer.name if field.name == "layers" else "") or message.name  # the oldest form's is inside
            if self._problems.count() > before:
                self._problems.name_layer(before, name, self._named[name])
            self._named[name] += 1

    def _list(self, item: Any) -> None:
        if self._skip("]"):
            return
        item()
        while not self._skip("]"):
            if not self._skip(","):
                self._expected("',' or ']'")
            item()

    def _submessage(self, message: Message, field: Any, depth: int) -> None:
        if self._token.text not in _CLOSERS or self._token.kind != "symbol":
            self._expected(f"'{{' to open {field.name!r}")
        if depth >= _MAX_DEPTH:
            self._fail(self._token, f"messages nest more than {_MAX_DEPTH} deep")
        closer = _CLOSERS[self._advance().text]
        self._message(message, closer, depth + 1)

    # ------------------------------------------------------------------------------------------------ unknown fields

    def _unknown_field(self, token: Token, descriptor: Descriptor, depth: int) -> None:
        self._problems.unknown(token.start, token.text, descriptor)
        colon = self._skip(":")
        if not colon and not (self._at("{") or self._at("<")):
            self._expected(f"':' or '{{' after {token.text!r}")
        self._skip_value(depth)

    def _skip_value(self, depth: int) -> None:
        token = self._token
        if token.kind == "symbol" and token.text in _CLOSERS:
            if depth >= _MAX_DEPTH:
                self._fail(token, f"messages nest more than {_MAX_DEPTH} deep")
            self._advance()
            self._skip_fields(_CLOSERS[token.text], depth + 1)
        elif self._skip("["):
            if depth >= _MAX_DEPTH:
                self._fail(token, f"lists nest more than {_MAX_DEPTH} deep")
            self._list(lambda: self._skip_value(depth + 1))
        elif token.kind == "string":
            while self._token.kind == "string":
                self._advance()
        else:
            self._skip("-")
            if self._token.kind not in ("name", "number"):
                self._expected("a value")
            self._advance()

    def _skip_fields(self, closer: str, depth: int) -> None:
        while not self._skip(closer):
            if self._token.kind != "name":
                self._expected(f"a field or {closer!r}")
            name = self._advance()
            if not self._skip(":") and not (self._at("{") or self._at("<")):
                self._expected(f"':' or '{{' after {name.text!r}")
            self._skip_value(depth)
            if not self._skip(";"):
                self._skip(",")

    # ------------------------------------------------------------------------------------------------ values

    def _value(self, field: Any) -> Any:
        kind = field.type
        if kind in INTEGER_RANGES:
            return self._integer(field, *INTEGER_RANGES[kind])
        if kind in _FLOAT_TYPES:
            return self._float(field)
        if kind == Field.TYPE_BOOL:
            return self._bool(field)
        if kind == Field.TYPE_ENUM:
            return self._enum(field)
        return self._string(field)

    def _integer(self, field: Any, low: int, high: int) -> int:
        minus = self._skip("-")
        value = tokens.integer(self._token.text) if self._token.kind == "number" else None
        if value is None:
            self._expected(wanted(field))
        value = -value if minus else value
        if not low <= value <= high:
            shown = "-" * minus + self._token.text[:40]
            self._fail(self._token, f"{shown} is out of range for {field.name!r}, expected {low} to {high}")
        self._advance()
        return value

    def _float(self, field: Any) -> float:
        minus = self._skip("-")
        token = self._token
        value: float | None = None
        if token.kind == "number":
            value = tokens.real(token.text, field.type)
            if value is not None and math.isinf(value):
                self._fail(token, f"{token.text[:40]} is too large for {field.name!r}")
        elif token.kind == "name" and token.text.lower() in ("inf", "infinity", "nan"):
            value = float(token.text)
        if value is None:
            self._expected(wanted(field))
        self._advance()
        return -value if minus else value

    def _bool(self, field: Any) -> bool:
        token = self._token
        if token.kind == "name" and token.text in (*_TRUE, *_FALSE):
            value = token.text in _TRUE
        elif token.kind == "number" and tokens.integer(token.text) in (0, 1):
            value = tokens.integer(token.text) == 1
        else:
            self._expected(wanted(field))
        self._advance()
        return value

    def _enum(self, field: Any) -> int:
        values = field.enum_type
        token = self._token
        if token.kind == "name":
            named = values.values_by_name.get(token.text)
            if named is None:
                near = nearest(token.text, values.values_by_name)
                hint = f"; did you mean {near}?" if near else ""
                self._fail(token, f"found {token.text!r}, expected {wanted(field)}{hint}")
            self._advance()
            return int(named.number)
        if token.kind == "string":
            hint = ""
            if field.name == "type" and field.containing_type.name == "V1LayerParameter":
                hint = " (type names in quotes belong to 'layer {', not to the older 'layers {')"
            self._expected(f"{wanted(field)} without quotes{hint}")
        minus = self._skip("-")
        number = tokens.integer(self._token.text) if self._token.kind == "number" else None
        number = -number if minus and number is not None else number
        if number is None or number not in values.values_by_number:
            self._expected(wanted(field))
        self._advance()
        return number

    def _string(self, field: Any) -> str | bytes:
        if self._token.kind != "string":
            hint = ""
            if self._token.kind == "name" and field.name == "type" and field.containing_type.name == "LayerParameter":
                hint = " (type names without quotes belong to the older 'layers {', not to 'layer {')"
            self._expected(f"{wanted(field)}{hint}")
        first = self._token
        parts: list[bytes] = []
        while self._token.kind == "string":
            try:
                parts.append(tokens.unquote(self._token.text, self._encoding))
            except ValueError as error:
                self._fail(self._token, str(error))
            self._advance()
        raw = b"".join(parts)
        if field.type == Field.TYPE_BYTES:
            return raw
        try:
            return raw.decode(self._encoding)
        except UnicodeDecodeError:
            self._fail(first, f"the escapes in this string are not UTF-8, expected text for {field.name!r}")
