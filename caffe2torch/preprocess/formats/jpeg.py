"""JPEG: refuses inks and more than 8 bits, finds files that were cut."""

from __future__ import annotations

import struct

from caffe2torch.errors import ImageError
from caffe2torch.preprocess.formats.header import ADVICE, Header, exif_orientation


def read(data: bytes, name: str) -> Header:
    """Walks the segments up to the first scan, then asks for the end marker, without which the file was cut."""
    position, orientation, frame = 2, 1, None
    while True:
        if data[position] != 0xFF:
            raise ImageError(f"{name}: damaged JPEG: byte {position} is not a marker")
        while data[position] == 0xFF:
            position += 1
        marker = data[position]
        position += 1
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:
            continue
        if marker == 0xD9:
            raise ImageError(f"{name}: a JPEG without a picture")
        (length,) = struct.unpack_from(">H", data, position)
        if length < 2:
            raise ImageError(f"{name}: damaged JPEG: a segment of length {length} at byte {position}")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            frame = (marker, *struct.unpack_from(">BHHB", data, position + 2))
        elif marker == 0xE1 and data[position + 2 : position + 8] == b"Exif\0\0":
            orientation = exif_orientation(data[position + 8 : position + length])
        elif marker == 0xDA:
            break
        position += length
    if frame is None:
        raise ImageError(f"{name}: damaged JPEG: a scan before the frame header")
    # Entropy-coded bytes never hold FF D9. Some decoders paint what is missing grey and say nothing.
    if data.rfind(b"\xff\xd9", position) < 0:
        raise ImageError(f"{name}: the JPEG is cut short: no end marker in {len(data)} bytes")
    form, precision, height, width, channels = frame
    if form not in (0xC0, 0xC1, 0xC2, 0xC9, 0xCA):
        raise ImageError(f"{name}: a lossless or hierarchical JPEG (frame type {form:#x}); {ADVICE}")
    if precision != 8:
        raise ImageError(f"{name}: a JPEG of {precision} bits a sample; {ADVICE}")
    if channels not in (1, 3):
        kind = "CMYK (printing inks)" if channels == 4 else f"{channels}-channel"
        raise ImageError(f"{name}: a {kind} JPEG, whose colours depend on a profile; {ADVICE}")
    return Header("JPEG", width, height, channels == 1, data, orientation)
