"""Snappy's raw format, which LevelDB compresses its blocks with; see format_description.txt of google/snappy.

A varint says how long the result is; then come literals (bytes to take over) and copies (bytes that came before).
"""

from __future__ import annotations

from caffe2torch.errors import FormatError
from caffe2torch.wire import read_varint

_BEST_RATIO = 64  # a copy of 3 bytes makes at most 64


def decompress(data: bytes) -> bytes:
    """The bytes that ``data`` stands for; FormatError when it is damaged."""
    length, position = read_varint(data, 0, min(len(data), 5))
    if length > _BEST_RATIO * len(data):
        raise FormatError(f"{len(data)} compressed bytes cannot hold {length}")
    out = bytearray()
    while position < len(data):
        tag = data[position]
        kind = tag & 3
        if kind == 0:
            size = (tag >> 2) + 1
            position += 1
            if size > 60:
                extra = size - 60
                size = int.from_bytes(data[position : position + extra], "little") + 1
                position += extra
            out += data[position : position + size]
            position += size
            continue
        if kind == 1:
            size, width = (tag >> 2 & 7) + 4, 1
            offset = (tag >> 5) << 8 | data[position + 1] if position + 1 < len(data) else 0
        else:
            size, width = (tag >> 2) + 1, 2 if kind == 2 else 4
            offset = int.from_bytes(data[position + 1 : position + 1 + width], "little")
        position += 1 + width
        start = len(out) - offset
        if offset == 0 or start < 0:
            raise FormatError(f"compressed byte {position}: a copy from {offset} bytes back, after {len(out)} bytes")
        if offset >= size:
            out += out[start : start + size]
        else:  # the copy overlaps what it makes: a pattern repeats
            out += (out[start:] * (size // offset + 1))[:size]
        if len(out) > length:
            break
    if len(out) != length or position != len(data):
        raise FormatError(f"compressed data make {len(out)} bytes, expected {length}")
    return bytes(out)
