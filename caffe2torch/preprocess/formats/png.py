"""PNG: checksums, sizes and depth; only what makes the picture goes on to the decoder."""

from __future__ import annotations

import struct
import zlib

from caffe2torch.errors import ImageError
from caffe2torch.preprocess.formats.header import ADVICE, Header, exif_orientation

_CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type: grey, RGB, palette, grey + alpha, RGB + alpha
_BEST_RATIO = 1032  # deflate cannot do better; a picture that would need more is not all there


def read(data: bytes, name: str) -> Header:
    """Walks all chunks. Transparency, colour profiles and animation are left out: colours come as stored."""
    parts, dropped, orientation, packed = [data[:8]], False, 1, 0
    position, kind = 8, b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            raise ImageError(f"{name}: the PNG is cut short: chunk {_text(kind)} ends at byte {end} of {len(data)}")
        if position == 8 and (kind != b"IHDR" or length != 13):
            raise ImageError(f"{name}: damaged PNG: it begins with chunk {_text(kind)} of {length} bytes, not IHDR")
        if kind in _CRITICAL:
            (checksum,) = struct.unpack_from(">I", data, end - 4)
            if zlib.crc32(memoryview(data)[position + 4 : end - 4]) != checksum:
                raise ImageError(f"{name}: damaged PNG: wrong checksum in chunk {_text(kind)} at byte {position}")
            parts.append(data[position:end])
            packed += length if kind == b"IDAT" else 0
        else:
            dropped = True
            if kind == b"eXIf":
                orientation = exif_orientation(data[position + 8 : end - 4])
        position = end
    width, height, depth, colour = struct.unpack_from(">IIBB", data, 16)
    if colour not in _SAMPLES:
        raise ImageError(f"{name}: damaged PNG: colour type {colour}")
    if depth == 16:
        raise ImageError(f"{name}: a PNG of 16 bits a sample; {ADVICE}")
    if (width * _SAMPLES[colour] * depth + 7) // 8 * height > _BEST_RATIO * packed:
        raise ImageError(f"{name}: the PNG is cut short: {packed} compressed bytes cannot hold {width}x{height} pixels")
    return Header("PNG", width, height, colour in (0, 4), b"".join(parts) if dropped else data, orientation)


def _text(kind: bytes) -> str:
    return repr(kind.decode("latin-1"))
