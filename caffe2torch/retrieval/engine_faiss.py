"""Search with distances by faiss (extra ``search``), whose popcounts use the widest instructions of the processor.

What was measured with faiss 1.15 on 48-bit codes and decides the form:

- ``IndexBinaryFlat`` scans codes padded to 8 bytes three to four times as fast as those of 6: it has loops for words.
- Its counting selection (``use_heap=False``) keeps ties in database order, also at the k-th place, but looks at every
  distance one by one. ``hammings``, which only writes distances, is six times as fast; the selection of ``scan``, a
  comparison with a bound, leaves most of that. For few codes the counting selection is the faster one, and where much
  of the database is asked for, numpy's sort.
- faiss' own threads meet after each 65,536 codes and lose more time waiting than they gain, unless OpenMP was told to
  wait passively before it was loaded. So each task here runs on one OpenMP thread, and tasks are spread over ours.

The functions read the codes where they lie, a memory-mapped file included.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from caffe2torch.errors import MissingPackageError
from caffe2torch.retrieval.codes import Packed
from caffe2torch.retrieval.engine_numpy import SORT_ALL, NumpyEngine, sort_all
from caffe2torch.retrieval.hamming import Distances, Positions, Words
from caffe2torch.retrieval.scan import PAIRS, Kernel
from caffe2torch.threads import in_threads

QUERIES_PER_TASK = 16
WORDS_OF_HAMMINGS = (1, 2, 4, 8)
"""Codes of other lengths make ``hammings`` of faiss 1.8 read beyond its arrays; numpy counts them."""
FEW_CODES = 1 << 16
MOST_PLACES = 1 << 23
"""Places of 8 bytes, k for each possible distance, that the counting selection of one query may take."""
PLACES_PER_TASK = 1 << 20
"""Queries are counted together as long as they take no more than this, which stays in the cache."""


class FaissEngine(NumpyEngine):
    """numpy's engine with faiss for what faiss does faster."""

    name = "faiss"

    def __init__(self, packed: Packed, bits: int, *, threads: int | None = None) -> None:
        self._faiss = load_faiss()
        super().__init__(packed, bits, threads=threads)

    def search(self, queries: Packed, k: int) -> tuple[Positions, Distances]:
        """The k nearest of each of (Q, width) queries, as (Q, k) positions and distances; k is at most N."""
        words = self.as_words(queries)
        places = k * (64 * self.words.shape[1] + 1)
        if len(self) <= FEW_CODES and places <= MOST_PLACES:
            return self._count(words, k, block=max(1, min(QUERIES_PER_TASK, PLACES_PER_TASK // places)))
        if k * SORT_ALL <= len(self):
            return self._scan.search(words, k)
        return sort_all(self.words, words, 64 * self.words.shape[1], k, threads=self.threads)

    def as_words(self, packed: Packed) -> Words:
        """As rows of 64-bit words, which all of faiss' functions take."""
        words = super().as_words(packed)
        return words if words.dtype == np.uint64 else words.astype(np.uint64)

    def kernel(self) -> Kernel:
        return FaissKernel(self._faiss) if self.words.shape[1] in WORDS_OF_HAMMINGS else super().kernel()

    def _count(self, queries: Words, k: int, *, block: int) -> tuple[Positions, Distances]:
        """faiss' counting selection."""
        positions = np.empty((len(queries), k), np.int64)
        distances = np.empty((len(queries), k), np.int32)
        asked, codes = queries.view(np.uint8), self.words.view(np.uint8)

        def work(start: int, stop: int) -> None:
            with one_thread(self._faiss):
                found = self._faiss.knn_hamming(asked[start:stop], codes, k, variant="mc")
            distances[start:stop], positions[start:stop] = found

        threads = self.threads if len(queries) * len(self) > FEW_CODES else 1  # starting some takes longer
        for _ in in_threads(work, len(queries), threads=threads, block=block):
            pass
        return positions, distances


class FaissKernel:
    """Distances as ``scan`` wants them, one kernel per thread."""

    def __init__(self, faiss: Any) -> None:
        self._faiss = faiss
        self._matrix = np.empty(PAIRS, np.int32)

    def distances(self, queries: Words, codes: Words) -> npt.NDArray[np.int32]:
        """(Q, words) queries to (N, words) codes: contiguous (Q, N), which holds until the next call."""
        faiss = self._faiss
        queries = np.ascontiguousarray(queries)
        matrix = self._matrix[: len(queries) * len(codes)].reshape(len(queries), len(codes))
        with one_thread(faiss):
            faiss.hammings(
                faiss.swig_ptr(queries.view(np.uint8)),
                faiss.swig_ptr(codes.view(np.uint8)),
                len(queries),
                len(codes),
                8 * codes.shape[1],
                faiss.swig_ptr(matrix),
            )
        return matrix


@contextmanager
def one_thread(faiss: Any) -> Iterator[None]:
    """One OpenMP thread for what this thread of ours calls; the setting is per thread and is put back."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


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
