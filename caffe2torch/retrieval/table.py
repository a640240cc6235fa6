"""The rows of an index while they grow and shrink, and how far a file holds them already."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from caffe2torch.errors import RetrievalError
from caffe2torch.retrieval.ids import Places, listed, refuse_repeated
from caffe2torch.retrieval.rows import Rows
from caffe2torch.retrieval.store import Store


class Table:
    """Rows in the order they were added; removed ones are left out of what is seen, and stay where they are stored.

    Threads may look at it at the same time, but not while one of them changes or saves it.
    """

    def __init__(self, rows: Rows, *, next_id: int, store: Store | None = None) -> None:
        """``rows`` are what ``store`` holds, removed ones included, where there is one."""
        self.next_id = next_id
        self._store = store
        self._parts = [rows]  # all rows ever added, in order; the first are those stored
        self._removed = np.zeros(0, np.int64) if store is None else store.removed  # row numbers in ``_parts``
        self._live: Rows | None = None
        self._places: Places | None = None
        self._making = threading.RLock()  # each derived thing is made once

    def __len__(self) -> int:
        return sum(len(part) for part in self._parts) - len(self._removed)

    def rows(self) -> Rows:
        """The rows in database order, in one piece; mapped from the file where nothing has changed since."""
        with self._making:
            if self._live is None:
                rows = Rows.join(self._parts)
                self._live = rows.take(self._alive()) if len(self._removed) else rows
                if self._store is None:
                    self._parts, self._removed = [self._live], np.zeros(0, np.int64)
            return self._live

    def places(self) -> Places:
        """Where each id stands among the rows."""
        with self._making:
            if self._places is None:
                self._places = Places(self.rows().ids)
            return self._places

    def find(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The place of each id; RetrievalError for ids that are not there."""
        places = self.places().find(ids)
        if bool((places < 0).any()):
            raise RetrievalError(f"{listed(ids[places < 0])} not in the index")
        return places

    def add(self, rows: Rows, *, own_ids: bool) -> None:
        """Put rows behind the others. Raises RetrievalError, and adds nothing, where they do not fit.

        ``own_ids`` says that the user chose their ids, so that these may be in use.
        """
        self._parts[0].refuse_unlike(rows)
        if not len(rows):
            return
        if own_ids:
            refuse_repeated(rows.ids)
            if int(rows.ids.min()) < self.next_id:
                taken = rows.ids[self.places().find(rows.ids) >= 0]
                if len(taken):
                    raise RetrievalError(f"{listed(taken)} already in the index; remove it first, or use another id")
        self._parts.append(rows)
        self.next_id = max(self.next_id, int(rows.ids.max()) + 1)
        self._live = self._places = None

    def remove(self, ids: npt.NDArray[np.int64]) -> None:
        """Take rows out. Raises RetrievalError, and removes nothing, for ids that are unknown or given twice."""
        refuse_repeated(ids)
        places = self.find(ids)
        if len(places):
            self._removed = np.concatenate([self._removed, self._alive()[places]])
            self._live = self._places = None

    def save(self, path: Path, *, bits: int, provenance: Mapping[str, Any], force: bool) -> None:
        """See ``Index.save``."""
        if self._store is not None and not force and self._store.is_at(path):
            added = Rows.join(self._parts[1:]) if len(self._parts) > 1 else None
            removed = self._removed[len(self._store.removed) :]
            self._store = self._store.append(added, removed, next_id=self.next_id)
            self._parts = [self._store.rows]
            return
        self._store = Store.create(
            path, self.rows(), bits=bits, next_id=self.next_id, provenance=provenance, force=force
        )
        self._parts, self._removed = [self._store.rows], self._store.removed
        self._live = None

    def _alive(self) -> npt.NDArray[np.int64]:
        """Row numbers, among all ever added, of those not removed."""
        alive = np.ones(sum(len(part) for part in self._parts), np.bool_)
        alive[self._removed] = False
        return np.flatnonzero(alive)
