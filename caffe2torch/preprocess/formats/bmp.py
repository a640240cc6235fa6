"""Windows bitmaps; a palette of greys is a grey picture."""

from __future__ import annotations

import struct

from caffe2torch.errors import ImageError
from caffe2torch.preprocess.formats.header import ADVICE, Header


def read(data: bytes, name: str) -> Header:
    offset, size = struct.unpack_from("<II", data, 10)
    if size == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        compression, colours, entry = 0, 1 << bits if bits <= 8 else 0, 3
    else:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
        colours, entry = struct.unpack_from("<I", data, 46)[0], 4
        if bits <= 8 and not 0 < colours <= 1 << bits:
            colours = 1 << bits
    if compression not in (0, 1, 2, 3) or bits not in (1, 4, 8, 16, 24, 32):
        raise ImageError(f"{name}: a BMP of {bits} bits with compression {compression}; {ADVICE}")
    height = abs(height)  # negative: stored top down
    if compression in (0, 3) and offset + (width * bits + 31) // 32 * 4 * height > len(data):
        raise ImageError(f"{name}: the BMP is cut short: {len(data)} bytes for {width}x{height} at {bits} bits")
    palette = data[14 + size : 14 + size + colours * entry] if bits <= 8 else b""
    grey = bits <= 8 and palette[0::entry] == palette[1::entry] == palette[2::entry]
    return Header("BMP", width, height, grey, data)
