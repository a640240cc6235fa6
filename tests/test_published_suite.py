"""The published suite: the papers' figures from the codes their authors released, in the order of their lists.

``pytest -m published -rP`` runs it alone and shows the figures. It needs the folder ``published`` of the reference
material; ``tools/fetch_reference.py`` gets the same files from where they are published.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io

from caffe2torch.evaluation import published as facts
from caffe2torch.retrieval.codes import Codes
from caffe2torch.retrieval.labels import read_labels
from caffe2torch.retrieval.protocol import Scores, evaluate
from caffe2torch.retrieval.readers import read_codes

pytestmark = pytest.mark.published

QUERIES, DATABASE = 10_000, 50_000


@dataclass(frozen=True)
class Release:
    """Codes somebody released: files for queries and database, and what is known of them."""

    name: str
    files: tuple[str, str]
    bits: int
    map_1000: float
    map_all: float
    digits: tuple[int, int]
    distinct: int | None = None


def of_2015(bits: int, map_1000: float, map_all: float, distinct: int | None = None) -> Release:
    files = (f"codes_2015/binary{bits}_test.mat", f"codes_2015/binary{bits}_train.mat")
    return Release(f"2015, {bits} bits", files, bits, map_1000, map_all, (5, 5), distinct)


def of_kevinnet(folder: str, map_1000: float, map_all: float, digits: tuple[int, int], distinct: int) -> Release:
    files = (f"{folder}/binary-test.mat", f"{folder}/binary-train.mat")
    return Release(folder, files, 48, map_1000, map_all, digits, distinct)


KEVINNET = of_kevinnet("kevinnet48", 0.8973731964, 0.915980, (10, 6), 5225)
TRANSPOSED = of_kevinnet("kevinnet48_transposed_mean", 0.8969005, 0.914691, (7, 6), 5497)
TWELVE = of_2015(12, 0.89658, 0.91070, 342)
RELEASES = [
    KEVINNET,
    TRANSPOSED,
    TWELVE,
    of_2015(32, 0.89648, 0.91408),
    of_2015(48, 0.89557, 0.91355),
    of_2015(64, 0.89583, 0.91376),
]
each_release = pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.name)


@pytest.fixture(scope="module")
def published() -> Path:
    """The authors' files; skips where they are absent, fails in CI, which always has them."""
    default = Path(__file__).resolve().parent.parent.parent / "shared"
    folder = Path(os.environ.get("CAFFE2TORCH_REFERENCE", default)) / "published"
    if not (folder / "kevinnet48").is_dir():
        message = f"{folder} is not here (fetch it with tools/fetch_reference.py, or set CAFFE2TORCH_REFERENCE)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return folder


@cache
def codes(folder: Path, file: str) -> Codes:
    return read_codes(folder / file)


@cache
def labels(folder: Path) -> tuple[Any, Any]:
    lists = folder / "cifar10_lists"
    return (
        read_labels(lists / "test-label.txt", count=QUERIES).labels,
        read_labels(lists / "train-label.txt", count=DATABASE).labels,
    )


@cache
def scores(folder: Path, release: Release, k: int | None) -> Scores:
    queries, database = (codes(folder, file) for file in release.files)
    query_labels, database_labels = labels(folder)
    return evaluate(queries, query_labels, database, database_labels, k=k)


def agrees(value: float, figure: float, digits: int) -> bool:
    return abs(value - figure) <= 0.5 * 10.0**-digits


@each_release
def test_map_at_1000(published: Path, release: Release) -> None:
    value = scores(published, release, 1000).map
    print(f"{release.name}: MAP@1000 {value:.10f}, published {release.map_1000}")
    assert agrees(value, release.map_1000, release.digits[0])


@each_release
def test_map_over_the_whole_database(published: Path, release: Release) -> None:
    value = scores(published, release, None).map
    print(f"{release.name}: MAP@50000 {value:.10f}, published {release.map_all}")
    assert agrees(value, release.map_all, release.digits[1])


@each_release
def test_the_figures_are_in_the_table_of_facts(published: Path, release: Release) -> None:
    for k, value in ((1000, release.map_1000), (50000, release.map_all)):
        known = facts.figures(metric="MAP", bits=release.bits, k=k, method="KevinNet")
        if release is TRANSPOSED and k == 50000:
            continue  # nobody has published that one
        assert value in [figure.value for figure in known]


@pytest.mark.parametrize("release", [KEVINNET, TRANSPOSED], ids=lambda release: release.name)
def test_map_txt_character_for_character(published: Path, release: Release) -> None:
    value = scores(published, release, 1000).map
    assert (published / release.name / "map.txt").read_text("ascii") == f"{value:16.7e}\n"


@pytest.mark.parametrize("release", [KEVINNET, TRANSPOSED], ids=lambda release: release.name)
def test_all_thousand_precisions_character_for_character(published: Path, release: Release) -> None:
    curve = scores(published, release, 1000).precision
    print(f"{release.name}: precision@1 {curve[0]:.8f}, @100 {curve[99]:.8f}, @1000 {curve[999]:.8f}")
    ours = "".join(f"{k:16.7e}{value:16.7e}\n" for k, value in enumerate(curve, 1))
    assert len(curve) == 1000
    assert (published / release.name / "precision-at-k.txt").read_text("ascii") == ours


@pytest.mark.parametrize("release", [KEVINNET, TRANSPOSED], ids=lambda release: release.name)
def test_the_test_codes_are_the_thresholded_sigmoids(published: Path, release: Release) -> None:
    with h5py.File(published / release.name / "feat-test.mat") as file:
        features = file["feat_test"][()]
    assert features.dtype == np.float32
    np.testing.assert_array_equal(codes(published, release.files[0]).unpacked(), features > np.float32(0.5))
    thresholded = read_codes(published / release.name / "feat-test.mat", values="sigmoid")
    np.testing.assert_array_equal(thresholded.packed, codes(published, release.files[0]).packed)


def test_a_transposed_mean_flips_4188_bits(published: Path) -> None:
    right, wrong = (codes(published, release.files[0]).unpacked() for release in (KEVINNET, TRANSPOSED))
    print(f"{np.count_nonzero(right != wrong)} of {right.size} bits of the test codes differ")
    assert (np.count_nonzero(right != wrong), right.size) == (4188, 480_000)


@each_release
def test_many_codes_are_equal(published: Path, release: Release) -> None:
    database = codes(published, release.files[1])
    distinct = len(np.unique(database.packed, axis=0))
    print(f"{release.name}: {distinct} distinct codes among {len(database)}")
    assert (len(database), database.bits) == (DATABASE, release.bits)
    assert release.distinct in (None, distinct)


def test_the_order_of_equal_codes_decides_at_12_bits(published: Path) -> None:
    """Every tenth query, equal distances with the right images first, or last."""
    queries, database = (codes(published, file) for file in TWELVE.files)
    query_labels, database_labels = labels(published)
    some = replace(queries, packed=queries.packed[::10])
    found = evaluate(some, query_labels[::10], database, database_labels, k=1000, ties=True)
    assert found.tied_map is not None
    first, last = found.tied_map["right_first"], found.tied_map["right_last"]
    print(f"list order {found.map:.4f}, right first {first:.4f}, right last {last:.4f}")
    assert (round(found.map, 4), round(first, 4), round(last, 4)) == (0.8992, 0.9251, 0.8816)
    assert last < found.tied_map["expected"] < first


@cache
def raw_bits(path: Path) -> Any:
    """(N, bits) with nothing of ours in between."""
    try:
        variables = {key: value.T for key, value in scipy.io.loadmat(path).items() if not key.startswith("__")}
    except NotImplementedError:  # version 7.3
        with h5py.File(path) as file:
            variables = {key: file[key][()] for key in file}
    ((_, bits),) = variables.items()
    return bits.astype(np.int8)


@each_release
def test_the_definition_written_out_agrees(published: Path, release: Release) -> None:
    queries, database = (raw_bits(published / file) for file in release.files)
    query_labels, database_labels = (
        np.loadtxt(published / "cifar10_lists" / f"{part}-label.txt", dtype=int) for part in ("test", "train")
    )
    for query in range(37, QUERIES, 997):
        distances = np.count_nonzero(database != queries[query], axis=1)
        relevant = database_labels[np.argsort(distances, kind="stable")] == query_labels[query]
        precision = np.cumsum(relevant) / np.arange(1, DATABASE + 1)
        for k, cut in ((1000, 1000), (None, DATABASE)):
            expected = precision[:cut][relevant[:cut]].sum() / max(relevant[:cut].sum(), 1)
            assert scores(published, release, k).average_precision[query] == pytest.approx(expected, abs=1e-12)


def test_the_ssdh_run_agrees_with_itself_and_with_its_readme(published: Path) -> None:
    value = float((published / "ssdh48" / "map.txt").read_text("ascii"))
    curve = np.loadtxt(published / "ssdh48" / "precision-at-k.txt")
    print(f"ssdh48: MAP@1000 {value}, precision@1000 {curve[-1, 1]}")
    (readme,) = facts.figures(metric="MAP", k=1000, model="ssdh_cifar10_48_2016")
    assert readme.text == "0.899731"
    assert readme.equals(value)
    np.testing.assert_array_equal(curve[:, 0], np.arange(1, 1001))
    right = curve[:, 0] * curve[:, 1] * QUERIES  # right answers among the first k of all queries: whole numbers
    whole = np.rint(right)
    np.testing.assert_allclose(right, whole, atol=0.051)  # eight digits of a precision below 1, times 10^7 at most
    assert ((np.diff(whole) >= 0) & (np.diff(whole) <= QUERIES)).all()


@pytest.mark.parametrize("curve", facts.curves(), ids=lambda curve: curve.method)
def test_curves_of_the_package_are_the_authors_own(published: Path, curve: facts.Curve) -> None:
    folder = {"KevinNet": "kevinnet48", "SSDH": "ssdh48"}.get(curve.method)
    file = f"{folder}/precision-at-k.txt" if folder else f"baselines/{curve.method}-p-at-k.txt"
    rows = np.loadtxt(published / file)
    if folder is None:
        assert rows[:, 0].tolist() == list(curve.k)
    at = dict(rows.tolist())
    assert [at[k] for k in curve.k] == list(curve.precision)
