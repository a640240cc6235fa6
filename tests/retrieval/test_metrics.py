"""Every figure against its definition, written out in exact fractions; what is no ranking is refused."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caffe2torch.errors import RetrievalError
from caffe2torch.retrieval.metrics import (
    average_precision,
    mean_average_precision,
    precision_at_k,
    precision_recall,
    precision_within,
    recall_at_k,
    top1,
)
from caffe2torch.retrieval.relevance import Relevance, relevance


def exact_average_precision(row: list[bool], total: int, divisor: str) -> Fraction:
    summed = sum((Fraction(sum(row[: i + 1]), i + 1) for i, right in enumerate(row) if right), Fraction(0))
    by = {"found": sum(row), "all": total, "attainable": min(total, len(row))}[divisor]
    return summed / by if by else Fraction(0)


@st.composite
def rankings(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Relevance (Q, K) and the totals (Q,), which are at least what each row has."""
    queries, k = draw(st.integers(1, 5)), draw(st.integers(1, 9))
    rows = draw(st.lists(st.lists(st.booleans(), min_size=k, max_size=k), min_size=queries, max_size=queries))
    more = draw(st.lists(st.integers(0, 3), min_size=queries, max_size=queries))
    return np.array(rows), np.array([sum(row) + extra for row, extra in zip(rows, more, strict=True)])


@pytest.mark.parametrize(
    "divisor, expected",
    [("found", (1 + 2 / 3 + 3 / 4) / 3), ("all", (1 + 2 / 3 + 3 / 4) / 8), ("attainable", (1 + 2 / 3 + 3 / 4) / 5)],
)
def test_average_precision_of_a_ranking_worked_by_hand(divisor: str, expected: float) -> None:
    row = np.array([[True, False, True, True, False]])
    assert average_precision(row, divisor=divisor, totals=np.array([8]))[0] == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("divisor", ["found", "all", "attainable"])
@given(case=rankings())
def test_average_precision_equals_the_definition(divisor: str, case: tuple[np.ndarray, np.ndarray]) -> None:
    rows, totals = case
    pairs = zip(rows.tolist(), totals.tolist(), strict=True)
    exact = [exact_average_precision(row, total, divisor) for row, total in pairs]
    found = average_precision(rows, divisor=divisor, totals=totals)
    np.testing.assert_allclose(found, [float(value) for value in exact], rtol=1e-14)
    mean = mean_average_precision(rows, divisor=divisor, totals=totals)
    assert mean == pytest.approx(float(sum(exact) / len(exact)), rel=1e-14)


@given(case=rankings())
def test_curves_equal_their_definitions(case: tuple[np.ndarray, np.ndarray]) -> None:
    rows, totals = case
    lists, k = rows.tolist(), rows.shape[1]
    precision = [sum(Fraction(sum(row[:n]), n) for row in lists) / len(lists) for n in range(1, k + 1)]
    recall = [
        sum(
            Fraction(sum(row[:n]), int(total)) if total else Fraction(0)
            for row, total in zip(lists, totals, strict=True)
        )
        / len(lists)
        for n in range(1, k + 1)
    ]
    np.testing.assert_allclose(precision_at_k(rows), np.array(precision, float), rtol=1e-14)
    np.testing.assert_allclose(recall_at_k(rows, totals), np.array(recall, float), rtol=1e-14)
    assert top1(rows) == pytest.approx(float(precision[0]), rel=1e-14)
    curve = precision_recall(rows, totals)
    np.testing.assert_array_equal(curve, (recall_at_k(rows, totals), precision_at_k(rows)))


def test_more_queries_than_a_byte_counts() -> None:
    rows = np.ones((1000, 3), np.bool_)
    rows[700:, 1] = False
    np.testing.assert_allclose(precision_at_k(rows), [1, 0.85, 0.9], rtol=1e-15)
    np.testing.assert_allclose(recall_at_k(rows, np.full(1000, 4)), [0.25, 0.425, 0.675], rtol=1e-15)


def test_a_query_without_right_items_counts_as_0() -> None:
    rows = np.array([[True, True], [False, False]])
    for divisor in ("found", "all", "attainable"):
        assert mean_average_precision(rows, divisor=divisor, totals=np.array([2, 0])) == 0.5
    assert recall_at_k(rows, np.array([2, 0])).tolist() == [0.25, 0.5]


def test_precision_within_a_radius_counts_a_failed_lookup_as_0() -> None:
    distances = np.array([[0, 2, 3, 9], [3, 4, 5, 6], [1, 1, 1, 1]])
    right = np.array([[True, False, True, True], [True, True, True, True], [True, False, False, False]])
    assert precision_within(distances, right, 2).tolist() == [0.5, 0.0, 0.25]
    assert precision_within(distances, right, 3).tolist() == [2 / 3, 1.0, 0.25]


@pytest.mark.parametrize(
    "rows, message",
    [
        pytest.param(np.ones((2, 3)), "rankings are booleans", id="numbers"),
        pytest.param(np.ones(3, np.bool_), "rankings are booleans", id="one ranking alone"),
        pytest.param(np.ones((0, 3), np.bool_), "0 queries", id="no queries"),
        pytest.param(np.ones((3, 0), np.bool_), "with 0 items", id="no items"),
    ],
)
def test_what_is_no_ranking(rows: np.ndarray, message: str) -> None:
    for measure in (average_precision, precision_at_k, top1):
        with pytest.raises(RetrievalError, match=message):
            measure(rows)


@pytest.mark.parametrize(
    "divisor, totals, message",
    [
        pytest.param("all", None, "needs the number of all right items", id="no totals"),
        pytest.param("attainable", None, "needs the number of all right items", id="no totals for the smaller"),
        pytest.param("all", np.array([2, 1]), "query 1 has 2 right items in its ranking, but 1 in all", id="too few"),
        pytest.param("all", np.array([2]), r"totals are integers \(2,\)", id="another count"),
        pytest.param("all", np.array([2.0, np.nan]), "totals are integers", id="NaN"),
        pytest.param("k", np.array([2, 2]), "found, all, attainable, not by 'k'", id="unknown name"),
    ],
)
def test_divisors_that_cannot_be_used(divisor: str, totals: np.ndarray | None, message: str) -> None:
    with pytest.raises(RetrievalError, match=message):
        average_precision(np.ones((2, 2), np.bool_), divisor=divisor, totals=totals)


def test_distances_that_are_not_numbers() -> None:
    right = np.ones((1, 2), np.bool_)
    with pytest.raises(RetrievalError, match="1 distances are NaN"):
        precision_within(np.array([[np.nan, 1.0]]), right)
    with pytest.raises(RetrievalError, match=r"distances are \(1, 3\)"):
        precision_within(np.zeros((1, 3)), right)


def test_single_labels_are_right_where_they_are_equal() -> None:
    queries, database = np.array([3, -1, 2**40]), np.array([-1, 3, 3, 2**40, 7])
    assert relevance(queries, database).tolist() == [[a == b for b in database] for a in queries]
    assert Relevance(queries, database).totals().tolist() == [2, 1, 1]


@pytest.mark.parametrize("labels", [1, 8, 24, 64, 65, 200])
def test_several_labels_are_right_where_one_is_shared(labels: int) -> None:
    rng = np.random.RandomState(labels)
    queries, database = (rng.rand(count, labels) < 0.8 / labels for count in (7, 11))
    queries[0] = False
    expected = [[bool((a & b).any()) for b in database] for a in queries]
    assert relevance(queries, database).tolist() == expected
    assert Relevance(queries, database).totals().tolist() == [sum(row) for row in expected]
    assert relevance(queries.astype(np.int64) if labels > 1 else queries, database).tolist() == expected


def test_labels_of_different_integer_types_are_compared_exactly() -> None:
    large = 2**53
    assert relevance(np.array([large, -1]), np.array([large, large + 1], np.uint64)).tolist() == [
        [True, False],
        [False] * 2,
    ]


def test_whole_numbers_kept_as_floats_are_labels() -> None:
    assert relevance(np.array([1.0]), np.array([1.0, 2.0])).tolist() == [[True, False]]


@pytest.mark.parametrize(
    "queries, database, message",
    [
        pytest.param([1, 2], np.ones((3, 4), bool), r"queries have a single label each.*\(2,\)", id="one, several"),
        pytest.param(np.ones((2, 4), bool), [1], r"database have a single label each.*\(1,\)", id="several, one"),
        pytest.param(np.ones((2, 4), bool), np.ones((2, 5), bool), "know 4 labels, the database 5", id="label sets"),
        pytest.param([1.0, np.nan], [1], "the queries have NaN in 1 places", id="NaN"),
        pytest.param([1], [0.5], "the database are float64 with fractions", id="fractions"),
        pytest.param([1], [np.inf], "with fractions", id="infinity"),
        pytest.param(["cat"], [1], "expected integers", id="text"),
        pytest.param(np.ones((1, 1, 1), bool), [1], "expected integers", id="three axes"),
        pytest.param([1], np.array([2**63], np.uint64), "go up to 9223372036854775808", id="too large"),
        pytest.param(3, [1], "expected integers", id="a number"),
        pytest.param([[1], [2]], [1], "single labels are integers", id="a column"),
        pytest.param([[0, 2]], [[0, 1]], "booleans", id="numbers in a table"),
        pytest.param(np.ones((2, 0), bool), np.ones((2, 0), bool), "no label at all", id="no labels"),
    ],
)
def test_labels_that_cannot_be_compared(queries: object, database: object, message: str) -> None:
    with pytest.raises(RetrievalError, match=message):
        relevance(np.asarray(queries), np.asarray(database))
