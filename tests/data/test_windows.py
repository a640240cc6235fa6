"""WindowData layers, against the definition written out pixel by pixel."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from caffe2torch.binaryproto import write_mean
from caffe2torch.errors import Caffe2TorchError

from .sources import Image, feed, images, png

F = np.float32


def layer(settings: str = "", *, crop: int = 12, batch: int = 1, transform: str = "") -> str:
    return (
        f'layer {{ name: "d" type: "WindowData" top: "x" top: "l" transform_param {{ crop_size: {crop} {transform} }} '
        f'window_data_param {{ source: "w.txt" batch_size: {batch} {settings} }} }}'
    )


def windows(folder: Path, *lines: str, image: Image | None = None) -> Path:
    image = images(1, (30, 36, 3))[0] if image is None else image
    (folder / "p.png").write_bytes(png(image))
    head = f"# 0\np.png\n3\n{image.shape[0]}\n{image.shape[1]}\n{len(lines)}\n"
    (folder / "w.txt").write_text(head + "\n".join(lines) + "\n")
    return folder


def half_up(value: np.floating) -> int:
    return int(np.trunc(value + np.copysign(0.5, value)))


def naive(
    image: Image, box: tuple[int, int, int, int], crop: int, pad: int, *, square: bool, flip: bool
) -> NDArray[np.float32]:
    """What a window becomes, (3, crop, crop), NaN where nothing is written."""
    x1, y1, x2, y2 = box
    wide = high = crop
    pad_w = pad_h = 0
    if pad or square:
        factor = F(crop) / F(crop - 2 * pad)
        hh, hw = F((y2 - y1 + 1) / 2.0), F((x2 - x1 + 1) / 2.0)
        cx, cy = F(x1) + hw, F(y1) + hh
        if square:
            hw = hh = hh if hh > hw else hw
        x1, x2 = half_up(cx - hw * factor), half_up(cx + hw * factor)
        y1, y2 = half_up(cy - hh * factor), half_up(cy + hh * factor)
        sx, sy = F(crop) / F(x2 - x1 + 1), F(crop) / F(y2 - y1 + 1)
        left, top = max(0, -x1), max(0, -y1)
        right, bottom = max(0, x2 - image.shape[1] + 1), max(0, y2 - image.shape[0] + 1)
        x1, y1, x2, y2 = x1 + left, y1 + top, x2 - right, y2 - bottom
        wide, high = half_up(F(x2 - x1 + 1) * sx), half_up(F(y2 - y1 + 1) * sy)
        pad_h = half_up(F(top) * sy)
        pad_w = half_up(F(right) * sx) if flip else half_up(F(left) * sx)
        wide, high = min(wide, crop - pad_w), min(high, crop - pad_h)
    warped = cv2.resize(image[y1 : y2 + 1, x1 : x2 + 1].copy(), (wide, high))
    if flip:
        warped = cv2.flip(warped, 1)
    out = np.full((3, crop, crop), np.nan, np.float32)
    for c in range(3):
        for y in range(high):
            for x in range(wide):
                out[c, y + pad_h, x + pad_w] = warped[y, x, c]
    return out


BOXES = [(5, 6, 20, 25), (0, 0, 35, 29), (1, 2, 33, 12), (30, 20, 35, 29), (2, 1, 2, 1)]


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize(
    "settings, pad, square",
    [
        ("", 0, False),
        ("context_pad: 2", 2, False),
        ("context_pad: 5", 5, False),
        ('crop_mode: "square"', 0, True),
        ('crop_mode: "square" context_pad: 3 cache_images: true', 3, True),
    ],
)
def test_windows_equal_the_definition(
    box: tuple[int, int, int, int], settings: str, pad: int, square: bool, tmp_path: Path
) -> None:
    image = images(1, (30, 36, 3))[0]
    folder = windows(tmp_path, "1 0 {} {} {} {}".format(*box), image=image)
    expected = naive(image, box, 12, pad, square=square, flip=False)
    settings += " fg_fraction: 0"
    got = next(feed(layer(settings), folder))["x"][0]
    np.testing.assert_array_equal(got, np.nan_to_num(expected))
    mirrored = next(feed(layer(settings, batch=20, transform="mirror: true"), folder))["x"]
    flipped = np.nan_to_num(naive(image, box, 12, pad, square=square, flip=True))
    kinds = [(np.array_equal(x, got), np.array_equal(x, flipped)) for x in mirrored]
    assert all(plain or turned for plain, turned in kinds)
    assert {plain for plain, _ in kinds} == {True, False} or np.array_equal(got, flipped)


def test_mean_image_is_cropped_by_its_width_and_nothing_is_subtracted_outside(tmp_path: Path) -> None:
    image, mean = images(1, (30, 36, 3))[0], np.random.default_rng(1).random((3, 20, 17)).astype(np.float32)
    write_mean(tmp_path / "m", mean)
    folder = windows(tmp_path, "1 0 0 0 20 25", image=image)
    text = layer("context_pad: 3 scale: 0.5", transform='mean_file: "m" scale: 9')
    expected = (naive(image, (0, 0, 20, 25), 12, 3, square=False, flip=False) - mean[:, 2:14, 2:14]) * F(0.5)
    assert np.isnan(expected).any()
    np.testing.assert_array_equal(next(feed(text, folder))["x"][0], np.nan_to_num(expected))


def test_backgrounds_come_first_with_label_0(tmp_path: Path) -> None:
    folder = windows(tmp_path, "3 0.5 0 0 5 5", "7 0.9 1 1 9 9", "4 0.2 2 2 9 9", "5 0.35 3 3 9 9")
    source = feed(layer("fg_fraction: 0.3 fg_threshold: 0.5 bg_threshold: 0.3", batch=10), folder)
    labels = np.stack([next(source)["l"] for _ in range(20)])
    assert set(labels[:, :7].ravel()) == {0}
    assert set(labels[:, 7:].ravel()) == {3, 7}


def test_root_folder_and_number_of_the_picture(tmp_path: Path) -> None:
    first, second = images(2, (8, 8, 3))
    (tmp_path / "sub").mkdir()
    for name, image in (("a", first), ("b", second)):
        (tmp_path / "sub" / f"{name}.png").write_bytes(png(image))
    (tmp_path / "w.txt").write_text("# 0 a.png 3 8 8 0 # 1 b.png 3 8 8 1 1 0 0 0 7 7")
    got = next(feed(layer('root_folder: "sub/"', crop=8), tmp_path))["x"][0]
    np.testing.assert_array_equal(got, second.transpose(2, 0, 1))


@pytest.mark.parametrize(
    "text, settings, message",
    [
        ("", "", "w.txt: the window file is empty"),
        ("# 0 p.png 3 30 36 1 1 0 0 0 50 5", "", r"p.png: 36x30 pixels hold no window \(0, 0, 50, 5\)"),
        ("# 0 p.png 3 30 36 1 1 0 9 9 5 5", "", "hold no window"),
        ("# 0 p.png 3 30 36 1 1 0 500 500 505 505", "context_pad: 2", "hold no window"),
        ("# 0 p.png 1 30 36 1 1 0 0 0 5 5", "", "picture 0: 1 channels, expected 3"),
        ("# 0 p.png 3 30 36 2 1 0 0 0 5 5", "", "found 'the end of the file', expected a number"),
        ("# 0 p.png 3 30 36 1 1 x 0 0 5 5", "", "found 'x', expected a number"),
        ("0 p.png", "", "found '0', expected '#'"),
        ("# 4 p.png 3 30 36 1 1 0 0 0 5 5", "", "picture number 4, but there are 1"),
        ("# 0 p.png 3 30 36 1 0 0.9 0 0 5 5", "", "a foreground window with label 0"),
        ("# 0 p.png 3 30 36 1 1 0.9 0 0 5 5", "", "no background windows"),
        ("# 0 p.png 3 30 36 1 1 0 0 0 5 5", "fg_fraction: 1", "no foreground windows"),
        ("# 0 gone.png 3 30 36 1 1 0 0 0 5 5", "", "gone.png: cannot be read"),
        ("# 0 gone.png 3 30 36 1 1 0 0 0 5 5", "cache_images: true", "gone.png: cannot be read"),
        ("# 0 p.png 3 30 36 1 1 0 0 0 5 5", "context_pad: 6", "more than twice the context_pad 6"),
    ],
)
def test_bad_window_files_are_refused(text: str, settings: str, message: str, tmp_path: Path) -> None:
    windows(tmp_path)
    (tmp_path / "w.txt").write_text(text)
    with pytest.raises(Caffe2TorchError, match=message):
        next(feed(layer(settings), tmp_path))
