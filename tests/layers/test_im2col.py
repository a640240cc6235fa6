"""Im2col against its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from .messages import layer


def naive(
    x: np.ndarray, kernel: tuple[int, ...], stride: tuple[int, ...], pad: tuple[int, ...], dilation: tuple[int, ...]
) -> np.ndarray:
    """x (N, C, *size): channel c, place i of the kernel -> channel c * (number of places) + i."""
    x = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in pad)])
    windows = [(n - d * (k - 1) - 1) // s + 1 for n, d, k, s in zip(x.shape[2:], dilation, kernel, stride, strict=True)]
    y = np.zeros((len(x), x.shape[1] * int(np.prod(kernel)), *windows))
    for n, c in np.ndindex(*x.shape[:2]):
        for index, cell in enumerate(np.ndindex(*kernel)):
            for place in np.ndindex(*windows):
                at = tuple(p * s + k * d for p, s, k, d in zip(place, stride, cell, dilation, strict=True))
                y[(n, c * int(np.prod(kernel)) + index, *place)] = x[(n, c, *at)]
    return y


@pytest.mark.parametrize(
    "settings, shape, given",
    [
        ("kernel_size: 3", (2, 3, 7), ((3,), (1,), (0,), (1,))),
        ("kernel_size: 3 stride: 2 pad: 1", (2, 3, 7, 6), ((3, 3), (2, 2), (1, 1), (1, 1))),
        (
            "kernel_h: 2 kernel_w: 3 stride_h: 3 stride_w: 1 pad_h: 0 pad_w: 2 dilation: [3, 1]",
            (1, 2, 7, 6),
            ((2, 3), (3, 1), (0, 2), (3, 1)),
        ),
        ("kernel_size: 2 force_nd_im2col: true pad: 3", (1, 2, 3, 3), ((2, 2), (1, 1), (3, 3), (1, 1))),
        ("kernel_size: [2, 1, 3] stride: 2", (1, 2, 4, 3, 5), ((2, 1, 3), (2,) * 3, (0,) * 3, (1,) * 3)),
    ],
)
def test_im2col_equals_its_definition(
    settings: str,
    shape: tuple[int, ...],
    given: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]],
) -> None:
    x = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    found = layer(f'type: "Im2col" convolution_param {{ {settings} }}', [shape])(x)
    np.testing.assert_array_equal(found.numpy(), naive(x.numpy(), *given).astype(np.float32))


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize(
    "settings, kernel, stride, pad",
    [("kernel_size: 5 stride: 2", 5, 2, 0), ("kernel_size: 9 stride: 4 pad: 1", 9, 4, 1)],
)
def test_a_kernel_reaches_beyond_the_padding_by_less_than_a_stride(
    settings: str, kernel: int, stride: int, pad: int, gradient: bool
) -> None:
    """Caffe's (size + 2 pad - kernel) / stride + 1 is 1 there: whole numbers are rounded towards 0."""
    size = kernel - 2 * pad - stride + 1
    x = torch.rand(2, 3, size, size + 1, generator=torch.Generator().manual_seed(1)).requires_grad_(gradient)
    wide = np.pad(x.detach().numpy(), [(0, 0), (0, 0), (0, stride - 1), (0, stride - 2)])
    expected = naive(wide, (kernel,) * 2, (stride,) * 2, (pad,) * 2, (1, 1)).astype(np.float32)
    assert expected.shape[2:] == (1, 1)
    found = layer(f'type: "Im2col" convolution_param {{ {settings} }}', [tuple(x.shape)])(x)
    np.testing.assert_array_equal(found.detach().numpy(), expected)
    if gradient:
        found.sum().backward()
        assert x.grad is not None
        assert (x.grad == 1).all()


def test_axes_before_the_channel_axis_are_batch_axes() -> None:
    x = torch.rand(2, 3, 2, 4, 5, generator=torch.Generator().manual_seed(1))
    found = layer('type: "Im2col" convolution_param { kernel_size: 2 axis: -3 }', [tuple(x.shape)])(x)
    expected = naive(x.flatten(0, 1).numpy(), (2, 2), (1, 1), (0, 0), (1, 1)).astype(np.float32)
    np.testing.assert_array_equal(found.flatten(0, 1).numpy(), expected)


def test_overlapping_windows_add_up_their_gradients() -> None:
    x = torch.zeros(1, 1, 4, requires_grad=True)
    layer('type: "Im2col" convolution_param { kernel_size: 2 }', [(1, 1, 4)])(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[[1, 2, 2, 1]]]
