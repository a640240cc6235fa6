"""SPP against its definition: windows laid side by side over the padded plane."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from caffe2torch.layers.spp import SPP

from .messages import layer


def naive(x: np.ndarray, height: int, method: str) -> np.ndarray:
    """Window by window. AVE divides by the part of the window that lies in the plane and its padding."""
    parts = []
    for level in range(height):
        bins = 2**level
        kernel = [math.ceil(size / bins) for size in x.shape[2:]]
        pad = [(k * bins - size + 1) // 2 for k, size in zip(kernel, x.shape[2:], strict=True)]
        pooled = np.zeros((*x.shape[:2], bins, bins))
        for row, column in np.ndindex(bins, bins):
            start = [row * kernel[0] - pad[0], column * kernel[1] - pad[1]]
            end = [min(s + k, size + p) for s, k, size, p in zip(start, kernel, x.shape[2:], pad, strict=True)]
            window = x[:, :, max(start[0], 0) : end[0], max(start[1], 0) : end[1]]
            area = (end[0] - start[0]) * (end[1] - start[1])
            pooled[:, :, row, column] = window.max((2, 3)) if method == "MAX" else window.sum((2, 3)) / area
        parts.append(pooled.reshape(len(x), -1))
    return np.concatenate(parts, 1)


@pytest.mark.parametrize("method", ["MAX", "AVE"])
@pytest.mark.parametrize("plane, height", [((6, 5), 2), ((8, 8), 2), ((8, 8), 3), ((7, 12), 3), ((16, 9), 3)])
def test_spp_equals_its_definition(method: str, plane: tuple[int, int], height: int) -> None:
    x = torch.randn(2, 3, *plane, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    made = layer(f'type: "SPP" spp_param {{ pyramid_height: {height} pool: {method} }}', [tuple(x.shape)])
    np.testing.assert_allclose(made(x).numpy(), naive(x.numpy(), height, method), rtol=1e-12, atol=1e-15)


def test_a_pyramid_of_height_1_keeps_four_axes() -> None:
    assert SPP(1, (6, 5))(torch.rand(2, 3, 6, 5)).shape == (2, 3, 1, 1)


def test_spp_takes_planes_of_another_size() -> None:
    x = torch.randn(2, 3, 9, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    np.testing.assert_allclose(SPP(3, (8, 8))(x).numpy(), naive(x.numpy(), 3, "MAX"))
