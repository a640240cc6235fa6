"""TIFF: the first picture, 8-bit or bilevel grey, palette or RGB; nothing that libtiff would convert on the way."""

from __future__ import annotations

import struct

from caffe2torch.errors import ImageError
from caffe2torch.preprocess.formats.header import ADVICE, Header

_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _ORIENTATION, _SAMPLES, _FORMAT = 256, 257, 258, 262, 274, 277, 339
_STRIPS, _STRIP_BYTES, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES = 273, 279, 322, 323, 324, 325
_LARGEST_TILE = 1 << 24  # pixels; usual are 256 x 256
_WANTED = frozenset(
    (
        *(_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _ORIENTATION, _SAMPLES, _FORMAT),
        *(_STRIPS, _STRIP_BYTES, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES),
    )
)
_MOST_NUMBERS = 1 << 20  # of one tag, against files that claim millions of strips
_SIZES = {3: 2, 4: 4}  # SHORT, LONG
_LETTERS = {3: "H", 4: "I"}
_GREY = (0, 1)  # white is zero, black is zero
_NAMES = {2: "RGB", 3: "palette", 5: "CMYK (printing inks)", 6: "YCbCr", 8: "CIE L*a*b*"}


def read(data: bytes, name: str) -> Header:
    """The first directory. OpenCV would turn the picture by its orientation tag: the tag is set to upright."""
    order = "<" if data[:2] == b"II" else ">"
    tags, orientation_at = _directory(data, order, name)
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
    _check_parts(tags, len(data), name)
    orientation = tags.get(_ORIENTATION, [1])[0]
    if orientation != 1:
        data = data[:orientation_at] + struct.pack(order + "H", 1) + data[orientation_at + 2 :]
    upright = orientation if 1 <= orientation <= 8 else 1
    return Header("TIFF", width, height, photometric in _GREY, data, upright)


def _directory(data: bytes, order: str, name: str) -> tuple[dict[int, list[int]], int]:
    """Tag -> its whole numbers, and where the orientation's value lies."""
    tags: dict[int, list[int]] = {}
    orientation_at = 0
    (start,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, start)
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, number = struct.unpack_from(order + "HHI", data, entry)
        if tag not in _WANTED or tag in tags or kind not in _SIZES or not number:
            continue
        if number > _MOST_NUMBERS:
            raise ImageError(f"{name}: damaged TIFF: tag {tag} has {number} numbers")
        place = entry + 8
        if number * _SIZES[kind] > 4:
            (place,) = struct.unpack_from(order + "I", data, place)
        if tag == _ORIENTATION:
            orientation_at = place + (2 if kind == 4 and order == ">" else 0)  # the low half of a LONG
        tags[tag] = list(struct.unpack_from(f"{order}{number}{_LETTERS[kind]}", data, place))
    return tags, orientation_at


def _check_parts(tags: dict[int, list[int]], size: int, name: str) -> None:
    """Strips and tiles must lie within the file: libtiff takes as much memory as they claim before it reads."""
    for starts, lengths in ((_STRIPS, _STRIP_BYTES), (_TILES, _TILE_BYTES)):
        for start, length in zip(tags.get(starts, []), tags.get(lengths, []), strict=False):
            if start + length > size:
                raise ImageError(f"{name}: the TIFF is cut short: {size} bytes, pixels at {start} to {start + length}")
    tile = tags.get(_TILE_WIDTH, [1])[0] * tags.get(_TILE_HEIGHT, [1])[0]
    if tile > _LARGEST_TILE:
        raise ImageError(f"{name}: damaged TIFF: tiles of {tile} pixels")
