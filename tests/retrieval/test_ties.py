"""Ties against brute force: every order of equal distances is written down and measured in exact fractions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from itertools import combinations, permutations, product

import numpy as np
import pytest

from caffe2torch.errors import RetrievalError
from caffe2torch.retrieval.metrics import average_precision, precision_curve
from caffe2torch.retrieval.ties import _harmonic, _hypergeometric, expected_hits, tie_groups, tied_average_precision

DIVISORS = ("found", "all", "attainable")


def exact_average_precision(row: tuple[bool, ...], total: int, divisor: str) -> Fraction:
    summed = sum((Fraction(sum(row[: i + 1]), i + 1) for i, right in enumerate(row) if right), Fraction(0))
    by = {"found": sum(row), "all": total, "attainable": min(total, len(row))}[divisor]
    return summed / by if by else Fraction(0)


def orders(groups: list[list[bool]]) -> Iterator[tuple[bool, ...]]:
    """Every order of the items within their groups, as often as it arises."""
    for choice in product(*(permutations(group) for group in groups)):
        yield tuple(right for group in choice for right in group)


def placements(groups: list[list[bool]]) -> Iterator[tuple[bool, ...]]:
    """The same where a group is larger: every set of places for its right items, all equally likely."""
    choices = [
        [[place in places for place in range(len(group))] for places in combinations(range(len(group)), sum(group))]
        for group in groups
    ]
    for choice in product(*choices):
        yield tuple(right for group in choice for right in group)


def draw(seed: int, count: int, distances: int) -> tuple[np.ndarray, np.ndarray, list[list[bool]]]:
    rng = np.random.RandomState(seed)
    distance, right = rng.randint(0, distances, (1, count)), rng.rand(1, count) < rng.rand()
    groups = [right[0][distance[0] == far].tolist() for far in np.unique(distance)]
    return distance, right, groups


def compare(distance: np.ndarray, right: np.ndarray, groups: list[list[bool]], every: list[tuple[bool, ...]]) -> None:
    sizes, hits = tie_groups(distance, right)
    total = int(right.sum())
    first = tuple(x for group in groups for x in sorted(group, reverse=True))
    last = tuple(x for group in groups for x in sorted(group))
    for k in range(1, distance.shape[1] + 1):
        for divisor in DIVISORS:
            values = [exact_average_precision(row[:k], total, divisor) for row in every]
            expected = [sum(values) / len(values), max(values), min(values)]
            expected += [exact_average_precision(row[:k], total, divisor) for row in (first, last)]
            found = tied_average_precision(sizes, hits, k, divisor=divisor)
            figures = [found.expected, found.best, found.worst, found.right_first, found.right_last]
            np.testing.assert_allclose(np.concatenate(figures), np.array(expected, float), rtol=1e-12, atol=1e-15)
        chances = [Fraction(sum(row[place] for row in every), len(every)) for place in range(k)]
        np.testing.assert_allclose(expected_hits(sizes, hits, k), np.array(chances, float), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("seed", range(25))
def test_every_permutation_of_a_short_ranking(seed: int) -> None:
    distance, right, groups = draw(seed, count=1 + seed % 6, distances=1 + seed % 4)
    compare(distance, right, groups, list(orders(groups)))


@pytest.mark.parametrize("seed", range(12))
def test_every_placement_in_larger_groups(seed: int) -> None:
    distance, right, groups = draw(100 + seed, count=10, distances=1 + seed % 3)
    compare(distance, right, groups, list(placements(groups)))


def test_the_best_order_may_leave_a_late_right_item_out() -> None:
    """A right item at place 1, and one that may stand at place 10 or 11: to divide by one is better than to find it."""
    sizes, hits = np.array([[1, 8, 2]]), np.array([[1, 0, 1]])
    found = tied_average_precision(sizes, hits, 10)
    assert found.best[0] == 1.0
    assert found.right_first[0] == pytest.approx((1 + 2 / 10) / 2)
    assert found.expected[0] == pytest.approx((1 + (1 + 2 / 10) / 2) / 2)
    assert found.worst[0] == found.right_first[0]
    assert found.right_last[0] == 1.0


def test_without_ties_all_orders_are_one() -> None:
    rng = np.random.RandomState(0)
    right = rng.rand(20, 30) < 0.3
    sizes, hits = tie_groups(np.tile(np.arange(30), (20, 1)), right)
    for k in (1, 7, 30):
        for divisor in DIVISORS:
            totals = right.sum(axis=1)
            exact = average_precision(right[:, :k], divisor=divisor, totals=totals)
            found = tied_average_precision(sizes, hits, k, divisor=divisor)
            for figure in vars(found).values():
                np.testing.assert_allclose(figure, exact, rtol=1e-12)
        np.testing.assert_allclose(
            precision_curve(expected_hits(sizes, hits, k), 20), right[:, :k].cumsum(1).mean(0) / np.arange(1, k + 1)
        )


def test_empty_groups_and_the_order_of_items_change_nothing() -> None:
    distance, right = np.array([[4, 0, 4, 9, 0]]), np.array([[True, False, False, True, True]])
    sizes, hits = tie_groups(distance, right)
    assert (sizes.tolist(), hits.tolist()) == ([[2, 2, 1]], [[1, 1, 1]])
    wide = tied_average_precision(np.array([[0, 2, 0, 0, 2, 0, 1, 0]]), np.array([[0, 1, 0, 0, 1, 0, 1, 0]]), 3)
    for name, figure in vars(tied_average_precision(sizes, hits, 3)).items():
        assert figure == getattr(wide, name)


def test_float_distances_and_infinity_make_groups_too() -> None:
    sizes, hits = tie_groups(np.array([[0.5, np.inf, 0.5], [1.5, 0.5, np.inf]]), np.array([[True, True, False]] * 2))
    assert sizes.tolist() == [[2, 0, 1], [1, 1, 1]]
    assert hits.tolist() == [[1, 0, 1], [1, 1, 0]]


def test_a_large_group_keeps_its_precision() -> None:
    """A random ranking of 200,000 items after 1,000,000 others: the sum of the expectation, place by place."""
    before, n, r, k = 1_000_000, 200_000, 3_000, 1_150_000
    places = (Fraction(0), 1.0 * r / n, (r - 1) / (n - 1))
    terms = ((places[1] * (1 + j * places[2])) / (before + j + 1) for j in range(k - before))
    found = tied_average_precision(np.array([[before, n]]), np.array([[0, r]]), k, divisor="all")
    assert found.expected[0] == pytest.approx(math.fsum(terms) / r, rel=1e-12)


def test_harmonic_sums_are_exact_on_both_sides_of_the_table() -> None:
    exact = [Fraction(0)]
    for number in range(1, 600):
        exact.append(exact[-1] + Fraction(1, number))
    for low, high in ((0, 0), (0, 1), (0, 128), (100, 129), (127, 128), (128, 129), (128, 130), (5, 599), (598, 599)):
        assert _harmonic(low, high) == pytest.approx(float(exact[high] - exact[low]), rel=1e-13)


@pytest.mark.parametrize(
    "m, n, r", [(1, 1, 0), (3, 7, 0), (3, 7, 7), (3, 7, 4), (5, 7, 6), (500, 4000, 900), (1, 9, 1)]
)
def test_the_number_found_is_hypergeometric(m: int, n: int, r: int) -> None:
    x, weight = _hypergeometric(m, n, r)
    exact = [Fraction(math.comb(r, i) * math.comb(n - r, m - i), math.comb(n, m)) for i in x.tolist()]
    assert sum(exact) == 1
    np.testing.assert_allclose(weight, np.array(exact, float), rtol=1e-10, atol=1e-300)


@pytest.mark.parametrize(
    "sizes, hits, k, message",
    [
        pytest.param([[2, 1]], [[1, 2]], 2, "more right items than items", id="more right than there are"),
        pytest.param([[2, 1]], [[-1, 1]], 2, "more right items than items", id="fewer than none"),
        pytest.param([[2, 1]], [[1, 1]], 4, "k = 4, but the groups of equal distance hold 3 items", id="k too large"),
        pytest.param([[2, 1]], [[1, 1]], 0, "k = 0", id="k of 0"),
        pytest.param([[2, 1]], [[1]], 1, r"sizes are \(1, 2\), hits \(1, 1\)", id="shapes differ"),
        pytest.param([2, 1], [1, 1], 1, "groups are", id="one axis"),
        pytest.param(np.zeros((0, 2)), np.zeros((0, 2)), 1, "groups are", id="no queries"),
    ],
)
def test_groups_that_cannot_be(sizes: list[list[int]], hits: list[list[int]], k: int, message: str) -> None:
    with pytest.raises(RetrievalError, match=message):
        tied_average_precision(np.array(sizes), np.array(hits), k)
    with pytest.raises(RetrievalError, match=message):
        expected_hits(np.array(sizes), np.array(hits), k)


def test_totals_below_what_the_groups_hold() -> None:
    with pytest.raises(RetrievalError, match="totals are"):
        tied_average_precision(np.array([[2, 1]]), np.array([[1, 1]]), 2, divisor="all", totals=np.array([1]))


def test_nan_has_no_place_in_a_ranking() -> None:
    with pytest.raises(RetrievalError, match="1 distances are NaN"):
        tie_groups(np.array([[0.0, np.nan]]), np.ones((1, 2), np.bool_))
    with pytest.raises(RetrievalError, match="the table of right items"):
        tie_groups(np.zeros((1, 3)), np.ones((1, 2), np.bool_))
