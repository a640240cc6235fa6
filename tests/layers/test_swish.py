"""Swish and Clip against their definitions and Caffe's gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from .messages import layer

X = np.array([-30.0, -2.5, -1.0, -0.25, 0.0, 0.5, 1.0, 2.0, 40.0])


@pytest.mark.parametrize("beta", [1.0, 2.0, -0.5, 0.0])
def test_swish_and_its_gradient_equal_their_definition(beta: float) -> None:
    made = layer(f'type: "Swish" swish_param {{ beta: {beta} }}', [(9,)])
    x = torch.from_numpy(X).requires_grad_()
    y = made(x)
    y.sum().backward()
    sigmoid = 1 / (1 + np.exp(-beta * X))
    expected = X * sigmoid
    gradient = beta * expected + sigmoid * (1 - beta * expected)
    assert x.grad is not None
    np.testing.assert_allclose(y.detach().numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(x.grad.numpy(), gradient, rtol=1e-9, atol=1e-12)
    assert made.backward_reads == {"top", "input"}
    top = torch.full_like(x, 0.25)  # what a later layer has put there
    found = made.caffe_backward(torch.ones_like(x), x.detach(), top)
    np.testing.assert_allclose(found.detach().numpy(), beta * 0.25 + sigmoid * (1 - beta * 0.25), rtol=1e-12)


def test_clip_limits_values_and_passes_the_gradient_at_the_limits() -> None:
    made = layer('type: "Clip" clip_param { min: -1 max: 2 }', [(9,)])
    x = torch.from_numpy(X).requires_grad_()
    y = made(x)
    y.sum().backward()
    assert x.grad is not None
    assert y.tolist() == [-1, -1, -1, -0.25, 0, 0.5, 1, 2, 2]
    assert x.grad.tolist() == [0, 0, 1, 1, 1, 1, 1, 1, 0]
    assert made.caffe_backward(torch.ones(9), x.detach(), y.detach()).tolist() == x.grad.tolist()


def test_clip_with_the_limits_exchanged_gives_the_lower_one_as_caffe_does() -> None:
    made = layer('type: "Clip" clip_param { min: 2 max: -1 }', [(9,)])
    assert (made(torch.from_numpy(X)) == 2).all()
