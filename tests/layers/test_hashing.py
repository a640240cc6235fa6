"""The multi-label layers against loops over every score, with labels -1, 0 and 1."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from caffe2torch.errors import LayerError

from .messages import layer

SHAPES = [(4, 6), (3, 2, 2, 3)]


def scores_and_labels(shape: tuple[int, ...], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.RandomState(seed)
    scores = (random.randn(*shape) * 3).astype(np.float32)
    scores.flat[0] = 0  # neither positive nor negative, and a yes for the accuracy
    return scores, random.randint(-1, 2, shape).astype(np.float32)


def cross_entropy(x: float, label: float) -> tuple[float, float]:
    p, t = 1 / (1 + math.exp(-x)), float(label > 0)
    return -(t * math.log(p) + (1 - t) * math.log(1 - p)), p - t


def squared_hinge(x: float, label: float) -> tuple[float, float]:
    gap = max(0.0, 1 - x if label > 0 else 1 + x)
    return gap * gap / 2, -gap if label > 0 else gap


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    "name, definition", [("MultiLabelSigmoidLoss", cross_entropy), ("MultiLabelL2SVMLoss", squared_hinge)]
)
def test_loss_equals_its_definition(name: str, definition: object, shape: tuple[int, ...]) -> None:
    assert callable(definition)
    scores, labels = scores_and_labels(shape)
    total, gradient = 0.0, np.zeros(shape)
    for place in np.ndindex(*shape):
        if labels[place]:
            value, gradient[place] = definition(float(scores[place]), float(labels[place]))
            total += value
    x = torch.from_numpy(scores).requires_grad_()
    loss = layer(f'type: "{name}"', (shape, shape))(x, torch.from_numpy(labels))
    loss.backward()
    assert loss.shape == ()
    assert loss.item() == pytest.approx(total / shape[0], rel=1e-6)
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), gradient / shape[0], atol=1e-6)


def test_labels_get_no_gradient() -> None:
    labels = torch.ones(2, 3, requires_grad=True)
    layer('type: "MultiLabelSigmoidLoss"', ((2, 3), (2, 3)))(torch.ones(2, 3, requires_grad=True), labels).backward()
    assert labels.grad is None


@pytest.mark.parametrize("labels", [(2, 4), (3, 3), (3,)], ids=str)
@pytest.mark.parametrize("name", ["MultiLabelSigmoidLoss", "MultiLabelL2SVMLoss", "MultiLabelAccuracy"])
def test_other_shapes_are_refused(name: str, labels: tuple[int, ...]) -> None:
    with pytest.raises(LayerError, match="a label for each score"):
        layer(f'type: "{name}"', ((2, 3), labels))


def test_trailing_ones_make_no_difference() -> None:
    made = layer('type: "MultiLabelSigmoidLoss"', ((2, 3), (2, 3, 1, 1)))
    assert made(torch.zeros(2, 3), torch.ones(2, 3, 1, 1)).item() == pytest.approx(3 * math.log(2))


def figures(scores: np.ndarray, labels: np.ndarray) -> list[float]:
    """Sensitivity, specificity, harmonic mean, precision and F1 from the four counts."""
    yes, has, lacks = scores >= 0, labels >= 1, labels <= -1
    tp, fn = (yes & has).sum(), (~yes & has).sum()
    tn, fp = (~yes & lacks).sum(), (yes & lacks).sum()
    sensitivity = tp / (tp + fn) if tp + fn else 0.0
    specificity = tn / (tn + fp) if tn + fp else 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = 2 / (np.float64(tp + fn) / tp + np.float64(tn + fp) / tn) if has.any() or lacks.any() else 0.0
    return [
        sensitivity,
        specificity,
        float(mean),
        tp / (tp + fp) if tp else 0.0,
        2 * tp / (2 * tp + fp + fn) if tp else 0.0,
    ]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kept", [(-1, 0, 1), (0, 1), (-1, 0), (0,)], ids=str)
def test_accuracy_equals_its_definition(shape: tuple[int, ...], kept: tuple[int, ...]) -> None:
    scores, labels = scores_and_labels(shape, seed=1)
    labels = np.where(np.isin(labels, kept), labels, 0).astype(np.float32)
    top = layer('type: "MultiLabelAccuracy"', (shape, shape))(torch.from_numpy(scores), torch.from_numpy(labels))
    assert top.shape == (1, 5, 1, 1)
    np.testing.assert_allclose(top.flatten().numpy(), figures(scores, labels), rtol=1e-6)


def test_accuracy_of_nothing_right_is_zero() -> None:
    top = layer('type: "MultiLabelAccuracy"', ((1, 2), (1, 2)))(
        torch.tensor([[-1.0, 1.0]]), torch.tensor([[1.0, -1.0]])
    )
    assert top.flatten().tolist() == [0, 0, 0, 0, 0]


def test_accuracy_cuts_labels_to_whole_numbers() -> None:
    top = layer('type: "MultiLabelAccuracy"', ((1, 3), (1, 3)))(torch.ones(1, 3), torch.tensor([[1.7, 0.9, -0.9]]))
    assert top.flatten()[[0, 3]].tolist() == [1, 1]
