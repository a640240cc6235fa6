"""Search by faiss' popcount scan (extra ``search``), called so that it is fast on any number of processors.

What was measured with faiss 1.15 on 48-bit codes and decides the form:

- Codes padded to 8 bytes are scanned three to four times as fast as those of 6: faiss has loops for whole words.
- Its counting selection (``use_heap=False`` of IndexBinaryFlat) keeps ties in database order, also at the k-th
  place; the heap keeps that order too, but is slower. The tests hold the first of these.
- Its own threads meet after each 65,536 codes and lose more time waiting than they gain, unless OpenMP was told to
  wait passively before it was loaded. So each task here runs on one OpenMP thread, and tasks are spread over ours.
- The selection wants ``k x (bits + 1)`` places per query. Few queries at a time keep that in the cache; with very
  large k numpy's radix sort is used instead, with the same result.

The functions read the codes where they lie, a memory-mapped file included.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from caffe2torch.errors import MissingPackageError
from caffe2torch.retrieval.codes import Packed
from caffe2torch.retrieval.engine_numpy import NumpyEngine
from caffe2torch.retrieval.hamming import (
    Distances,
    Neighbours,
    Pairs,
    Positions,
    default_threads,
    in_threads,
    join,
    pad,
)

QUERIES_PER_TASK = 16
PLACES_PER_TASK = 1 << 20
"""Places of 8 bytes that the counting selection of one task may take, by which tasks get fewer queries at large k."""
MOST_PLACES = 1 << 25
ROWS_PER_TASK = 1 << 17
"""Fewer rows than this are not worth a thread of their own."""


class FaissEngine:
    """Exhaustive search over (N, width) packed codes; the codes are read in place where their form allows."""

    name = "faiss"

    def __init__(self, packed: Packed, bits: int, *, threads: int | None = None) -> None:
        self._faiss = load_faiss()
        self.bits = bits
        self.codes = pad(packed, bits)
        self.threads = threads or default_threads()

    def __len__(self) -> int:
        return len(self.codes)

    def search(self, queries: Packed, k: int) -> tuple[Positions, Distances]:
        """The k nearest of each of (Q, width) queries, as (Q, k) positions and distances; k is at most N."""
        places = k * (8 * self.codes.shape[1] + 1)
        if places > MOST_PLACES:
            return NumpyEngine(self.codes, self.bits, threads=self.threads).search(queries, k)
        queries = pad(queries, self.bits)
        block = max(1, min(QUERIES_PER_TASK, PLACES_PER_TASK // places))
        parts = self._parts(len(queries), block, k)
        if len(parts) > 1:
            return self._search_parts(queries, k, parts)
        positions = np.empty((len(queries), k), np.int64)
        distances = np.empty((len(queries), k), np.int32)

        def work(start: int, stop: int) -> None:
            with self._one_thread():
                distances[start:stop], positions[start:stop] = self._nearest(queries[start:stop], self.codes, k)

        for _ in in_threads(work, len(queries), threads=self._useful_threads(len(queries)), block=block):
            pass
        return positions, distances

    def within(self, queries: Packed, radius: int) -> Neighbours:
        """All codes at a distance of at most ``radius`` of each query."""
        queries = pad(queries, self.bits)
        radius = min(radius, self.bits)

        def work(start: int, stop: int) -> Pairs:
            with self._one_thread():
                return self._inside(queries[start:stop], start, radius)

        threads = self._useful_threads(len(queries))
        return Neighbours.of(
            len(queries), join(list(in_threads(work, len(queries), threads=threads, block=QUERIES_PER_TASK)))
        )

    def _search_parts(self, queries: Packed, k: int, parts: list[int]) -> tuple[Positions, Distances]:
        """Fewer tasks of queries than processors: each processor takes a part of the database."""

        def work(part: int, _: int) -> tuple[Any, Any]:
            with self._one_thread():
                return self._nearest(queries, self.codes[parts[part] : parts[part + 1]], k)  # type: ignore[no-any-return]

        found = list(in_threads(work, len(parts) - 1, threads=self.threads, block=1))
        distances = np.concatenate([part[0] for part in found], axis=1)
        positions = np.concatenate([part[1] + start for part, start in zip(found, parts, strict=False)], axis=1)
        order = np.argsort(distances, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(positions, order, 1), np.take_along_axis(distances, order, 1)

    def _parts(self, queries: int, block: int, k: int) -> list[int]:
        tasks = -(-queries // block)
        parts = min(self.threads // max(tasks, 1), len(self) // max(ROWS_PER_TASK, k))
        return [len(self) * part // parts for part in range(parts + 1)] if parts > 1 else []

    def _useful_threads(self, queries: int) -> int:
        """Starting threads takes longer than a scan of few codes."""
        return self.threads if queries * len(self) > ROWS_PER_TASK else 1

    def _nearest(self, queries: Packed, codes: Packed, k: int) -> Any:
        return self._faiss.knn_hamming(queries, codes, k, variant="mc")

    def _inside(self, queries: Packed, first: int, radius: int) -> Pairs:
        faiss = self._faiss
        result = faiss.RangeSearchResult(len(queries))
        faiss.hamming_range_search(
            faiss.swig_ptr(queries),
            faiss.swig_ptr(self.codes),
            len(queries),
            len(self.codes),
            radius + 1,  # faiss takes what is strictly nearer
            self.codes.shape[1],
            result,
        )
        limits = faiss.rev_swig_ptr(result.lims, len(queries) + 1).astype(np.int64)
        rows = np.repeat(np.arange(first, first + len(queries)), np.diff(limits))
        if not len(rows):
            return rows, rows, rows
        distances = faiss.rev_swig_ptr(result.distances, len(rows)).astype(np.int64)
        return rows, distances, faiss.rev_swig_ptr(result.labels, len(rows)).astype(np.int64)

    @contextmanager
    def _one_thread(self) -> Iterator[None]:
        """One OpenMP thread for what this thread of ours calls; the setting is per thread and is put back."""
        before = self._faiss.omp_get_max_threads()
        self._faiss.omp_set_num_threads(1)
        try:
            yield
        finally:
            self._faiss.omp_set_num_threads(before)


def load_faiss() -> Any:
    """The module, or MissingPackageError."""
    try:
        import faiss
    except ImportError as error:
        raise MissingPackageError(
            "the engine 'faiss' needs the package faiss, which is not installed: pip install 'caffe2torch[search]', or "
            "choose the engine 'numpy'"
        ) from error
    return faiss
