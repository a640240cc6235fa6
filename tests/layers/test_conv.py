"""Convolution where torch has no function for it, against the definition."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from caffe2torch.errors import LayerError

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


@pytest.mark.parametrize(
    "shape, settings, stride, pad",
    [
        ((2, 3, 4, 5), "num_output: 2 kernel_size: 5 stride: 2", 2, 0),
        ((1, 2, 2), "num_output: 2 kernel_size: 3 stride: 2", 2, 0),
        ((2, 2, 3, 3, 3), "num_output: 4 kernel_size: 3 dilation: 3 stride: 3 pad: 1 group: 2", 3, 1),
    ],
)
def test_a_kernel_reaches_beyond_the_padding_by_less_than_a_stride(
    shape: tuple[int, ...], settings: str, stride: int, pad: int
) -> None:
    """Caffe's (size + 2 pad - extent) / stride + 1 is 1 there: whole numbers are rounded towards 0."""
    made = layer(f'type: "Convolution" convolution_param {{ {settings} }}', [shape]).double()
    x = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weight, bias = (blob.detach().numpy() for _, blob in made.blob_items())
    dilation, group = (3, 2) if "dilation" in settings else (1, 1)
    extent = dilation * (weight.shape[2] - 1) + 1
    lacks = [(0, max(0, extent - size - 2 * pad)) for size in shape[2:]]
    assert any(lack for _, lack in lacks)
    expected = naive(np.pad(x.numpy(), [(0, 0), (0, 0), *lacks]), weight, bias, stride, pad, dilation, group)
    assert set(expected.shape[2:]) == {1}
    with torch.no_grad():
        np.testing.assert_allclose(made(x).numpy(), expected, rtol=1e-12)


def test_a_kernel_that_lacks_a_whole_stride_is_refused() -> None:
    with pytest.raises(LayerError, match=r"the kernel covers 5 values .* has 3 \+ 2 x 0 padding"):
        layer('type: "Convolution" convolution_param { num_output: 1 kernel_size: 5 stride: 2 }', [(1, 1, 3, 4)])
