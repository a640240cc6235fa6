"""The inner loop of an evaluation: some queries are ranked, measured and forgotten."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from caffe2torch.retrieval.hamming import Words
from caffe2torch.retrieval.metrics import Divisor, Floats, count_columns, divide_by, precision_sum, ratio, recall_gains
from caffe2torch.retrieval.ranking import Prefix, Ranker
from caffe2torch.retrieval.relevance import Relevance
from caffe2torch.retrieval.ties import TiedPrecision, expected_hits, tied_average_precision

BLOCK_BYTES = 8 << 20
"""Room of one thread for its table of right items, a byte each."""
MAX_BLOCK = 128


@dataclass(frozen=True, eq=False)
class Part:
    """What some of the queries add to the figures: (B,) arrays of theirs, and (K,) sums over them."""

    queries: npt.NDArray[np.intp]
    average_precision: Floats
    near: npt.NDArray[np.int64]
    near_right: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]
    """(K,) how many of the queries have a right item at each place."""
    recall: Floats
    """(K,) what each place adds to the sum of their recalls."""
    tied: TiedPrecision | None
    expected: Floats | None
    """(K,) as ``right``, expected over all orders of equal distances."""


@dataclass(frozen=True, eq=False)
class Task:
    """One evaluation, ready to be worked off in parts; its methods may run in several threads at once."""

    query_words: Words
    database_words: Words
    bits: int
    relevance: Relevance
    totals: npt.NDArray[np.int64]
    k: int
    radius: int
    divisor: Divisor
    ties: bool
    leave_one_out: bool

    def block(self) -> int:
        """How many queries to measure at once."""
        return max(1, min(MAX_BLOCK, BLOCK_BYTES // self.k))

    def order(self) -> npt.NDArray[np.intp]:
        """The queries with equal codes after each other, so that these are ranked once."""
        return np.lexsort(self.query_words.T)

    def measure(self, queries: npt.NDArray[np.intp]) -> Part:
        """Rank the database for each of ``queries`` and measure what comes out."""
        count = len(queries)
        right = np.empty((count, self.k), np.bool_)
        sums = np.empty(count)
        found, near, near_right = np.zeros((3, count), np.int64)
        sizes, hits = np.zeros((2, count if self.ties else 0, self.bits + 1), np.int64)
        ranker = Ranker(self.database_words, self.bits)
        again = self._ranked_again(queries)
        for row, query in enumerate(queries.tolist()):
            if not again[row]:
                prefix = self._rank(ranker, query)
                keys = self.relevance.keys.take(prefix.positions, axis=1)
            mine = self.relevance.of(query, keys)
            places = np.flatnonzero(mine)
            right[row] = mine[: self.k]
            found[row], near_right[row] = np.searchsorted(places, (self.k, prefix.near))
            sums[row] = precision_sum(places[: found[row]])
            near[row] = prefix.near
            if prefix.sizes is not None:
                sizes[row] = prefix.sizes
                hits[row] = np.diff(np.searchsorted(places, np.cumsum(prefix.sizes)), prepend=0)
        totals = self.totals[queries]
        divisors = divide_by(self.divisor, found, totals, self.k)
        tied = tied_average_precision(sizes, hits, self.k, divisor=self.divisor, totals=totals) if self.ties else None
        return Part(
            queries=queries,
            average_precision=ratio(sums, divisors),
            near=near,
            near_right=near_right,
            right=count_columns(right),
            recall=recall_gains(right, totals),
            tied=tied,
            expected=expected_hits(sizes, hits, self.k) if self.ties else None,
        )

    def _ranked_again(self, queries: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
        """Whether a query's ranking is that of the query before it: the same code, and the whole database."""
        again = np.zeros(len(queries), np.bool_)
        if not self.leave_one_out:
            words = self.query_words[queries]
            again[1:] = (words[1:] == words[:-1]).all(axis=1)
        return again

    def _rank(self, ranker: Ranker, query: int) -> Prefix:
        own = query if self.leave_one_out else None
        return ranker.prefix(self.query_words[query], self.k, self.radius, groups=self.ties, leave_out=own)
