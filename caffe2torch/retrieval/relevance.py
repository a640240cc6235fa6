"""Which database items are right for a query: those with its label, or, with several labels each, those sharing one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from caffe2torch.errors import RetrievalError
from caffe2torch.retrieval.hamming import as_words

Labels = npt.NDArray[Any]
"""Integers (N,), one label an item, or booleans (N, L), any number of labels an item."""


class Relevance:
    """The labels of queries and database in a form that is compared quickly.

    ``keys`` is (words, database): one small integer for a single label, 64 labels to a word otherwise.
    """

    def __init__(self, query_labels: Labels, database_labels: Labels) -> None:
        queries = checked(query_labels, "the queries")
        database = checked(database_labels, "the database")
        if queries.ndim != database.ndim:
            one, several = ("queries", "database") if queries.ndim == 1 else ("database", "queries")
            raise RetrievalError(
                f"the {one} have a single label each, shape ({len(queries if one == 'queries' else database)},), the "
                f"{several} several: give both as integers (N,) or both as booleans (N, labels)"
            )
        self.single = queries.ndim == 1
        if self.single:
            _, inverse = np.unique(np.concatenate([database, queries]), return_inverse=True)
            small = inverse.astype(np.min_scalar_type(int(inverse.max(initial=0))))
            self.keys: npt.NDArray[Any] = small[None, : len(database)]
            self.query_keys: npt.NDArray[Any] = small[len(database) :, None]
            return
        if queries.shape[1] != database.shape[1]:
            raise RetrievalError(
                f"the queries know {queries.shape[1]} labels, the database {database.shape[1]}: "
                "column i must be the same label in both"
            )
        self.keys = np.ascontiguousarray(as_words(np.packbits(database, axis=1), database.shape[1]).T)
        self.query_keys = as_words(np.packbits(queries, axis=1), queries.shape[1])

    def of(self, query: int, keys: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Which of the items with these ``keys`` (words, n), columns taken from ``self.keys``, are right: (n,)."""
        mine = self.query_keys[query]
        if self.single:
            return np.asarray(keys[0] == mine[0])
        shared = keys[0] & mine[0]
        for word in range(1, len(keys)):
            shared |= keys[word] & mine[word]
        return np.asarray(shared != 0)

    def totals(self) -> npt.NDArray[np.int64]:
        """How many database items are right for each query: (Q,)."""
        if self.single:
            counts = np.bincount(self.keys[0], minlength=int(self.query_keys.max(initial=0)) + 1)
            return np.asarray(counts[self.query_keys[:, 0]], dtype=np.int64)
        _, first, inverse = np.unique(self.query_keys, axis=0, return_index=True, return_inverse=True)
        found = [int(np.count_nonzero(self.of(int(query), self.keys))) for query in first]
        return np.array(found, dtype=np.int64)[inverse.reshape(-1)]

    def rows(self) -> Iterator[npt.NDArray[np.bool_]]:
        """Query by query which database items are right, each (N,), in database order."""
        for query in range(len(self.query_keys)):
            yield self.of(query, self.keys)


def relevance(query_labels: Labels, database_labels: Labels) -> npt.NDArray[np.bool_]:
    """The whole table (Q, N): True where a database item has the query's label, or shares one of its labels."""
    pairs = Relevance(query_labels, database_labels)
    if not len(pairs.query_keys):
        return np.zeros((0, pairs.keys.shape[1]), np.bool_)
    return np.stack(list(pairs.rows()))


def checked(labels: Labels, whose: str) -> npt.NDArray[Any]:
    """Integers (N,) or booleans (N, L). Raises RetrievalError for anything that is not exactly one of the two."""
    array = np.asarray(labels)
    if array.dtype.kind == "f":
        if np.isnan(array).any():
            raise RetrievalError(f"the labels of {whose} have NaN in {int(np.isnan(array).sum())} places")
        if not (np.isfinite(array) & (np.floor(array) == array) & (np.abs(array) < 2**53)).all():
            raise RetrievalError(f"the labels of {whose} are {array.dtype} with fractions; labels are whole numbers")
        array = array.astype(np.int64)
    if array.dtype.kind not in "iub" or array.ndim not in (1, 2):
        raise RetrievalError(
            f"the labels of {whose} are {array.dtype} {array.shape}; expected integers (N,), or booleans (N, labels)"
        )
    if array.ndim == 2 and array.dtype.kind != "b":
        if array.shape[1] == 1 or bool(((array != 0) & (array != 1)).any()):
            raise RetrievalError(
                f"the labels of {whose} are {array.dtype} {array.shape}; single labels are integers (N,), "
                "several labels an item are booleans (N, labels)"
            )
        array = array.astype(np.bool_)
    if array.ndim == 2 and array.shape[1] == 0:
        raise RetrievalError(f"the labels of {whose} have shape {array.shape}: there is no label at all")
    if array.dtype == np.uint64 and array.max(initial=0) > np.iinfo(np.int64).max:
        raise RetrievalError(f"the labels of {whose} go up to {array.max()}; they must fit in a signed 64-bit integer")
    return array if array.ndim == 2 else array.astype(np.int64)
