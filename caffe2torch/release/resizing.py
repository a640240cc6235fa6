"""Other ways to bring a picture to a size, each of which somebody has taken for MATLAB's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from caffe2torch.preprocess.pixels import checked, planes
from caffe2torch.preprocess.resize import Axis, Taps, linear_taps, resize_picture, triangle_taps

Image = NDArray[np.uint8]
Size = tuple[int, int]
Resize = Callable[[Image, str, Size], NDArray[np.float32]]
"""(H, W, 3) BGR or (H, W) uint8, channel order, (height, width) -> (C, height, width) float32."""


@dataclass(frozen=True)
class Rule:
    """A way to resize, and who resizes so."""

    text: str
    who: str
    resize: Resize


def _by_taps(taps: Callable[[int, int], Taps], image: Image, order: str, size: Size) -> NDArray[np.float32]:
    rows, columns = Axis(taps, image.shape[0], size[0]), Axis(taps, image.shape[1], size[1])
    return np.array(resize_picture(checked(image), order, rows, columns))


def _rounded(image: Image, order: str, size: Size) -> NDArray[np.float32]:
    values = _by_taps(triangle_taps, image, order, size)
    return np.asarray(np.clip(np.floor(values + np.float32(0.5)), 0, 255), np.float32)


def _pycaffe(image: Image, order: str, size: Size) -> NDArray[np.float32]:
    rows, columns = Axis(linear_taps, image.shape[0], size[0]), Axis(linear_taps, image.shape[1], size[1])
    darkest = float(image.min())
    return np.array(resize_picture(checked(image), order, rows, columns, floor=darkest)) + np.float32(darkest)


def _by_opencv(interpolation: int, image: Image, order: str, size: Size) -> NDArray[np.float32]:
    resized = np.asarray(cv2.resize(checked(image), size[::-1], interpolation=interpolation), np.uint8)
    return np.array(planes(resized, order))


def _clamped(centre: NDArray[np.floating], size: int) -> Taps:
    """The two neighbours of each position, the edge pixel beyond the edge."""
    below = np.floor(centre)
    place = np.stack([below, below + 1], axis=1).astype(np.int64)
    weight = np.stack([1 - (centre - below), centre - below], axis=1)
    return np.clip(place, 0, size - 1), weight


def plain_taps(size: int, result: int) -> Taps:
    """Half-pixel centres and two neighbours, however much is shrunk: no antialias."""
    return _clamped((np.arange(result) + 0.5) * (size / result) - 0.5, size)


def corner_taps(size: int, result: int) -> Taps:
    """The corner pixels' centres lie on each other: align_corners, and Caffe's own Interp layer."""
    return _clamped(np.arange(result) * ((size - 1) / max(result - 1, 1)), size)


def cubic_taps(size: int, result: int) -> Taps:
    """MATLAB's ``imresize`` without a method: bicubic with a = -0.5, widened when shrinking (see `triangle_taps`)."""
    scale = result / size
    narrow = min(scale, 1.0)
    width = 4.0 / narrow
    centre = np.arange(1, result + 1) / scale + 0.5 * (1 - 1 / scale)
    place = np.floor(centre - width / 2)[:, None] + np.arange(int(np.ceil(width)) + 2)
    x = np.abs(narrow * (centre[:, None] - place))
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    weight = np.where(x <= 1, near, np.where(x <= 2, far, 0.0))
    weight /= weight.sum(axis=1, keepdims=True)
    folded = np.mod(place.astype(np.int64) - 1, 2 * size)
    return np.where(folded < size, folded, 2 * size - 1 - folded), weight


def _dense(taps: Callable[[int, int], Taps], image: Image, order: str, size: Size) -> NDArray[np.float32]:
    """For weights below zero too, which the blocks of `Axis` leave out."""
    values = np.array(planes(checked(image), order))
    return np.asarray(_matrix(taps, image.shape[0], size[0]) @ values @ _matrix(taps, image.shape[1], size[1]).T)


def _matrix(taps: Callable[[int, int], Taps], size: int, result: int) -> NDArray[np.float32]:
    if size == result:
        return np.eye(size, dtype=np.float32)
    places, weights = taps(size, result)
    matrix = np.zeros((result, size))
    np.add.at(matrix, (np.broadcast_to(np.arange(result)[:, None], places.shape), places), weights)
    return matrix.astype(np.float32)


RULES: Mapping[str, Rule] = {
    "matlab": Rule(
        "bilinear as MATLAB's imresize(single(im), ..., 'bilinear')",
        "both papers' evaluation",
        partial(_by_taps, triangle_taps),
    ),
    "plain": Rule(
        "bilinear without antialias",
        "torch and cv2 on floats, imresize with 'Antialiasing' off",
        partial(_by_taps, plain_taps),
    ),
    "bytes": Rule(
        "OpenCV's bilinear, on bytes",
        "the C++ side of Caffe: convert_imageset, ImageData layers, training",
        partial(_by_opencv, cv2.INTER_LINEAR),
    ),
    "rounded": Rule(
        "MATLAB's bilinear, rounded to bytes", "imresize without single() around the picture, and Pillow", _rounded
    ),
    "matlab cubic": Rule("MATLAB's bicubic", "imresize without 'bilinear' at the end", partial(_dense, cubic_taps)),
    "opencv cubic": Rule("OpenCV's bicubic, on bytes", "cv2.INTER_CUBIC", partial(_by_opencv, cv2.INTER_CUBIC)),
    "nearest": Rule("nearest neighbour", "cv2.INTER_NEAREST", partial(_by_opencv, cv2.INTER_NEAREST)),
    "area": Rule("OpenCV's area average", "cv2.INTER_AREA", partial(_by_opencv, cv2.INTER_AREA)),
    "corners": Rule("bilinear with aligned corners", "align_corners=True", partial(_by_taps, corner_taps)),
    "pycaffe": Rule(
        "pycaffe's, which is dark at the borders", "caffe.io.resize_image with an old scikit-image", _pycaffe
    ),
}
OWN = {"matcaffe": "matlab", "transformer": "bytes", "pycaffe": "pycaffe"}
"""The rule of each dialect of ``preprocess``."""
