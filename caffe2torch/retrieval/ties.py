"""Average precision where equal distances leave the order open: its expectation over random order, its extremes.

A ranking with ties is a row of groups in order of distance: ``sizes`` (Q, G) items of which ``hits`` (Q, G) are right;
empty groups are allowed. The groups hold at least the first K items. Every order within a group counts as equally
likely. The formula for groups that lie wholly within the first K is that of McSherry and Najork, "Computing information
retrieval performance measures efficiently in the presence of tied scores" (ECIR 2008); for the group that straddles K
the number found is hypergeometric, and the expectation is taken over it, which matters where AP divides by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from caffe2torch.errors import RetrievalError
from caffe2torch.retrieval.metrics import Counts, Divisor, Floats, divide_by, ratio


@dataclass(frozen=True, eq=False)
class TiedPrecision:
    """AP@K of each query, (Q,), over all orders within equal distances.

    With the divisor ``found``, ``best`` can be above ``right_first``, and ``worst`` below ``right_last``: an order that
    leaves a late right item out of the first K loses its precision and is divided by one less.
    """

    expected: Floats
    """The mean over all orders."""
    right_first: Floats
    """Where the right items stand first among equals."""
    right_last: Floats
    best: Floats
    """The largest of any order."""
    worst: Floats


def tie_groups(distances: npt.NDArray[Any], relevant: npt.NDArray[np.bool_]) -> tuple[Counts, Counts]:
    """``sizes`` and ``hits``, each (Q, G), from distances and relevance (Q, N) in any one order.

    G is the number of different distances. NaN has no place in a ranking and raises RetrievalError.
    """
    if distances.ndim != 2 or distances.shape != relevant.shape:
        raise RetrievalError(f"distances are {distances.shape}, the table of right items {relevant.shape}")
    if distances.dtype.kind == "f" and np.isnan(distances).any():
        raise RetrievalError(f"{int(np.isnan(distances).sum())} distances are NaN")
    different, place = np.unique(distances, return_inverse=True)
    queries, groups = len(distances), len(different)
    cell = place.reshape(distances.shape) + groups * np.arange(queries)[:, None]
    sizes = np.bincount(cell.ravel(), minlength=queries * groups)
    hits = np.bincount(cell[relevant], minlength=queries * groups)
    return sizes.reshape(queries, groups), hits.reshape(queries, groups)


def tied_average_precision(
    sizes: Counts, hits: Counts, k: int, *, divisor: Divisor = "found", totals: Counts | None = None
) -> TiedPrecision:
    """AP@K over all orders within the groups, exact. ``totals`` (Q,) as in ``metrics``, by default all ``hits``."""
    table = _Table(sizes, hits, k)
    known = table.hits.sum(axis=1)
    totals = known if totals is None else np.asarray(totals)
    if totals.shape != known.shape or bool((totals < known).any()):
        raise RetrievalError(f"totals are {totals.shape}, one a query, and not less than the right items of the groups")
    fixed = divide_by(divisor, np.zeros_like(totals), totals, k)
    ends = [_straddling(table, q, sums, int(fixed[q])) for q, sums in enumerate(table.inner().tolist())]
    return TiedPrecision(*np.array(ends, dtype=np.float64).T)


def expected_hits(sizes: Counts, hits: Counts, k: int) -> Floats:
    """How many of the Q queries have a right item at place 1 to K, expected, (K,).

    In ``metrics.precision_curve`` it gives the expected P@k.
    """
    table = _Table(sizes, hits, k)
    # Each group is a step of height hits / size that begins at one place and ends at another.
    height = ratio(table.hits, table.sizes)
    begins = np.minimum(table.before, k).ravel()
    ends = np.minimum(table.before + table.sizes, k).ravel()
    steps = np.bincount(begins, height.ravel(), k + 1) - np.bincount(ends, height.ravel(), k + 1)
    return np.asarray(np.cumsum(steps)[:k], dtype=np.float64)


class _Table:
    """The groups of each query cut at K: ``before`` and ``found`` say what stands in front of each group."""

    def __init__(self, sizes: Counts, hits: Counts, k: int) -> None:
        self.sizes, self.hits, self.k = np.asarray(sizes, np.int64), np.asarray(hits, np.int64), k
        if self.sizes.ndim != 2 or self.sizes.shape != self.hits.shape or not len(self.sizes):
            raise RetrievalError(f"groups are (queries, groups): sizes are {sizes.shape}, hits {hits.shape}")
        if bool(((self.hits < 0) | (self.hits > self.sizes)).any()):
            raise RetrievalError("a group of equal distance has more right items than items")
        shortest = int(self.sizes.sum(axis=1).min())
        if not 1 <= k <= shortest:
            raise RetrievalError(f"k = {k}, but the groups of equal distance hold {shortest} items")
        self.before = np.cumsum(self.sizes, axis=1) - self.sizes
        self.found = np.cumsum(self.hits, axis=1) - self.hits

    def inner(self) -> npt.NDArray[np.float64]:
        """Sums of P@k * rel(k) over the groups that end within the first K, (Q, 3): expected, right first and last."""
        n, r, before, found = self.sizes, self.hits, self.before, self.found
        expected = _expected_sum(n, r, before, found)
        wholly = before + n <= self.k
        sums = (expected, _first_sum(n, r, before, found), _last_sum(n, r, before, found))
        return np.stack([(part * wholly).sum(axis=1) for part in sums], axis=1)

    def straddling(self, query: int) -> tuple[int, int, int, int, int]:
        """The group that begins within the first K: its places among these, size, right items, and what is before."""
        group = int(np.searchsorted(self.before[query] + self.sizes[query], self.k))
        n, r, before, found = (int(a[query, group]) for a in (self.sizes, self.hits, self.before, self.found))
        return self.k - before, n, r, before, found


def _straddling(table: _Table, query: int, sums: list[float], fixed: int) -> tuple[float, ...]:
    """The figures of one query in the order of TiedPrecision, from the ``sums`` over its inner groups.

    ``fixed`` is the divisor; 0 stands for the number found. With x right items among the m places of the group that K
    cuts, each set of x places is equally likely, so it behaves like a group of m items of which x are right.
    """
    m, n, r, before, found = table.straddling(query)
    expected, first, last = sums
    if m == n:
        divisor = max(fixed or found + r, 1)
        expected, first, last = expected / divisor, first / divisor, last / divisor
        return expected, first, last, first, last
    x, weight = _hypergeometric(m, n, r)
    divisors = np.full(len(x), fixed) if fixed else found + x
    means = ratio(expected + _expected_sum(m, x, before, found), divisors)
    firsts = ratio(first + _first_sum(m, x, before, found), divisors)
    lasts = ratio(last + _last_sum(m, x, before, found), divisors)
    return float(weight @ means), float(firsts[-1]), float(lasts[0]), float(firsts.max()), float(lasts.min())


def _hypergeometric(m: int, n: int, r: int) -> tuple[npt.NDArray[np.int64], Floats]:
    """How many of r right items fall among the first m of n places: the possible numbers and their probabilities."""
    x = np.arange(max(0, m - (n - r)), min(r, m) + 1)
    here = x[:-1].astype(np.float64)
    steps = np.log((r - here) * (m - here)) - np.log((here + 1) * (n - r - m + here + 1))
    logs = np.concatenate([[0.0], np.cumsum(steps)])
    weight = np.exp(logs - logs.max())
    return x, np.asarray(weight / weight.sum())


# Sums of P@k * rel(k) over a group of n items, r of them right, after ``before`` items with ``found`` right ones.


def _expected_sum(n: Any, r: Any, before: Any, found: Any) -> Floats:
    """Over random order: place j holds a right item with r / n, and then (j - 1)(r - 1) / (n - 1) right ones before."""
    spread = _harmonic(before, before + n)
    mean = (found + 1) * spread + (r - 1) / np.maximum(n - 1, 1) * (n - (before + 1) * spread)
    return np.asarray(r / np.maximum(n, 1) * mean)


def _first_sum(n: Any, r: Any, before: Any, found: Any) -> Floats:
    """Right items first."""
    return np.asarray(r + (found - before) * _harmonic(before, before + r))


def _last_sum(n: Any, r: Any, before: Any, found: Any) -> Floats:
    """Right items last."""
    return np.asarray(r + (found - before - n + r) * _harmonic(before + n - r, before + n))


_TABLE = 128
_SMALL = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, _TABLE + 1))])


def _harmonic(low: Any, high: Any) -> Floats:
    """1 / (low + 1) + ... + 1 / high to full precision: summed to 128, from there by the series of ln(n + 1/2)."""
    table = _SMALL[np.minimum(high, _TABLE)] - _SMALL[np.minimum(low, _TABLE)]
    low, high = np.maximum(low, _TABLE) + 0.5, np.maximum(high, _TABLE) + 0.5
    return np.asarray(table + np.log1p((high - low) / low) + _correction(high) - _correction(low))


def _correction(x: Any) -> Any:
    square = 1.0 / (x * x)
    return square * (1 / 24 - square * (7 / 960 - square * (31 / 8064)))
