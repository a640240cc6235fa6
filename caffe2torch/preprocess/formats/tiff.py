"""TIFF: the first picture, 8-bit or bilevel grey, palette or RGB; nothing that libtiff would convert on the way."""

from __future__ import annotations

import struct

from caffe2torch.errors import ImageError
from caffe2torch.preprocess.formats.header import ADVICE, Header

_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _ORIENTATION, _SAMPLES, _FORMAT = 256, 257, 258, 262, 274, 277, 339
_SIZES = {1: 1, 3: 2, 4: 4}  # BYTE, SHORT, LONG
_LETTERS = {1: "B", 3: "H", 4: "I"}
_GREY = (0, 1)  # white is zero, black is zero
_NAMES = {2: "RGB", 3: "palette", 5: "CMYK (printing inks)", 6: "YCbCr", 8: "CIE L*a*b*"}


def read(data: bytes, name: str) -> Header:
    """The first directory. OpenCV would turn the picture by its orientation tag: the tag is set to upright."""
    order = "<" if data[:2] == b"II" else ">"
    tags, orientation_at = _directory(data, order)
    width, height = tags.get(_WIDTH, [0])[0], tags.get(_HEIGHT, [0])[0]
    bits, samples = tags.get(_BITS, [1]), tags.get(_SAMPLES, [1])[0]
    photometric, formats = tags.get(_PHOTOMETRIC, [-1])[0], tags.get(_FORMAT, [1])
    wanted = 3 if photometric == 2 else 1
    form = "grey" if photometric in _GREY else _NAMES.get(photometric, f"photometric {photometric}")
    if photometric not in (*_GREY, 2, 3) or set(formats) != {1}:
        raise ImageError(f"{name}: a {form} TIFF with sample format {formats[0]}; {ADVICE}")
    if samples != wanted:
        raise ImageError(f"{name}: a {form} TIFF of {samples} samples a pixel (alpha?), expected {wanted}; {ADVICE}")
    if set(bits) != {8} and not (set(bits) == {1} and photometric in _GREY):
        raise ImageError(f"{name}: a {form} TIFF of {bits[0]} bits a sample; {ADVICE}")
    orientation = tags.get(_ORIENTATION, [1])[0]
    if orientation != 1:
        data = data[:orientation_at] + struct.pack(order + "H", 1) + data[orientation_at + 2 :]
    upright = orientation if 1 <= orientation <= 8 else 1
    return Header("TIFF", width, height, photometric in _GREY, data, upright)


def _directory(data: bytes, order: str) -> tuple[dict[int, list[int]], int]:
    """Tag -> its whole numbers (at most 16 of them), and where the orientation's value lies."""
    tags: dict[int, list[int]] = {}
    orientation_at = 0
    (start,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, start)
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, number = struct.unpack_from(order + "HHI", data, entry)
        if kind not in _SIZES or not number:
            continue
        place = entry + 8
        if number * _SIZES[kind] > 4:
            (place,) = struct.unpack_from(order + "I", data, place)
        if tag == _ORIENTATION and kind == 3:
            orientation_at = place
        elif tag == _ORIENTATION:
            continue
        tags[tag] = list(struct.unpack_from(f"{order}{min(number, 16)}{_LETTERS[kind]}", data, place))
    return tags, orientation_at
