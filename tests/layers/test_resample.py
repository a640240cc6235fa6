"""Resample, Downsample and Accum against loops over FlowNet2's kernels, and Accum against OpenCV."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from caffe2torch.errors import LayerError

from . import opencv
from .messages import layer

Array = NDArray[Any]
RNG = np.random.RandomState(0)


def away(x: float) -> int:
    """C's round."""
    return int(math.copysign(math.floor(abs(x) + 0.5), x))


def triangle(x: float) -> float:
    return max(0.0, 1 - abs(x))


def bicubic(x: float) -> float:
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def resample(x: Array, height: int, width: int, kind: str, antialias: bool) -> Array:
    """The fork's loop over the top, with its own window of the bottom."""
    n, channels, rows, columns = x.shape
    fx, fy = columns / width, rows / height
    top = np.zeros((n, channels, height, width))
    wide = antialias and (fx > 1 or fy > 1)
    kernel, reach = (bicubic, 4) if kind == "CUBIC" else (triangle, 2)
    ax, ay = 1 / (fx if wide else 1), 1 / (fy if wide else 1)
    rx = 2 if fx < 1 else math.ceil(reach / ax)
    ry = 2 if fy < 1 else math.ceil(reach / ay)
    for j, i in np.ndindex(height, width):
        u, v = i * fx + fy / 2 - 0.5, j * fy + fx / 2 - 0.5
        if kind == "NEAREST":
            top[:, :, j, i] = x[:, :, away(v), away(u)]
            continue
        total = weights = 0.0
        for b in range(away(v) - ry, away(v) + ry + 1):
            for a in range(away(u) - rx, away(u) + rx + 1):
                if 0 <= b < rows and 0 <= a < columns:
                    w = ax * kernel(ax * (u - a)) * ay * kernel(ay * (v - b))
                    total, weights = total + w * x[:, :, b, a], weights + w
        top[:, :, j, i] = total / weights if weights else 0
    return top


SIZES = [(14, 12), (7, 6), (4, 3), (3, 5), (14, 3), (5, 13), (8, 7), (1, 1), (28, 6), (2, 24)]


@pytest.mark.parametrize("antialias", ["true", "false"])
@pytest.mark.parametrize("kind", ["LINEAR", "CUBIC"])
@pytest.mark.parametrize("height, width", SIZES)
def test_resample_equals_the_forks_loop(height: int, width: int, kind: str, antialias: str) -> None:
    x = RNG.randn(2, 3, 7, 6)
    settings = f"height: {height} width: {width} type: {kind} antialias: {antialias}"
    built = layer(f'type: "Resample" resample_param {{ {settings} }}', [x.shape])
    expected = resample(x, height, width, kind, antialias == "true")
    # Weights are float32, as in the fork; those of a narrow bicubic kernel nearly cancel.
    np.testing.assert_allclose(built(torch.from_numpy(x)), expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("height, width", [(14, 12), (7, 6), (4, 3), (28, 24), (8, 7), (9, 6)])
def test_resample_nearest_equals_the_forks_loop(height: int, width: int) -> None:
    x = RNG.randn(2, 3, 7, 6)
    built = layer('type: "Resample" resample_param { type: NEAREST factor: 1 }', [x.shape, (9, 1, height, width)])
    found = built(torch.from_numpy(x), torch.zeros(9, 1, height, width))
    np.testing.assert_array_equal(found, resample(x, height, width, "NEAREST", False))


def test_resample_by_equal_factors_is_torchs_bilinear_interpolation() -> None:
    x = torch.from_numpy(RNG.randn(1, 2, 6, 8))
    built = layer('type: "Resample" resample_param { height: 12 width: 16 }', [tuple(x.shape)])
    torch.testing.assert_close(built(x), torch.nn.functional.interpolate(x, (12, 16), mode="bilinear"))


def test_resample_takes_a_nan_from_its_own_window_alone() -> None:
    x = torch.zeros(1, 1, 9, 9)
    x[0, 0, 4, 4] = torch.nan
    found = layer('type: "Resample" resample_param { height: 18 width: 18 }', [(1, 1, 9, 9)])(x)
    # The window is the rounded place and 2 on each side, also where the weight is 0: places 2 to 6 of the bottom.
    assert found[0, 0].isnan().nonzero().aminmax(dim=0).min.tolist() == [4, 4]
    assert found[0, 0].isnan().nonzero().aminmax(dim=0).max.tolist() == [13, 13]
    assert found.isnan().sum() == 100


@pytest.mark.parametrize(
    "settings, problem",
    [
        ("", "resample_param has height 0 and width 0: expected both, or a second bottom"),
        ("height: 4", "width 0"),
        ("height: 4 width: 4 type: AREA", "type is AREA: expected NEAREST, LINEAR or CUBIC"),
        ("height: 4 width: 4 factor: 2", "ResampleParameter has factor: 2.0"),
        ("height: 16 width: 8 type: NEAREST", "reads outside the plane"),
        ("height: 8 width: 16 type: NEAREST", "reads outside the plane"),
        ("height: 4000000000 width: 4", "at most 2147483647 values"),
    ],
)
def test_resample_refuses(settings: str, problem: str) -> None:
    with pytest.raises(LayerError, match=problem):
        layer(f'type: "Resample" resample_param {{ {settings} }}', [(1, 2, 8, 8)])


def downsample(x: Array, height: int, width: int) -> tuple[Array, Array]:
    """The fork's loop over the top, and where NaNs have so nearly half the weight that rounding decides."""
    rows, columns = x.shape[2:]
    top = np.zeros((*x.shape[:2], height, width))
    open_ = np.zeros(top.shape, bool)
    sx, sy = (columns - 1) / (width - 1), (rows - 1) / (height - 1)
    for n, c, j, i in np.ndindex(*top.shape):
        u, v = i / (width - 1) * (columns - 1), j / (height - 1) * (rows - 1)
        total = weight = lost = 0.0
        for b in range(away(v) - math.ceil(sy), away(v) + math.ceil(sy) + 1):
            for a in range(away(u) - math.ceil(sx), away(u) + math.ceil(sx) + 1):
                if 0 <= a < columns and 0 <= b < rows:
                    w = max(0.0, 1 - abs(a - u) / sx) * max(0.0, 1 - abs(b - v) / sy)
                    if np.isnan(x[n, c, b, a]):
                        lost += w
                    else:
                        total, weight = total + w * x[n, c, b, a], weight + w
        with np.errstate(invalid="ignore", divide="ignore"):
            found = np.float64(total) / np.float64(weight)
            ratio = np.float64(lost) / np.float64(weight)
        top[n, c, j, i] = np.nan if ratio > 0.5 else found
        open_[n, c, j, i] = abs(ratio - 0.5) < 1e-5
    return top, open_


@pytest.mark.parametrize("height, width", [(4, 3), (2, 2), (3, 6), (5, 2)])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7], ids=["known", "some", "many"])
def test_downsample_equals_the_forks_loop(height: int, width: int, share: float) -> None:
    x = RNG.randn(2, 2, 9, 7)
    x[RNG.rand(*x.shape) < share] = np.nan
    built = layer(f'type: "Downsample" downsample_param {{ top_height: {height} top_width: {width} }}', [x.shape])
    expected, open_ = downsample(x, height, width)
    assert open_.mean() < 0.3
    found = built(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(found[~open_], expected[~open_], rtol=0, atol=1e-5)


def test_a_larger_top_has_places_without_a_value() -> None:
    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    built = layer('type: "Downsample" downsample_param { top_height: 2 top_width: 3 }', [(1, 1, 2, 2)])
    np.testing.assert_array_equal(built(x)[0, 0], [[1, np.nan, 2], [3, np.nan, 4]])


def test_downsample_to_the_same_size_changes_nothing() -> None:
    x = torch.rand(1, 2, 1, 3)
    x[0, 0, 0, 0] = torch.nan
    torch.testing.assert_close(layer('type: "Downsample"', [x.shape] * 2)(x, x), x, equal_nan=True)


@pytest.mark.parametrize(
    "settings, shape, problem",
    [
        ("", (1, 2, 8, 8), "downsample_param has top_height 0"),
        ("top_height: 1 top_width: 4", (1, 2, 8, 8), "expected at least 2 rows and columns in both"),
        ("top_height: 4 top_width: 4", (1, 2, 8, 1), "expected at least 2 rows and columns in both"),
        ("top_height: 4 top_width: 4", (1, 2), "expected 4 axes"),
    ],
)
def test_downsample_refuses(settings: str, shape: tuple[int, ...], problem: str) -> None:
    with pytest.raises(LayerError, match=problem):
        layer(f'type: "Downsample" downsample_param {{ {settings} }}', [shape])


def accum(bottoms: list[Array], height: int, width: int) -> Array:
    """The fork's loop, whose weight for what it reads beyond the end is 0."""
    planes = []
    for x in bottoms:
        rows, columns = x.shape[2:]
        top = np.zeros((*x.shape[:2], height, width))
        for j, i in np.ndindex(height, width):
            u, v = i / (width - 1) * (columns - 1), j / (height - 1) * (rows - 1)
            left, above = math.floor(u + 1e-9), math.floor(v + 1e-9)
            right, below = min(left + 1, columns - 1), min(above + 1, rows - 1)
            a, b = u - left, v - above
            line = [(1 - a) * x[:, :, row, left] + a * x[:, :, row, right] for row in (above, below)]
            top[:, :, j, i] = (1 - b) * line[0] + b * line[1]
        planes.append(top)
    return np.concatenate(planes, 1)


ACCUMS = [
    ("", [(2, 3, 5, 6), (2, 1, 3, 8)], (5, 8)),
    ("", [(2, 3, 5, 6)], (5, 6)),
    ("have_reference: true", [(2, 3, 5, 6), (2, 1, 9, 8)], (9, 8)),
    ("have_reference: true", [(2, 3, 5, 6), (2, 2, 1, 1), (2, 1, 3, 4)], (3, 4)),
    ("top_height: 9 top_width: 10", [(2, 3, 5, 6)], (9, 10)),
    ("top_height: 9 top_width: 6", [(2, 3, 5, 6)], (5, 6)),
    ("size_divisible_by: 4", [(2, 3, 5, 6), (2, 1, 7, 3)], (8, 8)),
    ("size_divisible_by: 3", [(2, 3, 5, 6)], (5, 6)),  # the width would not be larger
]


@pytest.mark.parametrize("settings, shapes, size", ACCUMS)
def test_accum_equals_the_forks_loop(settings: str, shapes: list[tuple[int, ...]], size: tuple[int, int]) -> None:
    bottoms = [RNG.randn(*shape) for shape in shapes]
    inputs = [torch.from_numpy(x).requires_grad_() for x in bottoms]
    built = layer(f'type: "Accum" accum_param {{ {settings} }}', shapes)
    joined = bottoms[:-1] if "reference" in settings else bottoms
    expected = accum(joined, *size)
    found = built(*inputs)
    np.testing.assert_allclose(found.detach(), expected, rtol=0, atol=1e-12)
    assert torch.autograd.gradcheck(built, inputs)
    assert built.no_gradient == ((len(shapes) - 1,) if "reference" in settings else ())


@pytest.mark.parametrize(
    "settings, shapes",
    [("have_reference: true", [(1, 3, 5, 6), (1, 1, 9, 8)]), ("", [(1, 3, 5, 6), (1, 1, 3, 8)])],
)
def test_accum_equals_opencv(tmp_path: Path, settings: str, shapes: list[tuple[int, ...]]) -> None:
    bottoms = [RNG.randn(*shape).astype(np.float32) for shape in shapes]
    text = f'type: "Accum" accum_param {{ {settings} }}'
    found = layer(text, shapes)(*map(torch.from_numpy, bottoms))
    np.testing.assert_allclose(found, opencv.run(tmp_path, text, bottoms), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "settings, shapes, problem",
    [
        ("have_reference: true", [(1, 3, 5, 6)], "there is one bottom"),
        ("have_reference: true", [(1, 3, 5, 6), (1, 1, 1, 6)], "expected at least 2 rows and columns"),
        ("size_divisible_by: 0", [(1, 3, 5, 6)], "size_divisible_by is 0"),
        ("", [(1, 3, 5, 6), (2, 3, 5, 6)], "expected equal first dimensions"),
        ("", [(1, 3, 5)], "expected 4 axes"),
    ],
)
def test_accum_refuses(settings: str, shapes: list[tuple[int, ...]], problem: str) -> None:
    with pytest.raises(LayerError, match=problem):
        layer(f'type: "Accum" accum_param {{ {settings} }}', shapes)
