"""Going on from a snapshot: bit for bit what would have been without it, whatever is random on the way."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from caffe2torch.errors import FormatError, WeightsError
from solver.nets import NET, solver, weights

TESTED = "test_iter: 2 test_interval: 3"


@pytest.mark.parametrize("kind", ["SGD", "Adam"])  # the others, with other settings: test_updates.py
@pytest.mark.parametrize("form", ["BINARYPROTO", "HDF5"])
def test_ten_iterations_are_five_a_snapshot_and_five(tmp_path: Path, kind: str, form: str) -> None:
    text = f'type: "{kind}" snapshot_format: {form} {TESTED}'
    whole = solver(tmp_path, text)
    whole.step(10)
    first = solver(tmp_path, text)
    first.step(5)
    _, state = first.snapshot()
    second = solver(tmp_path, text + " random_seed: -1")  # the state brings the seed
    second.restore(state)
    assert second.iteration == 5
    second.step(5)
    assert all(np.array_equal(a, b) for a, b in zip(weights(second), weights(whole), strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(second.updater.history(), whole.updater.history(), strict=True))


def test_a_moved_snapshot_finds_its_weights_beside_it(tmp_path: Path) -> None:
    first = solver(tmp_path)
    first.step(2)
    model, state = first.snapshot()
    for path in (model, state):
        path.rename(tmp_path / path.name)
    second = solver(tmp_path)
    second.restore(tmp_path / state.name)
    assert all(np.array_equal(a, b) for a, b in zip(weights(second), weights(first), strict=True))


def test_a_copied_snapshot_does_not_take_the_weights_of_a_later_training(tmp_path: Path) -> None:
    first = solver(tmp_path)
    first.step(2)
    copied = [Path(shutil.copy(path, tmp_path / path.name)) for path in first.snapshot()]
    other = solver(tmp_path, "random_seed: 99")
    other.step(2)
    other.snapshot()
    second = solver(tmp_path)
    second.restore(copied[1])
    assert all(np.array_equal(a, b) for a, b in zip(weights(second), weights(first), strict=True))


def test_a_state_without_its_weights_says_where_it_looked(tmp_path: Path) -> None:
    first = solver(tmp_path)
    model, state = first.snapshot()
    model.unlink()
    with pytest.raises(FormatError, match=r"snap_iter_0\.solverstate: its weights .*snap_iter_0\.caffemodel are not"):
        solver(tmp_path).restore(state)


def test_a_snapshot_of_another_net_is_refused(tmp_path: Path) -> None:
    _, state = solver(tmp_path).snapshot()
    with pytest.raises(WeightsError, match="ip1"):
        solver(tmp_path, net=NET.replace("num_output: 6", "num_output: 7")).restore(state)


def test_a_state_of_another_solver_is_refused(tmp_path: Path) -> None:
    _, state = solver(tmp_path).snapshot()
    with pytest.raises(WeightsError, match=r"its history has 4 blobs, Adam with 4 parameters needs 8"):
        solver(tmp_path, 'type: "Adam"').restore(state)


def test_a_frozen_parameter_keeps_its_momentum(tmp_path: Path) -> None:
    """v = momentum * v + 0 * gradient; w -= v: what Caffe does to one that is frozen when going on."""
    first = solver(tmp_path)
    first.step(4)
    _, state = first.snapshot()
    start, history = weights(first)[0], first.updater.history()[0]
    second = solver(tmp_path, net=NET.replace("lr_mult: 1 decay_mult: 1", "lr_mult: 0"))
    second.restore(state)
    second.step(2)
    np.testing.assert_allclose(weights(second)[0], start - (0.9 + 0.81) * history, rtol=1e-5, atol=1e-7)


def test_shuffled_data_and_dropout_differ_between_seeds(tmp_path: Path) -> None:
    found = []
    for seed in (3, 3, 4):
        one = solver(tmp_path, f"random_seed: {seed}")
        one.step(3)
        found.append(weights(one)[0])
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])
