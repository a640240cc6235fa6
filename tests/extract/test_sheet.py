"""The contact sheet shows every picture and exactly its bits."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from caffe2torch.extract import extract, sheet
from caffe2torch.retrieval.readers import read_codes


def drawn_bits(image: np.ndarray, left: int, top: int, lines: int, across: int) -> list[bool]:
    """Read a code back from the squares under a picture."""
    y = top + sheet.PADDING + sheet.PICTURE + 8 + sheet.LINE + 4
    x = left + sheet.PADDING
    bits = []
    for line in range(lines):
        for column in range(across):
            centre = x + (2 * column + 1) * sheet.PICTURE // (2 * across)
            bits.append(tuple(image[y + line * (sheet.BIT_HEIGHT + 1) + 3, centre]) == sheet.SET)
    return bits


def test_the_drawn_bits_are_the_codes(pictures: Path, tmp_path: Path) -> None:
    extract(pictures, tmp_path / "codes.h5", sheet=tmp_path / "codes.png")
    codes = read_codes(tmp_path / "codes.h5").unpacked()
    image = cv2.imread(str(tmp_path / "codes.png"))
    columns, step = sheet._columns(20), sheet._card_height(48) + sheet.GAP
    for index in range(20):
        left = sheet.MARGIN + index % columns * (sheet.PICTURE + 2 * sheet.PADDING + sheet.GAP)
        top = sheet.MARGIN + sheet.HEADER + index // columns * step
        assert drawn_bits(image, left, top, 2, 24) == codes[index].tolist()


@pytest.mark.parametrize("cards, columns", [(0, 3), (1, 3), (4, 4), (6, 6), (12, 6), (16, 8), (20, 5), (64, 8)])
def test_columns_leave_few_gaps(cards: int, columns: int) -> None:
    assert sheet._columns(cards) == columns


def test_unreadable_pictures_are_drawn_as_such(damaged: Path, tmp_path: Path) -> None:
    summary = extract(damaged, tmp_path / "codes.h5", sheet=tmp_path / "codes.png", on_error="zero")
    assert summary.failed == 2
    assert cv2.imread(str(tmp_path / "codes.png")) is not None


def test_only_the_first_pictures_are_drawn(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extract(pictures, tmp_path / "a.h5", sheet=tmp_path / "a.png")
    monkeypatch.setattr(sheet, "LIMIT", 6)
    extract(pictures, tmp_path / "b.h5", sheet=tmp_path / "b.png")
    assert cv2.imread(str(tmp_path / "b.png")).shape[0] < cv2.imread(str(tmp_path / "a.png")).shape[0]


@pytest.mark.parametrize(
    "bits, lines",
    [
        (12, ["A5F0"]),
        (48, ["A5F0 0000 0000"]),
        (128, ["A5F0 0000 0000 0000", "0000 0000 0000 0000"]),
        (1024, ["A5F0 0000 0000 0000", *["0000 0000 0000 0000"] * 2, "0000 0000 0000 0000 ..."]),
    ],
)
def test_hexadecimal(bits: int, lines: list[str]) -> None:
    packed = np.zeros(-(-bits // 8), np.uint8)
    packed[:2] = 0xA5, 0xF0
    assert sheet._hexadecimal(packed, bits) == lines


def test_names_keep_what_opencv_can_draw() -> None:
    assert sheet._ascii("ça Übung.png") == "ca Ubung.png"
    assert sheet._ascii("日本.png") == "??.png"
