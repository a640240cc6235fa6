"""What goes wrong in training: labels, divergence, a full disk."""

from __future__ import annotations

import errno
import io
import math
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from caffe2torch.cli import main
from caffe2torch.errors import GraphError, OutputError, TrainingError
from caffe2torch.solver import snapshot as snapshots
from caffe2torch.solver.events import All, Events
from caffe2torch.solver.lines import Lines
from caffe2torch.solver.nets import Place
from caffe2torch.solver.settings import read_settings
from caffe2torch.solver.solver import Solver, Wish
from caffe2torch.solver.watch import CollapseWatch
from solver.nets import NET, solver, weights, write


def test_labels_outside_the_classes_are_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"blob 't' holds the labels [34].*layer 'loss' has classes 0 to 2"):
        solver(tmp_path, labels=5).step(5)


def test_a_loss_that_is_not_finite_stops_with_advice(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"iteration \d+: the loss is .*has diverged. Lower base_lr \(now 1e\+30\)"):
        solver(tmp_path, "base_lr: 1e30").step(10)


def test_weights_that_are_not_finite_replace_no_snapshot(tmp_path: Path) -> None:
    one = solver(tmp_path, "snapshot: 1")
    one.step(1)
    with torch.no_grad():
        one.train.net.layer("ip2").bias[0] = float("inf")
    with pytest.raises(TrainingError, match=r"parameter ip2:1 is not finite.* last snapshot is .*iter_1\.solverstate"):
        one.snapshot()
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_a_net_without_a_loss_is_refused(tmp_path: Path) -> None:
    net = NET.replace('type: "SoftmaxWithLoss"', 'type: "Accuracy"')
    with pytest.raises(GraphError, match=r"net\.prototxt: the training net has no loss"):
        solver(tmp_path, net=net)


def test_a_net_that_nothing_feeds_is_refused(tmp_path: Path) -> None:
    net = NET.replace('type: "HDF5Data"', 'type: "Input"').replace(
        'hdf5_data_param { source: "list.txt" batch_size: 4 SHUFFLE }',
        "input_param { shape { dim: 4 dim: 5 } shape { dim: 4 } }",
    )
    with pytest.raises(GraphError, match=r"net\.prototxt: layer 'd' is an Input layer, which nothing feeds"):
        solver(tmp_path, net=net)


class Troubles(Events):
    def __init__(self) -> None:
        self.problems: list[str] = []

    def troubled(self, solver: Solver, problem: str) -> None:
        self.problems.append(problem)


def test_a_snapshot_that_cannot_be_written_ends_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = solver(tmp_path, "snapshot: 2")
    one.events = troubles = Troubles()
    one.step(2)
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    real = snapshots.write_state

    def full(*args: object, **more: object) -> None:
        raise OutputError("the disk is full")

    monkeypatch.setattr(snapshots, "write_state", full)
    one.step(2)
    assert troubles.problems == ["no snapshot at iteration 4, training goes on: the disk is full"]
    assert all(path.read_bytes() == data for path, data in before.items())
    assert one.last_snapshot == tmp_path / "out" / "snap_iter_2.solverstate"
    monkeypatch.setattr(snapshots, "write_state", real)
    one.step(2)
    assert one.last_snapshot == tmp_path / "out" / "snap_iter_6.solverstate"
    monkeypatch.setattr(snapshots, "write_state", full)
    one.parameters.max_iter = 7
    with pytest.raises(OutputError):  # the last one counts
        one.solve()


@pytest.mark.parametrize("after", [True, False])
def test_a_last_snapshot_that_fails_on_the_way_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    """Caffe writes none after training where one is due just then; that one may have failed."""
    one = solver(tmp_path, f"snapshot: 5 max_iter: 10 snapshot_after_train: {str(after).lower()}")
    real, left = snapshots.write_state, 2

    def full_at_first(*args: Any, **more: Any) -> None:
        nonlocal left
        left -= 1
        if left >= 0:
            raise OutputError("the disk is full")
        real(*args, **more)

    monkeypatch.setattr(snapshots, "write_state", full_at_first)
    one.solve()
    assert [path.name for path in (tmp_path / "out").glob("*.solverstate")] == ["snap_iter_10.solverstate"]


def test_a_place_where_no_snapshot_can_be_written_is_refused_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for prefix in ("file/snap", "n" * 255):
        one = solver(tmp_path, f'snapshot_prefix: "{prefix}"')
        with pytest.raises(OutputError, match=prefix.partition("/")[0]):
            one.solve()
        assert one.iteration == 0


@pytest.mark.parametrize("passes", [1, 2])
def test_what_was_learned_before_a_bad_batch_is_saved_and_goes_on_exactly(tmp_path: Path, passes: int) -> None:
    """Also where the batch was the second of its iteration, and after a test in the same iteration."""
    net = NET.replace("SHUFFLE", "")
    text = f"iter_size: {passes} test_iter: 1 test_interval: 2 snapshot: 100"
    whole = solver(tmp_path, text, net=net, rows=24)
    whole.solve()
    one = solver(tmp_path, text, net=net, rows=24)
    with h5py.File(tmp_path / "data.h5", "r+") as file:
        file["t"][23] = 8
    one = Solver(read_settings(tmp_path / "solver.prototxt", root=tmp_path))
    path = tmp_path / "out" / f"snap_iter_{6 // passes - 1}.solverstate"
    with pytest.raises(TrainingError, match=rf"blob 't' holds the labels 8, .*; what .* have learned is in {path}"):
        one.solve()
    two = solver(tmp_path, text, net=net, rows=24)
    two.restore(path)
    two.solve()
    assert all(np.array_equal(a, b) for a, b in zip(weights(two), weights(whole), strict=True))
    assert [fed.feed and fed.feed.batches for fed in two.tests] == [
        fed.feed and fed.feed.batches for fed in whole.tests
    ]


def test_bad_data_at_once_leave_no_snapshot(tmp_path: Path) -> None:
    one = solver(tmp_path, labels=9)
    with pytest.raises(TrainingError, match=r"num_output of the classifier$"):
        one.solve()
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
def test_lines_for_a_full_disk_are_lost_and_told_once() -> None:
    told: list[str] = []
    with Lines(Path("/dev/full"), told.append, append=True) as lines:
        lines.write("a")
        lines.write("b")
    assert len(told) == 1
    assert told[0].startswith("/dev/full: lines of the log are lost, training goes on: the disk is full")


def test_lines_go_on_after_trouble(tmp_path: Path) -> None:
    told: list[str] = []
    with Lines(tmp_path / "new" / "x", told.append, append=True) as lines:
        file = lines._file
        lines.write("one")
        lines._file = (tmp_path / "new" / "x").open("rb", buffering=0)  # nothing can be written to it
        lines.write("lost")
        lines._file.close()
        lines._file = file
        lines.write("two")
    assert [line for line in (tmp_path / "new" / "x").read_text().splitlines() if line] == ["one", "two"]
    assert len(told) == 1


class Gone(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


def test_a_reader_of_the_output_that_ends_does_not_end_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C ends the `tee` of `caffe2torch train | tee log` as well."""
    path = write(tmp_path, "display: 1")
    monkeypatch.setattr(sys, "stdout", Gone())
    assert main(["train", "--solver", str(path), "--root", str(tmp_path), "--workers", "0"]) == 0
    assert (tmp_path / "out" / "snap_iter_10.solverstate").exists()
    assert capsys.readouterr().err.count("nothing more is printed, training goes on: Broken pipe") == 1
    assert "Optimization Done." in (tmp_path / "out" / "snap.log").read_text()


def test_a_log_in_place_of_the_record_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path)
    assert main(["train", "--solver", str(path), "--root", str(tmp_path), "--log", str(tmp_path / "a.jsonl")]) == 2
    assert "is where the record for programs goes" in capsys.readouterr().err


@pytest.mark.parametrize("when", ["training", "testing"])
def test_a_wish_to_stop_ends_with_a_snapshot(tmp_path: Path, when: str) -> None:
    one = solver(tmp_path, "test_iter: 2 test_interval: 3 test_initialization: false")
    stop_at = {"training": 2, "testing": 3}[when]
    asked = 0

    def wish() -> Wish:
        nonlocal asked
        asked += 1
        return Wish.STOP if asked > stop_at else Wish.NONE

    one.wish = wish
    assert one.solve()
    assert one.last_snapshot == tmp_path / "out" / "snap_iter_3.solverstate"


def test_a_wish_for_a_snapshot_goes_on(tmp_path: Path) -> None:
    one = solver(tmp_path)
    wishes = iter([Wish.NONE, Wish.SNAPSHOT])
    one.wish = lambda: next(wishes, Wish.NONE)
    assert not one.solve()
    assert sorted(path.name for path in (tmp_path / "out").glob("*.solverstate")) == [
        "snap_iter_10.solverstate",
        "snap_iter_2.solverstate",
    ]


HASHING = """
name: "collapsed"
layer { name: "d" type: "HDF5Data" top: "x" top: "t" hdf5_data_param { source: "list.txt" batch_size: 4 } }
layer { name: "latent" type: "InnerProduct" bottom: "x" top: "latent" param { lr_mult: 0 } param { lr_mult: 0 }
        inner_product_param { num_output: 6 bias_filler { value: BIAS } } }
layer { name: "code" type: "Sigmoid" bottom: "latent" top: "code" }
layer { name: "ip" type: "InnerProduct" bottom: "code" top: "y" inner_product_param { num_output: 3 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "y" bottom: "t" top: "loss" loss_weight: 1e-6 }
layer { name: "k1" type: "K1_EuclideanLoss" bottom: "code" bottom: "code" top: "binary" propagate_down: true
        propagate_down: false loss_weight: 1e-6 }
"""


def test_a_collapse_is_noticed_although_the_loss_of_a_batch_scatters(tmp_path: Path) -> None:
    """A classifier that learns from codes which are all alike moves about the loss of guessing."""
    path = write(
        tmp_path, "max_iter: 600", net=HASHING.replace("BIAS", "20").replace("1e-6", "1").replace("size: 4", "size: 6")
    )
    with h5py.File(tmp_path / "data.h5", "r+") as file:
        file["t"][:] = np.random.default_rng(0).permutation(np.arange(22) % 3)
    one = Solver(read_settings(path, root=tmp_path))
    seen: list[float] = []

    class Seen(Events):
        def passed(self, solver: Solver, outputs: dict[str, torch.Tensor]) -> None:
            seen.append(outputs["loss"].item())

    one.events = All(Seen(), CollapseWatch(one.train.net))
    with pytest.raises(TrainingError, match="the codes have collapsed"):
        one.solve()
    assert min(seen[9::10]) < 0.98 * math.log(3)


@pytest.mark.parametrize("bias, collapsed", [(20, True), (0, False)])
def test_the_collapse_of_ssdh_is_noticed(tmp_path: Path, bias: int, collapsed: bool) -> None:
    one = solver(tmp_path, "max_iter: 510", net=HASHING.replace("BIAS", str(bias)))
    one.events = CollapseWatch(one.train.net)
    if collapsed:
        with pytest.raises(TrainingError, match=r"iteration 499: the codes have collapsed: binary stands at -0\.125"):
            one.solve()
    else:
        one.solve()


def test_bfloat16_rounds_no_accuracy_and_no_loss(tmp_path: Path) -> None:
    place = Place(torch.device("cpu"), torch.bfloat16)
    settings = read_settings(write(tmp_path, "test_iter: 1 test_interval: 5"), root=tmp_path)
    scores = Solver(settings, place=place).test(0)
    assert scores is not None
    assert next(score.value for score in scores if score.blob == "acc") in (0, 0.25, 0.5, 0.75, 1)
    loss = torch.tensor([score.value for score in scores if score.blob == "loss"])
    assert (loss != loss.bfloat16().float()).all()
