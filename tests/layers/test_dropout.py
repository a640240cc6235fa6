"""Dropout: what is drawn in which phase, and a ratio of 1."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import caffe2torch

from .messages import layer

DTYPES = [torch.float32, torch.float64]


def run(settings: str, x: Tensor, *, training: bool) -> tuple[np.ndarray, np.ndarray]:
    """The top, and the bottom's gradient for a top's gradient of 1."""
    leaf = x.clone().requires_grad_()
    y = layer(f'type: "Dropout" dropout_param {{ {settings} }}', [x.shape], training=training)(leaf)
    y.sum().backward()
    assert leaf.grad is not None
    return y.detach().numpy(), leaf.grad.numpy()


@pytest.mark.parametrize("training", [False, True], ids=["test", "train"])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_bayesian_dropout_draws_in_both_phases(training: bool, scaled: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.linspace(-2, 2, 10_000, dtype=dtype)  # no value of 0
    settings = f"dropout_ratio: 0.25 sample_weights_test: true scale_train: {str(scaled).lower()}"
    top, gradient = run(settings, x, training=training)
    kept, scale = top != 0, 1 / 0.75 if scaled else 1.0
    assert abs(kept.mean() - 0.75) < 0.02
    np.testing.assert_allclose(top, np.where(kept, x.numpy() * scale, 0), rtol=1e-6)
    np.testing.assert_allclose(gradient, np.where(kept, scale, 0), rtol=1e-6)


def test_bayesian_dropout_draws_a_new_mask_every_time() -> None:
    made, x = layer('type: "Dropout" dropout_param { sample_weights_test: true }', [(64,)]), torch.ones(64)
    assert not torch.equal(made(x), made(x))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_ratio_of_1_is_the_identity_in_test(dtype: torch.dtype) -> None:
    x = torch.tensor([-1.0, 0.0, 3.0], dtype=dtype)
    top, gradient = run("dropout_ratio: 1", x, training=False)
    assert top.tolist() == [-1, 0, 3]
    assert gradient.tolist() == [1, 1, 1]


@pytest.mark.parametrize("settings", ["dropout_ratio: 1", "dropout_ratio: 1 sample_weights_test: true"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_ratio_of_1_gives_nan_where_it_draws(settings: str, dtype: torch.dtype) -> None:
    # x * 0 * (1 / (1 - 1)), and the same for the gradient
    training = "sample" not in settings
    top, gradient = run(settings, torch.tensor([-1.0, 0.0, 3.0], dtype=dtype), training=training)
    assert np.isnan(top).all()
    assert np.isnan(gradient).all()


@pytest.mark.parametrize("training", [False, True], ids=["test", "train"])
def test_a_ratio_of_1_without_scale_gives_0(training: bool) -> None:
    # x * 0 in training; x / (1 / (1 - 1)) in test
    top, gradient = run("dropout_ratio: 1 scale_train: false", torch.tensor([-1.0, 0.0, 3.0]), training=training)
    assert top.tolist() == [0, 0, 0]
    assert gradient.tolist() == [0, 0, 0]


NET = """name: "n" input: "x" input_shape { dim: 2 dim: 100 }
layer { name: "d" type: "Dropout" bottom: "x" top: "y" dropout_param { sample_weights_test: true } }"""


def test_no_plain_source_is_written_for_a_layer_that_draws_in_test(tmp_path: Path) -> None:
    from caffe2torch.export.convert import convert

    path = tmp_path / "net.prototxt"
    path.write_text(NET, "utf-8")
    net = caffe2torch.load(path)
    with pytest.raises(caffe2torch.Caffe2TorchError, match=r"'d'.* drops values although the net is in its test phase"):
        convert(net, tmp_path / "out")
