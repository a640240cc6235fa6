"""Separable resizing as a few small matrix products, from weights written down as each dialect defines them.

A picture is resized along one axis at a time. The weights of an axis form a banded matrix, cut into blocks of a few
outputs that touch a short run of inputs; each block is one product, so an antialiased 500x375 -> 227x227 takes about as
many multiplications as there are weights, and none for pixels that a crop throws away. Products this small stay on one
thread of the BLAS and release the interpreter lock. Resizing is linear, so cropping first is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import cast

import numpy as np
from numpy.typing import NDArray

from caffe2torch.preprocess.pixels import Image, Planes, planes
from caffe2torch.preprocess.scratch import scratch

Taps = tuple[NDArray[np.int64], NDArray[np.float64]]
"""Input positions and their weights, both (outputs, taps); positions may repeat."""
Block = tuple[int, int, int, int, NDArray[np.float32]]
"""Outputs start, stop; inputs start, stop; the matrix (outputs, inputs)."""

# OpenBLAS computes products of up to 2^18 multiplications on the calling thread; beyond, it wakes a pool of its own,
# which costs fifty times the product when other threads work on other pictures.
_ONE_THREAD = 1 << 18
_STRIP = 1 << 25  # bytes of a picture that are turned into floats at a time
_CACHED_LENGTH = 4096  # axes longer than this are planned anew each time, so hostile pictures cannot fill the cache


def triangle_taps(size: int, result: int) -> Taps:
    """MATLAB's ``imresize(..., 'bilinear')`` along one axis.

    Output x (from 1) lies at u = x / s + (1 - 1 / s) / 2 with s = result / size, half-pixel centres. The triangle
    kernel is widened to 2 / s when shrinking (antialias), weights are normalised to 1, and positions beyond an edge
    are mirrored with the edge pixel repeated.
    """
    scale = result / size
    narrow = min(scale, 1.0)
    width = 2.0 / narrow
    centre = np.arange(1, result + 1) / scale + 0.5 * (1 - 1 / scale)
    place = np.floor(centre - width / 2)[:, None] + np.arange(int(np.ceil(width)) + 2)
    weight = np.maximum(0.0, 1.0 - np.abs(narrow * (centre[:, None] - place)))
    weight /= weight.sum(axis=1, keepdims=True)
    folded = np.mod(place.astype(np.int64) - 1, 2 * size)
    return np.where(folded < size, folded, 2 * size - 1 - folded), weight


def linear_taps(size: int, result: int) -> Taps:
    """scikit-image's order-1 ``resize(..., mode='constant')`` along one axis, as Caffe 1.0's ``resize_image`` calls it.

    Output x (from 0) lies at u = (x + 0.5) * size / result - 0.5 and blends its two neighbours, never more (no
    antialias). A neighbour beyond the edge counts as zero: its weight is lost, which darkens the border when enlarging.
    """
    centre = (np.arange(result) + 0.5) * (size / result) - 0.5
    below = np.floor(centre)
    fraction = centre - below
    place = np.stack([below, below + 1], axis=1).astype(np.int64)
    weight = np.stack([1 - fraction, fraction], axis=1)
    weight[(place < 0) | (place >= size)] = 0.0
    return np.clip(place, 0, size - 1), weight


class Axis:
    """One axis: resized from ``size`` to ``result`` pixels, of which only ``count`` from ``first`` on are computed."""

    def __init__(
        self, taps: Callable[[int, int], Taps], size: int, result: int, first: int = 0, count: int | None = None
    ) -> None:
        count = result - first if count is None else count
        self.size, self.result, self.count = size, result, count
        self.identity = size == result
        if self.identity:
            self.blocks: tuple[Block, ...] = ()
            self.start, self.stop = first, first + count
        else:
            make = _blocks_cached if max(size, result) <= _CACHED_LENGTH else _blocks
            self.blocks = make(taps, size, result, first, count)
            self.start = min(block[2] for block in self.blocks)
            self.stop = max(block[3] for block in self.blocks)

    def along_rows(self, values: Planes) -> Planes:
        """(C, stop - start, W) -> (C, count, W); ``values`` hold only the input rows start..stop."""
        if self.identity:
            return values
        out = cast(Planes, scratch("rows", (values.shape[0], self.count, values.shape[2])))
        for low, high, start, stop, matrix in self.blocks:
            inputs, outputs = values[:, start - self.start : stop - self.start], out[:, low:high]
            for part in _parts(values.shape[2], matrix.size):
                np.matmul(matrix, inputs[..., part], out=outputs[..., part])
        return out

    def along_columns(self, values: Planes) -> Planes:
        """(C, H, stop - start) -> (C, H, count), ``values`` hold only the input columns start..stop."""
        if self.identity:
            return values
        channels, height, _ = values.shape
        out = cast(Planes, scratch("columns", (channels, height, self.count)))
        for low, high, start, stop, matrix in self.blocks:
            inputs, outputs = values[..., start - self.start : stop - self.start], out[..., low:high]
            for part in _parts(height, matrix.size):
                np.matmul(inputs[:, part], matrix.T, out=outputs[:, part])
        return out


def _parts(length: int, width: int) -> Iterator[slice]:
    """Runs of 0 .. length whose product with a matrix of ``width`` elements stays on one thread."""
    step = max(1, _ONE_THREAD // width)
    for start in range(0, length, step):
        yield slice(start, start + step)


def _blocks(taps: Callable[[int, int], Taps], size: int, result: int, first: int, count: int) -> tuple[Block, ...]:
    """The rows ``first`` .. ``first + count`` of the weight matrix, cut into dense blocks along its band."""
    places, weights = taps(size, result)
    places, weights = places[first : first + count], weights[first : first + count]
    # 16 outputs a block was fastest for photographs; a strong reduction has wide rows and wants fewer.
    step = int(np.clip(64 * result // size, 4, 16))
    blocks: list[Block] = []
    for low in range(0, count, step):
        place, weight = places[low : low + step], weights[low : low + step]
        used = weight > 0
        start, stop = int(place[used].min()), int(place[used].max()) + 1
        matrix = np.zeros((len(place), stop - start))
        rows = np.broadcast_to(np.arange(len(place))[:, None], place.shape)
        np.add.at(matrix, (rows[used], place[used] - start), weight[used])
        blocks.append((low, low + len(place), start, stop, matrix.astype(np.float32)))
    return tuple(blocks)


_blocks_cached = lru_cache(maxsize=256)(_blocks)


def resize_planes(values: Planes, rows: Axis, columns: Axis) -> Planes:
    """(C, rows.stop - rows.start, columns.stop - columns.start) -> (C, rows.count, columns.count) in float32.

    The result is scratch memory of this thread, or ``values`` where nothing is resized.

    The axis with the smaller scale goes first, rows on a tie: MATLAB's order, and the cheaper one.
    """
    if rows.result / rows.size <= columns.result / columns.size:
        return columns.along_columns(rows.along_rows(values))
    return rows.along_rows(columns.along_columns(values))


def resize_picture(image: Image, order: str, rows: Axis, columns: Axis, *, floor: float = 0.0) -> Planes:
    """The picture minus ``floor`` as planes (see `planes`), resized; scratch memory of this thread.

    A large picture is turned into floats and narrowed a strip at a time, so it needs no more than its own bytes.
    """
    needed = image[rows.start : rows.stop, columns.start : columns.stop]
    if needed.size <= _STRIP:
        values = planes(np.ascontiguousarray(needed), order)
        if floor:
            values -= np.float32(floor)
        return resize_planes(values, rows, columns)
    height = max(1, _STRIP * len(needed) // needed.size)
    narrow = np.empty((3 if image.ndim == 3 else 1, len(needed), columns.count), np.float32)
    for top in range(0, len(needed), height):
        values = planes(np.ascontiguousarray(needed[top : top + height]), order) - np.float32(floor)
        narrow[:, top : top + height] = columns.along_columns(values)
    return rows.along_rows(narrow)
