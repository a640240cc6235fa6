"""GIF: the first picture of the file, as MATLAB reads it."""

from __future__ import annotations

import struct

from caffe2torch.errors import ImageError
from caffe2torch.preprocess.formats.header import ADVICE, Header


def read(data: bytes, name: str) -> Header:
    """The first picture. Its transparency flag is cleared: its own colours come out whatever the decoder does."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    position = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    transparent: list[int] = []
    while data[position] == 0x21:
        if data[position + 1] == 0xF9 and data[position + 3] & 1:
            transparent.append(position + 3)
        position += 2
        while data[position]:
            position += data[position] + 1
        position += 1
    if data[position] != 0x2C:
        raise ImageError(f"{name}: a GIF without a picture")
    left, top, inner_width, inner_height = struct.unpack_from("<HHHH", data, position + 1)
    if (left, top, inner_width, inner_height) != (0, 0, width, height):
        raise ImageError(f"{name}: a GIF whose first picture does not cover its {width}x{height} canvas; {ADVICE}")
    if transparent:
        patched = bytearray(data)
        for flag in transparent:
            patched[flag] &= 0xFE
        data = bytes(patched)
    return Header("GIF", width, height, False, data)
