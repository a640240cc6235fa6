"""Which published figure stands beside ours, and the reasons why one may not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caffe2torch import zoo
from caffe2torch.errors import RetrievalError, ZooError
from caffe2torch.evaluation.compare import accuracy_of, compare, drawable_curves, in_papers_order, order_of
from caffe2torch.evaluation.run import Evaluation, Side
from caffe2torch.retrieval.codes import Codes
from caffe2torch.retrieval.protocol import Scores

QUERIES, DATABASE = np.arange(10_000) % 10, np.arange(50_000) % 10


def scores(k: int, value: float, bits: int, divisor: Any = "found") -> Scores:
    curve = np.full(k, value)
    fixed = {"radius": 2, "divisor": divisor, "precision_within": 0.5, "top1": 0.5, "average_precision": curve}
    return Scores(10, 50, bits, k, map=value, precision=curve, recall=curve, leave_one_out=False, without_relevant=0,
                  without_near=0, **fixed)  # fmt: skip


def evaluation(
    values: Mapping[int, float],
    *,
    made: Mapping[str, Any] | None = None,
    bits: int = 48,
    labels: tuple[np.ndarray, np.ndarray | None] = (QUERIES, DATABASE),
    divisor: str = "found",
    paths: tuple[str, ...] = (),
) -> Evaluation:
    codes = Codes(np.zeros((1, bits // 8 + 1), np.uint8), bits, paths, made or {})
    queries, database = (
        None if each is None else Side(codes, Path("x.h5"), each, "here") for each in labels
    )  # fmt: skip
    assert queries is not None
    found = tuple(scores(k, value, bits, divisor) for k, value in values.items())
    return Evaluation(queries, database, found)


def test_a_known_model_is_compared_with_its_own_figure() -> None:
    made = {"model": "ssdh48_small", "pictures_as": "lossless"}
    first, second = compare(evaluation({1000: 0.93163, 50_000: 0.939895}, made=made))
    assert (first.name, first.comparable, first.figure and first.figure.text) == ("MAP@1000", True, "0.93164")
    assert first.difference == pytest.approx(-1e-5)
    assert first.to_dict()["equal_as_printed"] is False
    assert second.to_dict()["equal_as_printed"] is True


def test_codes_of_an_unknown_model_that_give_a_published_figure_name_it() -> None:
    rows = compare(evaluation({1000: 0.8973731964, 50_000: 0.9159802}))
    assert [row.figure and row.figure.text for row in rows] == ["0.897373", "0.915980"]
    assert all(row.comparable and "do not say which model" in row.notes[0] for row in rows)


def test_of_several_figures_of_one_model_the_equal_one() -> None:
    (row,) = compare(evaluation({1000: 0.895568}))
    assert row.figure is not None
    assert row.figure.text == "0.89557"


def test_codes_of_an_unknown_model_compare_with_nothing_otherwise() -> None:
    (row,) = compare(evaluation({1000: 0.5}))
    assert not row.comparable
    assert row.difference is None
    assert "do not say which model" in row.differences[-1]


def test_the_mark_of_the_transposed_mean_is_named() -> None:
    (row,) = compare(evaluation({1000: 0.8969004779}), model="kevinnet_cifar10_48")
    assert row.comparable
    assert any("0.8969005" in note and "transposed" in note for note in row.notes)


def test_a_model_named_by_the_user() -> None:
    (row,) = compare(evaluation({1000: 0.9}), model="ssdh_cifar10_48_2016")
    assert row.figure is not None
    assert (row.figure.text, row.comparable) == ("0.899731", True)
    with pytest.raises(ZooError, match="kevinet"):
        compare(evaluation({1000: 0.9}), model="kevinet")


KEVINNET = {"model": "kevinnet_cifar10_48"}


@pytest.mark.parametrize(
    "changes, reason",
    [
        pytest.param({"values": {777: 0.9}}, "first 1,000 of a ranking, here 777", id="k"),
        pytest.param({"bits": 64}, "48 bits, here 64", id="bits"),
        pytest.param({"made": {"model": "mine"}}, "not for mine", id="model"),
        pytest.param({"labels": (QUERIES, None)}, "here the test images", id="database"),
        pytest.param({"labels": (QUERIES[:500], DATABASE)}, "10,000 test pictures were published", id="fewer queries"),
        pytest.param({"labels": (QUERIES, DATABASE % 9)}, "50,000 training pictures were published", id="classes"),
        pytest.param({"divisor": "all"}, "here over 'all'", id="divisor"),
        pytest.param({"made": {**KEVINNET, "pictures_as": "lossless"}}, "hashed from lossless", id="lossless"),
        pytest.param({"made": {**KEVINNET, "precision": "fp16"}}, "hashed in fp16", id="precision"),
        pytest.param({"made": {**KEVINNET, "mean_sha256": "0"}}, "another file than kevinnet-ilsvrc", id="mean"),
        pytest.param({"made": {**KEVINNET, "preprocessing": {}}}, "other preprocessing", id="preprocessing"),
        pytest.param(
            {"made": {"model": "ssdh48_small"}, "paths": ("test/1.jpg",)}, "hashed from JPEG-coded", id="JPEG"
        ),
    ],
)  # fmt: skip
def test_what_sets_ours_apart_is_said(changes: dict[str, Any], reason: str) -> None:
    (row,) = compare(evaluation(**{"values": {1000: 0.9}, "made": KEVINNET, **changes}))
    assert not row.comparable
    assert reason in "; ".join(row.differences)
    assert row.to_dict()["difference"] is None


def test_the_models_own_preprocessing_is_no_difference() -> None:
    from caffe2torch import preprocess

    entry = zoo.entry("kevinnet_cifar10_48")
    spec = preprocess.Spec.from_dict(entry.preprocessing).to_dict()
    assert compare(evaluation({1000: 0.9}, made={**KEVINNET, "preprocessing": spec}))[0].comparable


def test_the_order_of_the_papers_lists_is_known_by_its_labels(reference: Path) -> None:
    lists = reference / "published" / "cifar10_lists"
    test, train = (np.loadtxt(lists / f"{name}-label.txt", dtype=np.int64) for name in ("test", "train"))
    assert in_papers_order(evaluation({1: 0.5}, labels=(test, train)))
    assert in_papers_order(evaluation({1: 0.5}, labels=(9 - test, train * 7)))  # other numbers for the same classes
    assert not in_papers_order(evaluation({1: 0.5}, labels=(np.sort(test), train)))


def test_order_of_does_not_depend_on_what_labels_are_called() -> None:
    assert order_of(np.array([3, 3, 9, 0])) == order_of(np.array([1, 1, 0, 7]))
    assert order_of(np.array([3, 3, 9, 0])) != order_of(np.array([3, 9, 3, 0]))


def test_curves_are_drawn_beside_ours_only_where_they_compare() -> None:
    assert len(drawable_curves(evaluation({1000: 0.9}))) == 11
    assert drawable_curves(evaluation({1000: 0.9}, bits=12)) == ()
    assert drawable_curves(evaluation({1000: 0.9}, labels=(QUERIES, None))) == ()
    assert drawable_curves(evaluation({1000: 0.9}, labels=(QUERIES[:5], DATABASE))) == ()


def classified(scores: list[list[float]] | None, labels: list[int]) -> Side:
    features = None if scores is None else np.array(scores, np.float32)
    return Side(Codes(np.zeros((len(labels), 1), np.uint8), 8, (), {}, features), Path("x.h5"), np.array(labels), "")


def test_accuracy() -> None:
    assert accuracy_of(classified([[1, 2], [3, 1], [0, 5], [4, 5]], [1, 0, 0, 1])) == 0.75
    rows = compare(evaluation({1000: 0.9}, made={"model": "ssdh48_small"}), accuracy=0.93443)
    assert (rows[-1].name, rows[-1].figure and rows[-1].figure.text) == ("accuracy", "0.9344")
    assert rows[-1].to_dict()["equal_as_printed"] is True


@pytest.mark.parametrize("scores, labels", [(None, [0, 1]), ([[1, 2], [2, 1]], [0, 2]), ([[1, 2], [2, 1]], [-1, 1])])
def test_accuracy_wants_scores_for_every_label(scores: list[list[float]] | None, labels: list[int]) -> None:
    with pytest.raises(RetrievalError, match="class scores"):
        accuracy_of(classified(scores, labels))
