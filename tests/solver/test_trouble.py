"""What goes wrong in training: labels, divergence, a full disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from caffe2torch.errors import GraphError, OutputError, TrainingError
from caffe2torch.solver import snapshot as snapshots
from caffe2torch.solver.events import Events
from caffe2torch.solver.nets import Place
from caffe2torch.solver.settings import read_settings
from caffe2torch.solver.solver import Solver, Wish
from caffe2torch.solver.watch import CollapseWatch
from solver.nets import NET, solver, write


def test_labels_outside_the_classes_are_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"blob 't' holds the labels [34].*layer 'loss' has classes 0 to 2"):
        solver(tmp_path, labels=5).step(5)


def test_a_loss_that_is_not_finite_stops_with_advice(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"iteration \d+: the loss is .*has diverged. Lower base_lr \(now 1e\+30\)"):
        solver(tmp_path, "base_lr: 1e30").step(10)


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
