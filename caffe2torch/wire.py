"""Protocol buffer wire format: a walker that trusts no length, and the few encodings a writer needs.

A message is a row of fields, each a tag (field number and wire type) and a value; see
https://protobuf.dev/programming-guides/encoding/. What the numbers mean is the caller's affair.

The walker reads any buffer that can be indexed, such as a memory map, and copies nothing: lengths are checked against
the enclosing message before they are believed. One thing is done for speed: a row of fixed-width fields with the same
tag (an unpacked ``repeated float`` of millions of values) comes as one field with a count.
"""

from __future__ import annotations

from collections.abc import Iterator
from mmap import mmap
from typing import NamedTuple

import numpy as np

from caffe2torch.errors import FormatError

Buffer = bytes | bytearray | memoryview | mmap

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
_WIDTH = {FIXED64: 8, FIXED32: 4}
_LARGEST_NUMBER = (1 << 29) - 1
_WINDOW = 1 << 20  # tags compared at once when following a row: bounds the memory


class Field(NamedTuple):
    """One field of a message; offsets count from the beginning of the buffer.

    ``begin`` is where the tag starts, ``start`` and ``stop`` enclose the payload. For FIXED32 and FIXED64 the field may
    be a row of ``repeats`` equal tags, each followed by its value: value ``i`` starts at ``start + i * stride``.
    """

    number: int
    wire: int
    begin: int
    start: int
    stop: int
    value: int = 0
    repeats: int = 1
    stride: int = 0


def fields(buffer: Buffer, start: int = 0, stop: int | None = None) -> Iterator[Field]:
    """Walk the fields of the message that lies in ``buffer[start:stop]``.

    Raises FormatError, naming the byte, for truncated and overlong numbers, lengths past the end of the message, field
    number 0, groups (no message of ours has them, and they could nest without end) and unknown wire types.
    """
    end = len(buffer) if stop is None else stop
    position = start
    while position < end:
        begin = position
        tag, position = read_varint(buffer, position, end)
        number, wire = tag >> 3, tag & 7
        if not 1 <= number <= _LARGEST_NUMBER:
            raise FormatError(f"byte {begin}: field number {number}, expected 1 to {_LARGEST_NUMBER}")
        if wire == LENGTH:
            length, position = read_varint(buffer, position, end)
            _check_room(begin, number, length, end - position)
            yield Field(number, wire, begin, position, position + length)
            position += length
        elif wire == VARINT:
            value, after = read_varint(buffer, position, end)
            yield Field(number, wire, begin, position, after, value)
            position = after
        elif wire in _WIDTH:
            width = _WIDTH[wire]
            _check_room(begin, number, width, end - position)
            stride = position - begin + width
            count = _row(buffer, begin, end, stride) if position == begin + 1 else 1
            yield Field(number, wire, begin, position, begin + count * stride, 0, count, stride)
            position = begin + count * stride
        else:
            raise FormatError(f"byte {begin}: wire type {wire} of field {number}, expected 0, 1, 2 or 5")


def read_varint(buffer: Buffer, position: int, stop: int) -> tuple[int, int]:
    """The unsigned base-128 number at ``position`` and the position after it; at most 10 bytes and 64 bits."""
    value = shift = 0
    for at in range(position, min(position + 10, stop)):
        byte = buffer[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64:
                raise FormatError(f"byte {position}: a number of more than 64 bits")
            return value, at + 1
        shift += 7
    if stop - position >= 10:
        raise FormatError(f"byte {position}: a number of more than 10 bytes")
    raise FormatError(f"byte {position}: a number is cut off at byte {stop}")


def varints(buffer: Buffer, start: int, stop: int) -> Iterator[int]:
    """The numbers of a packed ``repeated`` integer field, unsigned."""
    while start < stop:
        value, start = read_varint(buffer, start, stop)
        yield value


def signed(value: int, bits: int = 64) -> int:
    """The two's complement reading of an unsigned number, as ``int64`` (``int32``: by its lower bits) reads it."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def varint(value: int) -> bytes:
    """Encode an integer; negative numbers take ten bytes, as ``int32`` and ``int64`` do."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def tag(number: int, wire: int) -> bytes:
    """Encode what precedes every value: field number and wire type."""
    return varint(number << 3 | wire)


def length_prefix(number: int, length: int) -> bytes:
    """Encode what precedes ``length`` bytes of payload of field ``number``."""
    return tag(number, LENGTH) + varint(length)


def _check_room(begin: int, number: int, length: int, room: int) -> None:
    if length > room:
        raise FormatError(f"byte {begin}: field {number} claims {length} bytes, but its message has only {room} left")


def _row(buffer: Buffer, begin: int, end: int, stride: int) -> int:
    """How many fields with the one-byte tag at ``begin`` follow each other, ``stride`` bytes apart."""
    available = (end - begin) // stride
    count = 1
    if available < 2 or buffer[begin + stride] != buffer[begin]:
        return count
    window = 64
    while count < available:
        size = min(window, available - count)
        tags = np.frombuffer(buffer, np.uint8, size * stride, begin + count * stride)[::stride]
        different = np.flatnonzero(tags != buffer[begin])
        if different.size:
            return count + int(different[0])
        count += size
        window = min(window * 4, _WINDOW)
    return count
