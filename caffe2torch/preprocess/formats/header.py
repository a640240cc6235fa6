"""What is learnt from a picture file before OpenCV decodes it, and the EXIF orientation that several formats carry."""

from __future__ import annotations

import struct
from dataclasses import dataclass

ADVICE = "convert it to an 8-bit RGB or grey PNG first"


@dataclass(frozen=True)
class Header:
    """``grey``: one channel and no colours. ``orientation``: EXIF's 1..8, 1 is upright. ``data``: what to decode."""

    kind: str
    width: int
    height: int
    grey: bool
    data: bytes
    orientation: int = 1


def exif_orientation(tiff: bytes) -> int:
    """Tag 274 of an EXIF block (a TIFF structure without image), 1 where there is none or it makes no sense."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", tiff, entry)
            if tag == 274 and kind == 3:
                return value if 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1
