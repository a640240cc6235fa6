"""Tokens and scalar values of protobuf's text format, as its C++ parser (and so Caffe) reads them."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from google.protobuf.descriptor import FieldDescriptor as Field

# `number` is deliberately too wide, so that `3x` or `1.2.3` is one bad number in an error message, as in C++. No group
# is repeated without bound: the regex engine would keep memory for every repetition.
_TOKEN = re.compile(
    r"""(?P<skip>[ \t\r\n\v\f]+(?:\#[^\n]*)?|\#[^\n]*)
    | (?P<name>[A-Za-z_]\w*)
    | (?P<number>\.?\d[\w.]*(?:(?<=[eE])[+-]\d[\w.]*)?)
    | (?P<string>"[^"\\\n]*"|'[^'\\\n]*')
    | (?P<symbol>[{}<>\[\]:;,\-])
    | (?P<escaped>["'])
    | (?P<end>\Z)
    | (?P<bad>.)""",
    re.VERBOSE | re.ASCII | re.DOTALL,
)
_STRING_STOPS = {'"': re.compile(r'["\\\n]'), "'": re.compile(r"['\\\n]")}
_INTEGER = re.compile(r"0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*")
_FLOAT = re.compile(r"((?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)[fF]?")
_ESCAPE = re.compile(
    rb"\\(?:([abfnrtv\\?'\"])|([0-7]{1,3})|[xX]([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.|\Z))",
    re.DOTALL,
)
_SIMPLE_ESCAPES = dict(zip(b"abfnrtv\\?'\"", b"\a\b\f\n\r\t\v\\?'\"", strict=True))
_BYTES = [bytes((value,)) for value in range(256)]
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
    match_at = _TOKEN.match
    position = 0
    while match := match_at(text, position):
        kind, start, position = match.lastgroup or "end", match.start(), match.end()
        if kind == "skip":
            continue
        if kind == "escaped":
            position = _end_of_string(text, start)
            kind = "string" if position > start + 1 else "bad"
        yield Token(kind, text[start:position], start)
        if kind == "end":
            return


def _end_of_string(text: str, start: int) -> int:
    """The offset behind the closing quote of a string with escapes; just behind the opening one if none closes it."""
    quote = text[start]
    stop = _STRING_STOPS[quote].search(text, start + 1)
    while stop is not None and stop[0] == "\\" and text[stop.end() : stop.end() + 1] != "\n":
        stop = _STRING_STOPS[quote].search(text, stop.end() + 1)
    return stop.end() if stop is not None and stop[0] == quote else start + 1


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
        return _BYTES[_SIMPLE_ESCAPES[simple[0]]]
    if wrong is not None or (octal and int(octal, 8) > 255):
        raise ValueError(f"unknown escape {match[0].decode('latin-1')!r} in a string")
    if octal or hexadecimal:
        return _BYTES[int(octal, 8) if octal else int(hexadecimal, 16)]
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
