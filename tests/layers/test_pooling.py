"""Pooling against loops written from Caffe's rules, over many sizes, kernels, strides and pads."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from caffe2torch.errors import LayerError
from caffe2torch.layers.pooling import Pooling

FLT_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Window:
    """Pooling parameters along one axis."""

    size: int
    kernel: int
    stride: int
    pad: int


def windows(axis: Window, *, ceil: bool, padded: bool) -> list[tuple[int, int, int]] | None:
    """(first, end, divisor) of each window along one axis; None where Caffe stops with an error.

    ``padded``: either axis has padding, which is when Caffe looks at the last window again.
    """
    rounding = math.ceil if ceil else math.floor
    count = rounding((axis.size + 2 * axis.pad - axis.kernel) / axis.stride) + 1
    if padded and (count - 1) * axis.stride >= axis.size + axis.pad:
        count -= 1
    if count < 1 or (padded and (count - 1) * axis.stride >= axis.size + axis.pad):
        return None
    found = []
    for index in range(count):
        start = index * axis.stride - axis.pad
        end = min(start + axis.kernel, axis.size + axis.pad)
        found.append((max(start, 0), min(end, axis.size), end - start))
    return found


def naive(x: np.ndarray, rows: list, columns: list, method: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Output, index of the maxima, and the gradient of the sum of the output times 1, 2, 3, ..."""
    n, c = x.shape[:2]
    top = np.zeros((n, c, len(rows), len(columns)))
    mask = np.full(top.shape, -1.0)
    gradient = np.zeros(x.shape)
    weights = 1.0 + np.arange(top.size).reshape(top.shape)
    for place in np.ndindex(*top.shape):
        i, j, row, column = place
        (y0, y1, high), (x0, x1, wide) = rows[row], columns[column]
        if method == "AVE":
            total = sum(float(x[i, j, y, z]) for y in range(y0, y1) for z in range(x0, x1))
            area = high * wide
            top[place] = total / area if area else math.nan
            for y, z in itertools.product(range(y0, y1), range(x0, x1)):
                gradient[i, j, y, z] += weights[place] / area
            continue
        best = -FLT_MAX
        for y in range(y0, y1):
            for z in range(x0, x1):
                if x[i, j, y, z] > best:
                    best, mask[place] = float(x[i, j, y, z]), y * x.shape[3] + z
        top[place] = best
        if mask[place] >= 0:
            gradient[i, j].reshape(-1)[int(mask[place])] += weights[place]
    return top, mask, gradient


axes = st.builds(Window, st.integers(1, 9), st.integers(1, 5), st.integers(1, 5), st.integers(0, 4))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(axes, axes, st.sampled_from(["MAX", "AVE"]), st.booleans())
def test_pooling_follows_caffes_rules(vertical: Window, horizontal: Window, method: str, ceil: bool) -> None:
    assume(vertical.pad < vertical.kernel and horizontal.pad < horizontal.kernel)
    padded = bool(vertical.pad or horizontal.pad)
    rows = windows(vertical, ceil=ceil, padded=padded)
    columns = windows(horizontal, ceil=ceil, padded=padded)
    layer = Pooling(
        method,
        kernel=(vertical.kernel, horizontal.kernel),
        stride=(vertical.stride, horizontal.stride),
        pad=(vertical.pad, horizontal.pad),
        ceil=ceil,
        mask=method == "MAX",
    )
    if rows is None or columns is None:
        with pytest.raises(LayerError, match="no window"):
            layer.output_size(vertical.size, horizontal.size)
        return
    assert layer.output_size(vertical.size, horizontal.size) == (len(rows), len(columns))
    seed = hash((vertical, horizontal)) % 2**32
    # Few distinct values, so that windows hold equal maxima.
    x = np.random.RandomState(seed).randint(-3, 3, (2, 2, vertical.size, horizontal.size)).astype(np.float32)
    top, mask, gradient = naive(x, rows, columns, method)
    bottom = torch.from_numpy(x).requires_grad_()
    result = layer(bottom)
    found = result[0] if isinstance(result, tuple) else result
    np.testing.assert_allclose(found.detach().numpy(), top, rtol=1e-5, atol=1e-6)
    if isinstance(result, tuple):
        np.testing.assert_array_equal(result[1].numpy(), mask)
    (found * (1.0 + torch.arange(found.numel()).reshape(found.shape))).sum().backward()
    assert bottom.grad is not None
    np.testing.assert_allclose(bottom.grad.numpy(), gradient, rtol=1e-5, atol=1e-4)
    layer.mask = False
    with torch.no_grad():  # maxima go another way where no gradient is wanted
        np.testing.assert_array_equal(layer(bottom).numpy(), found.detach().numpy())


@pytest.mark.parametrize("method", ["MAX", "AVE"])
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (7, 2)])
def test_global_pooling_covers_any_plane(method: str, size: tuple[int, int]) -> None:
    x = np.random.RandomState(0).randn(2, 3, *size).astype(np.float32)
    found = Pooling(method)(torch.from_numpy(x)).numpy()
    expected = x.max((2, 3), keepdims=True) if method == "MAX" else x.mean((2, 3), keepdims=True)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_global_max_pooling_gives_its_gradient_to_the_first_maximum() -> None:
    x = torch.tensor([[[[1.0, 3.0], [3.0, 3.0]]]], requires_grad=True)
    Pooling("MAX")(x).sum().backward()
    assert x.grad is not None
    assert x.grad.flatten().tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_padding_beyond_half_the_kernel_works_in_half_precision(dtype: torch.dtype) -> None:
    layer = Pooling("MAX", kernel=(3, 3), pad=(2, 2))
    assert layer(torch.full((1, 1, 2, 2), -7.0, dtype=dtype)).unique().tolist() == [-7.0]
