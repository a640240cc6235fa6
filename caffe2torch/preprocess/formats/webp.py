"""WebP, still or the first picture of an animation."""

from __future__ import annotations

import struct

from caffe2torch.errors import ImageError
from caffe2torch.preprocess.formats.header import Header, exif_orientation


def read(data: bytes, name: str) -> Header:
    (size,) = struct.unpack_from("<I", data, 4)
    if size + 8 > len(data):
        raise ImageError(f"{name}: the WebP is cut short: {len(data)} bytes of {size + 8}")
    width = height = orientation = 0
    position = 12
    while position + 8 <= size + 8:
        chunk = data[position : position + 4]
        (length,) = struct.unpack_from("<I", data, position + 4)
        start = position + 8
        if chunk == b"VP8X":
            width, height = (int.from_bytes(data[start + at : start + at + 3], "little") + 1 for at in (4, 7))
        elif chunk == b"VP8L" and not width:
            (bits,) = struct.unpack_from("<I", data, start + 1)
            width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        elif chunk == b"VP8 " and not width:
            width, height = (value & 0x3FFF for value in struct.unpack_from("<HH", data, start + 6))
        elif chunk == b"EXIF":
            block = data[start : start + length]
            orientation = exif_orientation(block[6:] if block.startswith(b"Exif\0\0") else block)
        position = start + length + (length & 1)
    return Header("WebP", width, height, False, data, orientation or 1)
