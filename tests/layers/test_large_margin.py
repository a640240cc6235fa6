"""LargeMarginInnerProduct against loops over L-Softmax's rule."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from caffe2torch.errors import LayerError
from caffe2torch.layers.registry import Layer

from .messages import layer
from .test_margin import CASES, SETTINGS, TYPES, Array, factors, passed, randoms, strength


def margin(settings: str, *shapes: tuple[int, ...], training: bool = True) -> Layer:
    text = f'type: "LargeMarginInnerProduct" top: "y" top: "lambda" largemargin_inner_product_param {{ {settings} }}'
    made = layer(text, shapes, training=training).double()
    with torch.no_grad():
        made.weight.sub_(1)  # of both signs
    return made


def naive(
    kind: str, strength: float, x: Array, labels: Array, weight: Array, gradient: Array
) -> tuple[Array, Array, Array]:
    """Scores of the items (M, K), and the gradients of items and weights."""
    scores, of_x, of_w = np.zeros(gradient.shape), np.zeros(x.shape), np.zeros(weight.shape)
    for i, j in np.ndindex(*scores.shape):
        plain = sum(x[i] * weight[j])
        if j != int(labels[i]) or kind == "SINGLE":
            scores[i, j] = plain
            of_x[i] += gradient[i, j] * weight[j]
            of_w[j] += gradient[i, j] * x[i]
            continue
        of_item, of_row = math.sqrt(sum(x[i] ** 2)), math.sqrt(sum(weight[j] ** 2))
        length = of_item * of_row + 1e-9
        psi, a, b = factors(kind, plain / length, 1.0)
        scores[i, j] = (length * psi + strength * plain) / (1 + strength)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.float64(of_item) / (of_row + 1e-9)
            of_x[i] += gradient[i, j] * (a * weight[j] + b / ratio * x[i] + strength * weight[j]) / (1 + strength)
            of_w[j] += gradient[i, j] * (a * x[i] + b * ratio * weight[j] + strength * x[i]) / (1 + strength)
    return scores, of_x, of_w


@pytest.mark.parametrize("training", [True, False], ids=["train", "test"])
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("settings, shape, labelled", CASES)
def test_passes_equal_their_definition(
    settings: str, shape: tuple[int, ...], labelled: tuple[int, ...], kind: str, training: bool
) -> None:
    made = margin(f"{SETTINGS} type: {kind} {settings}", shape, labelled, training=training)
    labels = np.random.RandomState(1).randint(5, size=labelled).astype(np.float64)
    items, added = labels.size, 0.0
    for number in range(1, 4):
        weight = made.weight.detach().numpy().copy()
        x, gradient = randoms(shape, (*shape[: 2 if settings == "axis: 2" else 1], 5))
        scores, lambda_, of_x = passed(made, x, labels, gradient)
        expected = naive(
            kind, strength(number), x.reshape(items, -1), labels.ravel(), weight, gradient.reshape(items, -1)
        )
        assert lambda_.tolist() == [pytest.approx(strength(number), rel=1e-6)]
        assert scores.shape == gradient.shape
        np.testing.assert_allclose(scores.reshape(items, -1), expected[0], rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(of_x.reshape(items, -1), expected[1], rtol=1e-6, atol=1e-9)
        added = added + expected[2]
        assert made.weight.grad is not None
        np.testing.assert_allclose(made.weight.grad, added, rtol=1e-6, atol=1e-9)
        np.testing.assert_array_equal(made.weight.detach(), weight)  # not normalised
        with torch.no_grad():
            made.weight.mul_(1.5)  # a solver's step, say


@pytest.mark.parametrize("kind", TYPES)
def test_the_gradients_are_the_derivatives(kind: str) -> None:
    made = margin(f"{SETTINGS} type: {kind}", (6, 3), (6,))
    x, labels = torch.from_numpy(randoms((6, 3))[0]), torch.arange(6.0) % 5

    def scores(x: Tensor, weight: Tensor) -> Tensor:
        made.iteration.fill_(0)
        given: Tensor = torch.func.functional_call(made, {"weight": weight}, (x, labels))[0]
        return given

    inputs = (x.requires_grad_(), made.weight.detach().clone().requires_grad_())
    assert torch.autograd.gradcheck(scores, inputs, eps=1e-7, atol=1e-5)


@pytest.mark.parametrize("m, kind", list(enumerate(TYPES, 1)))
def test_the_labels_score_follows_the_multiple_of_the_angle(m: int, kind: str) -> None:
    angles = np.linspace(0, np.pi, 26)[1:-1]
    x = 3 * np.stack((np.cos(angles), np.sin(angles)), 1)
    made = margin(f"num_output: 1 base: 0 type: {kind}", x.shape, (24,))
    made.weight.data.copy_(torch.tensor([[2.0, 0.0]]))
    part = np.floor(angles * m / np.pi)
    scores, _ = made(torch.from_numpy(x), torch.zeros(24))
    np.testing.assert_allclose(scores.detach()[:, 0], 6 * ((-1) ** part * np.cos(m * angles) - 2 * part), atol=1e-7)


@pytest.mark.parametrize("zero", ["item", "weights"])
@pytest.mark.parametrize("kind", TYPES[1:])
def test_items_and_weights_of_zeros_are_as_on_the_forks_cpu(kind: str, zero: str) -> None:
    made = margin(f"{SETTINGS} type: {kind}", (2, 3), (2,))
    x, gradient = randoms((2, 3), (2, 5))
    labels = np.array([1.0, 2.0])
    if zero == "item":
        x[0] = 0
    else:
        made.weight.data[1] = 0
    scores, _, of_x = passed(made, x, labels, gradient)
    expected = naive(kind, strength(1), x, labels, made.weight.detach().numpy(), gradient)
    np.testing.assert_allclose(scores, expected[0], rtol=1e-6, atol=1e-15)
    assert abs(scores[0, 1]) > 0 or zero == "weights"
    np.testing.assert_allclose(of_x, expected[1], rtol=1e-6)
    assert np.isnan(of_x[0]).all() == (zero == "item")
    assert made.weight.grad is not None
    np.testing.assert_allclose(made.weight.grad, expected[2], rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("kind", TYPES)
def test_float32_is_as_exact_as_it_can_be(kind: str) -> None:
    x, gradient, labels = *randoms((20, 30), (20, 5)), np.arange(20.0) % 5
    wide = margin(f"{SETTINGS} type: {kind}", x.shape, (20,))
    narrow = margin(f"{SETTINGS} type: {kind}", x.shape, (20,)).float()
    for a, b in zip(passed(narrow, x, labels, gradient), passed(wide, x, labels, gradient), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_frozen_weights_and_items_get_no_gradient() -> None:
    made = margin(f"{SETTINGS} type: DOUBLE", (2, 3), (2,))
    x, labels = torch.rand(2, 3).double(), torch.zeros(2)
    assert made(x, labels)[0].requires_grad
    made.weight.requires_grad_(False)
    assert not made(x, labels)[0].requires_grad
    made(x.requires_grad_(), labels)[0].sum().backward()
    assert x.grad is not None
    assert made.weight.grad is None


@pytest.mark.parametrize(
    "settings, shapes, reason",
    [
        ("", [(4, 3), (4,)], "num_output 0"),
        ("num_output: 5", [(4, 3), (3,)], "equal first dimensions"),
        ("num_output: 5", [(4, 3, 1, 1, 1), (4,)], "at most 4 axes"),
        ("num_output: 5 axis: 3", [(4, 3), (4,)], "LargeMarginInnerProductParameter.axis is 3"),
    ],
)
def test_impossible_margins_are_refused(settings: str, shapes: list[tuple[int, ...]], reason: str) -> None:
    with pytest.raises(LayerError, match=reason):
        margin(settings, *shapes)


@pytest.mark.parametrize("kind", ["LargeMarginInnerProduct", "MarginInnerProduct"])
@pytest.mark.parametrize("type_", TYPES)
def test_bfloat16_products_of_autocast_take_the_labels_score(type_: str, kind: str) -> None:
    field = "largemargin_inner_product_param" if kind.startswith("Large") else "margin_inner_product_param"
    text = f'type: "{kind}" top: "y" top: "lambda" {field} {{ num_output: 5 type: {type_} }}'
    x, labels = torch.rand(4, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0.0, 1.0, 2.0, 4.0])
    made = layer(text, (x.shape, labels.shape), training=True)
    expected = made(x, labels)[0].detach()
    x.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = made(x, labels)[0]
    found.float().sum().backward()
    assert found.dtype == torch.bfloat16
    assert x.grad is not None
    torch.testing.assert_close(found.detach().float(), expected, rtol=0.05, atol=0.05)
