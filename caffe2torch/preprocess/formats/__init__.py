"""What a picture file says about itself, read before OpenCV decodes it: one module a format.

OpenCV turns nearly everything into 8-bit BGR without a word: inks, 16-bit samples, half a file. So each format's
header is read here, forms without a defined meaning for a net are refused by name, and damage that decoders paint
over is found. A handful of bytes is looked at; only PNG is read whole, for its checksums.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from caffe2torch.errors import ImageError
from caffe2torch.preprocess.formats import bmp, gif, jpeg, png, pnm, tiff, unknown, webp
from caffe2torch.preprocess.formats.header import ADVICE, Header

__all__ = ["ADVICE", "Header", "read_header"]

_READERS: tuple[tuple[Callable[[bytes], bool], Callable[[bytes, str], Header]], ...] = (
    (lambda data: data.startswith(b"\xff\xd8\xff"), jpeg.read),
    (lambda data: data.startswith(b"\x89PNG\r\n\x1a\n"), png.read),
    (lambda data: data.startswith(b"BM"), bmp.read),
    (lambda data: data.startswith((b"GIF87a", b"GIF89a")), gif.read),
    (lambda data: data.startswith((b"II*\0", b"MM\0*")), tiff.read),
    (lambda data: data.startswith(b"RIFF") and data[8:12] == b"WEBP", webp.read),
    (lambda data: data[:1] == b"P" and data[1:2] in b"123456" and data[2:3].isspace(), pnm.read),
)


def is_picture(head: bytes) -> bool:
    """Whether a file that begins with these bytes (16 are enough) is of a format that is handled."""
    return any(matches(head) for matches, _ in _READERS)


def read_header(data: bytes, name: str) -> Header:
    """The header of any format that is handled; ImageError for damage, a refused form, or another kind of file."""
    for matches, read in _READERS:
        if matches(data):
            try:
                return read(data, name)
            except (struct.error, IndexError) as error:
                raise ImageError(f"{name}: cut short: the header does not end within {len(data)} bytes") from error
    raise ImageError(f"{name}: not a picture that can be read: it looks like {unknown.describe(data)}; {ADVICE}")
