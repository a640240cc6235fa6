"""The engine that is always there: popcount of 64-bit words, and a cut that shrinks while the database is read.

A stretch of the database is compared in cache-sized blocks. Once k codes are known, only codes strictly nearer than
the farthest of them can still enter (an equally near one stands later in the database), so nearly all of a block is
dismissed by one comparison, and what remains is small enough to sort. For large k all distances are ranked by numpy's
stable sort, which is a radix sort on the short integers that distances are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from caffe2torch.retrieval.codes import Packed
from caffe2torch.retrieval.hamming import (
    Distances,
    Neighbours,
    Pairs,
    Positions,
    Scanner,
    Words,
    as_words,
    default_threads,
    in_threads,
    join,
)

BLOCK = 1 << 16
"""Rows compared at once: their distances and their words stay in the second-level cache."""
FIRST_BLOCK = 1 << 12
QUERIES_PER_TASK = 16
SORT_ALL = 4
"""From N / SORT_ALL results on, sorting all N distances is the faster way."""


class NumpyEngine:
    """Exhaustive search over (N, width) packed codes; the codes are read in place where their form allows."""

    name = "numpy"

    def __init__(self, packed: Packed, bits: int, *, threads: int | None = None) -> None:
        self.bits = bits
        self.words = as_words(packed, bits)
        self.threads = threads or default_threads()

    def __len__(self) -> int:
        return len(self.words)

    def search(self, queries: Packed, k: int) -> tuple[Positions, Distances]:
        """The k nearest of each of (Q, width) queries, as (Q, k) positions and distances; k is at most N."""
        words = as_words(queries, self.bits)
        positions = np.empty((len(words), k), np.int64)
        distances = np.empty((len(words), k), np.int32)
        rank = _rank_all if k * SORT_ALL > len(self.words) else _rank_few

        def work(start: int, stop: int) -> None:
            scanner = Scanner(self.words, self.bits, len(self.words) if rank is _rank_all else BLOCK)
            for row in range(start, stop):
                positions[row], distances[row] = rank(scanner, words[row], k)

        for _ in in_threads(work, len(words), threads=self.threads, block=QUERIES_PER_TASK):
            pass
        return positions, distances

    def within(self, queries: Packed, radius: int) -> Neighbours:
        """All codes at a distance of at most ``radius`` of each query."""
        words = as_words(queries, self.bits)

        def work(start: int, stop: int) -> list[Pairs]:
            scanner = Scanner(self.words, self.bits, BLOCK)
            return [_inside(scanner, words[row], row, radius) for row in range(start, stop)]

        tasks = in_threads(work, len(words), threads=self.threads, block=QUERIES_PER_TASK)
        parts = [part for task in tasks for part in task]
        return Neighbours.of(len(words), join(parts))


def _rank_all(scanner: Scanner, query: Words, k: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    distances = scanner.distances(query, 0, len(scanner.words))
    order = np.argsort(distances, kind="stable")[:k]
    return order, distances[order]


def _rank_few(scanner: Scanner, query: Words, k: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """The first k without sorting the rest; ``best`` is kept in order, and what joins it stands later."""
    total = len(scanner.words)
    best = np.zeros(0, np.int64)
    distance: npt.NDArray[Any] = scanner.sums[:0].copy()
    stop = 0
    while stop < total:
        start, stop = stop, min(total, stop + min(BLOCK, max(stop, 2 * k, FIRST_BLOCK)))
        found = scanner.distances(query, start, stop)
        near = np.arange(stop - start) if len(best) < k else np.flatnonzero(found < distance[-1])
        if not len(near):
            continue
        best = np.concatenate([best, near + start])
        distance = np.concatenate([distance, found[near]])
        order = np.argsort(distance, kind="stable")[:k]
        best, distance = best[order], distance[order]
    return best, distance


def _inside(scanner: Scanner, query: Words, row: int, radius: int) -> Pairs:
    positions, distances = [], []
    for start in range(0, len(scanner.words), BLOCK):
        found = scanner.distances(query, start, min(start + BLOCK, len(scanner.words)))
        near = np.flatnonzero(found <= min(radius, np.iinfo(found.dtype).max))
        positions.append(near + start)
        distances.append(found[near])
    together = np.concatenate(positions)
    return np.full(len(together), row), np.concatenate(distances), together
