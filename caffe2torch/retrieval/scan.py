"""The scan that the engines for one machine share: distances in cache-sized blocks, and a bound that dismisses most.

A kernel writes the distances of a few queries to a stretch of codes as a matrix, as fast as its library can. What is
not below a query's bound is dismissed by one comparison of the matrix; what remains is sorted. The bound comes from a
sample of the codes: a distance within which, almost certainly, there are k codes and not many more. As soon as k are
found, the bound becomes the distance of the farthest of them, since an equally near code that comes later stands behind
it. A query for which the sample promised too much (fewer than k were found) is asked again without a bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from math import sqrt
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from caffe2torch.retrieval.hamming import (
    Distances,
    Neighbours,
    Pairs,
    Positions,
    Words,
    distance_type,
    in_threads,
    join,
)

SAMPLE = 1 << 14
"""Codes the bound is taken from; a database of no more than that is its own sample, and the bound exact."""
QUERIES = 32
"""Queries compared at once."""
PAIRS = 1 << 20
"""Distances computed at once: few calls, and 4 MB that stay in the last-level cache."""
QUERIES_PER_TASK = 64
ROWS_PER_TASK = 1 << 18
"""Fewer codes than this are not worth a thread of their own."""

Matrix = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
Found = list[tuple[Positions, npt.NDArray[Any]]]


class Kernel(Protocol):
    """Computes distances into memory that is used again and again; one per thread."""

    def distances(self, queries: Words, codes: Words) -> Matrix:
        """(Q, words) queries to (N, words) codes: contiguous (Q, N), which holds until the next call."""


class Scan:
    """Exhaustive search through ``words``, (N, words), by kernels that ``make_kernel`` makes as threads need them."""

    def __init__(self, words: Words, bits: int, make_kernel: Callable[[], Kernel], *, threads: int) -> None:
        self.words, self.bits, self.threads = words, bits, threads
        self._make_kernel = make_kernel
        self._idle: list[tuple[Kernel, Mask]] = []
        self._sample: Words | None = None

    def search(self, queries: Words, k: int) -> tuple[Positions, Distances]:
        """(Q, k) positions and distances, in order."""
        positions = np.empty((len(queries), k), np.int64)
        distances = np.empty((len(queries), k), np.int32)
        bounds = self._bounds(queries, k)
        again = self._fill(queries, np.arange(len(queries)), bounds, positions, distances)
        if len(again):
            bounds[:] = self.bits + 1
            self._fill(queries, again, bounds, positions, distances)
        return positions, distances

    def within(self, queries: Words, radius: int) -> Neighbours:
        """Everything at a distance of ``radius`` or less."""
        bounds = np.full(len(queries), min(radius, self.bits) + 1)

        def work(start: int, stop: int) -> Pairs:
            found = self._collect(queries[start:stop], bounds[start:stop], None, (0, len(self.words)))
            rows = np.repeat(np.arange(start, stop), [len(places) for places, _ in found])
            return rows, np.concatenate([far for _, far in found]), np.concatenate([places for places, _ in found])

        return Neighbours.of(len(queries), join(list(self._tasks(work, len(queries)))))

    def _fill(
        self, queries: Words, rows: Positions, bounds: npt.NDArray[np.int64], positions: Positions, distances: Distances
    ) -> Positions:
        """Write the results of some queries; returns those for which the bound left fewer than k."""
        k = positions.shape[1]
        parts = self._parts(len(rows), k)

        def work(start: int, stop: int) -> list[int]:
            asked = rows[start:stop]
            found = self._nearest(queries[asked], bounds[asked], k, parts)
            for row, (places, far) in zip(asked.tolist(), found, strict=True):
                if len(places) == k:
                    positions[row], distances[row] = places, far
            return [row for row, (places, _) in zip(asked.tolist(), found, strict=True) if len(places) < k]

        short = list(self._tasks(work, len(rows), spread=len(parts) == 1))
        return np.array([row for task in short for row in task], np.int64)

    def _nearest(self, queries: Words, bounds: npt.NDArray[np.int64], k: int, parts: list[tuple[int, int]]) -> Found:
        """The nearest of a few queries, the parts of the database one per thread."""

        def work(part: int, _: int) -> Found:
            return self._collect(queries, bounds, k, parts[part])

        found = list(in_threads(work, len(parts), threads=self.threads, block=1))
        return found[0] if len(parts) == 1 else [_first(list(part), k) for part in zip(*found, strict=True)]

    def _parts(self, queries: int, k: int) -> list[tuple[int, int]]:
        """Stretches of the database: several where there are fewer queries than threads."""
        count = max(1, min(self.threads // max(queries, 1), len(self.words) // max(ROWS_PER_TASK, k)))
        places = [len(self.words) * part // count for part in range(count + 1)]
        return list(pairwise(places))

    def _tasks(self, work: Callable[[int, int], Any], queries: int, *, spread: bool = True) -> Any:
        """Queries in blocks, one task each; starting threads takes longer than to scan few codes."""
        threads = self.threads if spread and queries * len(self.words) > ROWS_PER_TASK else 1
        block = max(1, min(QUERIES_PER_TASK, -(-queries // threads)))
        return in_threads(work, queries, threads=threads, block=block)

    def _bounds(self, queries: Words, k: int) -> npt.NDArray[np.int64]:
        """For each query a distance below which there should be k codes; exact where all codes are the sample."""
        if self._sample is None:
            rows = np.arange(len(self.words))
            if len(rows) > SAMPLE:
                rows = np.unique(np.random.default_rng(0).integers(0, len(self.words), SAMPLE))
            self._sample = self.words[rows]
        sample, share = self._sample, len(self._sample) / len(self.words)
        wanted = k if share == 1 else int(k * share + 3 * sqrt(k * share) + 3)
        bounds = np.full(len(queries), self.bits + 1)
        if wanted > len(sample):
            return bounds

        def work(start: int, stop: int) -> None:
            block = max(1, PAIRS // len(sample))
            with self._tools() as (kernel, _):
                for first in range(start, stop, block):
                    last = min(first + block, stop)
                    matrix = kernel.distances(queries[first:last], sample)
                    bounds[first:last] = _bound(matrix, self.bits, wanted)

        list(self._tasks(work, len(queries)))
        return bounds

    def _collect(self, queries: Words, bounds: npt.NDArray[np.int64], k: int | None, part: tuple[int, int]) -> Found:
        """What lies below the bounds in a stretch of the database, for each query; with k the first k, in order."""
        found: Found = []
        with self._tools() as (kernel, mask):
            for first in range(0, len(queries), QUERIES):
                block = queries[first : first + QUERIES]
                best = Best(bounds[first : first + QUERIES], k, mask)
                rows = max(1, PAIRS // len(block))
                for start in range(part[0], part[1], rows):
                    codes = self.words[start : min(start + rows, part[1])]
                    best.take(kernel.distances(block, codes), start)
                best.settle()
                found += best.found
        return found

    @contextmanager
    def _tools(self) -> Iterator[tuple[Kernel, Mask]]:
        """A kernel and a mask for one thread: memory that is new to the process is slow to touch, so both are kept."""
        try:
            tools = self._idle.pop()
        except IndexError:
            tools = self._make_kernel(), np.empty(-(-PAIRS // 8) * 8, np.bool_)
        try:
            yield tools
        finally:
            self._idle.append(tools)


def _bound(matrix: Matrix, bits: int, wanted: int) -> npt.NDArray[np.int64]:
    """For each row one more than its ``wanted``-th smallest distance, by counting each distance."""
    rows, width = len(matrix), bits + 1
    flat = matrix.astype(np.int64)
    flat += np.arange(rows)[:, None] * width
    counts = np.bincount(flat.reshape(-1), minlength=rows * width).reshape(rows, width)
    found: npt.NDArray[np.int64] = np.argmax(np.cumsum(counts, axis=1) >= wanted, axis=1) + 1
    return found


class Best:
    """The candidates of a few queries, and the bounds below which a code still is one."""

    def __init__(self, bounds: npt.NDArray[np.int64], k: int | None, mask: Mask) -> None:
        """``mask`` is memory for as many truth values as a matrix has distances, and a multiple of 8."""
        self.bounds, self.k = bounds.copy(), k
        self.found: Found = [(np.zeros(0, np.int64), np.zeros(0, np.uint8))] * len(bounds)
        self._waiting: list[Pairs] = []
        self._held = 0
        self._mask = mask

    def take(self, matrix: Matrix, start: int) -> None:
        """Look through the distances to the codes from ``start`` on."""
        size = matrix.size
        mask = self._mask[: -(-size // 8) * 8]
        mask[size:] = False
        np.less(matrix, self.bounds[:, None].astype(matrix.dtype), out=mask[:size].reshape(matrix.shape))
        places = _true_places(mask)
        if not len(places):
            return
        rows = places // matrix.shape[1]
        self._waiting.append((rows, matrix.reshape(-1)[places], places - rows * matrix.shape[1] + start))
        self._held += len(places)
        if self.k is not None and self._held > 2 * self.k * len(self.bounds):
            self.settle()

    def settle(self) -> None:
        """Sort what waits into the candidates; what waits stands later in the database than they do."""
        if not self._held:
            return
        rows, distances, positions = join(self._waiting)
        self._waiting, self._held = [], 0
        order = np.argsort(rows.astype(np.uint8), kind="stable")
        distances, positions = distances[order], positions[order]
        ends = np.cumsum(np.bincount(rows, minlength=len(self.bounds))).tolist()
        for row, (start, stop) in enumerate(zip([0, *ends], ends, strict=False)):
            if start == stop:
                continue
            self.found[row] = _first([self.found[row], (positions[start:stop], distances[start:stop])], self.k)
            if self.k is not None and len(self.found[row][0]) == self.k:
                self.bounds[row] = self.found[row][1][-1]


def _first(parts: Found, k: int | None) -> tuple[Positions, npt.NDArray[Any]]:
    """The first k of candidates, each part standing later in the database than those before it; all without k."""
    positions = np.concatenate([places for places, _ in parts])
    distances = np.concatenate([far for _, far in parts])
    if k is None:
        return positions, distances
    short = distances.astype(distance_type(int(distances.max()))) if len(distances) else distances
    order = np.argsort(short, kind="stable")[:k]
    return positions[order], distances[order]


def _true_places(mask: Mask) -> Positions:
    """Where the mask, a multiple of 8 long, is true: eight at a time, as few are."""
    eights = np.flatnonzero(mask.view(np.uint64) != 0)
    within = np.flatnonzero(mask.reshape(-1, 8)[eights])
    places: Positions = eights[within >> 3] * 8 + (within & 7)
    return places
