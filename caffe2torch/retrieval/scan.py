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
from dataclasses import dataclass
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
    join,
)
from caffe2torch.threads import in_threads

SAMPLE = 1 << 14
"""Codes the bound is taken from; a database of no more than that is its own sample, and the bound exact."""
QUERIES = 32
"""Queries compared at once."""
CANDIDATES = 1 << 20
"""Candidates held at once by each thread, about 80 bytes each: where k is large, fewer queries are compared at once."""
PAIRS = 1 << 20
"""Distances computed at once: few calls, and 4 MB that stay in the last-level cache."""
QUERIES_PER_TASK = 64
ROWS_PER_TASK = 1 << 18
"""Fewer codes than this are not worth a thread of their own."""

Matrix = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
Bounds = npt.NDArray[np.int64]
MakeBounds = Callable[[Words, int], Bounds]
Found = list[tuple[Positions, npt.NDArray[Any]]]


class Kernel(Protocol):
    """Computes distances into memory that is used again and again; one per thread."""

    def distances(self, queries: Words, codes: Words) -> Matrix:
        """(Q, words) queries to (N, words) codes: contiguous (Q, N), which holds until the next call."""


class Tools:
    """What one thread works with: its kernel, and room for truth values of a whole matrix and of its eights."""

    def __init__(self, kernel: Kernel) -> None:
        eights = -(-PAIRS // 8)
        self.kernel = kernel
        self.mask = np.empty(eights * 8, np.bool_)
        self.some = np.empty(eights, np.bool_)


class Scan:
    """Exhaustive search through ``words``, (N, words), by kernels that ``make_kernel`` makes as threads need them."""

    def __init__(self, words: Words, bits: int, make_kernel: Callable[[], Kernel], *, threads: int) -> None:
        self.words, self.bits, self.threads = words, bits, threads
        self._make_kernel = make_kernel
        self._idle: list[Tools] = []
        self._sample: Words | None = None

    def search(self, queries: Words, k: int) -> tuple[Positions, Distances]:
        """(Q, k) positions and distances, in order."""
        positions = np.empty((len(queries), k), np.int64)
        distances = np.empty((len(queries), k), np.int32)
        again = self._fill(queries, np.arange(len(queries)), self._bounds, positions, distances)
        if len(again):
            self._fill(queries, again, self._no_bounds, positions, distances)
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
        self, queries: Words, rows: Positions, make_bounds: MakeBounds, positions: Positions, distances: Distances
    ) -> Positions:
        """Write the results of some queries; returns those for which the bound left fewer than k."""
        k = positions.shape[1]
        parts = self._parts(len(rows), k)

        def work(start: int, stop: int) -> list[int]:
            asked = rows[start:stop]
            found = self._nearest(queries[asked], make_bounds(queries[asked], k), k, parts)
            for row, (places, far) in zip(asked.tolist(), found, strict=True):
                if len(places) == k:
                    positions[row], distances[row] = places, far
            return [row for row, (places, _) in zip(asked.tolist(), found, strict=True) if len(places) < k]

        short = list(self._tasks(work, len(rows), spread=len(parts) == 1))
        return np.array([row for task in short for row in task], np.int64)

    def _nearest(self, queries: Words, bounds: Bounds, k: int, parts: list[tuple[int, int]]) -> Found:
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

    def _bounds(self, queries: Words, k: int) -> Bounds:
        """For each query a distance below which there should be k codes; exact where all codes are the sample."""
        if self._sample is None:
            rows = np.arange(len(self.words))
            if len(rows) > SAMPLE:
                rows = np.unique(np.random.default_rng(0).integers(0, len(self.words), SAMPLE))
            self._sample = self.words[rows]
        sample, share = self._sample, len(self._sample) / len(self.words)
        wanted = k if share == 1 else int(k * share + 3 * sqrt(k * share) + 3)
        bounds = self._no_bounds(queries, k)
        if wanted > len(sample):
            return bounds

        block = max(1, PAIRS // len(sample))
        with self._tools() as tools:
            for first in range(0, len(queries), block):
                matrix = tools.kernel.distances(queries[first : first + block], sample)
                bounds[first : first + block] = _bound(matrix, self.bits, wanted)
        return bounds

    def _no_bounds(self, queries: Words, k: int) -> Bounds:
        """Bounds that leave everything."""
        return np.full(len(queries), self.bits + 1)

    def _collect(self, queries: Words, bounds: Bounds, k: int | None, part: tuple[int, int]) -> Found:
        """What lies below the bounds in a stretch of the database, for each query; with k the first k, in order."""
        found: Found = []
        together = max(1, min(QUERIES, CANDIDATES // (k or 1)))
        with self._tools() as tools:
            for first in range(0, len(queries), together):
                block = queries[first : first + together]
                best = Best(bounds[first : first + together], k, self.bits, tools)
                rows = max(1, PAIRS // len(block))
                for start in range(part[0], part[1], rows):
                    codes = self.words[start : min(start + rows, part[1])]
                    best.take(tools.kernel.distances(block, codes), start)
                found += best.found()
        return found

    @contextmanager
    def _tools(self) -> Iterator[Tools]:
        """Tools for one thread; they are kept, because memory that is new to the process is slow to touch."""
        try:
            tools = self._idle.pop()
        except IndexError:
            tools = Tools(self._make_kernel())
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


@dataclass(frozen=True)
class Waiting:
    """What of a matrix lies below the bounds: its ``eights``, the places of eight distances of which some do."""

    eights: Positions
    flags: Mask
    """(8 E,), which of the eight do."""
    distances: Matrix
    """(E, 8)."""
    width: int
    """Of the matrix, that is how many codes."""
    start: int
    """The position of the first of them."""


class Best:
    """The candidates of a few queries, and the bounds below which a code still is one.

    Looking through a matrix is a few calls on large arrays, because each call gives up the interpreter and has to get
    it back from the other threads: eight truth values are looked at as one number, and what such a number stands for is
    worked out only when candidates are sorted, for many matrices at once.
    """

    def __init__(self, bounds: Bounds, k: int | None, bits: int, tools: Tools) -> None:
        self.bounds, self.k = bounds.copy(), k
        self._mask, self._some = tools.mask, tools.some
        self._span = bits + 1
        self._ranks = np.zeros(0, np.int64)
        """Row and distance of the candidates in one number, ``row * span + distance``, ascending; a short one sorts
        fast. Among equal ones positions ascend, because what waits always stands later in the database."""
        self._positions = np.zeros(0, np.int64)
        self._waiting: list[Waiting] = []
        self._held = 0

    def take(self, matrix: Matrix, start: int) -> None:
        """Look through the distances to the codes from ``start`` on."""
        size = matrix.size
        mask = self._mask[: -(-size // 8) * 8]
        mask[size:] = False
        np.less(matrix, self.bounds[:, None].astype(matrix.dtype), out=mask[:size].reshape(matrix.shape))
        some = np.not_equal(mask.view(np.uint64), 0, out=self._some[: len(mask) // 8])
        eights = np.flatnonzero(some)
        if len(eights):
            distances = _eights(matrix.reshape(-1), eights)
            flags = mask.view(np.uint64).take(eights).view(np.bool_)
            self._waiting.append(Waiting(eights, flags, distances, matrix.shape[1], start))
            self._held += len(eights)
        if self.k is not None and self._held > self.k * len(self.bounds):
            self.settle()

    def settle(self) -> None:
        """Sort what waits into the candidates."""
        if not self._held:
            return
        parts = [(self._ranks, self._positions), *(self._unfold(waiting) for waiting in self._waiting)]
        self._waiting, self._held = [], 0
        ranks, positions = (np.concatenate([part[column] for part in parts]) for column in range(2))
        order = np.argsort(ranks.astype(distance_type(len(self.bounds) * self._span)), kind="stable")
        ranks = ranks[order]
        if self.k is not None:
            ends = self._ends(ranks)
            full = np.flatnonzero(np.diff(ends) >= self.k)
            self.bounds[full] = ranks[ends[full] + self.k - 1] - full * self._span
            first = np.arange(len(ranks)) - np.repeat(ends[:-1], np.diff(ends)) < self.k
            ranks, order = ranks[first], order[first]
        self._ranks, self._positions = ranks, positions[order]

    def found(self) -> Found:
        """For each query its candidates in order."""
        self.settle()
        distances = self._ranks % self._span
        ends = pairwise(self._ends(self._ranks).tolist())
        return [(self._positions[start:stop], distances[start:stop]) for start, stop in ends]

    def _ends(self, ranks: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Where the candidates of each query begin, and how many there are."""
        return np.searchsorted(ranks, np.arange(len(self.bounds) + 1) * self._span)

    def _unfold(self, waiting: Waiting) -> tuple[npt.NDArray[np.int64], Positions]:
        """Ranks and positions."""
        flags = np.flatnonzero(waiting.flags)
        rows, columns = np.divmod(waiting.eights[flags >> 3] * 8 + (flags & 7), waiting.width)
        return rows * self._span + waiting.distances.reshape(-1)[flags], columns + waiting.start


def _eights(flat: Matrix, places: Positions) -> Matrix:
    """(E, 8): of the distances, eight together; the last eight of all may want some, which are made up."""
    if len(flat) % 8 == 0:
        return flat.reshape(-1, 8).take(places, axis=0)  # four times as fast as [places]
    clipped: Matrix = flat.take(places[:, None] * 8 + np.arange(8), mode="clip")
    return clipped


def _first(parts: Found, k: int) -> tuple[Positions, npt.NDArray[Any]]:
    """The first k of candidates in order, each part standing later in the database than those before it."""
    positions = np.concatenate([places for places, _ in parts])
    distances = np.concatenate([far for _, far in parts])
    order = np.argsort(distances, kind="stable")[:k]
    return positions[order], distances[order]
