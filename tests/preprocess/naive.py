"""Every dialect written down once more from its definition: one output at a time, in float64, as slow as it likes."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

Weights = Callable[[int, int, int], dict[int, float]]
"""(output position, input size, output size) -> input position: weight, all counted from 0."""


def matlab_weights(x: int, size: int, result: int) -> dict[int, float]:
    """imresize 'bilinear': a triangle over half-pixel centres, wider when shrinking, mirrored at the edges."""
    scale = result / size
    if scale == 1:
        return {x: 1.0}
    stretch = min(scale, 1.0)
    centre = (x + 0.5) / scale - 0.5
    reach = 1 / stretch
    weights: dict[int, float] = {}
    for i in range(math.floor(centre - reach) - 1, math.ceil(centre + reach) + 2):
        height = 1 - abs(centre - i) * stretch
        if height > 0:
            weights[mirrored(i, size)] = weights.get(mirrored(i, size), 0.0) + height
    total = sum(weights.values())
    return {i: weight / total for i, weight in weights.items()}


def mirrored(i: int, size: int) -> int:
    """Symmetric padding: ... 1 0 | 0 1 ... n-1 | n-1 n-2 ..., as often as it takes."""
    while not 0 <= i < size:
        i = -1 - i if i < 0 else 2 * size - 1 - i
    return i


def skimage_weights(x: int, size: int, result: int) -> dict[int, float]:
    """Order-1 warp with mode 'constant': the two neighbours, of which those outside the picture are 0."""
    centre = (x + 0.5) * size / result - 0.5
    low = math.floor(centre)
    pair = {low: 1 - (centre - low), low + 1: centre - low}
    return {i: weight for i, weight in pair.items() if 0 <= i < size}


def resized(image: np.ndarray, size: tuple[int, int], weights: Weights) -> np.ndarray:
    """(H, W, C) -> (height, width, C) float64, rows then columns."""
    values = image.astype(np.float64)
    for axis in (0, 1):
        lines = []
        for x in range(size[axis]):
            taps = weights(x, image.shape[axis], size[axis])
            lines.append(sum(weight * values.take(i, axis) for i, weight in taps.items()))
        values = np.stack(lines, axis)
    return values


def imresize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """MATLAB's imresize(single(image), size, 'bilinear'), (H, W) or (H, W, C)."""
    return resized(image, size, matlab_weights)


def matcaffe(image: np.ndarray, mean_hwc: np.ndarray, size: int, crop: int) -> np.ndarray:
    """The papers' prepare_batch on one BGR or grey picture: (C, crop, crop), with MATLAB's indices from 1."""
    im = imresize(image, (size, size))
    if im.ndim == 2:
        im = np.stack([im, im, im], 2)
    im = im - mean_hwc
    center = (size - crop + 1) // 2 + 1
    cut = [[im[row - 1, column - 1] for column in range(center, center + crop)] for row in range(center, center + crop)]
    return np.array(cut).transpose(2, 0, 1)


def skimage_resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Caffe 1.0's resize_image on floats: stretched to 0..1, warped, stretched back."""
    low, high = float(image.min()), float(image.max())
    if low == high:
        return np.full((*size, *image.shape[2:]), low)
    return resized((image - low) / (high - low), size, skimage_weights) * (high - low) + low


def data_transformer(record: np.ndarray, crop: int, mean: np.ndarray, scale: float) -> np.ndarray:
    """Caffe's DataTransformer in its test phase on (C, H, W); ``mean`` has the record's shape."""
    channels, height, width = record.shape
    rows, columns = (crop, crop) if crop else (height, width)
    top, left = (height - rows) // 2, (width - columns) // 2
    out = np.empty((channels, rows, columns))
    for c in range(channels):
        for h in range(rows):
            for w in range(columns):
                out[c, h, w] = (float(record[c, top + h, left + w]) - float(mean[c, top + h, left + w])) * scale
    return out
