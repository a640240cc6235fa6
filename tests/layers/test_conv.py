"""Convolution over numbers of axes that torch has no function for, against the definition."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from .messages import layer


def naive(x: np.ndarray, w: np.ndarray, b: np.ndarray, stride: int, pad: int, dilation: int, group: int) -> np.ndarray:
    """x (N, C, *size), w (O, C / group, *kernel), the same settings on every axis."""
    axes = w.ndim - 2
    x = np.pad(x, [(0, 0), (0, 0)] + [(pad, pad)] * axes)
    size = [(s - dilation * (k - 1) - 1) // stride + 1 for s, k in zip(x.shape[2:], w.shape[2:], strict=True)]
    y = np.zeros((len(x), len(w), *size))
    outs, ins = len(w) // group, w.shape[1]
    for n, o in itertools.product(range(len(x)), range(len(w))):
        g = o // outs
        for place in itertools.product(*map(range, size)):
            starts = [p * stride for p in place]
            window = tuple(slice(s, s + dilation * k, dilation) for s, k in zip(starts, w.shape[2:], strict=True))
            y[(n, o, *place)] = (x[(n, slice(g * ins, (g + 1) * ins), *window)] * w[o]).sum() + b[o]
    return y


@pytest.mark.parametrize(
    "settings, shape, given",
    [
        ("num_output: 4 group: 2", (3, 6), (1, 0, 1, 2)),
        ("num_output: 4 kernel_size: 3", (3, 6), (1, 0, 1, 1)),
        ("num_output: 2 kernel_size: 2 stride: 2 pad: 1", (2, 2, 3, 4, 3, 5), (2, 1, 1, 1)),
        ("num_output: 2 kernel_size: [2, 1, 2, 2] dilation: 2 group: 2", (1, 2, 4, 3, 5, 4), (1, 0, 2, 2)),
    ],
)
def test_convolution_over_no_axis_and_over_four(
    settings: str, shape: tuple[int, ...], given: tuple[int, int, int, int]
) -> None:
    made = layer(f'type: "Convolution" convolution_param {{ {settings} }}', [shape]).double()
    x = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weight, bias = (blob.detach().numpy() for _, blob in made.blob_items())
    expected = naive(x.numpy(), weight, bias, *given)
    with torch.no_grad():
        np.testing.assert_allclose(made(x).numpy(), expected, rtol=1e-12)
