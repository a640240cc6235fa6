"""Search by float features, exactly: the reference that coarse-to-fine search is measured against, and its second half.

Distances are defined in float64 from differences, so equal features are at distance 0 exactly:

- ``euclidean``: sqrt(sum((x - q)^2)).
- ``cosine``: sum((x / |x| - q / |q|)^2) / 2, which is 1 - cos(x, q) without its loss of digits near 0. A row of zeros
  has no direction: it is at distance infinity, behind all others. A query of zeros is refused. So are lengths below
  SHORTEST, which only float64 features can have. Rows that differ in length alone are equal up to rounding.

The order is by (distance, row). Most rows never need that formula: a matrix product gives |x|^2 + |q|^2 - 2xq fast but
inexactly, within an error that has a bound. Only rows whose bounds reach down to the k-th smallest upper bound are
computed exactly, so the result is that of computing all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from caffe2torch.cores import cores
from caffe2torch.errors import RetrievalError, UsageError
from caffe2torch.retrieval.feature_files import Matrix
from caffe2torch.retrieval.features import Doubles, Features, Rows, check_numbers, check_queries, sum_of_squares
from caffe2torch.threads import in_threads

METRICS = ("euclidean", "cosine")
TASK = 16
"""Queries a thread works on before it takes others."""
GATHERED = 1 << 20
"""Bytes of scattered rows gathered at a time: they stay in a core's own cache, and the product in its own thread."""
PRODUCTS = 1 << 27
"""Bytes of products held at a time: that many queries go through the features together."""
QUERIES = 1024
"""Queries held at a time in the forms that are computed with."""
SHORTEST = 1e-145
"""Lengths below this are lost where float64 squares underflow, and count as 0."""


@dataclass(frozen=True, eq=False)
class FloatHits:
    """``rows`` (Q, k) int64 of the features, nearest first, and ``distances`` (Q, k) float64."""

    rows: Rows
    distances: Doubles


@dataclass(frozen=True, eq=False)
class Query:
    """One query as it is searched: exactly, in the type of the products, and its sum of squares."""

    values: Doubles  # (D,); of length 1 for cosine
    rounded: Matrix  # (D,) in the type of the products
    square: float


class FloatSearch:
    """Exhaustive search in ``features``, and the same ranking among some of their rows."""

    def __init__(self, features: Features, *, metric: str = "euclidean") -> None:
        """Raises UsageError for a metric other than ``euclidean`` and ``cosine``."""
        if metric not in METRICS:
            raise UsageError(f"metric {metric!r}: choose one of {', '.join(METRICS)}")
        self.features, self.metric = features, metric

    def search(self, queries: npt.ArrayLike, k: int) -> FloatHits:
        """The ``k`` nearest rows of each query feature (Q, D), by (distance, row).

        Memory beside the mapped file: PRODUCTS bytes, or what one query needs (4 or 8 bytes a row). Raises
        RetrievalError.
        """
        check_k(k, len(self.features), "rows of features")
        array = check_queries(queries, self.features)
        hits = FloatHits(np.empty((len(array), k), np.int64), np.empty((len(array), k)))
        everything = np.arange(len(self.features))
        together = max(1, PRODUCTS // (len(self.features) * self.features.dtype.itemsize))
        for first in range(0, len(array), min(together, QUERIES)):
            prepared = self.prepare(array[first : first + min(together, QUERIES)], first)
            products = self._all_products(prepared)

            def work(
                start: int, stop: int, first: int = first, some: list[Query] = prepared, products: Matrix = products
            ) -> None:
                buffer = self.buffer()
                for row in range(start, stop):
                    nearest = self._nearest(some[row], everything, products[row], k, buffer)
                    hits.rows[first + row], hits.distances[first + row] = nearest

            for _ in in_threads(work, len(products), threads=cores(), block=TASK):
                pass
        return hits

    def prepare(self, queries: npt.NDArray[Any], first: int = 0) -> list[Query]:
        """Queries of the right shape, the first being number ``first``, as they are searched. Raises RetrievalError."""
        doubles = np.ascontiguousarray(queries, dtype=np.float64)
        squares = check_numbers(doubles, first)
        if self.metric == "cosine":
            lengths = np.sqrt(squares)
            if len(zero := np.flatnonzero(lengths < SHORTEST)):
                raise RetrievalError(
                    f"query features: row {first + zero[0]} is all zeros, which has no direction and so no cosine "
                    "distance (is it a picture that could not be read?); use euclidean"
                )
            doubles = doubles / lengths[:, None]
            squares = sum_of_squares(doubles)
        with np.errstate(over="ignore"):
            rounded = doubles.astype(self.features.dtype)
        return [Query(*parts) for parts in zip(doubles, rounded, map(float, squares), strict=True)]

    def buffer(self) -> Matrix:
        """Memory for ``rank``, best used again and again by one thread."""
        return self.features.buffer(GATHERED)

    def rank(self, query: Query, rows: Rows, k: int, buffer: Matrix) -> tuple[Rows, Doubles]:
        """The ``k`` nearest of ``rows`` (ascending, at least ``k``) with their distances."""
        products = np.empty(len(rows), self.features.dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            for first in range(0, len(rows), len(buffer)):
                part = slice(first, first + len(buffer))
                products[part] = self.features.take(rows[part], buffer) @ query.rounded
        return self._nearest(query, rows, products, k, buffer)

    def _all_products(self, queries: list[Query]) -> Matrix:
        """(queries, N) in the features' type."""
        matrix = np.stack([query.rounded for query in queries])
        products = np.empty((len(matrix), len(self.features)), self.features.dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            for row, block in self.features.pieces():
                products[:, row : row + len(block)] = matrix @ block.T
        return products

    def _nearest(self, query: Query, rows: Rows, products: Matrix, k: int, buffer: Matrix) -> tuple[Rows, Doubles]:
        """Exact distances of all rows that could be among the ``k`` nearest, and the nearest of them."""
        low, high = self._bounds(query, self.features.squares(rows), products.astype(np.float64))
        possible = rows[low <= np.partition(high, k - 1)[k - 1]]
        distances = self._exact(query, possible, buffer)
        order = np.lexsort((possible, distances))[:k]
        return possible[order], distances[order]

    def _bounds(self, query: Query, squares: Doubles, products: Doubles) -> tuple[Doubles, Doubles]:
        """Between what the exact value (the squared distance, for euclidean) lies, rounding of both ways included.

        A sum of n products in any order is off by at most n u / (1 - n u) times the product of the two lengths, u
        being half the spacing of floats at 1 (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1);
        n is 4 larger here for the rounding of the query and of the bound itself. What underflows adds ``tiny``.
        """
        n = self.features.width + 4
        relative, exact = (n * u / (1 - n * u) for u in (_unit(self.features.dtype), _unit(np.dtype(np.float64))))
        lengths, length = np.sqrt(squares), query.square**0.5
        tiny = n * float(np.finfo(self.features.dtype).tiny) * (1 + length + lengths)
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            if self.metric == "cosine":
                middle = 1 - products / lengths
                error = relative + tiny / lengths + 8 * exact
            else:
                both = squares + query.square
                middle = both - 2 * products
                error = 2 * (relative * length * lengths + tiny) + 8 * exact * both
            low, high = middle - error, middle + error
        unknown = ~np.isfinite(low + high)  # a product that overflowed
        if self.metric == "cosine":
            unknown |= lengths < SHORTEST
        low[unknown], high[unknown] = -np.inf, np.inf
        return low, high

    def _exact(self, query: Query, rows: Rows, buffer: Matrix) -> Doubles:
        """Distances by definition."""
        distances = np.empty(len(rows))
        doubles = np.empty(buffer.shape)
        for first in range(0, len(rows), len(buffer)):
            part = slice(first, first + len(buffer))
            taken = self.features.take(rows[part], buffer)
            values = doubles[: len(taken)]
            values[:] = taken
            if self.metric == "cosine":
                lengths = np.sqrt(self.features.squares(rows[part]))
                some = lengths >= SHORTEST
                values /= np.where(some, lengths, 1)[:, None]
                values -= query.values
                distances[part] = np.where(some, sum_of_squares(values) / 2, np.inf)
            else:
                values -= query.values
                distances[part] = np.sqrt(sum_of_squares(values))
        return distances


def recall(found: npt.NDArray[np.integer], expected: npt.NDArray[np.integer]) -> float:
    """Mean share of each row of ``expected`` (Q, k) that stands somewhere in the same row of ``found``.

    Positions are compared, not distances: where equal features straddle rank k, only those first in list order count.
    """
    if found.ndim != 2 or expected.ndim != 2 or len(found) != len(expected) or not expected.size:
        raise RetrievalError(f"recall: results {found.shape} and {expected.shape} are not for the same queries")
    shares = [np.isin(right, left).mean() for left, right in zip(found, expected, strict=True)]
    return float(np.mean(shares))


def check_k(k: int, count: int, what: str) -> None:
    """Raise UsageError for a ``k`` below 1, RetrievalError for one above ``count``."""
    if k < 1:
        raise UsageError(f"k is {k}; ask for at least one result")
    if k > count:
        raise RetrievalError(f"k is {k}, but there are only {count} {what}")


def _unit(dtype: np.dtype[np.floating]) -> float:
    return float(np.finfo(dtype).eps) / 2
