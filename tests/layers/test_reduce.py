"""Reduction and Tile against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from .messages import layer

SHAPE = (2, 3, 4)
REDUCE = {"SUM": np.sum, "ASUM": lambda v: np.abs(v).sum(), "SUMSQ": lambda v: (v**2).sum(), "MEAN": np.mean}
SLOPE = {
    "SUM": np.ones_like,
    "ASUM": np.sign,
    "SUMSQ": lambda v: 2 * v,
    "MEAN": lambda v: np.full_like(v, 1 / v.size),
}


@pytest.mark.parametrize("operation", sorted(REDUCE))
@pytest.mark.parametrize("axis", [0, 1, 2, -1])
@pytest.mark.parametrize("coeff", [1.0, -0.5])
def test_reduction_and_its_gradient_equal_their_definition(operation: str, axis: int, coeff: float) -> None:
    text = f'type: "Reduction" reduction_param {{ operation: {operation} axis: {axis} coeff: {coeff} }}'
    x = np.random.RandomState(0).randn(*SHAPE)
    x[0, 0, 0] = 0.0
    leaf = torch.from_numpy(x).requires_grad_()
    y = layer(text, [SHAPE])(leaf)
    y.sum().backward()
    kept = SHAPE[: axis % 3]
    expected, gradient = np.zeros(kept), np.zeros(SHAPE)
    for place in np.ndindex(*kept):
        expected[place] = coeff * REDUCE[operation](x[place])
        gradient[place] = coeff * SLOPE[operation](x[place])
    assert leaf.grad is not None
    np.testing.assert_allclose(y.detach().numpy(), expected, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(leaf.grad.numpy(), gradient, rtol=1e-12)


def test_the_mean_of_no_values_is_nan_as_in_caffe() -> None:
    made = layer('type: "Reduction" reduction_param { operation: MEAN }', [SHAPE])
    assert made(torch.zeros(0, *SHAPE[1:])).isnan()


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("tiles", [1, 3])
def test_tile_repeats_the_blob_and_adds_up_gradients(axis: int, tiles: int) -> None:
    x = torch.rand(2, 3, 4, requires_grad=True)
    y = layer(f'type: "Tile" tile_param {{ tiles: {tiles} axis: {axis} }}', [(2, 3, 4)])(x)
    repeats = [1, 1, 1]
    repeats[axis] = tiles
    np.testing.assert_array_equal(y.detach().numpy(), np.tile(x.detach().numpy(), repeats))
    y.sum().backward()
    assert x.grad is not None
    assert (x.grad == tiles).all()
