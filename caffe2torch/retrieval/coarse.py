"""Coarse to fine: candidates by Hamming distance between codes, then ranked by float features, such as fc7.

This is the search both papers describe, and what a released code is for: the codes say in microseconds where to look,
and only the features of those few pictures are read.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from caffe2torch.cores import cores
from caffe2torch.errors import RetrievalError, UsageError
from caffe2torch.retrieval.features import Doubles, Features, Rows, check_queries
from caffe2torch.retrieval.fine import QUERIES, TASK, FloatSearch, Query, check_k, recall
from caffe2torch.threads import in_threads

CANDIDATES = 1000
POOLED = 1 << 20
"""Candidates held at a time, of all queries together."""

Distances = npt.NDArray[np.int32]


class Ranking(Protocol):
    """What an index answers to ``search``: ids and Hamming distances, (Q, k), in (distance, position) order."""

    @property
    def ids(self) -> npt.NDArray[np.int64]: ...
    @property
    def distances(self) -> Distances: ...


class CodeIndex(Protocol):
    """What is asked of the index of codes."""

    def __len__(self) -> int: ...
    def search(self, queries: Any, k: int, /) -> Ranking: ...


@dataclass(frozen=True, eq=False)
class FineHits:
    """Nearest first by feature: ``ids`` (Q, k) int64, ``hamming`` (Q, k) int32, ``distances`` (Q, k) float64."""

    ids: Rows
    hamming: Distances
    distances: Doubles


class CoarseToFine:
    """Search by code, then by feature.

    **Candidates** of a query are the first codes of its exact Hamming ranking (ties in database order):

    - without ``radius``, the first ``candidates``, or all there are if that is fewer;
    - with ``radius``, those within that distance, but never more than ``candidates`` and never fewer than ``k``: a
      radius that leaves too few (within 2 bits there is often nothing) is filled up with the next nearest codes. The
      Hamming distances in the result tell which these are.

    **The result** is the ``k`` candidates nearest by feature, by (distance, row of the features) and no longer by
    Hamming distance; distances are exact, as ``fine`` defines them.
    """

    def __init__(
        self,
        index: CodeIndex,
        features: Features | npt.ArrayLike | str | os.PathLike[str],
        *,
        metric: str = "euclidean",
        candidates: int = CANDIDATES,
        radius: int | None = None,
        ids: npt.ArrayLike | None = None,
    ) -> None:
        """``features`` is a Features, an array, or the path of a file that ``Features.open`` knows.

        Row i belongs to the code with id ``ids[i]``; without ``ids``, to id i, which is what an index numbers its codes
        by when it is given no ids. An index some of whose codes were removed keeps the features of all: give ``ids``.
        Raises RetrievalError when codes and features do not belong together, UsageError for impossible settings.
        """
        if isinstance(features, (str, os.PathLike)):
            features = Features.open(features)
        self.features = features if isinstance(features, Features) else Features(features)
        if ids is None and len(self.features) > len(index):
            raise RetrievalError(
                f"{self.features.source}: {len(self.features)} rows of features for {len(index)} codes; if codes were "
                "removed from the index, give ids, the id of each row"
            )
        if ids is None:
            self.features.expect(len(index))
        if candidates < 1:
            raise UsageError(f"candidates = {candidates}: at least 1 is needed")
        if radius is not None and radius < 0:
            raise UsageError(f"radius = {radius}: a Hamming distance is 0 or more")
        self.index, self.fine = index, FloatSearch(self.features, metric=metric)
        self.candidates, self.radius = candidates, radius
        self._ids, self._order = _sorted_ids(ids, self.features)

    def search(self, query_codes: npt.NDArray[np.uint8], query_features: npt.ArrayLike, k: int) -> FineHits:
        """The ``k`` nearest by feature among the candidates by code; row i of both arguments is query i.

        Raises RetrievalError: queries that do not fit, k above the number of codes or candidates, features that are
        no numbers.
        """
        array = check_queries(query_features, self.features)
        if len(query_codes) != len(array):
            raise RetrievalError(f"{len(query_codes)} query codes but {len(array)} query features")
        check_k(k, len(self.index), "codes")
        if k > self.candidates:
            raise RetrievalError(f"k is {k}, of {self.candidates} candidates: raise candidates to {k} at least")
        count = len(array)
        hits = FineHits(np.empty((count, k), np.int64), np.empty((count, k), np.int32), np.empty((count, k)))
        most = min(self.candidates, len(self.index))
        together = min(QUERIES, max(1, POOLED // most))
        for first in range(0, count, together):
            part = slice(first, first + together)
            self._fill(hits, first, self.index.search(query_codes[part], most), self.fine.prepare(array[part], first))
        return hits

    def _fill(self, hits: FineHits, first: int, ranking: Ranking, queries: list[Query]) -> None:
        """Put the results of ``queries``, the first of which is number ``first``, into ``hits``."""
        k = hits.ids.shape[1]

        def work(start: int, stop: int) -> None:
            buffer = self.fine.buffer()
            for row in range(start, stop):
                ids, hamming = self._pool(ranking, row, k)
                rows = self._rows(ids)
                order = np.argsort(rows)
                found, hits.distances[first + row] = self.fine.rank(queries[row], rows[order], k, buffer)
                chosen = order[np.searchsorted(rows, found, sorter=order)]
                hits.ids[first + row], hits.hamming[first + row] = ids[chosen], hamming[chosen]

        for _ in in_threads(work, len(queries), threads=cores(), block=TASK):
            pass

    def recall(self, query_codes: npt.NDArray[np.uint8], query_features: npt.ArrayLike, k: int) -> float:
        """recall@k: which share of the ``k`` nearest of all features is among those found, mean over the queries."""
        found = self._rows(self.search(query_codes, query_features, k).ids.ravel()).reshape(-1, k)
        return recall(found, self.fine.search(query_features, k).rows)

    def _pool(self, ranking: Ranking, row: int, k: int) -> tuple[Rows, Distances]:
        """Ids and Hamming distances of one query's candidates."""
        ids, distances = ranking.ids[row], ranking.distances[row]
        end = len(ids)
        if self.radius is not None:
            end = max(k, int(np.searchsorted(distances, self.radius, side="right")))
        return ids[:end], distances[:end]

    def _rows(self, ids: Rows) -> Rows:
        """The row of the features for each id."""
        if self._ids is None:
            rows, known = ids, (ids >= 0) & (ids < len(self.features))
        else:
            assert self._order is not None
            place = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
            rows, known = self._order[place], self._ids[place] == ids
        if not known.all():
            hint = "; give ids, the id of each row" if self._ids is None else ""
            raise RetrievalError(f"{self.features.source}: no row of features for the code {ids[~known][0]}{hint}")
        return rows


def _sorted_ids(ids: npt.ArrayLike | None, features: Features) -> tuple[Rows | None, Rows | None]:
    """The ids in ascending order, and the row each belongs to."""
    if ids is None:
        return None, None
    array = np.asarray(ids)
    if array.dtype.kind not in "iu" or array.shape != (len(features),):
        raise RetrievalError(
            f"{features.source}: {len(features)} rows of features, but ids are {array.dtype} {array.shape}; "
            "each row needs a whole number"
        )
    order = np.argsort(array, kind="stable").astype(np.int64)
    ascending = array[order].astype(np.int64)
    twice = np.flatnonzero(ascending[1:] == ascending[:-1])
    if len(twice):
        raise RetrievalError(f"{features.source}: the id {ascending[twice[0]]} stands at two rows of features")
    return ascending, order
