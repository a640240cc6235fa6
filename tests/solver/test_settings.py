"""Solver files that Caffe refuses are refused, by name, with what to do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from caffe2torch.errors import PrototxtError
from caffe2torch.solver.settings import read_settings
from solver.nets import write


@pytest.mark.parametrize(
    "text, problem",
    [
        ('train_net: "net.prototxt"', r"names 2 training nets \(net, train_net\), expected exactly one"),
        ('type: "Adamax"', "type 'Adamax' is no solver, expected one of SGD, Nesterov"),
        ('lr_policy: "cosine"', "lr_policy 'cosine' is unknown, expected one of fixed, step"),
        ('lr_policy: "step" gamma: 0.1', "stepsize 0, expected at least 1"),
        ('lr_policy: "sigmoid" gamma: 0.1', "stepsize 0, expected at least 1"),
        ('lr_policy: "exp" gamma: -0.1', "gamma -0.1, expected at least 0"),
        (
            'lr_policy: "multistep" gamma: 0.1 stepvalue: 5 stepvalue: 2',
            "stepvalue 5, 2: expected them in rising order",
        ),
        ('type: "AdaGrad"', "momentum 0.9 cannot be used with AdaGrad; remove it"),
        ('type: "RMSProp" momentum: 0 rms_decay: 1.5', "rms_decay 1.5"),
        ('type: "Adam" momentum2: 1', "Adam needs both at least 0 and below 1"),
        ('regularization_type: "L3"', "regularization_type 'L3' is unknown, expected L1 or L2"),
        ("iter_size: 0", "iter_size 0, expected at least 1"),
        ("test_iter: 3", "test_iter is given, but test_interval is 0"),
        ('test_net: "a" test_net: "b" test_iter: 1 test_interval: 2', "2 test nets but 1 test_iter"),
        ("test_iter: 1 test_interval: 2 test_state { } test_state { }", "2 test_state for 1 test nets"),
        ("larc: true", "larc: settings of a fork's solver"),
        ("snapshot_diff: true", "snapshot_diff"),
    ],
)
def test_contradictions_are_named(tmp_path: Path, text: str, problem: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(PrototxtError, match=rf"solver\.prototxt: .*{problem}"):
        read_settings(path, root=tmp_path)


def test_paths_start_at_the_current_folder_or_else_at_the_solver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert read_settings(tmp_path / "solver.prototxt").root == tmp_path
    monkeypatch.chdir(tmp_path)
    assert read_settings("solver.prototxt").root == Path()


def test_a_root_without_the_net_finds_it_beside_the_solver(tmp_path: Path) -> None:
    """A solver and its nets in one folder, data and snapshots in another."""
    beside, root = tmp_path / "recipe", tmp_path / "data"
    for folder in (beside, root):
        folder.mkdir()
    path = write(beside, 'test_net: "test.prototxt" test_iter: 1 test_interval: 5')
    path.write_text(path.read_text().replace("\nnet:", "\ntrain_net:"))
    (beside / "test.prototxt").write_text((beside / "net.prototxt").read_text())
    (root / "test.prototxt").write_text((beside / "net.prototxt").read_text())
    settings = read_settings(path, root=root)
    assert (settings.train.path, settings.tests[0].path) == (beside / "net.prototxt", root / "test.prototxt")
    assert (settings.root, settings.snapshot_prefix) == (root, root / "out" / "snap")
    (beside / "net.prototxt").unlink()
    with pytest.raises(PrototxtError, match=rf"no {root}/net\.prototxt and no {beside}/net\.prototxt"):
        read_settings(path, root=root)


@pytest.mark.parametrize("prefix, name", [("", "solver"), ("out", "out/solver"), ("out/a", "out/a")])
def test_snapshots_are_named_after_the_solver_unless_it_says_otherwise(tmp_path: Path, prefix: str, name: str) -> None:
    (tmp_path / "out").mkdir()
    path = write(tmp_path, f'snapshot_prefix: "{prefix}"')
    assert os.path.relpath(read_settings(path, root=tmp_path).snapshot_prefix, tmp_path) == name


def test_states_are_merged_as_by_caffe(tmp_path: Path) -> None:
    tests = 'test_iter: [1, 1] test_interval: 5 test_state { } test_state { stage: "b" }'
    text = f'train_state {{ stage: "a" level: 2 }} {tests}'
    settings = read_settings(write(tmp_path, text), root=tmp_path)
    assert (settings.train.phase, settings.train.level, settings.train.stages) == ("train", 2, ("a",))
    assert [(test.phase, test.stages) for test in settings.tests] == [("test", ()), ("test", ("b",))]
