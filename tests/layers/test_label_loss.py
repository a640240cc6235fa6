"""HingeLoss, MultinomialLogisticLoss and InfogainLoss against their definitions, value by value."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import caffe2torch
from caffe2torch.binaryproto import write_mean
from caffe2torch.errors import LayerError

from .messages import layer


def run(text: str, x: np.ndarray, *others: np.ndarray) -> tuple[float, np.ndarray]:
    """Loss and gradient of the scores."""
    leaf = torch.from_numpy(x).requires_grad_()
    made = layer(text, [a.shape for a in (x, *others)])
    result = made(leaf, *(torch.from_numpy(a) for a in others))
    loss = result[0] if isinstance(result, tuple) else result
    loss.backward()
    assert leaf.grad is not None
    return loss.item(), leaf.grad.numpy()


@pytest.mark.parametrize("norm", ["L1", "L2"])
@pytest.mark.parametrize("shape", [(4, 5), (3, 2, 2, 1)])
def test_hinge_loss_equals_its_definition(norm: str, shape: tuple[int, ...]) -> None:
    random = np.random.RandomState(0)
    x, labels = random.randn(*shape), random.randint(4, size=shape[0]).astype(np.float64)
    x[0, 0] = -1.0  # a margin of exactly 0
    scores, expected, gradient = x.reshape(len(x), -1), 0.0, np.zeros((len(x), x[0].size))
    for n, c in np.ndindex(*scores.shape):
        sign = -1 if c == labels[n] else 1
        margin = max(0.0, 1 + sign * scores[n, c])
        expected += (margin if norm == "L1" else margin**2) / len(x)
        gradient[n, c] = sign * (np.sign(margin) if norm == "L1" else 2 * margin) / len(x)
    found = run(f'type: "HingeLoss" hinge_loss_param {{ norm: {norm} }}', x, labels)
    np.testing.assert_allclose(found[0], expected, rtol=1e-12)
    np.testing.assert_allclose(found[1], gradient.reshape(shape), rtol=1e-12)


def test_multinomial_logistic_loss_limits_probabilities_but_not_their_gradient() -> None:
    x = np.array([[0.25, 0.75], [0.0, 1.0], [1e-30, 1.0]])
    loss, gradient = run('type: "MultinomialLogisticLoss"', x, np.array([[1.0], [0.0], [0.0]]))
    np.testing.assert_allclose(loss, -(np.log(0.75) + 2 * np.log(1e-20)) / 3, rtol=1e-7)
    np.testing.assert_allclose(gradient, np.array([[0, -1 / 0.75], [-1e20, 0], [-1e20, 0]]) / 3, rtol=1e-7)


def infogain(
    x: np.ndarray, labels: np.ndarray, matrix: np.ndarray, ignored: int | None, normalization: str
) -> tuple[float, np.ndarray]:
    """x (outer, labels, inner), labels (outer, inner)."""
    loss, count, gradient = 0.0, 0, np.zeros(x.shape)
    for i, j in np.ndindex(*labels.shape):
        if labels[i, j] == ignored:
            continue
        p = np.exp(x[i, :, j] - x[i, :, j].max())
        p /= p.sum()
        row = matrix[int(labels[i, j])]
        loss -= (row * np.log(np.maximum(p, 1e-20))).sum()
        gradient[i, :, j] = p * row.sum() - row
        count += 1
    divisor = {"FULL": labels.size, "VALID": count, "BATCH_SIZE": len(x), "NONE": 1}[normalization]
    return loss / max(divisor, 1), gradient / max(divisor, 1)


@pytest.mark.parametrize("normalization", ["FULL", "VALID", "BATCH_SIZE", "NONE"])
@pytest.mark.parametrize("ignored", [None, 1])
@pytest.mark.parametrize("axis, shape", [(1, (4, 3)), (1, (2, 3, 2, 2)), (-1, (2, 4, 3)), (2, (2, 2, 3, 2))])
def test_infogain_loss_equals_its_definition(
    normalization: str, ignored: int | None, axis: int, shape: tuple[int, ...]
) -> None:
    random = np.random.RandomState(0)
    x, matrix = random.randn(*shape) * 20, random.rand(1, 1, 3, 3)
    axis %= len(shape)
    x.reshape(int(np.prod(shape[:axis])), 3, -1)[0, 0, 0] = -200.0  # a probability below the limit
    places = (int(np.prod(shape[:axis])), int(np.prod(shape[axis + 1 :])))
    labels = random.randint(3, size=places)
    given = labels.reshape(shape[:axis] + shape[axis + 1 :]).astype(np.float64)
    ignore = "" if ignored is None else f"ignore_label: {ignored}"
    text = (
        f'type: "InfogainLoss" infogain_loss_param {{ axis: {axis} }} '
        f"loss_param {{ normalization: {normalization} {ignore} }}"
    )
    expected = infogain(x.reshape(places[0], 3, places[1]), labels, matrix.reshape(3, 3), ignored, normalization)
    found = run(text, x, given, matrix)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-7)
    np.testing.assert_allclose(found[1], expected[1].reshape(shape), rtol=1e-7, atol=1e-15)


def test_infogain_loss_with_every_label_ignored_is_zero() -> None:
    text = 'type: "InfogainLoss" loss_param { ignore_label: 0 }'
    loss, gradient = run(text, np.ones((2, 3)), np.zeros(2), np.ones((3, 3)))
    assert (loss, np.abs(gradient).max()) == (0.0, 0.0)


NET = """
layer { name: "x" type: "Input" top: "x" top: "t" input_param { shape { dim: 2 dim: 3 } shape { dim: 2 } } }
layer { name: "l" type: "InfogainLoss" bottom: "x" bottom: "t" top: "loss" top: "p"
        infogain_loss_param { source: "deeper/H.binaryproto" } }
"""


def net(folder: Path, matrix: np.ndarray | None) -> Path:
    (folder / "net.prototxt").write_text(NET, "utf-8")
    (folder / "deeper").mkdir()
    if matrix is not None:
        write_mean(folder / "deeper" / "H.binaryproto", matrix)
    return folder / "net.prototxt"


def test_infogain_loss_reads_its_matrix_from_a_file_below_the_prototxt(tmp_path: Path) -> None:
    random = np.random.RandomState(0)
    matrix, x = random.rand(1, 3, 3).astype(np.float32), random.randn(2, 3).astype(np.float32)
    loaded = caffe2torch.load(net(tmp_path, matrix))
    found = loaded({"x": torch.from_numpy(x), "t": torch.tensor([2.0, 0.0])})
    expected = infogain(x[:, :, None].astype(np.float64), np.array([[2], [0]]), matrix[0], None, "VALID")
    np.testing.assert_allclose(found["loss"].item(), expected[0], rtol=1e-6)
    np.testing.assert_allclose(found["p"].numpy(), torch.softmax(torch.from_numpy(x), 1).numpy(), rtol=1e-6)


@pytest.mark.parametrize("matrix, reason", [(None, "H.binaryproto: cannot be read"), (np.ones((1, 2, 2)), "4 values")])
def test_a_matrix_that_is_missing_or_too_small_is_refused(
    tmp_path: Path, matrix: np.ndarray | None, reason: str
) -> None:
    with pytest.raises(LayerError, match=rf"layer 'l' \(InfogainLoss\), its matrix: .*{reason}"):
        caffe2torch.load(net(tmp_path, matrix))
