"""The whole evaluation against rankings written out with ``sorted``, on codes full of ties; what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cifar
from caffe2torch.errors import RetrievalError
from caffe2torch.retrieval import measuring
from caffe2torch.retrieval.codes import Codes
from caffe2torch.retrieval.comparable import check_comparable
from caffe2torch.retrieval.metrics import (
    average_precision,
    precision_at_k,
    precision_curve,
    precision_within,
    recall_at_k,
)
from caffe2torch.retrieval.protocol import Scores, evaluate
from caffe2torch.retrieval.relevance import relevance
from caffe2torch.retrieval.ties import expected_hits, tie_groups, tied_average_precision
from retrieval.naive import draw_codes, naive_distances


def codes(count: int, bits: int, *, distinct: int = 9, seed: int = 0, **provenance: Any) -> Codes:
    return Codes(draw_codes(count, bits, distinct=distinct, seed=seed), bits, (), provenance)


def single_labels(count: int, seed: int) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 4, count)


def several_labels(count: int, seed: int) -> np.ndarray:
    return np.random.RandomState(seed).rand(count, 5) < 0.3


def compare(scores: Scores, distances: np.ndarray, right: np.ndarray, skip: list[int] | None = None) -> None:
    """Every figure beside the definitions of ``metrics`` and ``ties``, of rankings made by ``sorted``.

    ``skip`` names the column that each query leaves out.
    """
    k, kept = scores.k, range(distances.shape[1])
    columns = [[place for place in kept if skip is None or place != skip[q]] for q in range(len(distances))]
    distances, right = (np.take_along_axis(table, np.array(columns), 1) for table in (distances, right))
    orders = np.array([sorted(range(len(row)), key=row.__getitem__) for row in distances.tolist()])
    totals, ranked = right.sum(axis=1), np.take_along_axis(right, orders, 1)[:, :k]
    assert scores.database == distances.shape[1]
    exact = average_precision(ranked, divisor=scores.divisor, totals=totals)
    np.testing.assert_allclose(scores.average_precision, exact, rtol=1e-13)
    np.testing.assert_allclose(scores.map, exact.mean(), rtol=1e-13)
    np.testing.assert_allclose(scores.precision, precision_at_k(ranked), rtol=1e-13)
    np.testing.assert_allclose(scores.recall, recall_at_k(ranked, totals), rtol=1e-12)
    within = precision_within(distances, right, scores.radius)
    np.testing.assert_allclose(scores.precision_within, within.mean(), rtol=1e-13)
    assert scores.top1 == ranked[:, 0].mean()
    assert scores.without_relevant == (totals == 0).sum()
    assert scores.without_near == (distances.min(axis=1) > scores.radius).sum()
    if scores.tied_map is None or scores.tied_average_precision is None or scores.expected_precision is None:
        return
    sizes, hits = tie_groups(distances, right)
    tied = tied_average_precision(sizes, hits, k, divisor=scores.divisor)
    for name, figure in vars(tied).items():
        np.testing.assert_allclose(getattr(scores.tied_average_precision, name), figure, rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(scores.tied_map[name], figure.mean(), rtol=1e-12)
    curve = precision_curve(expected_hits(sizes, hits, k), len(sizes))
    np.testing.assert_allclose(scores.expected_precision, curve, rtol=1e-12)


@pytest.mark.parametrize("make", [single_labels, several_labels], ids=["one label", "several labels"])
@pytest.mark.parametrize("bits", [1, 7, 12, 24, 48, 70, 255, 300])
def test_every_figure_equals_its_definition(bits: int, make: Any) -> None:
    queries, database = codes(13, bits, seed=1), codes(60, bits, seed=2)
    labels = make(13, 3), make(60, 4)
    distances = naive_distances(queries.packed, database.packed, bits)
    for k in (1, 5, 59, 60, None):
        for radius, divisor in ((2, "found"), (0, "all"), (bits // 2, "attainable"), (10_000, "found")):
            scores = evaluate(queries, labels[0], database, labels[1], k=k, radius=radius, divisor=divisor, ties=True)
            assert scores.k == (k or 60)
            compare(scores, distances, relevance(*labels))


@pytest.mark.parametrize("make", [single_labels, several_labels], ids=["one label", "several labels"])
@pytest.mark.parametrize("bits", [1, 12, 48, 70, 255])
def test_each_query_is_left_out_of_its_own_database_by_its_place(bits: int, make: Any) -> None:
    """With codes that repeat, the item left out is rarely the first at distance 0."""
    everything, labels = codes(40, bits, seed=5), make(40, 6)
    distances = naive_distances(everything.packed, everything.packed, bits)
    for k in (1, 7, 38, 39, None):
        scores = evaluate(everything, labels, everything, labels, k=k, leave_one_out=True, ties=True, divisor="all")
        compare(scores, distances, relevance(labels, labels), skip=list(range(40)))


@pytest.mark.parametrize("options", [{}, {"ties": True}, {"k": None, "leave_one_out": True, "ties": True}], ids=str)
def test_threads_and_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]) -> None:
    one, label = codes(300, 16, distinct=40), single_labels(300, 1)
    whole = evaluate(one, label, one, label, **{"k": 50, "threads": 1, **options})
    monkeypatch.setattr(measuring, "MAX_BLOCK", 7)
    parts = evaluate(one, label, one, label, **{"k": 50, "threads": 3, **options})
    np.testing.assert_array_equal(parts.average_precision, whole.average_precision)
    np.testing.assert_array_equal(parts.precision, whole.precision)
    np.testing.assert_allclose(parts.recall, whole.recall, rtol=1e-13)
    assert (parts.map, parts.precision_within, parts.tied_map) == (whole.map, whole.precision_within, whole.tied_map)


def test_long_rankings_are_measured_few_queries_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "BLOCK_BYTES", 100)
    one, label = codes(60, 16), single_labels(60, 1)
    seen: list[tuple[int, int]] = []
    scores = evaluate(one, label, one, label, k=40, threads=1, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 60) for done in range(2, 61, 2)]
    compare(scores, naive_distances(one.packed, one.packed, 16), relevance(label, label))


def test_queries_without_a_right_item_are_counted() -> None:
    scores = evaluate(codes(3, 8), np.array([0, 5, 6]), codes(4, 8), np.array([0, 0, 1, 1]), k=4)
    assert scores.without_relevant == 2
    assert scores.map == pytest.approx(scores.average_precision[0] / 3)
    assert scores.recall[-1] == pytest.approx(1 / 3)
    alone = evaluate(codes(2, 8), np.array([1, 2]), codes(2, 8), np.array([1, 2]), k=1, leave_one_out=True)
    assert (alone.without_relevant, alone.map) == (2, 0.0)


def test_scores_as_json() -> None:
    scores = evaluate(codes(3, 8), single_labels(3, 0), codes(6, 8), single_labels(6, 1), k=4, ties=True)
    plain = json.loads(json.dumps(scores.to_dict()))
    assert plain["map"] == scores.map
    assert plain["precision"] == scores.precision.tolist()
    assert set(plain["tied_map"]) == {"expected", "right_first", "right_last", "best", "worst"}
    assert "average_precision" not in plain


def test_published_codes_among_the_test_images(reference: Path) -> None:
    """What stands in published-results.md for the other protocol, 0.864, against 0.897 on the training images."""
    with np.load(reference / "models" / "ssdh48_small" / "reference.npz") as file:
        held_out = Codes(file["test_codes"], 48, ())
    labels = cifar.held_out_labels(reference)
    scores = evaluate(held_out, labels, held_out, labels, k=None, leave_one_out=True)
    assert round(scores.map, 3) == 0.864
    assert scores.recall[-1] == pytest.approx(1)


ONE = codes(4, 8)
LABELS = np.array([0, 1, 0, 1])


@pytest.mark.parametrize(
    "arguments, message",
    [
        pytest.param((codes(4, 16), LABELS, ONE, LABELS), "codes of 16 bits, the database of 8", id="another width"),
        pytest.param((ONE, LABELS[:3], ONE, LABELS), "4 codes but 3 labels in the queries", id="labels missing"),
        pytest.param((ONE, LABELS, ONE, np.arange(5)), "4 codes but 5 labels in the database", id="labels too many"),
        pytest.param((ONE, LABELS, codes(0, 8), LABELS[:0]), "in the database is 0", id="empty database"),
        pytest.param((codes(0, 8), LABELS[:0], ONE, LABELS), "in the queries is 0", id="no queries"),
        pytest.param((ONE, LABELS, ONE, np.ones((4, 3), bool)), "have a single label each", id="kinds of labels"),
        pytest.param((ONE, LABELS / 0.5 + 0.25, ONE, LABELS), "fractions", id="labels with fractions"),
        pytest.param(
            (Codes(ONE.packed.astype(np.float32) * np.nan, 8, ()), LABELS, ONE, LABELS), "float32", id="NaN codes"
        ),
        pytest.param((Codes(ONE.packed, 12, ()), LABELS, Codes(ONE.packed, 12, ()), LABELS), "bytes", id="bytes"),
    ],
)  # fmt: skip
def test_what_does_not_belong_together(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(RetrievalError, match=message):
        evaluate(*arguments, k=1)


@pytest.mark.parametrize(
    "options, message",
    [
        pytest.param({"k": 5}, "k = 5 is not possible: the database has 4 codes; give 1 to 4", id="k too large"),
        pytest.param({"k": 0}, "k = 0 is not possible", id="k of 0"),
        pytest.param({"k": -1}, "k = -1 is not possible", id="negative k"),
        pytest.param({"k": 4, "leave_one_out": True}, "3 codes besides the query itself", id="k counts the query"),
        pytest.param({"k": 1, "radius": -1}, "the Hamming radius is -1", id="negative radius"),
        pytest.param({"k": 1, "divisor": "k"}, "found, all, attainable, not by 'k'", id="unknown divisor"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RetrievalError, match=message):
        evaluate(ONE, LABELS, ONE, LABELS, **options)


@pytest.mark.parametrize(
    "database, labels, message",
    [
        pytest.param(codes(4, 8, seed=9), LABELS, "the codes differ", id="other codes"),
        pytest.param(codes(5, 8), np.arange(5), "the codes differ", id="more codes"),
        pytest.param(ONE, LABELS[::-1], "the labels differ", id="other labels"),
    ],
)
def test_leaving_out_wants_the_queries_as_database(database: Codes, labels: np.ndarray, message: str) -> None:
    with pytest.raises(RetrievalError, match=message):
        evaluate(ONE, LABELS, database, labels, k=1, leave_one_out=True)


def test_one_code_alone_has_no_neighbours() -> None:
    with pytest.raises(RetrievalError, match="one code alone"):
        evaluate(codes(1, 8), LABELS[:1], codes(1, 8), LABELS[:1], k=None, leave_one_out=True)


def test_codes_of_different_models_are_refused_with_every_reason() -> None:
    first = codes(4, 8, weights_sha256="aa", mean_sha256=None, blob="fc8", net="a.prototxt")
    second = codes(4, 8, weights_sha256="bb", mean_sha256="cc", blob="fc8", net="b.prototxt")
    with pytest.raises(
        RetrievalError, match=r"the weights \(weights_sha256 aa against bb\); .*\(mean_sha256 None against cc\)$"
    ):
        evaluate(first, LABELS, second, LABELS, k=1)
    assert evaluate(first, LABELS, second, LABELS, k=1, any_model=True).k == 1


def test_codes_that_do_not_say_how_they_were_made_are_taken() -> None:
    check_comparable(codes(1, 8, weights_sha256="aa"), ONE)
    check_comparable(codes(1, 8, weights_sha256="aa", device="cpu"), codes(2, 8, weights_sha256="aa", device="cuda"))


def test_of_settings_that_differ_only_these_are_shown() -> None:
    """The beginnings of both are the same and longer than what is shown."""
    common = {f"setting{number}": "the same" for number in range(20)}
    first, second = codes(1, 8, preprocessing={**common, "resize": [32, 32]}), codes(1, 8, preprocessing=common)
    with pytest.raises(
        RetrievalError, match=r"the preprocessing \(preprocessing \{'resize': \[32, 32\]\} against \{\}\)$"
    ):
        check_comparable(first, second)
