"""The evaluation protocol of the hashing papers: rank a database for every query, measure, and average.

Both papers on CIFAR-10 rank the 50,000 training images for each of the 10,000 test images by Hamming distance, equal
distances in list order, and report MAP at K = 1000. Two other readings of the same codes are offered beside it: figures
over every order of equal distances (``ties``), and each query's ranking among the other queries (``leave_one_out``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from caffe2torch.cores import cores
from caffe2torch.errors import RetrievalError
from caffe2torch.retrieval.codes import Codes
from caffe2torch.retrieval.comparable import check_comparable
from caffe2torch.retrieval.hamming import as_words, check_codes
from caffe2torch.retrieval.measuring import Part, Task
from caffe2torch.retrieval.metrics import Divisor, Floats, precision_curve, ratio, recall_curve
from caffe2torch.retrieval.relevance import Labels, Relevance
from caffe2torch.retrieval.ties import TiedPrecision
from caffe2torch.threads import in_threads

TIED = tuple(field.name for field in fields(TiedPrecision))
Progress = Callable[[int, int], None]
"""Called with the number of queries done and their total."""


@dataclass(frozen=True, eq=False)
class Scores:
    """The figures of one evaluation, each the mean over all queries; a query with no right item anywhere counts 0.

    Arrays are over k = 1 to K, (K,), or over the queries in their order, (Q,). The definitions stand in ``metrics``.
    What is over all orders of equal distances (``tied_...`` and ``expected_...``) is None unless asked for; all else is
    in list order.
    """

    queries: int
    database: int
    bits: int
    k: int
    radius: int
    divisor: Divisor
    leave_one_out: bool
    map: float
    precision: Floats
    recall: Floats
    precision_within: float
    top1: float
    without_relevant: int
    """Queries for which the database holds nothing right."""
    without_near: int
    """Queries with nothing within the radius; they count 0 in ``precision_within``."""
    average_precision: Floats
    tied_map: Mapping[str, float] | None = None
    """MAP over the orders of equal distances: ``expected``, ``right_first``, ``right_last``, ``best``, ``worst``."""
    expected_precision: Floats | None = None
    tied_average_precision: TiedPrecision | None = None

    def to_dict(self) -> dict[str, Any]:
        """Everything but the figures of single queries, as plain values for JSON."""
        single = ("average_precision", "tied_average_precision")
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in single}
        return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in values.items()}


def evaluate(
    queries: Codes,
    query_labels: Labels,
    database: Codes,
    database_labels: Labels,
    *,
    k: int | None = 1000,
    radius: int = 2,
    divisor: Divisor = "found",
    ties: bool = False,
    leave_one_out: bool = False,
    any_model: bool = False,
    threads: int | None = None,
    progress: Progress = lambda done, total: None,
) -> Scores:
    """Rank ``database`` for each of ``queries`` by (distance, database position) and measure the rankings.

    Labels are integers (N,), or booleans (N, L) where an item may have several; items sharing a label are right for
    each other. ``k`` is the length of the rankings, None for the whole database. ``leave_one_out`` wants the same codes
    as queries and as database and takes each query, by its position, out of its own database. Memory beside codes and
    labels is some tens of MB, whatever ``k`` is. Raises RetrievalError for what does not belong together; codes whose
    provenance names different models are let through by ``any_model``.
    """
    check_comparable(queries, database, any_model=any_model)
    relevance = _relevance(queries, query_labels, database, database_labels)
    own = _right_for_itself(queries, database, relevance) if leave_one_out else 0
    if divisor not in get_args(Divisor):
        raise RetrievalError(f"average precision divides by one of {', '.join(get_args(Divisor))}, not by {divisor!r}")
    if radius < 0:
        raise RetrievalError(f"the Hamming radius is {radius}; it is 0 or more")
    task = Task(
        query_words=as_words(queries.packed, queries.bits),
        database_words=as_words(database.packed, database.bits),
        bits=database.bits,
        relevance=relevance,
        totals=relevance.totals() - own,
        k=_length(k, len(database), leave_one_out),
        radius=radius,
        divisor=divisor,
        ties=ties,
        leave_one_out=leave_one_out,
    )
    order, sums = task.order(), _Sums(task)
    threads = threads or cores()
    work = in_threads(lambda i, j: task.measure(order[i:j]), len(queries), threads=threads, block=task.block())
    for part in work:
        sums.add(part)
        progress(sums.done, len(queries))
    return sums.scores()


class _Sums:
    """What the parts of an evaluation add up to."""

    def __init__(self, task: Task) -> None:
        count = len(task.query_words)
        self.task, self.done = task, 0
        self.average_precision, self.tied = np.zeros(count), np.zeros((len(TIED), count))
        self.near, self.near_right = np.zeros((2, count), np.int64)
        self.right, self.recall, self.expected = np.zeros(task.k, np.int64), np.zeros(task.k), np.zeros(task.k)

    def add(self, part: Part) -> None:
        self.average_precision[part.queries] = part.average_precision
        self.near[part.queries], self.near_right[part.queries] = part.near, part.near_right
        self.right += part.right
        self.recall += part.recall
        if part.tied is not None and part.expected is not None:
            self.tied[:, part.queries] = [getattr(part.tied, name) for name in TIED]
            self.expected += part.expected
        self.done += len(part.queries)

    def scores(self) -> Scores:
        task, count = self.task, self.done
        precision = precision_curve(self.right, count)
        tied = {name: float(row.mean()) for name, row in zip(TIED, self.tied, strict=True)}
        return Scores(
            queries=count,
            database=len(task.database_words) - task.leave_one_out,
            bits=task.bits,
            k=task.k,
            radius=task.radius,
            divisor=task.divisor,
            leave_one_out=task.leave_one_out,
            map=float(self.average_precision.mean()),
            precision=precision,
            recall=recall_curve(self.recall, count),
            precision_within=float(ratio(self.near_right, self.near).mean()),
            top1=float(precision[0]),
            without_relevant=int(np.count_nonzero(task.totals == 0)),
            without_near=int(np.count_nonzero(self.near == 0)),
            average_precision=self.average_precision,
            tied_map=tied if task.ties else None,
            tied_average_precision=TiedPrecision(*self.tied) if task.ties else None,
            expected_precision=precision_curve(self.expected, count) if task.ties else None,
        )


def _relevance(queries: Codes, query_labels: Labels, database: Codes, database_labels: Labels) -> Relevance:
    """The labels of both sides, when there are codes, and a label for each of them."""
    for codes, whose in ((queries, "queries"), (database, "database")):
        check_codes(codes.packed, codes.bits, what=f"the codes of the {whose}")
        if not len(codes):
            raise RetrievalError(f"there is nothing to evaluate: the number of codes in the {whose} is 0")
    relevance = Relevance(query_labels, database_labels)
    counts = {"queries": (len(queries), len(relevance.query_keys))}
    counts["database"] = len(database), relevance.keys.shape[1]
    for whose, (codes_there, labels_there) in counts.items():
        if codes_there != labels_there:
            raise RetrievalError(f"{codes_there} codes but {labels_there} labels in the {whose}")
    return relevance


def _length(k: int | None, database: int, leave_one_out: bool) -> int:
    """How many items each ranking has, K."""
    items = database - leave_one_out
    if not items:
        raise RetrievalError("one code alone has no neighbours: leaving each query out needs two codes or more")
    if k is not None and not 1 <= k <= items:
        others = " besides the query itself" if leave_one_out else ""
        raise RetrievalError(f"k = {k} is not possible: the database has {items} codes{others}; give 1 to {items}")
    return items if k is None else k


def _right_for_itself(queries: Codes, database: Codes, relevance: Relevance) -> npt.NDArray[np.int64]:
    """Whether each query is right for itself, 0 or 1; RetrievalError unless the queries are the database."""
    same = np.array_equal(queries.packed, database.packed)
    if not same or not np.array_equal(relevance.query_keys, relevance.keys.T):
        what = "labels" if same else "codes"
        raise RetrievalError(
            f"leaving each query out of its own database wants the same codes, with their labels, as queries and as "
            f"database, in the same order; the {what} differ"
        )
    if relevance.single:
        return np.ones(len(queries), np.int64)
    return np.asarray(relevance.query_keys.any(axis=1), dtype=np.int64)
