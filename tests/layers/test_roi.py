"""Pooling over regions against loops over every pixel, and against OpenCV."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from caffe2torch.errors import LayerError
from caffe2torch.layers.roi import ROIAlign, ROIPooling

from .messages import layer
from .opencv import run

REGIONS = np.array(
    [
        [0, 0, 0, 30, 40],
        [1, 10, 5, 60, 50],
        [0, 7, 9, 7, 9],
        [1, -8, -4, 200, 100.5],
        [0, 50, 40, 20, 10],
        [1, 4, 12, 28, 44],
    ],
    np.float32,
)
FAR = np.array([[0, 300, 300, 310, 310], [1, -90, -90, -60, -60]], np.float32)


def features(*shape: int, ties: bool = False) -> np.ndarray:
    x = np.random.RandomState(0).randn(*shape).astype(np.float32)
    return x.round() if ties else x


def c_round(x: float) -> int:
    return int(math.copysign(math.floor(abs(x) + 0.5), x))


Pooled = tuple[np.ndarray, np.ndarray]


def naive_pooling(x: np.ndarray, regions: np.ndarray, pooled: tuple[int, int], scale: float) -> Pooled:
    """The top, and the gradient of its sum weighted by 1, 2, 3, ..."""
    top, gradient = np.zeros((len(regions), x.shape[1], *pooled)), np.zeros(x.shape)
    weights = np.arange(1, top.size + 1).reshape(top.shape)
    for r, (image, *corners) in enumerate(regions):
        left, upper, right, lower = (c_round(c * scale) for c in corners)
        height, width = max(lower - upper + 1, 1), max(right - left + 1, 1)
        for c, i, j in np.ndindex(*top.shape[1:]):
            rows = range(
                max(math.floor(i * height / pooled[0]) + upper, 0),
                min(math.ceil((i + 1) * height / pooled[0]) + upper, x.shape[2]),
            )
            columns = range(
                max(math.floor(j * width / pooled[1]) + left, 0),
                min(math.ceil((j + 1) * width / pooled[1]) + left, x.shape[3]),
            )
            places = [(int(image), c, y, z) for y in rows for z in columns]
            if places:
                place = max(places, key=lambda p: x[p])  # the first of equal ones
                top[r, c, i, j] = x[place]
                gradient[place] += weights[r, c, i, j]
    return top, gradient


def naive_means(x: np.ndarray, regions: np.ndarray, group: int, scale: float) -> Pooled:
    outputs = x.shape[1] // group**2
    top, gradient = np.zeros((len(regions), outputs, group, group)), np.zeros(x.shape)
    weights = np.arange(1, top.size + 1).reshape(top.shape)
    for r, (image, *corners) in enumerate(regions):
        left, upper = (c_round(c) * scale for c in corners[:2])
        right, lower = ((c_round(c) + 1) * scale for c in corners[2:])
        height, width = max(lower - upper, 0.1) / group, max(right - left, 0.1) / group
        for d, i, j in np.ndindex(*top.shape[1:]):
            rows = slice(*np.clip([math.floor(i * height + upper), math.ceil((i + 1) * height + upper)], 0, x.shape[2]))
            columns = slice(*np.clip([math.floor(j * width + left), math.ceil((j + 1) * width + left)], 0, x.shape[3]))
            place = (int(image), (d * group + i) * group + j, rows, columns)
            if x[place].size:
                top[r, d, i, j] = x[place].astype(np.float64).mean()
                gradient[place] += weights[r, d, i, j] / x[place].size
    return top, gradient


def naive_align(x: np.ndarray, regions: np.ndarray, pooled: tuple[int, int], scale: float, samples: int) -> Pooled:
    top, gradient = np.zeros((len(regions), x.shape[1], *pooled)), np.zeros(x.shape)
    weights = np.arange(1, top.size + 1).reshape(top.shape)
    height, width = x.shape[2:]
    for r, (image, *corners) in enumerate(regions):
        left, upper, right, lower = (c * scale for c in corners)
        size = max(lower - upper, 1.0) / pooled[0], max(right - left, 1.0) / pooled[1]
        grid = [samples or math.ceil(s) for s in size]
        for c, i, j in np.ndindex(*top.shape[1:]):
            for a, b in np.ndindex(*grid):
                y = upper + (i + (a + 0.5) / grid[0]) * size[0]
                z = left + (j + (b + 0.5) / grid[1]) * size[1]
                if y < -1 or y > height or z < -1 or z > width:
                    continue
                y, z = min(max(y, 0), height - 1), min(max(z, 0), width - 1)
                for m in {int(y), min(int(y) + 1, height - 1)}:
                    for n in {int(z), min(int(z) + 1, width - 1)}:
                        share = (1 - abs(y - m)) * (1 - abs(z - n)) / (grid[0] * grid[1])
                        top[r, c, i, j] += share * x[int(image), c, m, n]
                        gradient[int(image), c, m, n] += share * weights[r, c, i, j]
    return top, gradient


def check(setting: str, x: np.ndarray, regions: np.ndarray, expected: Pooled) -> None:
    bottom = torch.from_numpy(x).requires_grad_()
    rows = torch.from_numpy(regions).requires_grad_()
    top = layer(setting, (x.shape, regions.shape))(bottom, rows)
    np.testing.assert_allclose(top.detach().numpy(), expected[0], atol=2e-6)
    (top * torch.arange(1, top.numel() + 1).reshape(top.shape)).sum().backward()
    assert bottom.grad is not None
    assert rows.grad is None
    np.testing.assert_allclose(bottom.grad.numpy(), expected[1], rtol=1e-5, atol=1e-3)


EVERY = pytest.mark.parametrize("regions", [REGIONS, FAR, REGIONS[:, :, None, None]], ids=["all", "far", "4-D"])


@EVERY
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("pooled", [(3, 2), (1, 1), (7, 7)], ids=str)
def test_roi_pooling_equals_its_definition(regions: np.ndarray, ties: bool, pooled: tuple[int, int]) -> None:
    x = features(2, 3, 6, 8, ties=ties)
    setting = (
        f'type: "ROIPooling" roi_pooling_param {{ pooled_h: {pooled[0]} pooled_w: {pooled[1]} spatial_scale: 0.125 }}'
    )
    check(setting, x, regions, naive_pooling(x, regions.reshape(-1, 5), pooled, 0.125))


@EVERY
@pytest.mark.parametrize("group", [1, 3])
def test_psroi_pooling_equals_its_definition(regions: np.ndarray, group: int) -> None:
    x = features(2, 2 * group**2, 6, 8)
    setting = f'type: "PSROIPooling" psroi_pooling_param {{ output_dim: 2 group_size: {group} spatial_scale: 0.125 }}'
    check(setting, x, regions, naive_means(x, regions.reshape(-1, 5), group, 0.125))


@EVERY
@pytest.mark.parametrize("samples", [0, 1, 2])
def test_roi_align_equals_its_definition(regions: np.ndarray, samples: int) -> None:
    x = features(2, 3, 6, 8)
    setting = (
        'type: "ROIAlign" roi_align_param { pooled_h: 3 pooled_w: 2 spatial_scale: 0.125 '
        f"{f'sampling_ratio: {samples}' if samples else ''} }}"
    )
    check(setting, x, regions, naive_align(x, regions.reshape(-1, 5), (3, 2), 0.125, samples))


@pytest.mark.parametrize("pooled", ["pooled_h: 3 pooled_w: 2", "pooled_h: 7 pooled_w: 7"])
@pytest.mark.parametrize("scale", [0.125, 0.0625])
def test_roi_pooling_equals_opencv(pooled: str, scale: float, tmp_path: Path) -> None:
    x = features(2, 3, 6, 8)
    setting = f'type: "ROIPooling" roi_pooling_param {{ {pooled} spatial_scale: {scale} }}'
    top = layer(setting, (x.shape, REGIONS.shape))(torch.from_numpy(x), torch.from_numpy(REGIONS))
    np.testing.assert_array_equal(top.numpy(), run(tmp_path, setting, [x, REGIONS]))


@pytest.mark.parametrize("scale", [0.125, 0.0625])
def test_psroi_pooling_equals_opencv(scale: float, tmp_path: Path) -> None:
    x = features(2, 18, 6, 8)
    setting = f'type: "PSROIPooling" psroi_pooling_param {{ output_dim: 2 group_size: 3 spatial_scale: {scale} }}'
    top = layer(setting, (x.shape, REGIONS.shape))(torch.from_numpy(x), torch.from_numpy(REGIONS))
    np.testing.assert_allclose(top.numpy(), run(tmp_path, setting, [x, REGIONS]), atol=1e-6)


@pytest.mark.parametrize("make", [ROIPooling, ROIAlign], ids=["ROIPooling", "ROIAlign"])
def test_no_regions_give_an_empty_top(make: Callable[..., torch.nn.Module]) -> None:
    assert make((2, 3))(torch.zeros(1, 4, 5, 6), torch.zeros(0, 5)).shape == (0, 4, 2, 3)


@pytest.mark.parametrize(
    "setting, shapes, reason",
    [
        ('type: "ROIPooling"', ((1, 2, 3, 4), (5, 5)), "pooled_h"),
        ('type: "ROIPooling" roi_pooling_param { pooled_h: 2 pooled_w: 2 }', ((1, 2, 3, 4), (5, 4)), "expected .N, C"),
        ('type: "ROIAlign" roi_pooling_param { pooled_h: 2 pooled_w: 2 }', ((1, 2, 3, 4), (5, 5)), "different ways"),
        ('type: "PSROIPooling"', ((1, 2, 3, 4), (5, 5)), "output_dim"),
        (
            'type: "PSROIPooling" psroi_pooling_param { output_dim: 1 group_size: 2 spatial_scale: 1 }',
            ((1, 2, 3, 4), (5, 5)),
            "= 4",
        ),
    ],
)
def test_impossible_pooling_is_refused(setting: str, shapes: tuple[tuple[int, ...], ...], reason: str) -> None:
    with pytest.raises(LayerError, match=reason):
        layer(setting, shapes)
