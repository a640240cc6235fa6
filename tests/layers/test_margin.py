"""MarginInnerProduct against loops over SphereFace's rule."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from caffe2torch.errors import LayerError
from caffe2torch.layers.registry import Layer

from .messages import layer

Array = NDArray[Any]
TYPES = ["SINGLE", "DOUBLE", "TRIPLE", "QUADRUPLE"]
CASES = [
    ("", (40, 3), (40,)),
    ("axis: -3", (40, 2, 3, 1), (40, 1, 1, 1)),
    ("axis: 2", (8, 5, 3), (8, 5)),
    ("", (1, 3), (1,)),
]
SETTINGS = "num_output: 5 base: 10 gamma: 0.5 power: 2 lambda_min: 0.4"


def margin(settings: str, *shapes: tuple[int, ...], training: bool = True) -> Layer:
    text = f'type: "MarginInnerProduct" top: "y" top: "lambda" margin_inner_product_param {{ {settings} }}'
    return layer(text, shapes, training=training).double()


def sign(x: float) -> float:
    return float(bool(x > 0) - bool(x < 0))


def factors(kind: str, c: float, length: float) -> tuple[float, float, float]:
    """psi, and the fork's factors of w and of x in the gradient, before it divides them by their length."""
    s0 = sign(c)
    if kind == "DOUBLE":
        return 2 * s0 * c**2 - 1, 4 * s0 * c, -(2 * s0 * c**2 + 1) / length
    if kind == "TRIPLE":
        s1 = sign(abs(c) - 0.5)
        s2 = s0 * (1 + s1) - 2
        return s1 * (4 * c**3 - 3 * c) + s2, s1 * (12 * c**2 - 3), -(8 * s1 * c**3 - s2) / length
    s3 = s0 * sign(2 * c**2 - 1)
    s4 = 2 * s0 + s3 - 3
    of_x = s3 * (24 * c**4 - 8 * c**2 - 1) - s4
    return s3 * (8 * c**4 - 8 * c**2 + 1) + s4, s3 * (32 * c**3 - 16 * c), -of_x / length


def naive(
    kind: str, strength: float, x: Array, labels: Array, weight: Array, gradient: Array
) -> tuple[Array, Array, Array, Array]:
    """Scores of the items (M, K), the weights that are then stored, and the gradients of items and weights."""
    unit = np.array([row / math.sqrt(sum(v * v for v in row)) for row in weight])
    scores, of_x, of_w = np.zeros(gradient.shape), np.zeros(x.shape), np.zeros(weight.shape)
    for i, j in np.ndindex(*scores.shape):
        plain = scores[i, j] = sum(x[i] * unit[j])
        of_w[j] += gradient[i, j] * x[i]
        if j != int(labels[i]) or kind == "SINGLE":
            of_x[i] += gradient[i, j] * unit[j]
            continue
        length = math.sqrt(sum(x[i] ** 2))
        psi, a, b = factors(kind, plain / length, length)
        scores[i, j] = (length * psi + strength * plain) / (1 + strength)
        direction = (a * unit[j] + b * x[i]) / math.sqrt(a * a + b * b)
        of_x[i] += gradient[i, j] * (direction + strength * unit[j]) / (1 + strength)
    return scores, unit, of_x, of_w


def strength(passes: int) -> float:
    return max(10 * (1 + 0.5 * passes) ** -2, 0.4)


def randoms(*shapes: tuple[int, ...]) -> list[Array]:
    random = np.random.RandomState(0)
    return [random.randn(*shape) for shape in shapes]


def passed(made: Layer, x: Array, labels: Array, gradient: Array) -> tuple[Tensor, Tensor, Array]:
    """Scores, lambda and the gradient of x; that of the weights adds up."""
    leaf = torch.from_numpy(x).to(made.weight.dtype).requires_grad_()
    scores, lambda_ = made(leaf, torch.from_numpy(labels))
    scores.backward(torch.from_numpy(gradient).to(scores.dtype))
    assert leaf.grad is not None
    return scores.detach(), lambda_, leaf.grad.numpy()


@pytest.mark.parametrize("training", [True, False], ids=["train", "test"])
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("settings, shape, labelled", CASES)
def test_passes_equal_their_definition(
    settings: str, shape: tuple[int, ...], labelled: tuple[int, ...], kind: str, training: bool
) -> None:
    made = margin(f"{SETTINGS} type: {kind} {settings}", shape, labelled, training=training)
    weight = made.weight.detach().numpy().copy() - 1  # of both signs
    made.weight.data.copy_(torch.from_numpy(weight))
    labels = np.random.RandomState(1).randint(5, size=labelled).astype(np.float64)
    items, added = labels.size, np.zeros(weight.shape)
    for number in range(1, 5):
        x, gradient = randoms(shape, (*shape[: 2 if settings == "axis: 2" else 1], 5))
        scores, lambda_, of_x = passed(made, x, labels, gradient)
        expected = naive(
            kind, strength(number), x.reshape(items, -1), labels.ravel(), weight, gradient.reshape(items, -1)
        )
        assert lambda_.tolist() == [pytest.approx(strength(number), rel=1e-6)]
        assert scores.shape == gradient.shape
        np.testing.assert_allclose(scores.reshape(items, -1), expected[0], rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(made.weight.detach(), expected[1], rtol=1e-12)
        np.testing.assert_allclose(of_x.reshape(items, -1), expected[2], rtol=1e-6, atol=1e-9)
        added += expected[3]
        assert made.weight.grad is not None
        np.testing.assert_allclose(made.weight.grad, added, rtol=1e-9, atol=1e-12)
        with torch.no_grad():
            made.weight.mul_(number)  # a solver's step, say
        weight = made.weight.detach().numpy().copy()


@pytest.mark.parametrize("m, kind", list(enumerate(TYPES, 1)))
def test_the_labels_score_follows_the_multiple_of_the_angle(m: int, kind: str) -> None:
    angles = np.linspace(0, np.pi, 25)  # also the borders of the parts
    x = 3 * np.stack((np.cos(angles), np.sin(angles)), 1)
    made = margin(f"num_output: 1 base: 0 type: {kind}", x.shape, (25,))
    made.weight.data.copy_(torch.tensor([[2.0, 0.0]]))
    part = np.minimum(np.floor(angles * m / np.pi + 1e-9), m - 1)
    scores, _ = made(torch.from_numpy(x), torch.zeros(25))
    np.testing.assert_allclose(scores.detach()[:, 0], 3 * ((-1) ** part * np.cos(m * angles) - 2 * part), atol=1e-12)


@pytest.mark.parametrize("kind", TYPES)
def test_float32_is_as_exact_as_it_can_be(kind: str) -> None:
    x, gradient, labels = *randoms((20, 30), (20, 5)), np.arange(20.0) % 5
    wide = margin(f"{SETTINGS} type: {kind}", x.shape, (20,))
    narrow = margin(f"{SETTINGS} type: {kind}", x.shape, (20,)).float()
    for a, b in zip(passed(narrow, x, labels, gradient), passed(wide, x, labels, gradient), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_the_passes_are_counted_from_iteration_and_not_stored() -> None:
    made = margin(f"{SETTINGS} iteration: 1", (2, 3), (2,))
    assert list(made.state_dict()) == ["weight"]
    found = [made(torch.rand(2, 3).double(), torch.zeros(2))[1].item() for _ in range(9)]
    assert found == pytest.approx([strength(number) for number in range(2, 11)], rel=1e-6)


def test_lambda_of_half_precision_counts_as_far_as_others() -> None:
    made = margin("num_output: 5 base: 1000 gamma: 0.12 iteration: 100000", (2, 3), (2,)).half()
    assert made(torch.rand(2, 3).half(), torch.zeros(2))[1].item() == pytest.approx(1000 / 12001.12, rel=1e-3)


def test_a_pass_may_come_before_the_backward_of_the_last() -> None:
    x, gradient = randoms((4, 3), (4, 5))
    labels = torch.zeros(4)
    made = margin(f"{SETTINGS} type: DOUBLE", x.shape, (4,))
    leaf = torch.from_numpy(x).requires_grad_()
    first, _ = made(leaf, labels)
    made(leaf, labels)
    first.backward(torch.from_numpy(gradient))
    expected = naive("DOUBLE", strength(1), x, labels.numpy(), made.weight.detach().numpy(), gradient)
    np.testing.assert_allclose(leaf.grad, expected[2], rtol=1e-6)


def test_an_item_of_zeros_has_no_score_for_its_label() -> None:
    scores, _ = margin(f"{SETTINGS} type: TRIPLE", (1, 3), (1,))(torch.zeros(1, 3).double(), torch.tensor([1.0]))
    assert scores.isnan().tolist() == [[False, True, False, False, False]]


def test_it_compiles_to_one_graph() -> None:
    x, labels = torch.rand(4, 3).double(), torch.arange(4.0)
    plain, compiled = (margin(f"{SETTINGS} type: QUADRUPLE", (4, 3), (4,)) for _ in range(2))
    run = torch.compile(compiled, fullgraph=True, backend="eager")
    for _ in range(3):
        torch.testing.assert_close(run(x, labels), plain(x, labels))
    torch.testing.assert_close(compiled.weight, plain.weight)


@pytest.mark.parametrize(
    "settings, shapes, reason",
    [
        ("", [(4, 3), (4,)], "num_output 0"),
        ("num_output: 5", [(4, 3), (3,)], "equal first dimensions"),
        ("num_output: 5", [(4, 3), (4, 2)], "4 labels, one for each item"),
        ("num_output: 5 axis: 2", [(4, 2, 3), (4,)], "8 labels"),
        ("num_output: 5", [(4, 3, 1, 1, 1), (4,)], "at most 4 axes"),
        ("num_output: 5 axis: 3", [(4, 3), (4,)], "axis is 3"),
    ],
)
def test_impossible_margins_are_refused(settings: str, shapes: list[tuple[int, ...]], reason: str) -> None:
    with pytest.raises(LayerError, match=reason):
        margin(settings, *shapes)


def test_items_of_another_size_are_refused() -> None:
    with pytest.raises(LayerError, match=r"\(MarginInnerProduct\) takes 3 values an item and was given 6"):
        margin("num_output: 5", (4, 3), (4,))(torch.rand(2, 6).double(), torch.zeros(2))


@pytest.mark.parametrize("label", [-1.0, 5.0])
def test_a_label_out_of_range_is_named(label: float) -> None:
    made = margin(f"{SETTINGS} type: QUADRUPLE", (2, 3), (2,))
    with pytest.raises(LayerError, match=rf"found the label {label:g} at \(1,\); .* expected 0 to 4"):
        made(torch.randn(2, 3, dtype=torch.float64), torch.tensor([4.0, label]))
