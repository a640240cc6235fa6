"""What Caffe's solver does in its corners, by its formulas written down once more: gradients that are overwritten,
parameters that do not learn, losses without a name."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from caffe2torch.cli import main
from caffe2torch.solver.learnables import learnables
from solver.nets import NET, solver, weights, write

DATA = 'layer { name: "d" type: "HDF5Data" top: "x" top: "t" hdf5_data_param { source: "list.txt" batch_size: BATCH } }'
PRODUCT = 'layer { name: "a" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 1 FILL } }'
LOSS = 'layer { name: "l" type: "EuclideanLoss" bottom: "y" bottom: "t" top: "loss" }'
FILL = 'weight_filler { type: "gaussian" std: 1 }'
SCALE = 'layer { name: "s" type: "Scale" bottom: "y" top: "y" scale_param { FIELDS bias_term: true } }'
PLAIN = "momentum: 0 weight_decay: 0 base_lr: 0.5"


def net(*layers: str, batch: int = 1) -> str:
    return "\n".join((DATA, *layers)).replace("BATCH", str(batch)).replace("FILL", FILL)


def data(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    with h5py.File(folder / "data.h5") as file:
        return file["x"][:].astype(np.float64), file["t"][:].astype(np.float64)


@pytest.mark.parametrize(
    "fields, batch, last_only",
    [
        ("", 1, True),  # a weight for each of three channels, one row
        ("", 2, False),
        ("axis: 0 num_axes: -1", 2, True),  # as large as the bottom
        ("axis: 0 num_axes: 0", 1, False),  # one value for three
    ],
)
def test_of_several_passes_the_last_counts_where_caffe_overwrites_scales_gradient(
    tmp_path: Path, fields: str, batch: int, last_only: bool
) -> None:
    product = PRODUCT.replace("num_output: 1", "num_output: 3").replace(
        'top: "y"', 'top: "y" param { lr_mult: 0 } param { lr_mult: 0 }'
    )
    target = 'layer { name: "t3" type: "Tile" bottom: "c" top: "t3" tile_param { tiles: 3 } }'
    column = 'layer { name: "c" type: "Reshape" bottom: "t" top: "c" reshape_param { shape { dim: 0 dim: 1 } } }'
    text = net(product, SCALE.replace("FIELDS", fields), column, target, LOSS.replace('"t"', '"t3"'), batch=batch)
    one = solver(tmp_path, f"{PLAIN} iter_size: 2", net=text)
    product_weight, _, scale, bias = weights(one)
    one.step(1)
    x, t = data(tmp_path)
    passes = []
    for rows in (slice(0, batch), slice(batch, 2 * batch)):
        y = x[rows] @ product_weight.T.astype(np.float64)
        error = (y * scale + bias - t[rows, None]) / batch
        passes.append((y * error, error))
    axis = 0 if scale.shape == (3,) else None
    sums = [[g if scale.ndim == 2 else g.sum(axis) for g in both] for both in passes]
    expected = sums[1][0] if last_only else sums[0][0] + sums[1][0]
    np.testing.assert_allclose(weights(one)[2], scale - 0.5 * expected / 2, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(weights(one)[3], bias - 0.5 * (sums[0][1] + sums[1][1]) / 2, rtol=1e-5, atol=1e-6)


def test_of_several_passes_the_last_counts_for_a_parameter_layer(tmp_path: Path) -> None:
    text = net(
        'layer { name: "p" type: "Parameter" top: "y" parameter_param { shape { dim: 2 } } }',
        LOSS,
        batch=2,
    )
    one = solver(tmp_path, f"{PLAIN} iter_size: 3", net=text)
    one.step(1)
    _, t = data(tmp_path)
    np.testing.assert_allclose(weights(one)[0], 0.5 * t[4:6] / 2 / 3, rtol=1e-6)


def test_the_norm_counts_the_gradients_of_one_iteration_where_force_backward_computes_unused_ones(
    tmp_path: Path,
) -> None:
    first = PRODUCT.replace("num_output: 1", "num_output: 2").replace(
        'bottom: "x" top: "y"', 'bottom: "x" top: "h" param { lr_mult: 0 } param { lr_mult: 0 }'
    )
    second = PRODUCT.replace('name: "a"', 'name: "b"').replace('bottom: "x"', 'bottom: "h"')
    column = 'layer { name: "c" type: "Reshape" bottom: "t" top: "c" reshape_param { shape { dim: 0 dim: 1 } } }'
    text = "force_backward: true\n" + net(first, second, column, LOSS.replace('"t"', '"c"'), batch=2)
    one = solver(tmp_path, "momentum: 0 weight_decay: 0 base_lr: 0.1 clip_gradients: 0.5", net=text)
    w1, b1, w2, b2 = (value.astype(np.float64) for value in weights(one))
    one.step(4)
    x, t = data(tmp_path)
    for i in range(4):
        rows = slice(2 * i, 2 * i + 2)
        h = x[rows] @ w1.T + b1
        error = (h @ w2.T + b2 - t[rows, None]) / 2
        dh = error @ w2
        gradients = [dh.T @ x[rows], dh.sum(0), error.T @ h, error.sum(0)]
        norm = np.sqrt(sum((g**2).sum() for g in gradients))
        factor = 0.1 * (0.5 / norm if norm > 0.5 else 1)
        w2, b2 = w2 - factor * gradients[2], b2 - factor * gradients[3]
    np.testing.assert_allclose(weights(one)[2], w2, rtol=1e-5)
    np.testing.assert_allclose(weights(one)[3], b2, rtol=1e-5)


@pytest.mark.parametrize("frozen", [True, False])
def test_a_net_in_which_nothing_learns_runs(tmp_path: Path, frozen: bool) -> None:
    product = PRODUCT.replace('top: "y"', 'top: "z" param { lr_mult: 0 } param { lr_mult: 0 }') if frozen else ""
    text = net(product, LOSS.replace('bottom: "y"', 'bottom: "t"'))
    one = solver(tmp_path, net=text)
    before = weights(one)
    with pytest.warns(UserWarning, match="no parameter gets a gradient, so nothing is learned"):
        assert not one.solve()
    assert one.iteration == 10
    for old, new in zip(before, weights(one), strict=True):
        np.testing.assert_array_equal(old, new)


def test_statistics_of_a_silenced_branch_are_gathered_in_training(tmp_path: Path) -> None:
    text = net(
        'layer { name: "n" type: "BatchNorm" bottom: "x" top: "n" }',
        'layer { name: "quiet" type: "Silence" bottom: "n" }',
        PRODUCT,
        'layer { name: "c" type: "Reshape" bottom: "t" top: "c" reshape_param { shape { dim: 0 dim: 1 } } }',
        LOSS.replace('"t"', '"c"'),
        batch=4,
    )
    one = solver(tmp_path, PLAIN, net=text)
    one.step(1)
    x, _ = data(tmp_path)
    mean = next(blob.value for blob in learnables(one.train.net) if blob.name == "n:0")
    np.testing.assert_allclose(mean, x[:4].mean(0), rtol=1e-5)


def test_a_loss_without_a_name_counts_and_is_not_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unnamed = NET.replace('bottom: "t" top: "loss" }', 'bottom: "t" loss_weight: 2 }')
    path = write(tmp_path, "max_iter: 1 display: 1 test_iter: 1 test_interval: 1 test_compute_loss: true", net=unnamed)
    assert main(["train", "--solver", str(path), "--root", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert [line.split("output ")[1].split(" = ")[0] for line in printed.splitlines() if "net output" in line] == [
        "#0: acc",
        "#0: acc",
    ]
    assert "Test loss: " in printed
    named = solver(tmp_path, net=NET.replace('top: "loss" }', 'top: "loss" loss_weight: 2 }'))
    unnamed_again = solver(tmp_path, net=unnamed)
    for one in (named, unnamed_again):
        one.step(2)
    for mine, theirs in zip(weights(named), weights(unnamed_again), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def run(path: Path, *options: str) -> int:
    return main(["train", "--solver", str(path), "--root", str(path.parent), "--quiet", *options])


def test_weights_of_the_command_line_stand_in_place_of_the_solvers(tmp_path: Path) -> None:
    assert run(write(tmp_path, "max_iter: 2")) == 0
    first = tmp_path / "out" / "snap_iter_2.caffemodel"
    path = write(tmp_path, 'max_iter: 3 weights: "gone.caffemodel"')
    assert run(path) == 1
    assert run(path, "--weights", f" {first} ,") == 0
    assert run(path, "--snapshot", str(first.with_suffix(".solverstate"))) == 0


def test_level_and_stages_choose_the_training_nets_layers(tmp_path: Path) -> None:
    rules = 'include { phase: TRAIN min_level: 3 stage: "big" stage: "own" }'
    extra = f'layer {{ name: "more" type: "Reduction" bottom: "y" top: "more" loss_weight: 1 {rules} }}'
    path = write(tmp_path, 'max_iter: 1 train_state { stage: "own" level: 1 } display: 1', net=NET + extra)
    for options, there in (((), False), (("--level", "3"), False), (("--level", "3", "--stage", "big"), True)):
        assert run(path, *options) == 0
        assert ("net output #1: more" in (tmp_path / "out" / "snap.log").read_text()) == there


def test_overwritten_gradients_are_known_by_the_shapes(tmp_path: Path) -> None:
    text = net(PRODUCT, SCALE.replace("FIELDS", ""), LOSS.replace('"y"', '"x"').replace('"t"', '"x"'))
    one = solver(tmp_path, net=text)
    assert [blob.name for blob in learnables(one.train.net) if blob.overwritten] == ["s:0"]
