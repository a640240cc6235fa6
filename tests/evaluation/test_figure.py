"""The figure can be drawn in every format and for every length; names at its edge do not overlap."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from caffe2torch.errors import MissingPackageError, OutputError, UsageError
from caffe2torch.evaluation.figure import APART, WITHOUT, draw, spread
from caffe2torch.evaluation.published import curves
from caffe2torch.figures import check_figure

pytest.importorskip("matplotlib", reason="figures are drawn with matplotlib")

BEGINS = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}


@pytest.mark.parametrize("kind", BEGINS)
def test_formats(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"figure.{kind}"
    draw(path, np.full(1000, 0.896), curves(), name="ours", title="title")
    assert path.read_bytes().startswith(BEGINS[kind])
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_text_stays_text_in_svg_and_names_every_line(tmp_path: Path) -> None:
    draw(tmp_path / "f.svg", np.full(1000, 0.5), curves(), name="my own net", title="A title")
    text = (tmp_path / "f.svg").read_text("utf-8")
    for name in ("my own net", "A title", "pictures retrieved, k", *(curve.method for curve in curves())):
        assert f">{name}<" in text


def test_a_figure_is_the_same_each_time(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        draw(tmp_path / name, np.full(200, 0.9), curves(), name="ours", title="title")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


@pytest.mark.parametrize("length", [1, 100, 5000])
@pytest.mark.parametrize("level", [0.0, 0.9])
def test_any_length_and_level(tmp_path: Path, length: int, level: float) -> None:
    draw(tmp_path / "f.png", np.full(length, level), curves() if length >= 100 else (), name="x", title="t")
    image = cv2.imread(str(tmp_path / "f.png"))
    assert image.shape[0] > 500
    assert image.shape[1] > 900


def test_ours_stands_out_without_colour(tmp_path: Path) -> None:
    """The darkest thick line: its pixels in one column are the longest dark run of all lines."""
    draw(tmp_path / "f.png", np.full(1000, 0.75), curves(), name="ours", title="t")
    grey = cv2.imread(str(tmp_path / "f.png"), cv2.IMREAD_GRAYSCALE)
    column = grey[60:700, 250]  # between two markers, within the axes
    runs = "".join("x" if value < 140 else " " for value in column).split()
    longest = max(map(len, runs))
    assert [len(run) for run in runs].count(longest) == 1
    assert longest >= 5


@pytest.mark.parametrize("values", [[0.9, 0.9, 0.9], [0.1, 0.11, 0.5, 0.505, 0.51], [0.2], [0.0, 0.5, 1.0]])
def test_names_are_spread_and_keep_their_order(values: list[float]) -> None:
    places = spread(values, APART)
    assert all(second - first >= APART - 1e-12 for first, second in pairwise(places))
    assert sum(places) == pytest.approx(sum(values))


def test_names_with_room_stay_where_they_are() -> None:
    assert spread([0.0, 0.5, 1.0], APART) == pytest.approx([0.0, 0.5, 1.0])


def test_another_format_is_refused() -> None:
    with pytest.raises(UsageError, match=r"f\.gif: a figure is drawn as one of png, svg, pdf"):
        check_figure(Path("f.gif"), WITHOUT)


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingPackageError, match=r"caffe2torch\[evaluate\].*--figure none"):
        check_figure(Path("f.png"), WITHOUT)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="its folder does not exist"):
        draw(tmp_path / "no" / "f.png", np.full(10, 0.5), (), name="x", title="t")
