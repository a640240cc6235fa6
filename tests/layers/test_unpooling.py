"""DeconvNet's Unpooling against a loop over every value."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from caffe2torch.errors import LayerError

from .messages import layer

SHAPES = [(2, 3, 2, 4)] * 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", ["unpool_size: 5", "unpool_h: 3 unpool_w: 7"])
def test_values_go_to_the_places_of_the_mask(size: str, dtype: type) -> None:
    random = np.random.RandomState(0)
    height, width = (5, 5) if "size" in size else (3, 7)
    x, mask = random.randn(*SHAPES[0]).astype(dtype), random.randint(height * width, size=SHAPES[0])
    mask[0, 0, 0, 1] = mask[0, 0, 0, 0]  # the last of two stands there
    expected = np.zeros((2, 3, height, width), dtype)
    for n, c, i, j in np.ndindex(*x.shape):
        expected[n, c, mask[n, c, i, j] // width, mask[n, c, i, j] % width] = x[n, c, i, j]
    above = random.randn(*expected.shape).astype(dtype)
    gradient = np.zeros_like(x)
    for n, c, i, j in np.ndindex(*x.shape):
        gradient[n, c, i, j] = above[n, c, mask[n, c, i, j] // width, mask[n, c, i, j] % width]
    made = layer(f'type: "Unpooling" unpooling_param {{ unpool: MAX kernel_size: 2 stride: 2 {size} }}', SHAPES)
    leaf = torch.from_numpy(x).requires_grad_()
    top = made(leaf, torch.from_numpy(mask.astype(dtype)))
    np.testing.assert_array_equal(top.detach().numpy(), expected)
    top.backward(torch.from_numpy(above))
    assert leaf.grad is not None
    np.testing.assert_array_equal(leaf.grad.numpy(), gradient)


def test_it_undoes_max_pooling() -> None:
    x = torch.rand(1, 2, 6, 4) + 1
    pooling = layer('type: "Pooling" top: "a" top: "m" pooling_param { kernel_size: 2 stride: 2 }', [tuple(x.shape)])
    values, mask = pooling(x)
    made = layer(
        'type: "Unpooling" unpooling_param { kernel_h: 2 kernel_w: 2 unpool_h: 6 unpool_w: 4 }', [(1, 2, 3, 2)] * 2
    )
    top = made(values, mask)
    assert torch.equal(top[top != 0], x[top != 0])
    assert torch.equal(pooling(top)[0], values)


def test_a_place_outside_the_plane_is_refused() -> None:
    made = layer('type: "Unpooling" unpooling_param { kernel_size: 2 unpool_size: 2 }', [(1, 1, 1, 1)] * 2)
    with pytest.raises(LayerError, match="expected 0 to 3, those of a plane of 2 x 2"):
        made(torch.ones(1, 1, 1, 1), torch.full((1, 1, 1, 1), 4.0))


@pytest.mark.parametrize(
    "settings, reason",
    [
        ("unpool_size: 4", "gives no kernel_size"),
        ("kernel_size: 2", "gives no unpool_size"),
        ("kernel_size: 2 unpool_h: 4", "gives unpool_h 4: expected unpool_size alone, or both unpool_h and unpool_w"),
        ("kernel_size: 2 kernel_h: 2 kernel_w: 2 unpool_size: 4", "kernel_size 2 and kernel_h 2 and kernel_w 2"),
        ("kernel_size: 0 unpool_size: 4", "gives kernel_size 0"),
        ("kernel_size: 2 unpool_size: 0", "gives unpool_size 0"),
        ("kernel_size: 2 unpool_size: 4 pad: 1", "has padding"),
        ("kernel_size: 2 unpool_size: 4 stride_h: 2", "expected stride alone"),
        ("kernel_size: 2 unpool_size: 4 unpool: AVE", "unpool is AVE: only MAX"),
        ("kernel_size: 2 unpool_size: 4 unpool: TILE", "unpool is TILE: only MAX"),
    ],
)
def test_other_settings_are_refused(settings: str, reason: str) -> None:
    with pytest.raises(LayerError, match=reason):
        layer(f'type: "Unpooling" unpooling_param {{ {settings} }}', SHAPES)


def test_a_mask_of_another_shape_is_refused() -> None:
    with pytest.raises(LayerError, match="expected values and mask"):
        layer('type: "Unpooling" unpooling_param { kernel_size: 2 unpool_size: 4 }', [(2, 3, 2, 4), (2, 3, 2, 5)])
