"""The contact sheet: each picture with its code beneath, as the papers' demo shows them."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from caffe2torch.errors import ImageError, OutputError
from caffe2torch.extract.contents import Contents
from caffe2torch.files import atomic_path
from caffe2torch.preprocess import read_image
from caffe2torch.retrieval.codes import Bits, Packed, unpack

Canvas = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]  # B, G, R

LIMIT = 64  # pictures drawn
COLUMNS = 8
MARGIN, GAP, PADDING = 36, 18, 14
PICTURE = 192  # pixels each way
LINE_BITS, BIT_HEIGHT = 32, 8  # most bits in one line, height of a bit
DIGITS, HEX_LINES = 16, 4  # hexadecimal digits in a line, most lines
LINE = 20  # height of a line of text
HEADER = 58
SUPERSAMPLE = 4  # text is drawn this much larger and shrunk, since OpenCV's letters are thin strokes

BACKGROUND, CARD, BORDER, EMPTY = (250, 248, 247), (255, 255, 255), (228, 224, 220), (243, 241, 239)
INK, FAINT = (52, 42, 36), (146, 136, 128)
SET, UNSET = (104, 66, 32), (236, 230, 224)


class Card(NamedTuple):
    """One picture of the sheet."""

    name: str
    file: str
    packed: Packed
    failed: bool


def draw_sheet(path: Path, contents: Contents, *, title: str, exif: bool = False) -> int:
    """Draw the first LIMIT pictures with name, bits (dark is 1, bit 0 first) and hexadecimal code; returns how many."""
    cards = list(islice(_cards(contents), LIMIT))
    columns = _columns(len(cards))
    step = _card_height(contents.bits) + GAP
    width = 2 * MARGIN + columns * (PICTURE + 2 * PADDING + GAP) - GAP
    height = MARGIN + HEADER + max(1, math.ceil(len(cards) / columns)) * step - GAP + MARGIN
    canvas = np.full((height, width, 3), BACKGROUND, np.uint8)
    shown = (
        f"the first {len(cards)} of {contents.rows} pictures"
        if contents.rows > len(cards)
        else f"{len(cards)} pictures"
    )
    _text(canvas, title, (MARGIN, MARGIN + 14), 0.75, INK, width - 2 * MARGIN, bold=True)
    legend = f"{shown}; each square is a bit, dark for 1, bit 0 at the left; below it the same in hexadecimal"
    _text(canvas, legend, (MARGIN, MARGIN + 36), 0.45, FAINT, width - 2 * MARGIN)
    for index, card in enumerate(cards):
        left = MARGIN + index % columns * (PICTURE + 2 * PADDING + GAP)
        _draw_card(canvas, left, MARGIN + HEADER + index // columns * step, card, contents.bits, exif)
    _save(path, canvas)
    return len(cards)


def _cards(contents: Contents) -> Iterator[Card]:
    for chunk in contents.chunks():
        for entry, packed, failed in zip(chunk.entries, chunk.packed, chunk.failed, strict=True):
            yield Card(entry.shown, entry.file, packed, bool(failed))


def _columns(cards: int) -> int:
    """At least as wide as high, and the last line as full as can be."""
    if cards <= 3:
        return 3
    return min(range(math.ceil(math.sqrt(cards)), min(COLUMNS, cards) + 1), key=lambda n: (-cards % n, -n))


def _bit_lines(bits: int) -> int:
    return math.ceil(bits / LINE_BITS)


def _hex_lines(bits: int) -> int:
    return min(HEX_LINES, math.ceil(bits / 4 / DIGITS))


def _card_height(bits: int) -> int:
    below = LINE + 4 + _bit_lines(bits) * (BIT_HEIGHT + 1) + 4 + _hex_lines(bits) * LINE
    return PADDING + PICTURE + 8 + below + PADDING - 4


def _draw_card(canvas: Canvas, left: int, top: int, card: Card, bits: int, exif: bool) -> None:
    width, height = PICTURE + 2 * PADDING, _card_height(bits)
    cv2.rectangle(canvas, (left, top), (left + width - 1, top + height - 1), CARD, cv2.FILLED)
    cv2.rectangle(canvas, (left, top), (left + width - 1, top + height - 1), BORDER, 1)
    x, y = left + PADDING, top + PADDING
    _draw_picture(canvas[y : y + PICTURE, x : x + PICTURE], card, exif)
    y += PICTURE + 8 + LINE
    _text(canvas, Path(card.name).name, (x, y - 6), 0.46, INK, PICTURE)
    y += 4
    _draw_bits(canvas, x, y, unpack(card.packed[None], bits)[0])
    y += _bit_lines(bits) * (BIT_HEIGHT + 1) + 4
    for line in _hexadecimal(card.packed, bits):
        y += LINE
        _text(canvas, line, (x, y - 6), 0.42, FAINT, PICTURE)


def _draw_picture(place: Canvas, card: Card, exif: bool) -> None:
    """The picture as large as fits, in the middle of its square."""
    place[...] = EMPTY
    try:
        if card.failed:
            raise ImageError("unreadable")
        image = read_image(card.file, exif=exif)
    except ImageError:  # counted and reported by the run; the sheet says it too
        _text(place, "unreadable", (56, PICTURE // 2 + 4), 0.46, FAINT, PICTURE)
        return
    scale = min(PICTURE / image.shape[0], PICTURE / image.shape[1])
    height, width = (max(1, round(size * scale)) for size in image.shape[:2])
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    small = cv2.resize(image, (width, height), interpolation=method)
    top, left = (PICTURE - height) // 2, (PICTURE - width) // 2
    place[top : top + height, left : left + width] = small if small.ndim == 3 else small[:, :, None]


def _draw_bits(canvas: Canvas, left: int, top: int, bits: Bits) -> None:
    across = math.ceil(len(bits) / _bit_lines(len(bits)))
    for index, bit in enumerate(bits):
        line, column = divmod(index, across)
        start, stop = (left + PICTURE * edge // across for edge in (column, column + 1))
        y = top + line * (BIT_HEIGHT + 1)
        canvas[y : y + BIT_HEIGHT, start : stop - 1] = SET if bit else UNSET


def _hexadecimal(packed: Packed, bits: int) -> list[str]:
    """The packed bytes in groups of four digits; a code too long for its lines ends in dots."""
    text = packed.tobytes().hex().upper()
    room = DIGITS * _hex_lines(bits)
    lines = [text[start : start + DIGITS] for start in range(0, min(len(text), room), DIGITS)]
    grouped = [" ".join(line[start : start + 4] for start in range(0, len(line), 4)) for line in lines]
    if len(text) > room:
        grouped[-1] += " ..."
    return grouped


def _text(
    canvas: Canvas, text: str, origin: tuple[int, int], scale: float, colour: Colour, room: int, *, bold: bool = False
) -> None:
    """Text with its baseline at ``origin``, shortened in the middle to ``room`` pixels."""
    text = _ascii(text)
    big, stroke = scale * SUPERSAMPLE, SUPERSAMPLE + (2 if bold else 0)
    whole = text
    while len(text) > 5 and _width(text, big, stroke) > room * SUPERSAMPLE:
        keep = len(text) - 4
        text = whole[: keep - keep // 2] + "..." + whole[len(whole) - keep // 2 :]
    (width, height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, big, stroke)
    rows, columns = -(-(height + base + 2 * stroke) // SUPERSAMPLE), -(-(width + 2 * stroke) // SUPERSAMPLE)
    up = -(-(height + stroke) // SUPERSAMPLE)
    mask = np.zeros((rows * SUPERSAMPLE, columns * SUPERSAMPLE), np.uint8)
    place = (0, up * SUPERSAMPLE)
    cv2.putText(mask, text, place, cv2.FONT_HERSHEY_SIMPLEX, big, 255, stroke, cv2.LINE_AA)
    cover = cv2.resize(mask, (columns, rows), interpolation=cv2.INTER_AREA)[:, :, None] / 255
    x, y = origin[0], origin[1] - up
    target = canvas[y : y + rows, x : x + columns]
    cover = cover[: target.shape[0], : target.shape[1]]
    target[...] = np.rint(target * (1 - cover) + np.array(colour) * cover)


def _ascii(text: str) -> str:
    """What OpenCV's letters can show: accents are dropped, any other sign becomes a question mark."""
    plain = (c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return "".join(c if " " <= c <= "~" else "?" for c in plain)


def _width(text: str, scale: float, stroke: int) -> int:
    return int(cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, stroke)[0][0])


def _save(path: Path, canvas: Canvas) -> None:
    good, data = cv2.imencode(path.suffix, canvas)
    if not good:
        raise OutputError(f"{path}: this OpenCV cannot write {path.suffix} pictures; give a name that ends in .png")
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.tobytes())
