"""Deconvolution against its definition: every input value adds a scaled kernel to the output."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from .messages import layer


def naive(
    x: np.ndarray,
    w: np.ndarray,
    b: np.ndarray,
    stride: tuple[int, ...],
    pad: tuple[int, ...],
    dilation: tuple[int, ...],
    group: int,
) -> np.ndarray:
    """x (N, C, *size), w (C, O / group, *kernel)."""
    size, kernel, outs, ins = x.shape[2:], w.shape[2:], w.shape[1], w.shape[0] // group
    whole = [s * (n - 1) + d * (k - 1) + 1 for s, n, d, k in zip(stride, size, dilation, kernel, strict=True)]
    y = np.zeros((len(x), outs * group, *whole))
    for n, c, o in itertools.product(range(len(x)), range(len(w)), range(outs)):
        for place, cell in itertools.product(np.ndindex(*size), np.ndindex(*kernel)):
            at = tuple(p * s + k * d for p, s, k, d in zip(place, stride, cell, dilation, strict=True))
            y[(n, c // ins * outs + o, *at)] += x[(n, c, *place)] * w[(c, o, *cell)]
    inner = tuple(slice(p, n - p) for p, n in zip(pad, whole, strict=True))
    return y[(slice(None), slice(None), *inner)] + b.reshape(-1, *(1,) * len(size))


@pytest.mark.parametrize(
    "settings, shape, given",
    [
        ("num_output: 4 group: 2", (3, 6), ((), (), (), 2)),
        ("num_output: 2 kernel_size: 3 stride: 2 pad: 2", (2, 3, 5), ((2,), (2,), (1,), 1)),
        ("num_output: 4 kernel_size: 3 stride: 3 dilation: 2 group: 2", (2, 6, 3, 2), ((3, 3), (0, 0), (2, 2), 2)),
        (
            "num_output: 3 kernel_h: 1 kernel_w: 4 stride_h: 4 stride_w: 1 pad_h: 2 pad_w: 1",
            (1, 2, 4, 5),
            ((4, 1), (2, 1), (1, 1), 1),
        ),
        (
            "num_output: 2 kernel_size: [2, 1, 3] dilation: [2, 1, 1]",
            (1, 2, 2, 3, 2),
            ((1,) * 3, (0,) * 3, (2, 1, 1), 1),
        ),
        ("num_output: 2 kernel_size: 2 stride: 2 pad: 1", (2, 2, 3, 2, 3, 2), ((2,) * 4, (1,) * 4, (1,) * 4, 1)),
        (
            "num_output: 2 kernel_size: [2, 1, 2, 2] stride: [1, 2, 1, 3] dilation: 2 group: 2",
            (1, 2, 2, 3, 2, 2),
            ((1, 2, 1, 3), (0,) * 4, (2,) * 4, 2),
        ),
    ],
)
def test_deconvolution_equals_its_definition(
    settings: str, shape: tuple[int, ...], given: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], int]
) -> None:
    made = layer(f'type: "Deconvolution" convolution_param {{ {settings} }}', [shape]).double()
    x = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weight, bias = (blob.detach().numpy() for _, blob in made.blob_items())
    with torch.no_grad():
        np.testing.assert_allclose(made(x).numpy(), naive(x.numpy(), weight, bias, *given), rtol=1e-12)


def test_deconvolution_from_a_later_axis_treats_those_before_as_batch() -> None:
    text = 'type: "Deconvolution" convolution_param { num_output: 2 kernel_size: 3 stride: 2 axis: 2 }'
    x = torch.rand(3, 2, 4, 3, 2, generator=torch.Generator().manual_seed(1))
    made, plain = layer(text, [tuple(x.shape)]), layer(text.replace("axis: 2", ""), [(6, 4, 3, 2)])
    with torch.no_grad():
        torch.testing.assert_close(made(x).flatten(0, 1), plain(x.flatten(0, 1)))


def test_deconvolution_over_four_axes_has_the_gradient_of_its_definition() -> None:
    text = 'type: "Deconvolution" convolution_param { num_output: 2 kernel_size: 2 stride: 2 pad: 1 bias_term: false }'
    made = layer(text, [(1, 2, 2, 2, 2, 2)]).double()
    x = torch.rand(1, 2, 2, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(made, (x,))


def test_the_filters_serve_every_bottom() -> None:
    made = layer(
        'type: "Deconvolution" top: "a" top: "b" convolution_param { num_output: 1 kernel_size: 2 }',
        [(1, 2, 3, 3), (1, 2, 3, 3)],
    )
    x = torch.rand(1, 2, 3, 3)
    a, b = made(x, x)
    assert torch.equal(a, b)
