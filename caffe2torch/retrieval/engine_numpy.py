"""The engine that is always there: XOR and popcount of whole words by numpy."""

from __future__ import annotations

import numpy as np

from caffe2torch.cores import cores
from caffe2torch.retrieval.codes import Packed
from caffe2torch.retrieval.hamming import (
    Distances,
    Neighbours,
    Popcount,
    Positions,
    Words,
    as_words,
)
from caffe2torch.retrieval.scan import PAIRS, Kernel, Scan
from caffe2torch.threads import in_threads

QUERIES_PER_TASK = 16
SORT_ALL = 16
"""From N / SORT_ALL results on, sorting all N distances is the faster way."""


class NumpyEngine:
    """Exhaustive search over (N, width) packed codes; the codes are read in place where their form allows."""

    name = "numpy"

    def __init__(self, packed: Packed, bits: int, *, threads: int | None = None) -> None:
        self.bits = bits
        self.words = self.as_words(packed)
        self.threads = threads or cores()
        self._scan = Scan(self.words, bits, self.kernel, threads=self.threads)

    def __len__(self) -> int:
        return len(self.words)

    def search(self, queries: Packed, k: int) -> tuple[Positions, Distances]:
        """The k nearest of each of (Q, width) queries, as (Q, k) positions and distances; k is at most N."""
        words = self.as_words(queries)
        if k * SORT_ALL > len(self.words):
            return sort_all(self.words, words, self.bits, k, threads=self.threads)
        return self._scan.search(words, k)

    def within(self, queries: Packed, radius: int) -> Neighbours:
        """All codes at a distance of at most ``radius`` of each query."""
        return self._scan.within(self.as_words(queries), radius)

    def as_words(self, packed: Packed) -> Words:
        """Codes in the form that is searched."""
        return as_words(packed, self.bits)

    def kernel(self) -> Kernel:
        """What computes distances, for one thread."""
        return Popcount(self.words, self.bits, PAIRS)


def sort_all(codes: Words, queries: Words, bits: int, k: int, *, threads: int) -> tuple[Positions, Distances]:
    """The first k of all: numpy's stable sort of short integers, which distances are, is a radix sort."""
    positions = np.empty((len(queries), k), np.int64)
    distances = np.empty((len(queries), k), np.int32)

    def work(start: int, stop: int) -> None:
        popcount = Popcount(codes, bits, len(codes))
        for row in range(start, stop):
            far = popcount.distances(queries[row], codes)
            order = np.argsort(far, kind="stable")[:k]
            positions[row], distances[row] = order, far[order]

    for _ in in_threads(work, len(queries), threads=threads, block=QUERIES_PER_TASK):
        pass
    return positions, distances
