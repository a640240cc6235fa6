"""The figures of the retrieval papers, computed from which items of each ranking are right.

``relevant`` is always (Q, K): row q says of the first K items of query q's ranking whether they are right. ``totals``
is (Q,): how many right items the whole database holds for each query. A figure over queries is the mean over all of
them; a query for which nothing is right counts as 0 everywhere.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from caffe2torch.errors import RetrievalError

Relevant = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.float64]

Divisor = Literal["found", "all", "attainable"]
"""What average precision divides by.

``found``       the right items among the first K: the papers' convention, and the default everywhere here
``all``         all right items of the database: TREC's; a list cut at K cannot reach 1 where there are more
``attainable``  the smaller of K and all right items: 1 for the best list of K there can be
"""


def average_precision(relevant: Relevant, *, divisor: Divisor = "found", totals: Counts | None = None) -> Floats:
    """AP@K of each query, (Q,): the sum over k <= K of P@k * rel(k), over ``divisor``; 0 where that is 0.

    P@k is the share of right items among the first k, rel(k) is 1 where item k is right and 0 otherwise.
    """
    relevant = _checked(relevant)
    sums = np.array([precision_sum(np.flatnonzero(row)) for row in relevant], dtype=np.float64)
    found = np.count_nonzero(relevant, axis=1)
    return ratio(sums, divide_by(divisor, found, _totals(totals, found, divisor), relevant.shape[1]))


def mean_average_precision(relevant: Relevant, *, divisor: Divisor = "found", totals: Counts | None = None) -> float:
    """MAP@K: the mean of AP@K over all queries."""
    return float(average_precision(relevant, divisor=divisor, totals=totals).mean())


def precision_at_k(relevant: Relevant) -> Floats:
    """P@k for k = 1 to K, (K,): the share of right items among the first k, averaged over the queries."""
    relevant = _checked(relevant)
    return precision_curve(count_columns(relevant), len(relevant))


def recall_at_k(relevant: Relevant, totals: Counts) -> Floats:
    """R@k for k = 1 to K, (K,): the share of all right items that is among the first k, averaged over the queries."""
    relevant = _checked(relevant)
    checked = _totals(totals, np.count_nonzero(relevant, axis=1), "all")
    return recall_curve(recall_gains(relevant, checked), len(relevant))


def precision_recall(relevant: Relevant, totals: Counts) -> tuple[Floats, Floats]:
    """The precision-recall curve of the Hamming ranking, (recall, precision), each (K,): point k is (R@k, P@k)."""
    return recall_at_k(relevant, totals), precision_at_k(relevant)


def precision_within(distances: npt.NDArray[Any], relevant: Relevant, radius: int = 2) -> Floats:
    """Precision of each query within a Hamming radius, (Q,): right items over items at distance <= radius.

    A query with nothing that near counts as 0, as the hashing papers have it ("zero precision for failed lookup").
    ``distances`` (Q, N) and ``relevant`` (Q, N) go over the whole database, in any one order.
    """
    relevant = _checked(relevant)
    if distances.shape != relevant.shape:
        raise RetrievalError(f"distances are {distances.shape}, the table of right items {relevant.shape}")
    if distances.dtype.kind == "f" and np.isnan(distances).any():
        raise RetrievalError(f"{int(np.isnan(distances).sum())} distances are NaN")
    near = distances <= radius
    return ratio(np.count_nonzero(near & relevant, axis=1), np.count_nonzero(near, axis=1))


def top1(relevant: Relevant) -> float:
    """The share of queries whose first item is right: P@1."""
    return float(_checked(relevant)[:, 0].mean())


def precision_sum(ranks: npt.NDArray[np.intp]) -> float:
    """The sum of P@k over the places where a right item stands; ``ranks`` are these places, from 0, ascending."""
    return float((np.arange(1, len(ranks) + 1) / (ranks + 1)).sum())


def divide_by(divisor: Divisor, found: npt.NDArray[Any], totals: npt.NDArray[Any], k: int) -> npt.NDArray[Any]:
    """What the AP of each query is divided by; ``found`` of its ``totals`` right items are among the first ``k``."""
    if divisor not in get_args(Divisor):
        raise RetrievalError(f"average precision divides by one of {', '.join(get_args(Divisor))}, not by {divisor!r}")
    if divisor == "found":
        return found
    return totals if divisor == "all" else np.minimum(totals, k)


def ratio(parts: npt.NDArray[Any], wholes: npt.NDArray[Any]) -> Floats:
    """parts / wholes, and 0 where there is nothing to divide by."""
    return np.asarray(np.divide(parts, np.maximum(wholes, 1), dtype=np.float64) * (wholes > 0))


def precision_curve(columns: npt.NDArray[Any], queries: int) -> Floats:
    """P@k for every k from the number of queries whose item k is right, (K,)."""
    return np.asarray(np.cumsum(columns) / (np.arange(1.0, len(columns) + 1) * queries), dtype=np.float64)


def recall_curve(gains: Floats, queries: int) -> Floats:
    """R@k for every k from what each place adds to the sum of all recalls, (K,); never above 1 by rounding."""
    return np.minimum(np.cumsum(gains) / queries, 1.0)


def count_columns(relevant: Relevant) -> npt.NDArray[np.int64]:
    """How many rows are True at each place, (K,). Sums of 255 rows fit in a byte, which is ten times as fast."""
    counts = np.zeros(relevant.shape[1], np.int64)
    for start in range(0, len(relevant), 255):
        counts += np.add.reduce(relevant[start : start + 255].view(np.uint8), axis=0, dtype=np.uint8)
    return counts


def recall_gains(relevant: Relevant, totals: Counts) -> Floats:
    """What item k adds to the recall, summed over the queries, (K,); grouped by total, so that the sums are exact."""
    gains = np.zeros(relevant.shape[1])
    for total in np.unique(totals[totals > 0]):
        gains += count_columns(relevant[totals == total]) / total
    return gains


def _checked(relevant: Relevant) -> Relevant:
    array = np.asarray(relevant)
    if array.dtype != np.bool_ or array.ndim != 2:
        raise RetrievalError(f"rankings are booleans (queries, K), got {array.dtype} {array.shape}")
    if not array.size:
        raise RetrievalError(f"no ranking to measure: {len(array)} queries with {array.shape[1]} items each")
    return array


def _totals(totals: Counts | None, found: npt.NDArray[Any], divisor: str) -> npt.NDArray[Any]:
    """``totals`` if they can be true; they are needed by every divisor but ``found``."""
    if totals is None:
        if divisor in ("all", "attainable"):
            raise RetrievalError(f"divisor {divisor!r} needs the number of all right items of each query (totals)")
        return found
    totals = np.asarray(totals)
    if totals.dtype.kind not in "iu" or totals.shape != found.shape:
        raise RetrievalError(
            f"totals are integers {found.shape}, one for each query; got {totals.dtype} {totals.shape}"
        )
    if bool((totals < found).any()):
        query = int(np.argmax(totals < found))
        raise RetrievalError(f"query {query} has {found[query]} right items in its ranking, but {totals[query]} in all")
    return totals
