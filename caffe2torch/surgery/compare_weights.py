"""What differs between two sets of weights, blob by blob, to the bit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from caffe2torch.blobs import Array, Blob, LayerWeights
from caffe2torch.matching import fits


@dataclass(frozen=True)
class BlobDifference:
    """Two blobs of one layer and number. Figures are None where a blob is in one of them only or the shapes differ.

    ``bits`` counts the float32 bits that differ in all, ``values`` the values in which some do. ``largest`` and
    ``mean`` are absolute differences; equal infinities and NaN against NaN count as 0, NaN against a number as
    infinite.
    """

    layer: str
    index: int
    first: tuple[int, ...] | None
    second: tuple[int, ...] | None
    count: int = 0
    values: int | None = None
    bits: int | None = None
    largest: float | None = None
    mean: float | None = None
    cosine: float | None = None
    exact: bool = False
    """Stored values are the same, also beyond float32 where both are doubles."""

    def differs(self, tolerance: float | None = None) -> bool:
        """Whether the blobs differ: in any bit, or by more than ``tolerance``."""
        if self.largest is None:
            return True
        return not self.exact if tolerance is None else not self.largest <= tolerance


def compare_weights(first: Iterable[LayerWeights], second: Iterable[LayerWeights]) -> list[BlobDifference]:
    """Every blob of either side in the order of the first: layers pair by name, blobs by number.

    Of layers with one name the last counts, as when loading. A legacy four-axis header fits the shape that it pads.
    """
    ours, theirs = ({layer.name: layer for layer in layers if layer.blobs} for layers in (first, second))
    return [difference for name in {**ours, **theirs} for difference in _layer(name, ours.get(name), theirs.get(name))]


def _layer(name: str, first: LayerWeights | None, second: LayerWeights | None) -> Iterator[BlobDifference]:
    ours, theirs = (
        dict(zip(layer.indices, layer.blobs, strict=True)) if layer is not None else {} for layer in (first, second)
    )
    for index in sorted({*ours, *theirs}):
        yield _blob(name, index, ours.get(index), theirs.get(index))


def _blob(name: str, index: int, first: Blob | None, second: Blob | None) -> BlobDifference:
    one, other = (None if blob is None else tuple(blob.shape) for blob in (first, second))
    if first is None or second is None or not _same_shape(first, second):
        return BlobDifference(name, index, one, other)
    both_double = first.dtype.itemsize == second.dtype.itemsize == 8
    wide = np.float64 if max(first.dtype.itemsize, second.dtype.itemsize) == 8 else np.float32
    a, b = first.read(wide).reshape(-1), second.read(wide).reshape(-1)
    with np.errstate(over="ignore"):
        values, bits = different_bits(a.astype(np.float32, copy=False), b.astype(np.float32, copy=False))
    exact = np.array_equal(a.view(np.uint64), b.view(np.uint64)) if both_double else values == 0
    if wide is np.float64 and not both_double:
        exact = exact and bool(np.array_equal(a, b, equal_nan=True))
    largest, mean, cosine = (0.0, 0.0, 1.0) if exact else _figures(a, b)
    return BlobDifference(name, index, one, other, a.size, values, bits, largest, mean, cosine, exact)


def _same_shape(first: Blob, second: Blob) -> bool:
    if first.legacy == second.legacy:
        return tuple(first.shape) == tuple(second.shape)
    return fits(first, tuple(second.shape)) if first.legacy else fits(second, tuple(first.shape))


def different_bits(a: Array, b: Array) -> tuple[int, int]:
    """How many float32 values differ in some bit, and in how many bits altogether."""
    crossed = np.ascontiguousarray(a).view(np.uint32) ^ np.ascontiguousarray(b).view(np.uint32)
    different = crossed[crossed != 0]
    return int(different.size), int(np.unpackbits(different.view(np.uint8)).sum())


def _figures(a: Array, b: Array) -> tuple[float, float, float]:
    """Largest and mean absolute difference, and the cosine (1 for two zero blobs), in double precision."""
    if not a.size:
        return 0.0, 0.0, 1.0
    a, b = a.astype(np.float64, copy=False), b.astype(np.float64, copy=False)
    with np.errstate(invalid="ignore", over="ignore"):
        distance = np.abs(a - b)
        distance[(a == b) | (np.isnan(a) & np.isnan(b))] = 0.0
        distance[np.isnan(distance)] = math.inf
        product, lengths = float(a @ b), math.sqrt(float(a @ a)) * math.sqrt(float(b @ b))
    cosine = product / lengths if lengths else float(not a.any() and not b.any())
    return float(distance.max()), float(distance.mean()), cosine


def largest_of(differences: Sequence[BlobDifference]) -> float:
    """The largest difference of all blobs that could be compared."""
    return max((each.largest for each in differences if each.largest is not None), default=0.0)
