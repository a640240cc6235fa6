"""A searchable set of codes: exact answers by any engine, grown and thinned by id, kept in a file.

Every answer is in (distance, database position) order; positions count the codes in the order they were added, those
removed left out. See ``hamming`` for the order, ``engines`` for the engines, ``store`` for the file.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from caffe2torch.errors import RetrievalError, UsageError
from caffe2torch.retrieval.codes import Codes, Packed, packed_width
from caffe2torch.retrieval.engines import Engine, engine_maker
from caffe2torch.retrieval.grouping import build_engine, group_codes
from caffe2torch.retrieval.hamming import Distances, Positions, check_codes, pad
from caffe2torch.retrieval.ids import Ids, Places, as_ids, listed, refuse_repeated
from caffe2torch.retrieval.rows import Rows, Texts, check_labels
from caffe2torch.retrieval.store import Store

BLOCK_BYTES = 64 << 20
"""Memory one block of ``search_blocks`` takes at most, where one query's results allow it."""
FEWER_QUERIES = 0.75
"""Equal queries are asked once where that leaves no more than this share of them."""
Grouped = bool | Literal["auto"]


class Hits(NamedTuple):
    """The nearest codes of each query, (Q, k): ``ids`` as the index knows them and Hamming ``distances`` in bits."""

    ids: Ids
    distances: Distances


@dataclass(frozen=True, eq=False)
class Surroundings:
    """What lies within a radius: query i has ``ids[offsets[i]:offsets[i + 1]]`` and their distances, nearest first."""

    offsets: npt.NDArray[np.int64]
    ids: Ids
    distances: Distances

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, query: int) -> Hits:
        row = slice(self.offsets[query], self.offsets[query + 1])
        return Hits(self.ids[row], self.distances[row])


class Index:
    """Codes of one length, each with an id and, where they were given, a path and a label.

    Build it by ``from_codes``, ``of`` or ``open``. The engine is made at the first search and again after a change.
    Threads may search at the same time, but not while one of them changes or saves the index.
    """

    def __init__(
        self,
        rows: Rows,
        bits: int,
        *,
        next_id: int,
        provenance: Mapping[str, Any],
        engine: str = "auto",
        grouped: Grouped = "auto",
        store: Store | None = None,
    ) -> None:
        """``rows`` are what ``store`` holds, removed ones included, where there is one. See the class methods."""
        self.bits = bits
        self.provenance = dict(provenance)
        self._make = engine_maker(engine)
        self._grouped = None if grouped == "auto" else bool(grouped)
        self._next_id = next_id
        self._store = store
        self._parts = [rows]  # all rows ever added, in order; the first are those stored
        self._removed = np.zeros(0, np.int64) if store is None else store.removed  # row numbers in ``_parts``
        self._live: Rows | None = None
        self._places: Places | None = None
        self._engine: Engine | None = None
        self._making = threading.RLock()  # several threads may search; each derived thing is made once

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
        next_id = int(rows.ids.max()) + 1 if len(rows) else 0
        return cls(rows, bits, next_id=next_id, provenance=provenance or {}, engine=engine, grouped=grouped)

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
        return cls(
            store.rows,
            head.bits,
            next_id=head.next_id,
            provenance=head.provenance,
            engine=engine,
            grouped=grouped,
            store=store,
        )

    def __len__(self) -> int:
        return sum(len(part) for part in self._parts) - len(self._removed)

    @property
    def engine_name(self) -> str:
        """What answers, for example "faiss, grouped"."""
        return self._built().name

    @property
    def ids(self) -> Ids:
        """The ids in database order."""
        return self._rows().ids

    @property
    def packed(self) -> Packed:
        """(N, width), the packed codes in database order; mapped where they lie in a file."""
        return self._rows().codes[:, : packed_width(self.bits)]

    @property
    def next_id(self) -> int:
        """The id the next code gets; without ids of one's own, how many codes were ever added."""
        return self._next_id

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
        rows = _rows(packed, self.bits, ids, self._next_id, paths, labels)
        self._parts[0].refuse_unlike(rows)
        if ids is not None and len(rows):
            refuse_repeated(rows.ids)
            if int(rows.ids.min()) < self._next_id:
                taken = rows.ids[self._lookup().find(rows.ids) >= 0]
                if len(taken):
                    raise RetrievalError(f"{listed(taken)} already in the index; remove it first, or use another id")
        if len(rows):
            self._parts.append(rows)
            self._next_id = max(self._next_id, int(rows.ids.max()) + 1)
            self._changed()
        return rows.ids

    def remove(self, ids: npt.ArrayLike) -> None:
        """Remove codes by id. Raises RetrievalError, and removes nothing, for ids that are unknown or given twice."""
        wanted = as_ids(ids)
        refuse_repeated(wanted)
        places = self._lookup().find(wanted)
        if bool((places < 0).any()):
            raise RetrievalError(f"{listed(wanted[places < 0])} not in the index")
        if len(wanted):
            self._removed = np.concatenate([self._removed, self._alive()[places]])
            self._changed()

    def get(self, ids: npt.ArrayLike) -> Codes:
        """The codes of these ids, in their order, with paths and labels where the index has them."""
        wanted = as_ids(ids)
        places = self._lookup().find(wanted)
        if bool((places < 0).any()):
            raise RetrievalError(f"{listed(wanted[places < 0])} not in the index")
        return self._as_codes(self._rows().take(places))

    def codes(self) -> Codes:
        """All codes in database order, as a codes file would give them. Paths become one Python string each."""
        return self._as_codes(self._rows())

    def save(self, path: str | Path, *, force: bool = False) -> None:
        """Write the index to a folder. One it was opened from or saved to before only grows by what has changed.

        ``force`` replaces another index that lies there. Raises OutputError where writing fails, where something else
        is in the way, or where another process has changed the index meanwhile.
        """
        path = Path(path)
        if self._store is not None and not force and self._store.is_at(path):
            added = Rows.join(self._parts[1:]) if len(self._parts) > 1 else None
            removed = self._removed[len(self._store.removed) :]
            self._store = self._store.append(added, removed, next_id=self._next_id)
            self._parts = [self._store.rows]
            return
        rows = self._rows()
        self._store = Store.create(
            path, rows, bits=self.bits, next_id=self._next_id, provenance=self.provenance, force=force
        )
        self._parts, self._removed = [self._store.rows], self._store.removed
        self._live = None

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
        return Hits(positions if self._lookup().are_positions else self.ids[positions], distances)

    def _changed(self) -> None:
        self._live = self._places = self._engine = None

    def _alive(self) -> npt.NDArray[np.int64]:
        """Row numbers, among all ever added, of those not removed."""
        alive = np.ones(sum(len(part) for part in self._parts), np.bool_)
        alive[self._removed] = False
        return np.flatnonzero(alive)

    def _rows(self) -> Rows:
        """The rows in database order, in one piece; mapped from the file where nothing has changed since."""
        with self._making:
            if self._live is None:
                rows = Rows.join(self._parts)
                self._live = rows.take(self._alive()) if len(self._removed) else rows
                if self._store is None:
                    self._parts, self._removed = [self._live], np.zeros(0, np.int64)
            return self._live

    def _lookup(self) -> Places:
        with self._making:
            if self._places is None:
                self._places = Places(self._rows().ids)
            return self._places

    def _built(self) -> Engine:
        with self._making:
            if self._engine is None:
                self._engine = build_engine(self._rows().codes, self.bits, self._make, grouped=self._grouped)
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
