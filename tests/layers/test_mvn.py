"""MVN against its definition, and its gradient against Caffe's formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from caffe2torch.layers.mvn import MVN

from .messages import layer, message


def groups(x: np.ndarray, across: bool) -> np.ndarray:
    """One row for all the values that share a mean."""
    return x.reshape(len(x) if across else len(x) * x.shape[1], -1)


def naive(x: np.ndarray, eps: float, *, across: bool, variance: bool) -> np.ndarray:
    y = groups(x, across).copy()
    for row in y:
        row -= row.mean()
        if variance:
            row /= np.sqrt((row**2).mean()) + eps
    return y.reshape(*x.shape, *(1,) * (4 - x.ndim))  # Caffe's top always has four axes


def naive_gradient(x: np.ndarray, g: np.ndarray, eps: float, *, across: bool, variance: bool) -> np.ndarray:
    """(dy - (sum(dy) + y sum(y dy)) / count) / (deviation + eps), as Caffe's backward computes it."""
    result = np.zeros_like(groups(x, across))
    y = groups(naive(x, eps, across=across, variance=variance), across)
    for row, dy, top, values in zip(result, groups(g, across), y, groups(x, across), strict=True):
        if variance:
            row[:] = (dy - (dy.sum() + top * (top * dy).sum()) / len(row)) / (values.std() + eps)
        else:
            row[:] = dy - dy.mean()
    return result.reshape(x.shape)


@pytest.mark.parametrize("across", [False, True], ids=["planes", "items"])
@pytest.mark.parametrize("variance", [False, True], ids=["mean", "variance"])
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (3, 2, 6), (3, 5), (4, 1)])
def test_mvn_and_its_gradient_equal_caffes_formula(across: bool, variance: bool, shape: tuple[int, ...]) -> None:
    made = MVN(normalize_variance=variance, across_channels=across, eps=0.5)
    random = np.random.RandomState(0)
    x, g = random.randn(*shape) * 3 + 1, random.randn(*shape)
    leaf = torch.from_numpy(x).requires_grad_()
    y = made(leaf)
    y.backward(torch.from_numpy(g).reshape(y.shape))
    kind = {"across": across, "variance": variance}
    np.testing.assert_allclose(y.detach().numpy(), naive(x, 0.5, **kind), rtol=1e-12, atol=1e-14)
    assert leaf.grad is not None
    np.testing.assert_allclose(leaf.grad.numpy(), naive_gradient(x, g, 0.5, **kind), rtol=1e-10, atol=1e-14)


def test_equal_values_give_zeros_and_a_finite_gradient() -> None:
    x = torch.ones(1, 1, 2, 2, requires_grad=True)
    y = MVN()(x)
    y.backward(torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]]))
    assert y.tolist() == [[[[0, 0], [0, 0]]]]
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.flatten().numpy(), np.array([0.75, -0.25, -0.25, -0.25]) * 1e9, rtol=1e-6)


def test_caffes_backward_reads_the_top_that_a_later_layer_has_overwritten() -> None:
    made = layer('type: "MVN"', [(2, 3, 4, 5)])
    assert made.backward_reads == {"top", "input"}
    random = np.random.RandomState(0)
    x, g = random.randn(2, 3, 4, 5), random.randn(2, 3, 4, 5)
    y = naive(x, 1e-9, across=False, variance=True)
    found = made.caffe_backward(*(torch.from_numpy(a) for a in (g, x, y)))
    np.testing.assert_allclose(found.numpy(), naive_gradient(x, g, 1e-9, across=False, variance=True), rtol=1e-10)


def test_the_message_sets_everything() -> None:
    text = 'type: "MVN" mvn_param { normalize_variance: false across_channels: true eps: 0.25 }'
    made = MVN.from_caffe(message(text), [(2, 3)])
    assert (made.normalize_variance, made.across_channels, made.eps) == (False, True, 0.25)
