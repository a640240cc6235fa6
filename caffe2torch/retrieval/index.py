"""A searchable set of codes: exact answers by any engine, grown and thinned by id, kept in a file.

Every answer is in (distance, database position) order; positions count the codes in the order they were added, those
removed left out. See ``hamming`` for the order, ``engines`` for the engines, ``store`` for the file.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from caffe2torch.errors import RetrievalError, UsageError
from caffe2torch.retrieval.codes import Codes, Packed, packed_width
from caffe2torch.retrieval.engines import Engine, engine_maker
from caffe2torch.retrieval.grouping import build_engine, group_codes
from caffe2torch.retrieval.hamming import Distances, Positions, check_codes, pad
from caffe2torch.retrieval.hits import Hits, Surroundings
from caffe2torch.retrieval.ids import Ids, as_ids, refuse_repeated
from caffe2torch.retrieval.rows import Rows, Texts, check_labels
from caffe2torch.retrieval.store import Store
from caffe2torch.retrieval.table import Table

BLOCK_BYTES = 64 << 20
"""Memory one block of ``search_blocks`` takes at most, where one query's results allow it."""
FEWER_QUERIES = 0.75
"""Equal queries are asked once where that leaves no more than this share of them."""
Grouped = bool | Literal["auto"]


class Index:
    """Codes of one length, each with an id and, where they were given, a path and a label.

    Build it by ``from_codes``, ``of`` or ``open``. The engine is made at the first search and again after a change.
    Threads may search at the same time, but not while one of them changes or saves the index.
    """

    def __init__(
        self,
        table: Table,
        bits: int,
        *,
        provenance: Mapping[str, Any],
        engine: str = "auto",
        grouped: Grouped = "auto",
    ) -> None:
        """See the class methods."""
        self.bits = bits
        self.provenance = dict(provenance)
        self._make = engine_maker(engine)
        self._grouped = None if grouped == "auto" else bool(grouped)
        self._table = table
        self._engine: Engine | None = None
        self._making = threading.Lock()  # several threads may search; the engine is made once

    @classmethod
    def from_codes(
        cls,
        packed: Packed,
        bits: int,
        *,
        ids: npt.ArrayLike | None = None,
        engine: str = "auto",
        grouped: Grouped = "auto",
        paths: Sequence[str] | None = None,
        labels: npt.ArrayLike | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> Index:
        """An index of (N, width) packed codes; ids are 0 to N - 1 unless others, distinct and not negative, are given.

        ``engine`` is "auto", "faiss", "numpy", "torch" or "torch:DEVICE"; ``grouped`` decides whether equal codes are
        searched once ("auto": where that pays). Neither changes a result.
        """
        rows = _rows(packed, bits, ids, 0, paths, labels)
        refuse_repeated(rows.ids)
        table = Table(rows, next_id=int(rows.ids.max()) + 1 if len(rows) else 0)
        return cls(table, bits, provenance=provenance or {}, engine=engine, grouped=grouped)

    @classmethod
    def of(cls, codes: Codes, *, engine: str = "auto", grouped: Grouped = "auto") -> Index:
        """An index of a codes file, with its paths, labels and provenance; ids are its rows."""
        return cls.from_codes(
            codes.packed,
            codes.bits,
            engine=engine,
            grouped=grouped,
            paths=codes.paths or None,
            labels=codes.labels,
            provenance=codes.provenance,
        )

    @classmethod
    def open(cls, path: str | Path, *, engine: str = "auto", grouped: Grouped = "auto", verify: bool = True) -> Index:
        """A saved index, memory-mapped. ``verify`` reads all of it once to compare the checksums.

        Raises FormatError where it is damaged, cut off, or of a newer version of the format.
        """
        store = Store.open(Path(path), verify=verify)
        head = store.head
        table = Table(store.rows, next_id=head.next_id, store=store)
        return cls(table, head.bits, provenance=head.provenance, engine=engine, grouped=grouped)

    def __len__(self) -> int:
        return len(self._table)

    @property
    def engine_name(self) -> str:
        """What answers, for example "faiss, grouped"."""
        return self._built().name

    @property
    def ids(self) -> Ids:
        """The ids in database order."""
        return self._table.rows().ids

    @property
    def packed(self) -> Packed:
        """(N, width), the packed codes in database order; mapped where they lie in a file."""
        return self._table.rows().codes[:, : packed_width(self.bits)]

    @property
    def next_id(self) -> int:
        """The id the next code gets; without ids of one's own, how many codes were ever added."""
        return self._table.next_id

    def search(self, queries: Packed, k: int) -> Hits:
        """The k nearest codes of each of (Q, width) packed queries, exactly, in (distance, database position) order."""
        queries = self._check(queries, k)
        groups = group_codes(queries, self.bits)
        if len(groups.first) > FEWER_QUERIES * len(queries):
            return self._named(*self._built().search(queries, k))
        hits = self._named(*self._built().search(queries[groups.first], k))
        inverse = groups.inverse()
        return Hits(hits.ids[inverse], hits.distances[inverse])

    def search_blocks(self, queries: Packed, k: int, *, block: int | None = None) -> Iterator[tuple[int, Hits]]:
        """The same as ``search`` in pieces that fit memory: (first query of the piece, its hits), in order."""
        queries = self._check(queries, k)
        block = block or max(1, min(1024, BLOCK_BYTES // (20 * k)))
        for start in range(0, len(queries), block):
            yield start, self.search(queries[start : start + block], k)

    def within(self, queries: Packed, radius: int) -> Surroundings:
        """All codes at a distance of at most ``radius`` bits of each of (Q, width) packed queries."""
        queries = self._check(queries, 1)
        if radius < 0:
            raise UsageError(f"the radius is {radius}; it must be 0 or more")
        found = self._built().within(queries, radius)
        return Surroundings(found.offsets, self.ids[found.positions], found.distances)

    def add(
        self,
        packed: Packed,
        *,
        ids: npt.ArrayLike | None = None,
        paths: Sequence[str] | None = None,
        labels: npt.ArrayLike | None = None,
    ) -> Ids:
        """Add (N, width) codes after the others and return their ids, which go on from the largest so far.

        Raises RetrievalError, and adds nothing, for an id that is in use, codes of another length, or paths or labels
        where the index has none (and the other way round).
        """
        rows = _rows(packed, self.bits, ids, self.next_id, paths, labels)
        self._table.add(rows, own_ids=ids is not None)
        if len(rows):
            self._engine = None
        return rows.ids

    def remove(self, ids: npt.ArrayLike) -> None:
        """Remove codes by id. Raises RetrievalError, and removes nothing, for ids that are unknown or given twice."""
        wanted = as_ids(ids)
        self._table.remove(wanted)
        if len(wanted):
            self._engine = None

    def get(self, ids: npt.ArrayLike) -> Codes:
        """The codes of these ids, in their order, with paths and labels where the index has them."""
        return self._as_codes(self._table.rows().take(self._table.find(as_ids(ids))))

    def codes(self) -> Codes:
        """All codes in database order, as a codes file would give them. Paths become one Python string each."""
        return self._as_codes(self._table.rows())

    def save(self, path: str | Path, *, force: bool = False) -> None:
        """Write the index to a folder. One it was opened from or saved to before only grows by what has changed.

        ``force`` replaces another index that lies there. Raises OutputError where writing fails, where something else
        is in the way, or where another process has changed the index meanwhile.
        """
        self._table.save(Path(path), bits=self.bits, provenance=self.provenance, force=force)

    def _check(self, queries: npt.NDArray[Any], k: int) -> Packed:
        queries = check_codes(queries, self.bits, what="the queries' codes")
        if not len(self):
            raise RetrievalError("the database is empty: there is nothing to search")
        if k < 1:
            raise UsageError(f"k is {k}; ask for at least one result")
        if k > len(self):
            raise RetrievalError(f"k is {k}, but the database has only {len(self)} codes")
        return queries

    def _named(self, positions: Positions, distances: Distances) -> Hits:
        return Hits(positions if self._table.places().are_positions else self.ids[positions], distances)

    def _built(self) -> Engine:
        with self._making:
            if self._engine is None:
                self._engine = build_engine(self._table.rows().codes, self.bits, self._make, grouped=self._grouped)
            return self._engine

    def _as_codes(self, rows: Rows) -> Codes:
        return Codes(
            packed=rows.codes[:, : packed_width(self.bits)],
            bits=self.bits,
            paths=tuple(rows.paths or ()),
            provenance=self.provenance,
            labels=rows.labels,  # type: ignore[arg-type]
        )


def _rows(
    packed: Packed,
    bits: int,
    ids: npt.ArrayLike | None,
    next_id: int,
    paths: Sequence[str] | None,
    labels: npt.ArrayLike | None,
) -> Rows:
    codes = pad(check_codes(packed, bits), bits)
    if codes.flags.writeable and np.may_share_memory(codes, packed):  # what is read-only, a mapped file, is not copied
        codes = codes.copy()
    return Rows(
        codes,
        np.arange(next_id, next_id + len(codes)) if ids is None else as_ids(ids),
        None if paths is None else Texts.of(paths),
        check_labels(labels),
    )
