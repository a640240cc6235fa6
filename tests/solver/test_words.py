"""The log that a training writes, word for word as Caffe 1.0 says it."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

import pytest

from caffe2torch.cli import main
from solver.nets import NET, write

WORDS = r"""
Solving small
Learning Rate Policy: multistep
Iteration 0, Testing net \(#0\)
Test loss: N
    Test net output #0: acc = N
    Test net output #1: loss = N \(\* 2 = N loss\)
Iteration 0 \(N iter/s, Ns/2 iters\), loss = N
    Train net output #0: loss = N \(\* 2 = N loss\)
Iteration 0, lr = 0.1
Gradient clipping: scaling down gradients \(L2 norm N > 0.001\) by scale factor N
MultiStep Status: Iteration 1, step = 1
Gradient clipping: scaling down gradients \(L2 norm N > 0.001\) by scale factor N
Snapshotting to FORM file FOLDER/out/snap_iter_2.caffemodelEND
Snapshotting solver state to FORM file FOLDER/out/snap_iter_2.solverstateEND
Iteration 2 \(N iter/s, Ns/2 iters\), loss = N
    Train net output #0: loss = N \(\* 2 = N loss\)
Iteration 2, lr = 0.05
Gradient clipping: scaling down gradients \(L2 norm N > 0.001\) by scale factor N
Iteration 3, Testing net \(#0\)
Test loss: N
    Test net output #0: acc = N
    Test net output #1: loss = N \(\* 2 = N loss\)
Gradient clipping: scaling down gradients \(L2 norm N > 0.001\) by scale factor N
Snapshotting to FORM file FOLDER/out/snap_iter_4.caffemodelEND
Snapshotting solver state to FORM file FOLDER/out/snap_iter_4.solverstateEND
Iteration 4, loss = N
Optimization Done.
""".strip().splitlines()
PREFIX = re.compile(r"I(\d\d)(\d\d) (\d\d:\d\d:\d\d\.\d{6}) +\d+ \w+\.cpp:\d+\] ")


@pytest.mark.parametrize("form, name, end", [("BINARYPROTO", "binary proto", ""), ("HDF5", "HDF5", ".h5")])
def test_a_log_is_caffes(tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str, name: str, end: str) -> None:
    path = write(
        tmp_path,
        f"max_iter: 4 display: 2 snapshot: 2 test_iter: 2 test_interval: 3 clip_gradients: 0.001 gamma: 0.5 "
        f'test_compute_loss: true lr_policy: "multistep" stepvalue: 1 snapshot_format: {form}',
        net=NET.replace('bottom: "t" top: "loss" }', 'bottom: "t" top: "loss" loss_weight: 2 }'),
    )
    assert main(["train", "--solver", str(path), "--root", str(tmp_path)]) == 0
    text = (tmp_path / "out" / "snap.log").read_text()
    assert capsys.readouterr().out == text
    lines = text.splitlines()
    for line, words in zip(lines, WORDS, strict=True):
        match = PREFIX.match(line)
        assert match, line
        datetime.strptime(f"2020 {match[1]} {match[2]} {match[3]}", "%Y %m %d %H:%M:%S.%f")
        words = words.replace("FORM", name).replace("FOLDER", re.escape(str(tmp_path))).replace("END", end)
        assert re.fullmatch(re.sub(r"\bN(?=\b|s)", r"-?[\\d.e+-]+", words), line[match.end() :]), line


def test_a_resumed_log_names_its_snapshot(tmp_path: Path) -> None:
    path = str(write(tmp_path, "max_iter: 2"))
    state = str(tmp_path / "out" / "snap_iter_2.solverstate")
    for more in ([], ["--snapshot", state, "--max-iter", "3"]):
        assert main(["train", "--solver", path, "--root", str(tmp_path), "--quiet", *more]) == 0
    text = (tmp_path / "out" / "snap.log").read_text()
    assert text.count("Optimization Done.") == 2
    assert f"Restoring previous solver status from {state}\n" in text
