"""What is written and printed: the originals' bytes, the JSON, the table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from caffe2torch.errors import OutputError
from caffe2torch.evaluation import report
from caffe2torch.evaluation.compare import compare
from caffe2torch.evaluation.run import Evaluation, Side, measure
from evaluation.sets import as_codes, draw_codes


@pytest.fixture
def evaluation(tmp_path: Path) -> Evaluation:
    sides = []
    for count, seed in ((8, 1), (40, 2)):
        bits, labels = draw_codes(count, seed=seed)
        file = tmp_path / f"{seed}.h5"
        file.write_bytes(b"x")
        sides.append(Side(as_codes(bits, model="mine", precision="float32"), file, labels, "labels"))
    return measure(sides[0], sides[1], ks=[10, 40], ties=True)


def test_numbers_are_written_as_matlab_does() -> None:
    values = np.array([1.0, 0.5, 0.895, 0.0])
    assert report.precision_text(values).splitlines() == [
        "   1.0000000e+00   1.0000000e+00",
        "   2.0000000e+00   5.0000000e-01",
        "   3.0000000e+00   8.9500000e-01",
        "   4.0000000e+00   0.0000000e+00",
    ]


def test_the_originals_own_files_come_out_byte_for_byte(reference: Path) -> None:
    for folder in ("kevinnet48", "ssdh48"):
        original = (reference / "published" / folder / "precision-at-k.txt").read_bytes()
        values = np.loadtxt(reference / "published" / folder / "precision-at-k.txt")[:, 1]
        assert report.precision_text(values).encode() == original


def test_files_and_their_names(tmp_path: Path, evaluation: Evaluation) -> None:
    paths = report.write(tmp_path, evaluation, compare(evaluation))
    names = ["map.txt", "precision-at-k.txt", "map-40.txt", "precision-at-k-40.txt", "scores.json"]
    assert [path.name for path in paths] == names
    first, second = evaluation.scores
    assert float((tmp_path / "map.txt").read_text()) == pytest.approx(first.map, abs=1e-7)
    assert float((tmp_path / "map-40.txt").read_text()) == pytest.approx(second.map, abs=1e-7)
    assert np.loadtxt(tmp_path / "precision-at-k-40.txt").shape == (40, 2)
    assert not list(tmp_path.glob(".*"))


def test_the_json_says_everything(tmp_path: Path, evaluation: Evaluation) -> None:
    report.write(tmp_path, evaluation, compare(evaluation))
    found = json.loads((tmp_path / "scores.json").read_text())
    assert [result["map"] for result in found["results"]] == [scores.map for scores in evaluation.scores]
    assert found["curves"]["precision"] == evaluation.longest.precision.tolist()
    assert len(found["curves"]["recall"]) == len(found["curves"]["expected_precision"]) == 40
    assert found["queries"]["codes"]["sha256"] == "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    assert found["queries"]["provenance"]["model"] == "mine"
    assert found["protocol"]["divisor"] == "found"
    assert set(found["results"][0]["map_over_tie_orders"]) == {"expected", "best", "worst", "right_first", "right_last"}
    assert found["comparisons"][0]["comparable"] is False


@pytest.mark.parametrize("there", ["map.txt", "scores.json", "map-40.txt"])
def test_existing_results_are_kept_unless_forced(tmp_path: Path, there: str) -> None:
    (tmp_path / there).touch()
    with pytest.raises(OutputError, match=rf"{there}: exists already; --force replaces it"):
        report.check_free(tmp_path, report.file_names([10, 40]), force=False)
    report.check_free(tmp_path, report.file_names([10, 40]), force=True)


def test_the_table(evaluation: Evaluation) -> None:
    text = report.report(evaluation, compare(evaluation), [Path("map.txt")])
    first = evaluation.scores[0]
    assert "8 queries against a database of 40, codes of 12 bits" in text
    assert "codes by mine, float32" in text
    lines = [line.split() for line in text.splitlines()]
    assert ["MAP@10", f"{first.map:.7f}"] in lines
    assert first.tied_map is not None
    assert ["mean", "over", "tie", "orders", f"{first.tied_map['expected']:.7f}"] in lines
    assert ["recall@40", f"{evaluation.longest.recall[-1]:.7f}"] in lines
    assert text.endswith("wrote map.txt")
    assert max(map(len, text.splitlines())) <= report.WIDTH


def test_pictures_of_ones_own_get_one_line_about_published_figures(evaluation: Evaluation) -> None:
    text = report.report(evaluation, compare(evaluation))
    about = [line for line in text.splitlines() if "publish" in line or "compar" in line]
    assert about == ["no published figure is comparable: they are of CIFAR-10, 10,000 against 50,000 pictures"]


def test_whoever_names_a_model_is_told_why_its_figures_are_not_comparable(evaluation: Evaluation) -> None:
    rows = compare(evaluation, model="kevinnet_cifar10_48")
    text = " ".join(report.report(evaluation, rows).split())
    assert "MAP@10 " in text
    assert "none comparable" in text
    assert text.count("CIFAR-10's 10,000 test pictures were published, here are 8 others") == 2


def test_leave_one_out_is_said(evaluation: Evaluation) -> None:
    alone = measure(evaluation.queries, None, ks=[3])
    assert "8 queries, each ranking the other 7 queries" in report.protocol_text(alone)
    assert report.title(alone) == "8 queries against the other queries, 12 bits"
    assert report.to_dict(alone, compare(alone))["database"] is None
