"""HashingLoss against loops over DSH's rule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from caffe2torch.errors import LayerError

from .messages import layer

Array = NDArray[Any]


def naive(x: Array, labels: Array, margin: float, tradeoff: float) -> tuple[float, Array]:
    """DSH's loss of codes (N, C) and labels (N, L), and the gradient that its layer writes."""
    items = len(x)
    pairs, regular, gradient = 0.0, 0.0, np.zeros(x.shape)
    for i in range(items):
        for j in range(i + 1, items):
            difference = x[i] - x[j]
            squared = sum(v * v for v in difference)
            if labels.shape[1] > 1:
                similar = sum(labels[i] * labels[j]) > 0
            else:
                similar = int(labels[i, 0]) == int(labels[j, 0])
            if similar:
                pairs += squared
                sign = 1.0
            else:
                pairs += max(margin - squared, 0.0)
                sign = -1.0 if margin - squared > 0 else 0.0
            gradient[i] += sign * difference / (items * (items - 1))
            gradient[j] -= sign * difference / (items * (items - 1))
        for k, value in enumerate(x[i]):
            regular += abs(abs(value) - 1)
            outward = value >= 1 or -1 <= value <= 0
            gradient[i, k] += tradeoff / items * (1 if outward else -1)
    return pairs / (items * (items - 1)) + tradeoff * regular / items, gradient


def computed(x: Array, labels: Array, settings: str) -> tuple[float, Array]:
    codes = torch.from_numpy(x).requires_grad_()
    made = layer(f'type: "HashingLoss" hashing_loss_param {{ {settings} }}', (x.shape, labels.shape))
    loss = made(codes, torch.from_numpy(labels))
    loss.backward()
    assert loss.shape == ()
    assert codes.grad is not None
    return loss.item(), codes.grad.numpy()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("margin, tradeoff", [(1.0, 0.01), (12.0, 0.5), (30.0, 0.0)])
@pytest.mark.parametrize("classes", [1, 4])
def test_loss_equals_its_definition(classes: int, margin: float, tradeoff: float, dtype: type) -> None:
    random = np.random.RandomState(classes)
    x = random.randn(7, 5).astype(dtype) * 1.5
    x[0], x[1, :3] = x[2], (1, -1, 0)
    labels = random.randint(0, 3 if classes == 1 else 2, (7, classes)).astype(dtype)
    labels[3] = 0  # of no class at all, where there are several: not even like itself
    value, gradient = naive(x.astype(np.float64), labels, margin, tradeoff)
    found, slopes = computed(x, labels, f"bi_margin: {margin} tradeoff: {tradeoff}")
    tolerance = 1e-5 if dtype is np.float32 else 1e-7  # the settings are float32
    assert found == pytest.approx(value, rel=tolerance)
    np.testing.assert_allclose(slopes, gradient, atol=tolerance)


def test_without_settings_the_margin_is_1_and_the_tradeoff_a_hundredth() -> None:
    x, labels = np.array([[0.5, 0.0], [0.0, 0.0]]), np.array([[0.0], [1.0]])
    found, _ = computed(x, labels, "")
    assert found == pytest.approx(0.75 / 2 + 0.01 * 3.5 / 2)


@pytest.mark.parametrize(
    "value, slope", [(2.0, 1), (1.0, 1), (0.5, -1), (0.0, 1), (-0.5, 1), (-1.0, 1), (-2.0, -1)], ids=str
)
def test_the_regulariser_alone_pulls_values_to_1_and_minus_1(value: float, slope: int) -> None:
    x = np.full((2, 1), value)
    _, gradient = computed(x, np.zeros((2, 1)), "tradeoff: 2")
    assert gradient.tolist() == [[slope], [slope]]


def test_others_at_the_margin_itself_are_left_there() -> None:
    x, labels = np.array([[0.0], [2.0]]), np.array([[0.0], [1.0]])
    found, gradient = computed(x, labels, "bi_margin: 4 tradeoff: 0")
    assert found == 0
    assert gradient.tolist() == [[0.0], [0.0]]


def test_single_labels_are_cut_to_whole_numbers_and_several_are_not() -> None:
    x = np.array([[0.0], [1.0]])
    assert computed(x, np.array([[1.2], [1.9]]), "tradeoff: 0")[0] == 0.5  # similar
    assert computed(x, np.array([[-0.5], [0.5]]), "tradeoff: 0")[0] == 0.5
    assert computed(x, np.array([[0.5, 0.0], [0.5, 0.0]]), "tradeoff: 0")[0] == 0.5
    assert computed(x, np.array([[1.0, -1.0], [1.0, 1.0]]), "tradeoff: 0 bi_margin: 2")[0] == 0.5  # not similar: 2 - 1


def test_one_code_has_no_loss_but_a_gradient() -> None:
    found, gradient = computed(np.array([[0.5, -0.5]]), np.array([[0.0]]), "tradeoff: 1")
    assert np.isnan(found)
    assert gradient.tolist() == [[-1.0, 1.0]]


@pytest.mark.parametrize("codes, labels", [((3, 2, 1, 1), (3,)), ((3, 2), (3, 1, 1, 1)), ((3, 2, 1), (3, 1))], ids=str)
def test_trailing_ones_make_no_difference(codes: tuple[int, ...], labels: tuple[int, ...]) -> None:
    random = np.random.RandomState(3)
    x, classes = random.randn(3, 2), np.array([[0.0], [1.0], [0.0]])
    value, gradient = naive(x, classes, 1.0, 0.01)
    found, slopes = computed(x.reshape(codes), classes.reshape(labels), "")
    assert found == pytest.approx(value)
    np.testing.assert_allclose(slopes, gradient.reshape(codes))


@pytest.mark.parametrize(
    "codes, labels", [((3, 2), (2, 1)), ((3, 2, 2), (3, 1)), ((3, 2), (3, 1, 1, 2)), ((3, 2, 1, 1, 1), (3,))], ids=str
)
def test_other_shapes_are_refused(codes: tuple[int, ...], labels: tuple[int, ...]) -> None:
    with pytest.raises(LayerError, match="the bottoms have shapes"):
        layer('type: "HashingLoss"', (codes, labels))


def test_labels_get_no_gradient() -> None:
    x, labels = torch.randn(3, 2, requires_grad=True), torch.zeros(3, 1, requires_grad=True)
    layer('type: "HashingLoss"', ((3, 2), (3, 1)))(x, labels).backward()
    assert labels.grad is None


def test_the_gradient_in_double_precision_is_as_exact() -> None:
    x, labels = np.random.RandomState(0).randn(3, 4), np.zeros((3, 1))
    codes = torch.from_numpy(x).requires_grad_()
    layer('type: "HashingLoss" hashing_loss_param { tradeoff: 0.1 }', [x.shape, labels.shape])(
        codes, torch.from_numpy(labels)
    ).backward()
    _, expected = naive(x, labels, 1.0, float(np.float32(0.1)))
    np.testing.assert_allclose(codes.grad, expected, rtol=0, atol=1e-12)
