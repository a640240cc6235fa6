"""FocalLoss against loops over the forks' rule."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from caffe2torch.errors import LayerError
from caffe2torch.layers.registry import Layer

from .messages import layer

Array = NDArray[Any]
FLT_MIN = 2.0**-126
ALPHA = "focal_loss_param { alpha: 1 }"


def focal(settings: str, *shapes: tuple[int, ...]) -> Layer:
    return layer(f'type: "FocalLoss" {settings}', shapes)


def naive(x: Array, labels: Array, alpha: float, gamma: float, ignored: int | None) -> tuple[float, Array, int]:
    """The sum of the losses of scores (outer, C, inner), its gradient, and how many labels count."""
    loss, gradient, count = 0.0, np.zeros(x.shape), 0
    outer, classes, inner = x.shape
    for i, j in np.ndindex(outer, inner):
        label = int(labels[i, j])
        if label == ignored:
            continue
        exponentials = [math.exp(v - max(x[i, :, j])) for v in x[i, :, j]]
        p = [v / sum(exponentials) for v in exponentials]
        own = p[label]
        log_own = math.log(max(own, FLT_MIN))
        loss -= alpha * (1 - own) ** gamma * log_own
        # of the loss by log p, then of log p by the scores
        by_log = -gamma * alpha * (1 - own) ** gamma / max(1 - own, 1e-10) * log_own * own + alpha * (1 - own) ** gamma
        for c in range(classes):
            gradient[i, c, j] = by_log * (p[c] - (c == label))
        count += 1
    return loss, gradient, count


def check(settings: str, shape: tuple[int, ...], x: Array, labels: Array, expected: tuple[float, Array]) -> None:
    made = focal(settings, shape, labels.shape).double()
    leaf = torch.from_numpy(x.reshape(shape)).requires_grad_()
    top = made(leaf, torch.from_numpy(labels).double())
    top = top[0] if isinstance(top, tuple) else top
    assert top.shape == ()
    assert top.item() == pytest.approx(expected[0], rel=1e-12)
    (3 * top).backward()
    assert leaf.grad is not None
    np.testing.assert_allclose(leaf.grad.reshape(x.shape), 3 * expected[1], rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize(
    "param, alpha, gamma",
    [("alpha: 0.25", 0.25, 2.0), ("alpha: 1.5 gamma: 0.5", 1.5, 0.5), ("alpha: 1 gamma: 0", 1, 0)],
)
@pytest.mark.parametrize(
    "loss_param, ignored, divisor",
    [
        ("", None, "valid"),
        ("ignore_label: 1", 1, "valid"),
        ("ignore_label: -1 normalize: false", -1, "outer"),
        ("ignore_label: 1 normalization: FULL normalize: false", 1, "all"),
        ("normalization: NONE", None, "one"),
    ],
)
@pytest.mark.parametrize(
    "shape, labelled, axis",
    [((5, 4), (5,), 1), ((3, 4, 2, 3), (3, 1, 2, 3), 1), ((2, 3, 4), (2, 3), -1), ((1, 4), (1,), 1)],
)
def test_the_loss_and_its_gradient_are_the_definitions(
    param: str,
    alpha: float,
    gamma: float,
    loss_param: str,
    ignored: int | None,
    divisor: str,
    shape: tuple[int, ...],
    labelled: tuple[int, ...],
    axis: int,
) -> None:
    random = np.random.RandomState(len(shape))
    outer, inner = math.prod(shape[:axis]), math.prod(shape[axis:][1:])
    x = 3 * random.randn(outer, 4, inner)
    labels = random.randint(4, size=labelled)
    loss, gradient, count = naive(x, labels.reshape(outer, inner), alpha, gamma, ignored)
    share = max({"valid": count, "outer": outer, "all": outer * inner, "one": 1}[divisor], 1)
    settings = f"loss_param {{ {loss_param} }} focal_loss_param {{ {param} }} softmax_param {{ axis: {axis} }}"
    check(settings, shape, x, labels, (loss / share, gradient / share))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("label, scores", [(0, (900.0, 0.0)), (1, (900.0, 0.0)), (1, (95.0, 0.0)), (0, (40.0, 0.0))])
def test_certain_labels_right_and_wrong(label: int, scores: tuple[float, float], gamma: float) -> None:
    x = np.array(scores).reshape(1, 2, 1)
    labels = np.array([[label]])
    loss, gradient, _ = naive(x, labels, 1.0, gamma, None)
    assert np.isfinite(gradient).all()
    check(f"focal_loss_param {{ alpha: 1 gamma: {gamma} }}", (1, 2), x, labels.reshape(1), (loss, gradient))


def test_labels_that_are_all_ignored_give_no_loss_and_no_gradient() -> None:
    x = torch.rand(3, 4).requires_grad_()
    top = focal(f"{ALPHA} loss_param {{ ignore_label: 2 }}", (3, 4), (3,))(x, torch.full((3,), 2.0))
    top.backward()
    assert top.item() == 0
    assert x.grad is not None
    assert not x.grad.any()


def test_the_second_top_is_the_probabilities_without_a_gradient() -> None:
    x = torch.randn(3, 4, 5).requires_grad_()
    loss, found = focal(f'top: "a" top: "b" {ALPHA}', (3, 4, 5), (3, 5))(x, torch.zeros(3, 5))
    assert loss.requires_grad
    assert not found.requires_grad
    torch.testing.assert_close(found, torch.softmax(x.detach(), 1))


def test_gamma_0_is_alpha_times_the_softmax_loss() -> None:
    x, labels = torch.randn(6, 4), torch.arange(6.0) % 4
    ours = focal("focal_loss_param { gamma: 0 alpha: 3 }", (6, 4), (6,))(x, labels)
    torch.testing.assert_close(ours, 3 * layer('type: "SoftmaxWithLoss"', ((6, 4), (6,)))(x, labels))


def test_a_label_out_of_range_is_refused() -> None:
    with pytest.raises(LayerError, match="1 of 2 labels are out of range: expected 0 to 3"):
        focal(ALPHA, (2, 4), (2,))(torch.rand(2, 4), torch.tensor([4.0, 0.0]))


@pytest.mark.parametrize(
    "settings, shapes, reason",
    [
        (ALPHA, [(4, 3), (4, 3)], "a label for each score: a FocalLoss of sigmoids"),
        (ALPHA, [(4, 1, 2), (4, 1, 2)], "a FocalLoss of sigmoids"),
        ("", [(4, 3), (4, 3)], "a FocalLoss of sigmoids"),
        ("", [(4, 3), (4,)], "focal_loss_param has no alpha.*give it"),
        (ALPHA, [(4, 3), (3,)], "equal first dimensions"),
        (ALPHA, [(4, 3, 2), (4,)], "need 8 labels"),
        ("focal_loss_param { type: LINEAR alpha: 1 }", [(4, 3), (4,)], "FocalLossParameter has type: 1"),
        ("focal_loss_param { beta: 2 alpha: 1 }", [(4, 3), (4,)], "FocalLossParameter has beta: 2.0"),
        ("focal_loss_param { alpha: 0 }", [(4, 3), (4,)], "alpha is 0 and gamma 2: expected alpha above 0"),
        ("focal_loss_param { alpha: 1 gamma: -1 }", [(4, 3), (4,)], "gamma -1: expected"),
        (f"{ALPHA} softmax_param {{ axis: 2 }}", [(4, 3), (4,)], "softmax_param.axis is 2"),
        (f"{ALPHA} loss_param {{ weight_by_label_freqs: true }}", [(4, 3), (4,)], "weight_by_label_freqs"),
    ],
)
def test_impossible_focal_losses_are_refused(settings: str, shapes: list[tuple[int, ...]], reason: str) -> None:
    with pytest.raises(LayerError, match=reason):
        focal(settings, *shapes)


def test_float16_has_a_loss_of_scores_that_are_sure() -> None:
    x = torch.tensor([[20.0, 0.0], [0.0, 20.0]], dtype=torch.float16, requires_grad=True)
    top = focal(ALPHA, (2, 2), (2,))(x, torch.zeros(2))
    top.backward()
    assert top.item() == 10  # of the second
    assert x.grad is not None
    torch.testing.assert_close(x.grad, torch.tensor([[0, 0], [-0.5, 0.5]], dtype=torch.float16), rtol=0, atol=1e-3)
