"""The facts about published results: against the zoo, the README's table, and questions one may ask.

Their comparison with the authors' own files is part of the published suite, tests/test_published_suite.py.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest

from caffe2torch import zoo
from caffe2torch.errors import FormatError
from caffe2torch.evaluation import published

BASELINES = ["CNNH+", "CNNH", "KSH", "ITQ-CCA", "MLH", "BRE", "ITQ", "SH", "LSH"]


def test_curves_come_in_drawing_order() -> None:
    assert [curve.method for curve in published.curves()] == ["KevinNet", "SSDH", *BASELINES]


@pytest.mark.parametrize(
    "method, bits, value",
    [
        ("KevinNet", 12, 0.8930),
        ("KevinNet", 32, 0.8972),
        ("KevinNet", 48, 0.8973),
        ("CNNH+", 48, 0.5320),
        ("CNNH", 48, 0.5220),
        ("KSH", 48, 0.3560),
        ("ITQ-CCA", 48, 0.2950),
        ("LSH", 12, 0.1210),
        ("LSH", 48, 0.1200),
    ],
)
def test_the_readmes_table(method: str, bits: int, value: float) -> None:
    found = published.figures(method=method, bits=bits, metric="MAP", k=1000)
    assert value in [figure.value for figure in found if figure.digits == 4]


def test_every_figure_of_the_zoo_is_here_too() -> None:
    for name in zoo.names():
        for figure in zoo.entry(name).published:
            values = [known.value for known in published.figures(metric=figure.metric, k=figure.k, model=name)]
            assert figure.value in values, f"{name}: {figure}"


def test_every_model_named_here_is_in_the_zoo() -> None:
    for figure in published.figures():
        for model in figure.models:
            assert zoo.entry(model).bits == figure.bits


def test_figures_are_fractions_with_a_source_and_a_protocol() -> None:
    for figure in published.figures():
        assert 0 < figure.value < 1
        assert figure.source.title
        assert figure.protocol.text
        assert figure.origin in ("stated", "computed", "measured")
        assert (figure.metric == "MAP") == (figure.k is not None)


def test_a_figure_is_met_to_its_printed_digits() -> None:
    (figure,) = (figure for figure in published.figures(bits=48, k=1000) if figure.text == "0.897373")
    assert figure.name == "MAP@1000 of KevinNet, 48 bits, CIFAR-10"
    assert figure.equals(0.8973731964)
    assert figure.equals(0.8973725)
    assert not figure.equals(0.8973724)


@pytest.mark.parametrize(
    "question, value",
    [
        pytest.param({"bits": 48, "k": 1000}, 0.897373, id="48 bits"),
        pytest.param({"bits": 12, "k": 1000}, 0.8930, id="12 bits"),
        pytest.param({"bits": 64, "k": 50000}, 0.91376, id="all ranks"),
        pytest.param({"bits": 48, "k": 1000, "model": "ssdh_cifar10_48_2016"}, 0.899731, id="by model"),
        pytest.param({"bits": 48, "k": 50000, "model": "ssdh48_small"}, 0.939895, id="the bundled model"),
        pytest.param({"metric": "accuracy", "bits": 48, "model": "ssdh_vgg16_48"}, 0.9151, id="accuracy"),
    ],
)
def test_closest_finds_the_figure_of_the_same_protocol(question: dict[str, Any], value: float) -> None:
    found = published.closest(**question)
    assert found is not None
    assert found.comparable
    assert found.figure.value == value
    assert found.difference(value + 0.25) == pytest.approx(0.25)


@pytest.mark.parametrize(
    "question, differences",
    [
        pytest.param({"bits": 16, "k": 1000}, ["12 bits, here 16"], id="bits"),
        pytest.param({"bits": 48, "k": 500}, ["over the first 1,000 of a ranking, here 500"], id="K"),
        pytest.param(
            {"bits": 48, "k": 1000, "database": "test"},
            ["the database is the train images, here the test images"],
            id="database",
        ),
        pytest.param(
            {"bits": 48, "k": 1000, "model": "mine"}, ["published for kevinnet_cifar10_48, not for mine"], id="model"
        ),
    ],
)
def test_closest_says_what_differs(question: dict[str, Any], differences: list[str]) -> None:
    found = published.closest(**question)
    assert found is not None
    assert list(found.differences) == differences
    assert not found.comparable


def test_closest_never_offers_a_baseline_or_the_transposed_mean() -> None:
    for bits in (8, 12, 16, 32, 48, 64, 128, 1024):
        for k in (1, 100, 1000, 50000, 59999):
            found = published.closest(bits=bits, k=k)
            assert found is not None
            assert found.figure.method in ("KevinNet", "SSDH")
            assert found.figure.value != 0.8969005


def test_closest_knows_when_nothing_was_published() -> None:
    assert published.closest(bits=48, k=1000, data="NUS-WIDE") is None
    assert published.closest("recall", bits=48) is None


def whole() -> dict[str, Any]:
    return copy.deepcopy(published.tomllib.loads(published.FACTS.read_text("utf-8")))


@pytest.mark.parametrize(
    "change, message",
    [
        pytest.param(lambda table: table.update(schema=2), "schema is 2", id="newer"),
        pytest.param(lambda table: table.pop("sources"), "KeyError", id="no sources"),
        pytest.param(lambda table: table["figures"][0].update(source="hearsay"), "hearsay", id="unknown source"),
        pytest.param(lambda table: table["figures"][0].update(bit=3), "unexpected keyword", id="unknown key"),
        pytest.param(lambda table: table["curves"][0]["k"].pop(), "5 k and 6 values", id="a curve cut short"),
        pytest.param(lambda table: table["tables"][0]["bits"].pop(), "zip", id="a table cut short"),
    ],
)
def test_a_damaged_file_is_refused(change: Any, message: str) -> None:
    table = whole()
    change(table)
    with pytest.raises(FormatError, match=message):
        published.parse(table)
