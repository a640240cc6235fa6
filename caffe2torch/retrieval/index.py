"""A searchable set of codes: exact answers by any engine, grown and thinned by id.

Every answer is in (distance, database position) order; positions count the codes in the order they were added, those
removed left out. See ``hamming`` for the order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from caffe2torch.errors import RetrievalError, UsageError
from caffe2torch.retrieval.codes import Packed
from caffe2torch.retrieval.engine_numpy import NumpyEngine
from caffe2torch.retrieval.hamming import Distances, Neighbours, Positions, check_codes, pad

Ids = npt.NDArray[np.int64]

BLOCK_BYTES = 64 << 20
"""Memory one block of ``search_blocks`` takes at most, where one query's results allow it."""


class Engine(Protocol):
    """What the engines have in common; the queries are packed, (Q, width)."""

    name: str

    def __len__(self) -> int: ...
    def search(self, queries: Packed, k: int) -> tuple[Positions, Distances]: ...
    def within(self, queries: Packed, radius: int) -> Neighbours: ...


@dataclass(frozen=True, eq=False)
class Hits:
    """The nearest codes of each query, (Q, k): ``ids`` as the index knows them and Hamming ``distances`` in bits."""

    ids: Ids
    distances: Distances


class Index:
    """Codes of one length with an id each."""

    def __init__(self, packed: Packed, bits: int, *, ids: Ids | None = None, engine: str = "auto") -> None:
        self.bits = bits
        self._codes = pad(check_codes(packed, bits), bits)
        self._ids = np.arange(len(self._codes)) if ids is None else np.asarray(ids, np.int64)
        self._built: Engine | None = None

    @classmethod
    def from_codes(
        cls,
        packed: Packed,
        bits: int,
        *,
        ids: npt.ArrayLike | None = None,
        engine: str = "auto",
        grouped: bool | Literal["auto"] = "auto",
    ) -> Index:
        """An index of (N, width) packed codes; ids are 0 to N - 1 unless others are given."""
        return cls(packed, bits, ids=None if ids is None else np.asarray(ids), engine=engine)

    def __len__(self) -> int:
        return len(self._codes)

    def search(self, queries: Packed, k: int) -> Hits:
        """The k nearest codes of each of (Q, width) packed queries, exactly."""
        queries = self._check(queries, k)
        positions, distances = self._engine.search(queries, k)
        return Hits(self._ids[positions], distances)

    def within(self, queries: Packed, radius: int) -> Neighbours:
        """All codes at a distance of at most ``radius`` bits of each query; the ``positions`` are ids."""
        queries = self._check(queries, 1)
        if radius < 0:
            raise UsageError(f"the radius is {radius}; it must be 0 or more")
        found = self._engine.within(queries, radius)
        return Neighbours(found.limits, self._ids[found.positions], found.distances)

    def search_blocks(self, queries: Packed, k: int, *, block: int | None = None) -> Iterator[tuple[int, Hits]]:
        """The same as ``search`` in pieces that fit memory: (first query of the piece, its hits), in order."""
        queries = self._check(queries, k)
        block = block or max(1, min(1024, BLOCK_BYTES // (20 * k)))
        for start in range(0, len(queries), block):
            yield start, self.search(queries[start : start + block], k)

    def _check(self, queries: npt.NDArray[Any], k: int) -> Packed:
        queries = check_codes(queries, self.bits, what="the queries' codes")
        if not len(self):
            raise RetrievalError("the database is empty: there is nothing to search")
        if k < 1:
            raise UsageError(f"k is {k}; ask for at least one result")
        if k > len(self):
            raise RetrievalError(f"k is {k}, but the database has only {len(self)} codes")
        return queries

    @property
    def _engine(self) -> Engine:
        if self._built is None:
            self._built = NumpyEngine(self._codes, self.bits)
        return self._built
