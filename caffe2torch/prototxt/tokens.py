"""Tokens and scalar values of protobuf's text format, as its C++ parser (and so Caffe) reads them."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from google.protobuf.descriptor import FieldDescriptor as Field

# Comments and white space are part of the match in front of a token; `number` is deliberately too wide, so that `3x` or
# `1.2.3` is one bad number in an error message, as in C++.
_TOKEN = re.compile(
    r"""(?:[ \t\r\n\v\f]+|\#[^\n]*)*
    (?: (?P<name>[A-Za-z_]\w*)
    | (?P<number>\.?\d(?:[eE][+-](?=\d)|[\w.])*)
    | (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
    | (?P<symbol>[{}<>\[\]:;,\-])
    | (?P<end>\Z)
    | (?P<bad>.) )""",
    re.VERBOSE | re.ASCII,
)
_INTEGER = re.compile(r"0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*")
_FLOAT = re.compile(r"((?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)[fF]?")
_ESCAPE = re.compile(
    rb"\\(?:([abfnrtv\\?'\"])|([0-7]{1,3})|[xX]([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.|\Z))",
    re.DOTALL,
)
_SIMPLE_ESCAPES = dict(zip(b"abfnrtv\\?'\"", b"\a\b\f\n\r\t\v\\?'\"", strict=True))
_TYPOGRAPHIC = "\N{LEFT DOUBLE QUOTATION MARK}\N{RIGHT DOUBLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}"
_MAX_DIGITS = 30  # far beyond any 64-bit number, and short enough to convert in no time
_HUGE = 1 << 100

INTEGER_RANGES = {
    **dict.fromkeys((Field.TYPE_INT32, Field.TYPE_SINT32, Field.TYPE_SFIXED32), (-(2**31), 2**31 - 1)),
    **dict.fromkeys((Field.TYPE_INT64, Field.TYPE_SINT64, Field.TYPE_SFIXED64), (-(2**63), 2**63 - 1)),
    **dict.fromkeys((Field.TYPE_UINT32, Field.TYPE_FIXED32), (0, 2**32 - 1)),
    **dict.fromkeys((Field.TYPE_UINT64, Field.TYPE_FIXED64), (0, 2**64 - 1)),
}


class Token(NamedTuple):
    """One token: ``kind`` is name, number, string, symbol, end or bad; ``start`` its offset in the text."""

    kind: str
    text: str
    start: int

    def describe(self) -> str:
        """The token as an error message names it."""
        if self.kind == "end":
            return "the end of the file"
        if self.kind == "bad" and self.text in "\"'":
            return "a string without its closing quote on the same line"
        if self.kind == "bad" and not self.text.isascii():
            shown = f"{self.text!r} (U+{ord(self.text):04X})"
            return f"{shown}, a quote of the wrong kind" if self.text in _TYPOGRAPHIC else shown
        shown = self.text if len(self.text) <= 40 else self.text[:37] + "..."
        return shown if self.kind == "string" else repr(shown)


def tokens(text: str) -> Iterator[Token]:
    """All tokens of ``text``, the last of kind ``end``."""
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or "end"
        yield Token(kind, match[kind], match.start(kind))
        if kind == "end":
            return


def place(text: str, start: int) -> tuple[int, int]:
    """Line and column, both from 1, of the offset ``start``."""
    return text.count("\n", 0, start) + 1, start - text.rfind("\n", 0, start)


def integer(text: str) -> int | None:
    """A decimal, octal (leading 0) or hexadecimal integer; None if ``text`` is not one."""
    if not _INTEGER.fullmatch(text):
        return None
    if len(text) > _MAX_DIGITS:
        return _HUGE
    if text[:2] in ("0x", "0X"):
        return int(text, 16)
    return int(text, 8 if text[0] == "0" else 10)


def real(text: str, field_type: int) -> float | None:
    """A decimal number, an ``f`` behind it allowed; None if ``text`` is not one. Too large for the type: infinite.

    C++ takes 010 for neither eight nor ten where it wants a float, so a leading zero is refused here too.
    """
    match = _FLOAT.fullmatch(text)
    if match is None or (text[0] == "0" and text[1:2].isdigit()):
        return None
    value = float(match[1])
    if field_type == Field.TYPE_FLOAT:
        try:
            struct.pack("<f", value)
        except OverflowError:
            return math.inf
    return value


def unquote(text: str, encoding: str) -> bytes:
    """The bytes of a quoted string. Raises ValueError naming the escape that does not exist."""
    raw = text[1:-1].encode(encoding)
    if b"\\" not in raw:
        return raw
    raw = _join_surrogates(raw)
    return _ESCAPE.sub(_unescape, raw)


def _unescape(match: re.Match[bytes]) -> bytes:
    simple, octal, hexadecimal, short, long, wrong = match.groups()
    if simple:
        return bytes([_SIMPLE_ESCAPES[simple[0]]])
    if wrong is not None or (octal and int(octal, 8) > 255):
        raise ValueError(f"unknown escape {match[0].decode('latin-1')!r} in a string")
    if octal or hexadecimal:
        return bytes([int(octal, 8) if octal else int(hexadecimal, 16)])
    code = int(short or long, 16)
    if code > 0x10FFFF or 0xD800 <= code < 0xE000:
        raise ValueError(f"{match[0].decode('ascii')} in a string is no Unicode character")
    return chr(code).encode()


def _join_surrogates(raw: bytes) -> bytes:
    r"""``\ud83d\ude00`` is one character written as two."""

    def join(match: re.Match[bytes]) -> bytes:
        high, low = int(match[2], 16), int(match[3], 16)
        return match[1] + b"\\U%08x" % (0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))

    pair = rb"((?<!\\)(?:\\\\)*)\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})"
    return re.sub(pair, join, raw)
