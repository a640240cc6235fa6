"""Logs of trainings: read line by line by hand here, and Caffe's published ones."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from caffe2torch.cli import main
from caffe2torch.errors import FormatError
from caffe2torch.solver.logfile import read_log

GLOG = "I0817 13:20:10.218797  7712 solver.cpp:242] "

RUN = f"""\
{GLOG}Iteration 0, Testing net (#0)
{GLOG}    Test net output #0: accuracy = 0.1
{GLOG}    Test net output #1: loss: 50%-fire-rate = 0.0285 (* 1 = 0.0285 loss)
{GLOG}Iteration 0, loss = 2.5
{GLOG}    Train net output #0: loss: 50%-fire-rate = 0.02 (* 0.5 = 0.01 loss)
{GLOG}Iteration 0, lr = 0.001
some other program's words
{GLOG}Iteration 100 (3.2 iter/s, 31.25s/100 iters), loss = -1e-05
{GLOG}    Train net output #0: loss: 50%-fire-rate = 0.01 (* 0.5 = 0.005 loss)
{GLOG}Iteration 100, lr = 1e-04
"""


def written(folder: Path, text: str, name: str = "train.log") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def values(path: Path) -> dict[str, list[tuple[int, float]]]:
    return {
        name: list(zip(series.iterations.tolist(), series.values.tolist(), strict=True))
        for name, series in read_log(path).all_series().items()
    }


def test_reads_what_caffe_says(tmp_path: Path) -> None:
    assert values(written(tmp_path, RUN)) == {
        "loss": [(0, 2.5), (100, -1e-05)],
        "learning rate": [(0, 0.001), (100, 0.0001)],
        "train loss: 50%-fire-rate": [(0, 0.02), (100, 0.01)],
        "test accuracy": [(0, 0.1)],
        "test loss: 50%-fire-rate": [(0, 0.0285)],
    }


@pytest.mark.parametrize("prefix", ["", "[node 3] ", "\x1b[32m2016-01-02 "], ids=["none", "wrapper", "colour"])
def test_lines_with_other_prefixes(tmp_path: Path, prefix: str) -> None:
    text = "\n".join(prefix + line for line in (RUN if prefix else RUN.replace(GLOG, "")).splitlines()) + "\n"
    assert values(written(tmp_path, text)) == values(written(tmp_path, RUN, "other.log"))


def test_windows_line_ends(tmp_path: Path) -> None:
    (tmp_path / "dos.log").write_bytes(RUN.replace("\n", "\r\n").encode())
    assert values(tmp_path / "dos.log") == values(written(tmp_path, RUN))


def test_a_cut_off_last_line_does_not_count(tmp_path: Path) -> None:
    cut = RUN + f"{GLOG}Iteration 200, loss = 1.2"  # the next digits were still to come
    assert values(written(tmp_path, cut)) == values(written(tmp_path, RUN, "whole.log"))


@pytest.mark.parametrize("text", ["-nan", "nan", "inf", "-inf", "-nan(ind)"])
def test_losses_that_are_no_numbers(tmp_path: Path, text: str) -> None:
    loss = read_log(written(tmp_path, f"{GLOG}Iteration 5, loss = {text}\n")).loss
    assert len(loss) == 1
    assert not np.isfinite(loss.values[0])


def test_a_resumed_run_replaces_what_came_after_its_snapshot(tmp_path: Path) -> None:
    first = "".join(f"{GLOG}Iteration {i}, loss = {i}\n" for i in (0, 100, 200, 300))
    second = "".join(f"{GLOG}Iteration {i}, loss = {i + 1}\n" for i in (200, 300, 400))
    log = read_log(written(tmp_path, first + second))
    assert log.loss.iterations.tolist() == [0, 100, 200, 300, 400]
    assert log.loss.values.tolist() == [0, 100, 201, 301, 401]
    assert log.restarts == (200,)


def test_a_run_begun_again_replaces_all(tmp_path: Path) -> None:
    log = read_log(written(tmp_path, f"{GLOG}Iteration 9, loss = 1\n{GLOG}Iteration 0, loss = 2\n"))
    assert (log.loss.iterations.tolist(), log.restarts) == ([0], (0,))


def test_the_whole_of_the_last_display_and_its_test_share_an_iteration(tmp_path: Path) -> None:
    end = f"{GLOG}Iteration 200, loss = 1\n{GLOG}Iteration 200, Testing net (#0)\n"
    end += f"{GLOG}    Test net output #0: accuracy = 0.9\n"
    log = read_log(written(tmp_path, RUN + end))
    assert (log.loss.last, log.test["accuracy"].last, log.last_iteration) == (1, 0.9, 200)


def test_blobs_of_several_values_and_several_test_nets(tmp_path: Path) -> None:
    text = f"{GLOG}Iteration 0, Testing net (#0)\n"
    text += "".join(f"{GLOG}    Test net output #{k}: figures = {k}\n" for k in range(3))
    text += f"{GLOG}Iteration 0, Testing net (#1)\n{GLOG}    Test net output #0: accuracy = 0.5\n"
    log = read_log(written(tmp_path, text))
    assert {name: series.last for name, series in log.test.items()} == {
        "figures[0]": 0,
        "figures[1]": 1,
        "figures[2]": 2,
        "accuracy (net 1)": 0.5,
    }


def test_outputs_without_the_line_they_belong_to_are_left_out(tmp_path: Path) -> None:
    head = f"{GLOG}    Test net output #0: accuracy = 0.7\n"
    assert values(written(tmp_path, head + RUN)) == values(written(tmp_path, RUN, "whole.log"))


def test_an_old_caffes_test_scores(tmp_path: Path) -> None:
    log = read_log(written(tmp_path, f"{GLOG}Iteration 50, Testing net (#0)\n{GLOG}Test score #0: 0.9743\n"))
    assert log.test["score 0"].last == 0.9743


def test_our_json_lines(tmp_path: Path) -> None:
    records = [
        {"event": "start", "iteration": 0, "seed": 1},
        {"event": "test", "iteration": 0, "net": 0, "outputs": {"accuracy": [0.25]}, "loss": 3.0},
        {"event": "train", "iteration": 0, "loss": 2.0, "lr": 0.1, "outputs": {"figures": [1, float("nan")]}},
        {"event": "snapshot", "iteration": 10, "path": "x"},
        {"event": "train", "iteration": 10, "loss": 1.0},
    ]
    path = written(tmp_path, "".join(json.dumps(record) + "\n" for record in records) + '{"event": "tr')
    found = values(path)
    assert found["loss"] == [(0, 2.0), (10, 1.0)]
    assert found["learning rate"] == [(0, 0.1)]
    assert found["test accuracy"] == [(0, 0.25)]
    assert found["test loss (all)"] == [(0, 3.0)]
    assert found["train figures[0]"] == [(0, 1)]


@pytest.mark.parametrize(
    "line",
    [
        '{"event": "train", "iteration": -3, "loss": 1}',
        '{"event": "train", "iteration": 1e400, "loss": 1}',
        '{"event": "train", "iteration": 99999999999999999999999, "loss": 1}',
        '{"event": "train", "iteration": true, "loss": 1}',
        '{"event": "train", "iteration": 3, "loss": "1", "outputs": [3]}',
        "{" * 5000,
        "Iteration 99999999999999999999999, loss = 1",
        "Iteration 12, loss = 1.5 apples",
        "Iteration 12, loss = ",
    ],
)
def test_lines_that_only_look_like_figures(tmp_path: Path, line: str) -> None:
    path = written(tmp_path, line + "\n")
    with pytest.raises(FormatError, match=re.escape(str(path)) + ".*not the log of a training"):
        read_log(path)


def test_the_log_of_a_test_is_told_by_name(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="caffe test"):
        read_log(written(tmp_path, f"{GLOG}Batch 0, accuracy = 0.9\n"))


@pytest.mark.parametrize("data", [b"", b"\x00" * 70_000, b"\xff\xfeI\x000\x00\n\x00"], ids=["empty", "zeros", "UTF-16"])
def test_files_that_are_no_logs(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(FormatError, match=re.escape(str(tmp_path / "x"))):
        read_log(tmp_path / "x")


@pytest.mark.parametrize("place", ["missing.log", "."])
def test_files_that_cannot_be_read(tmp_path: Path, place: str) -> None:
    with pytest.raises(FormatError, match="cannot be read"):
        read_log(tmp_path / place)


@pytest.mark.parametrize(
    ("name", "accuracy", "loss"), [("SSDH-VGG16-48", 0.9151, -0.100943), ("SSDH-VGG16-Avg-48", 0.9054, -0.0570112)]
)
def test_published_logs(reference: Path, name: str, accuracy: float, loss: float) -> None:
    path = reference / "published/logs" / f"{name}.txt"
    log = read_log(path)
    assert (log.last_iteration, log.test["accuracy"].last, log.loss.last) == (50_000, accuracy, loss)
    assert [len(log.loss), len(log.rate), len(log.test["accuracy"])] == [501, 500, 51]
    text = path.read_text()
    for series, what in ((log.loss, r", loss = (\S+)$"), (log.rate, r", lr = (\S+)$")):
        assert series.values.tolist() == [float(v) for v in re.findall(what, text, re.MULTILINE)]
    tested = re.findall(r"Test net output #3: loss: forcing-binary = (\S+) ", text)
    assert log.test["loss: forcing-binary"].values.tolist() == [float(v) for v in tested]


@pytest.mark.parametrize("name", ["KevinNet-start", "SSDH-start"])
def test_published_starts(reference: Path, name: str) -> None:
    assert read_log(reference / "published/logs" / f"{name}.txt").test["accuracy"].last < 0.1


def test_command_prints_and_writes_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, RUN)
    assert main(["plot-log", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)[0]
    assert found["figures"]["loss"] == {
        "points": 2, "iteration": 100, "last": -1e-05, "best": -1e-05, "best_iteration": 100,
    }  # fmt: skip
    assert main(["plot-log", str(path), "--csv", "-"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["log,what,iteration,value", "train,loss,0,2.5"]
    assert len(lines) == 1 + 2 + 2 + 2 + 1 + 1


def test_command_refuses_what_is_no_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, "# a recipe\n", "README.md")
    assert main(["plot-log", str(written(tmp_path, RUN)), str(path), "-o", str(tmp_path / "x.png")]) == 1
    assert f"{path}: not the log of a training" in capsys.readouterr().err
    assert not (tmp_path / "x.png").exists()
