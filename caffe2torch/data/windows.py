"""WindowData layers, R-CNN's: windows cut out of pictures and warped to a square, backgrounds first.

A batch is batch_size * (1 - fg_fraction) background windows, then foreground ones, drawn at random in every phase.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from caffe2torch.data.draws import Draws
from caffe2torch.data.image_list import read_lines
from caffe2torch.data.picture import Image, read_bytes, read_picture, resize
from caffe2torch.data.source import Array, Batch, Shape, batch_size, check_tops
from caffe2torch.data.transform import Mean, place, read_transform_mean
from caffe2torch.errors import FormatError, GraphError, ImageError
from caffe2torch.preprocess import decode
from caffe2torch.schema import Message

_T = TypeVar("_T", int, float)


@dataclass(frozen=True)
class Window:
    """Corners are pixels, both inside."""

    image: int
    label: int
    x1: int
    y1: int
    x2: int
    y2: int


@dataclass(frozen=True)
class WindowFile:
    """The pictures of a window file, and its windows by whether they overlap an object."""

    images: list[str] = field(default_factory=list)
    background: list[Window] = field(default_factory=list)
    foreground: list[Window] = field(default_factory=list)


class WindowSource:
    """Batches of a WindowData layer; files are looked up below ``folder``.

    Caffe takes crop_size, mirror and mean from transform_param, but scale from window_data_param; so does this.
    """

    def __init__(self, layer: Message, folder: Path, draws: Draws) -> None:
        check_tops(layer, 2, 2)
        p = layer.window_data_param
        self.draws = draws
        self._p, self._place, self._folder = p, place(layer), folder
        self._size = batch_size(layer, p.batch_size)
        self._crop = int(layer.transform_param.crop_size)
        self._mirror = bool(layer.transform_param.mirror)
        if self._crop <= 2 * p.context_pad:
            raise GraphError(
                f"{self._place}: transform_param has crop_size {self._crop}, expected more than twice the context_pad "
                f"{p.context_pad}"
            )
        self._mean = self._mean_planes(read_transform_mean(layer, folder))
        self._path = folder / p.source
        self._windows = read_windows(self._path, fg_threshold=p.fg_threshold, bg_threshold=p.bg_threshold)
        self._cached = (
            {name: read_bytes(self._picture(name)) for name in self._windows.images} if p.cache_images else {}
        )
        self.tops: tuple[str, ...] = tuple(layer.top)
        shapes: tuple[Shape, ...] = ((self._size, 3, self._crop, self._crop), (self._size,))
        self.shapes: dict[str, Shape] = dict(zip(self.tops, shapes, strict=True))

    def fetch(self, number: int) -> Callable[[], Batch]:
        """``{data, label}``; what lies outside a picture is 0 after the mean is subtracted."""
        return partial(self._make, self.draws.batch(number))

    def _make(self, rng: np.random.Generator) -> Batch:
        data = np.zeros(self.shapes[self.tops[0]], np.float32)
        labels = np.empty(self._size, np.float32)
        foreground = int(np.float32(self._size) * np.float32(self._p.fg_fraction))
        for index in range(self._size):
            window = self._draw(rng, foreground=index >= self._size - foreground)
            self._cut(window, data[index], flip=self._mirror and bool(rng.integers(2)))
            labels[index] = window.label
        return dict(zip(self.tops, (data, labels), strict=True))

    def _draw(self, rng: np.random.Generator, *, foreground: bool) -> Window:
        windows = self._windows.foreground if foreground else self._windows.background
        if not windows:
            kind, field_name = ("foreground", "fg_threshold") if foreground else ("background", "bg_threshold")
            raise FormatError(f"{self._path}: no {kind} windows; see {field_name} and fg_fraction of {self._place}")
        return windows[int(rng.integers(len(windows)))]

    def _cut(self, window: Window, out: Array, *, flip: bool) -> None:
        name = self._windows.images[window.image]
        path = self._picture(name)
        image = decode(self._cached[name], str(path), grey=False) if self._cached else read_picture(path)
        context = self._p.context_pad > 0 or self._p.crop_mode == "square"
        box = (window.x1, window.y1, window.x2, window.y2)
        cut = _context(box, image, self._crop, self._p, flip=flip) if context else _Cut(box, self._crop, self._crop)
        x1, y1, x2, y2 = cut.box
        if not (0 <= x1 <= x2 < image.shape[1] and 0 <= y1 <= y2 < image.shape[0] and cut.width > 0 and cut.height > 0):
            raise ImageError(
                f"{path}: {image.shape[1]}x{image.shape[0]} pixels hold no window {box} (x1, y1, x2, y2), which "
                f"{self._path} asks for"
            )
        pixels = resize(np.ascontiguousarray(image[y1 : y2 + 1, x1 : x2 + 1]), (cut.height, cut.width))
        if flip:
            pixels = pixels[:, ::-1]
        area = (slice(None), slice(cut.top, cut.top + cut.height), slice(cut.left, cut.left + cut.width))
        values = pixels.transpose(2, 0, 1).astype(np.float32)
        if self._mean is not None:
            values -= self._mean[area] if self._mean.shape[1:] != (1, 1) else self._mean
        out[area] = values * np.float32(self._p.scale)

    def _picture(self, name: str) -> Path:
        return self._folder / f"{self._p.root_folder}{name}"

    def _mean_planes(self, mean: Mean) -> Array | None:
        """(3, crop, crop) or (3, 1, 1); Caffe takes the same offset, that of the columns, along both axes."""
        if mean.values:
            if len(mean.values) not in (1, 3):
                raise GraphError(f"{self._place} has {len(mean.values)} mean_value, expected 1 or 3")
            return np.broadcast_to(np.array(mean.values, np.float32), (3,)).reshape(3, 1, 1)
        if mean.image is None:
            return None
        offset = (mean.image.shape[2] - self._crop) // 2
        cropped = mean.image[:, max(offset, 0) : offset + self._crop, max(offset, 0) : offset + self._crop]
        if cropped.shape != (3, self._crop, self._crop):
            raise GraphError(
                f"{self._place}: the mean {mean.file} has shape {mean.image.shape}, which holds no crop of {self._crop}"
            )
        return np.ascontiguousarray(cropped)


@dataclass(frozen=True)
class _Cut:
    """Which pixels are taken (corners inside), the size they are warped to, and what stays free above and left."""

    box: tuple[int, int, int, int]
    width: int
    height: int
    left: int = 0
    top: int = 0


def _context(box: tuple[int, int, int, int], image: Image, crop: int, p: Message, *, flip: bool) -> _Cut:
    """The window grown so that ``context_pad`` pixels of it frame the warped window, clipped to the picture.

    Caffe's arithmetic: float32, rounded half away from zero. A flipped window has its right border on the left.
    """
    height, width = image.shape[:2]
    x1, y1, x2, y2 = box
    grow = np.float32(crop) / np.float32(crop - 2 * p.context_pad)
    half_height, half_width = np.float32((y2 - y1 + 1) / 2), np.float32((x2 - x1 + 1) / 2)
    centre_x, centre_y = np.float32(x1) + half_width, np.float32(y1) + half_height
    if p.crop_mode == "square":
        half_height = half_width = max(half_height, half_width)
    x1, x2 = _round(centre_x - half_width * grow), _round(centre_x + half_width * grow)
    y1, y2 = _round(centre_y - half_height * grow), _round(centre_y + half_height * grow)
    scale_x = np.float32(crop) / np.float32(x2 - x1 + 1)
    scale_y = np.float32(crop) / np.float32(y2 - y1 + 1)
    left, top = max(0, -x1), max(0, -y1)
    right, bottom = max(0, x2 - width + 1), max(0, y2 - height + 1)
    inside = (x1 + left, y1 + top, x2 - right, y2 - bottom)
    new_width = _round(np.float32(inside[2] - inside[0] + 1) * scale_x)
    new_height = _round(np.float32(inside[3] - inside[1] + 1) * scale_y)
    free_x, free_y = _round(np.float32(right if flip else left) * scale_x), _round(np.float32(top) * scale_y)
    return _Cut(inside, min(new_width, crop - free_x), min(new_height, crop - free_y), free_x, free_y)


def _round(value: np.float32) -> int:
    return int(math.copysign(math.floor(abs(float(value)) + 0.5), value))


def read_windows(path: Path, *, fg_threshold: float, bg_threshold: float) -> WindowFile:
    """A window file: for each picture ``# index``, name, channels, height, width, count, and the windows.

    A window is label, overlap, x1, y1, x2, y2. FormatError, naming what was found, for anything else.
    """
    file = WindowFile()
    words = iter([word for line in read_lines(path) for word in line.split()])
    for mark in words:
        where = f"{path}: picture {len(file.images)}"
        if mark != "#":
            raise FormatError(f"{where}: found {mark!r}, expected '#' and the number of the next picture")
        index = _next(words, int, where)
        file.images.append(next(words, ""))
        channels, _, _, count = (_next(words, int, where) for _ in range(4))
        if channels != 3:
            raise FormatError(f"{where}: {channels} channels, expected 3: pictures are read in colour")
        for _ in range(count):
            label = _next(words, int, where)
            overlap = np.float32(_next(words, float, where))
            corners = [_next(words, int, where) for _ in range(4)]
            if overlap >= np.float32(fg_threshold):
                if label <= 0:
                    raise FormatError(f"{where}: a foreground window with label {label}, expected at least 1")
                file.foreground.append(Window(index, label, *corners))
            elif overlap < np.float32(bg_threshold):
                file.background.append(Window(index, 0, *corners))
    if not file.images:
        raise FormatError(f"{path}: the window file is empty")
    for window in (*file.background, *file.foreground):
        if not 0 <= window.image < len(file.images):
            raise FormatError(f"{path}: picture number {window.image}, but there are {len(file.images)}, from 0 on")
    return file


def _next(words: Iterator[str], kind: type[_T], where: str) -> _T:
    word = next(words, None)
    try:
        return kind(word or "")
    except ValueError as error:
        raise FormatError(f"{where}: found {word or 'the end of the file'!r}, expected a number") from error
