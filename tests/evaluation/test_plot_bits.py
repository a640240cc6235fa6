"""tools/plot_bits.py: MAP of several evaluations against their bits."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import cv2
import pytest

from caffe2torch.evaluation import report
from caffe2torch.evaluation.compare import compare
from caffe2torch.evaluation.run import Side, measure
from evaluation.sets import as_codes, draw_codes

pytest.importorskip("matplotlib")
TOOL = Path(__file__).resolve().parent.parent.parent / "tools" / "plot_bits.py"
SPEC = importlib.util.spec_from_file_location("plot_bits", TOOL)
assert SPEC is not None
assert SPEC.loader is not None
plot_bits = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(plot_bits)


def evaluated(folder: Path, bits: int) -> Path:
    """Where the scores of random codes at 5 are written."""
    folder.mkdir()
    sides = []
    for count in (8, 40):
        drawn, labels = draw_codes(count, bits=bits, seed=count)
        file = folder / f"{count}.h5"
        file.write_bytes(b"x")
        sides.append(Side(as_codes(drawn, model="mine", precision="float32"), file, labels, "labels"))
    evaluation = measure(sides[0], sides[1], ks=[5])
    report.write(folder, evaluation, compare(evaluation))
    return folder


def test_the_map_of_every_folder_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [str(evaluated(tmp_path / str(bits), bits)) for bits in (16, 12)]
    maps = {bits: float((tmp_path / str(bits) / "map.txt").read_text().split()[-1]) for bits in (12, 16)}
    capsys.readouterr()
    assert plot_bits.main([*folders, "-k", "5", "-o", str(tmp_path / "bits.png")]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [int(line[0]) for line in lines] == [12, 16]
    assert [float(line[-1]) for line in lines] == pytest.approx(list(maps.values()), abs=1e-6)
    assert (cv2.imread(str(tmp_path / "bits.png")) < 128).any()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        pytest.param(["12", "-k", "1000"], "has MAP at 5, not at 1000", id="another K"),
        pytest.param(["12", "12", "-k", "5"], "another folder has codes of 12 bits", id="twice"),
        pytest.param(["none", "-k", "5"], "expected what evaluate --out writes", id="no evaluation"),
    ],
)
def test_what_cannot_be_drawn(
    arguments: list[str],
    problem: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    evaluated(tmp_path / "12", 12)
    capsys.readouterr()
    assert plot_bits.main([*arguments, "-o", "bits.png"]) == 1
    assert problem in capsys.readouterr().err
