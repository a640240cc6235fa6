"""The figure of training curves: what is drawn, told by the drawing's own text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from caffe2torch.cli import main
from caffe2torch.errors import UsageError
from caffe2torch.solver.curves import panels, smoothed
from caffe2torch.solver.logfile import read_log

pytest.importorskip("matplotlib", reason="figures need matplotlib")


def log(folder: Path, *, name: str = "a", output: str = "accuracy", rates: int = 2, points: int = 40) -> Path:
    lines = []
    for i in range(points):
        lines += [f"Iteration {i}, loss = {3 / (i + 1)}", f"    Train net output #0: part: $a$_b = {i}"]
        lines += [f"Iteration {i}, lr = {0.1 ** (i * rates // points):g}", f"Iteration {i}, Testing net (#0)"]
        lines += [f"    Test net output #0: {output} = {i / points}"]
    (folder / f"{name}.log").write_text("\n".join(lines) + "\n")
    return folder / f"{name}.log"


def test_running_mean_against_the_definition() -> None:
    values = np.random.default_rng(0).normal(size=230)
    values[7], values[100] = np.nan, np.inf
    for n in (0, 1, 2, 5, 49, 230):
        half = max(1, n // 50)
        expected = []
        for i in range(n):
            reach = min(half, i)
            around = values[:n][i - reach : i + reach + 1]
            around = around[np.isfinite(around)]
            expected.append(around.mean() if len(around) else np.nan)
        np.testing.assert_allclose(smoothed(values[:n]), expected, rtol=1e-12)


def test_running_mean_of_nothing_finite_is_no_number() -> None:
    assert np.isnan(smoothed(np.full(5, np.nan))).all()


def test_panels_come_in_order_and_a_changing_rate_has_its_own(tmp_path: Path) -> None:
    stepped, changing = read_log(log(tmp_path)), read_log(log(tmp_path, name="b", rates=20))
    assert [panel.name for panel in panels([stepped])] == ["loss", "accuracy", "part: $a$_b", "learning rate"]
    assert "learning rate" in [panel.name for panel in panels([changing])]


def test_only_takes_words_and_refuses_others_with_what_there_is(tmp_path: Path) -> None:
    logs = [read_log(log(tmp_path))]
    assert [panel.name for panel in panels(logs, ["ACC", "loss"])] == ["loss", "accuracy"]
    with pytest.raises(UsageError, match="'loss', 'accuracy', 'part"):
        panels(logs, ["nothing"])


def test_logs_with_different_outputs_stand_together(tmp_path: Path) -> None:
    logs = [read_log(log(tmp_path)), read_log(log(tmp_path, name="b", output="top-5 accuracy"))]
    found = {panel.name: panel.test for panel in panels(logs)}
    assert found["accuracy"][0] is not None
    assert found["accuracy"][1] is None
    assert found["top-5 accuracy"][0] is None


def test_figure_names_logs_panels_last_values_and_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "both.svg"
    first, second = log(tmp_path), log(tmp_path, name="second run", points=20)
    assert main(["plot-log", str(first), str(second), "-o", str(out)]) == 0
    text = out.read_text()
    for word in (">a<", ">second run<", ">accuracy<", ">part: $a$_b<", ">0.975<", ">0.95<", ">rate 0.1<"):
        assert word in text, word
    assert f"wrote {out}" in capsys.readouterr().out


def test_figure_is_the_same_each_time(tmp_path: Path) -> None:
    path = log(tmp_path)
    for name in ("1.svg", "2.svg"):
        assert main(["plot-log", str(path), "-o", str(tmp_path / name), "--only", "loss"]) == 0
    assert (tmp_path / "1.svg").read_bytes() == (tmp_path / "2.svg").read_bytes()


@pytest.mark.parametrize(
    "text",
    [
        "Iteration 0, loss = nan\n",
        "Iteration 0, loss = 1e300\nIteration 1, loss = -1e300\n",
        "Iteration 5, loss = 1\nIteration 6, loss = inf\nIteration 7, loss = 1\n",
        "Iteration 0, Testing net (#0)\nTest score #0: 0.5\n",
    ],
    ids=["not a number", "huge", "infinite between", "one test"],
)
@pytest.mark.filterwarnings("error")
def test_strange_values_are_drawn(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.log").write_text(text)
    assert main(["plot-log", str(tmp_path / "x.log"), "-o", str(tmp_path / "x.png")]) == 0
    assert (tmp_path / "x.png").stat().st_size > 1000


def test_the_suffix_decides_the_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plot-log", str(log(tmp_path)), "-o", str(tmp_path / "x.bmp")]) == 2
    assert "png, svg, pdf" in capsys.readouterr().err


def test_logs_of_one_name_are_told_apart_by_their_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = []
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        paths.append(str(log(tmp_path / folder)))
    assert main(["plot-log", *paths, "--csv", "-"]) == 0
    assert {line.split(",")[0] for line in capsys.readouterr().out.splitlines()[1:]} == {"x/a", "y/a"}
