"""Correlation, FlowWarp and ChannelNorm against OpenCV and loops over FlowNet2's definition, with their gradients."""

from __future__ import annotations

from collections.abc import Iterator
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


def correlation(settings: str, kind: str = "Correlation") -> str:
    return f'type: "{kind}" correlation_param {{ {settings} }}'


class Pairs:
    """The places that each value of the top compares, by the fork's indices into the padded maps."""

    def __init__(self, shape: tuple[int, ...], pad: int, size: int, reach: int, s1: int, s2: int, line: int | None):
        """``line``: single_direction of Correlation1D, None for Correlation."""
        n, c, h, w = shape
        self.pads = (0 if line is not None else pad, pad)
        self.size, self.reach, self.s1, self.s2, self.line = size, reach, s1, s2, line
        radius = reach // s2
        across = {-1: range(-radius - 1, 0), 1: range(radius + 1)}.get(line or 0, range(-radius, radius + 1))
        down = range(-radius, radius + 1) if line is None else range(1)
        self.shifts = [(p * s2, o * s2) for p in down for o in across]
        self.margin = reach if line is None else 0
        rows = -(-(h + 2 * self.pads[0] - 2 * self.margin - size + 1) // s1)
        columns = -(-(w + 2 * pad - 2 * reach - size + 1) // s1)
        self.shape = (n, len(self.shifts), rows, columns)
        self.count = size * size * c

    def pad(self, x: Array) -> Array:
        return np.pad(x, ((0, 0), (0, 0), (self.pads[0],) * 2, (self.pads[1],) * 2))

    def __iter__(self) -> Iterator[tuple[tuple[int, ...], tuple[int, int, int], tuple[int, int, int]]]:
        """Index into the top, place (n, y, x) in the first map, place in the second."""
        for n, channel, y, x in np.ndindex(*self.shape):
            down, across = self.shifts[channel]
            for j, i in np.ndindex(self.size, self.size):
                y1, x1 = y * self.s1 + self.margin + j, x * self.s1 + self.reach + i
                yield (n, channel, y, x), (n, y1, x1), (n, y1 + down, x1 + across)


def value(x: Array, place: tuple[int, int, int]) -> Array:
    """The channels there; zeros left of the row, where the fork reads the padding of the row before."""
    n, row, column = place
    return x[n, :, row, column] if column >= 0 else np.zeros(x.shape[1])


CORRELATIONS = [
    ("kernel_size: 1 max_displacement: 2 pad: 2", (0, 1, 2, 1, 1), 2),
    ("kernel_size: 1 max_displacement: 2 pad: 0", (0, 1, 2, 1, 1), 0),
    ("kernel_size: 3 max_displacement: 3 pad: 4 stride_1: 2 stride_2: 2", (0, 3, 3, 2, 2), 4),
    ("kernel_size: 3 max_displacement: 0 pad: 0 stride_1: 3", (0, 3, 0, 3, 1), 0),
    ("kernel_size: 1 max_displacement: 1 pad: 3 stride_1: 2 stride_2: 3", (0, 1, 1, 2, 3), 3),
]


@pytest.mark.parametrize("subtract", [False, True], ids=["MULTIPLY", "SUBTRACT"])
@pytest.mark.parametrize("line", [None, 0, 1], ids=["plane", "line", "right"])
@pytest.mark.parametrize(
    "settings, numbers, pad", CORRELATIONS, ids=[case[0].replace(" ", "") for case in CORRELATIONS]
)
def test_correlation_and_its_gradients_equal_the_forks_loops(
    settings: str, numbers: tuple[int, ...], pad: int, line: int | None, subtract: bool
) -> None:
    settings += " correlation_type: SUBTRACT" * subtract + f" single_direction: {line or 0}"
    check_correlation(settings, numbers, pad, line, subtract=subtract)


def test_correlation_to_the_left_reaches_into_the_padding() -> None:
    settings = "kernel_size: 3 max_displacement: 3 pad: 4 stride_2: 2 single_direction: -1"
    check_correlation(settings, (0, 3, 3, 1, 2), 4, -1, subtract=False)


def check_correlation(settings: str, numbers: tuple[int, ...], pad: int, line: int | None, *, subtract: bool) -> None:
    shape = (2, 3, 5, 6)
    a, b = RNG.randint(-2, 3, shape).astype(np.float64), RNG.randint(-2, 3, shape).astype(np.float64)
    kind = "Correlation" if line is None else "Correlation1D"
    inputs = [torch.from_numpy(x).requires_grad_() for x in (a, b)]
    top = layer(correlation(settings, kind), [shape, shape])(*inputs)
    pairs = Pairs(shape, pad, *numbers[1:], line)
    pa, pb = pairs.pad(a), pairs.pad(b)
    expected = np.zeros(pairs.shape)
    for index, first, second in pairs:
        u, v = value(pa, first), value(pb, second)
        expected[index] += np.abs(u - v).sum() if subtract else (u * v).sum()
    np.testing.assert_allclose(top.detach(), expected / pairs.count, rtol=0, atol=1e-12)

    weight = RNG.randn(*pairs.shape)
    top.backward(torch.from_numpy(weight))
    ga, gb = np.zeros_like(pa), np.zeros_like(pb)
    for index, (n, y1, x1), (_, y2, x2) in pairs:
        # What the fork multiplies the top's gradient by: the other value, or a sign at the other's place alone.
        if subtract:
            factors = np.where(pa[n, :, y2, x2] >= pb[n, :, y2, x2], 1, -1), None
            factors = factors[0], np.where(pa[n, :, y1, x1] >= pb[n, :, y1, x1], -1, 1)
        else:
            factors = value(pb, (n, y2, x2)), pa[n, :, y1, x1]
        ga[n, :, y1, x1] += weight[index] * factors[0]
        if x2 >= 0:
            gb[n, :, y2, x2] += weight[index] * factors[1]
    inner = (..., slice(pairs.pads[0], pairs.pads[0] + shape[2]), slice(pad, pad + shape[3]))
    for x, gradient in zip(inputs, (ga, gb), strict=True):
        np.testing.assert_allclose(x.grad, gradient[inner] / pairs.count, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "settings",
    [
        "kernel_size: 1 max_displacement: 20 pad: 20 stride_2: 2",
        "kernel_size: 3 max_displacement: 4 pad: 3 stride_1: 2",
    ],
)
def test_correlation_equals_opencv(tmp_path: Path, settings: str) -> None:
    a, b = RNG.randn(2, 1, 8, 13, 17).astype(np.float32)
    text = f'type: "Correlation" correlation_param {{ {settings} }}'
    found = layer(text, [a.shape, b.shape])(torch.from_numpy(a), torch.from_numpy(b))
    np.testing.assert_allclose(found, opencv.run(tmp_path, text, [a, b]), rtol=0, atol=1e-6)


def test_a_value_that_is_not_finite_stays_with_its_own_pairs() -> None:
    a, b = torch.ones(2, 1, 2, 3, 3)
    b[0, 0, 1, 1] = torch.nan
    found = layer(correlation("kernel_size: 1 max_displacement: 1 pad: 1"), [a.shape, b.shape])(a, b)
    assert found.isnan().sum() == 9  # the nine places that are at most 1 away, each with one displacement
    assert found.isnan().sum((0, 2, 3)).tolist() == [1] * 9


@pytest.mark.parametrize(
    "kind, settings, problem",
    [
        ("Correlation", "", "no kernel_size and no max_displacement"),
        ("Correlation", "kernel_size: 1", "no max_displacement"),
        ("Correlation", "kernel_size: 2 max_displacement: 1", "kernel_size is 2: expected an odd number"),
        ("Correlation", "kernel_size: 0 max_displacement: 1", "kernel_size is 0"),
        ("Correlation", "kernel_size: 1 max_displacement: 1 stride_2: 0", "stride_1 and stride_2 are 1 and 0"),
        ("Correlation", "kernel_size: 1 max_displacement: 3", "do not fit planes of 5 x 6 with pad 0"),
        ("Correlation", "kernel_size: 1 max_displacement: 4000000000 pad: 4000000000", "at most 2147483647 values"),
        ("Correlation1D", "kernel_size: 1 max_displacement: 2 single_direction: 2", "single_direction is 2"),
        ("Correlation1D", "kernel_size: 1 max_displacement: 2 single_direction: -1", "expected at least 1"),
        (
            "Correlation1D",
            "kernel_size: 1 max_displacement: 2 pad: 2 single_direction: -1 correlation_type: SUBTRACT",
            "SUBTRACT is not supported",
        ),
    ],
)
def test_correlation_refuses(kind: str, settings: str, problem: str) -> None:
    with pytest.raises(LayerError, match=problem):
        layer(correlation(settings, kind), [(1, 2, 5, 6)] * 2)


def test_correlation_refuses_bottoms_of_different_shapes() -> None:
    with pytest.raises(LayerError, match="expected equal ones of 4 axes"):
        layer(correlation("kernel_size: 1 max_displacement: 0"), [(1, 2, 5, 6), (1, 2, 5, 7)])


def warp(image: Array, flow: Array, weight: Array, fill: float) -> tuple[Array, Array, Array]:
    """The top, and the gradients of image and flow where ``weight`` is the top's."""
    top, to_image, to_flow = np.full(image.shape, fill), np.zeros(image.shape), np.zeros(flow.shape)
    n, channels, height, width = image.shape
    for item, y, x in np.ndindex(n, height, width):
        u, v = x + flow[item, 0, y, x], y + flow[item, 1, y, x]
        if not (u >= 0 and v >= 0 and u < width and v < height):
            continue
        left, above = int(u), int(v)
        right, below = min(left + 1, width - 1), min(above + 1, height - 1)
        a, b = u - left, v - above
        corners = [(above, left, (1 - a) * (1 - b)), (above, right, a * (1 - b))]
        corners += [(below, left, (1 - a) * b), (below, right, a * b)]
        for c in range(channels):
            top[item, c, y, x] = sum(share * image[item, c, j, i] for j, i, share in corners)
            for j, i, share in corners:
                to_image[item, c, j, i] += share * weight[item, c, y, x]
            tl, tr, bl, br = (image[item, c, j, i] for j, i, _ in corners)
            gamma = below - v
            to_flow[item, 0, y, x] += weight[item, c, y, x] * (gamma * (tr - tl) + (1 - gamma) * (br - bl))
            gamma = right - u
            to_flow[item, 1, y, x] += weight[item, c, y, x] * (gamma * (bl - tl) + (1 - gamma) * (br - tr))
    return top, to_image, to_flow


@pytest.mark.parametrize("fill", ["ZERO", "NOT_A_NUMBER"])
def test_flow_warp_and_its_gradients_equal_the_forks_loop(fill: str) -> None:
    image, flow = RNG.randn(2, 3, 5, 6), RNG.randn(2, 2, 5, 6) * 3
    flow[0, :, 0, 0] = -1e-9, 0  # just outside
    flow[0, :, 0, 1] = 4.5, 4.25  # between the last row and column and the end
    flow[0, :, 0, 2] = 4, 0  # the end itself
    flow[0, :, 0, 3] = np.nan, 0
    flow[0, :, 0, 4] = 0, np.inf
    flow[1, :, 1, 1] = 0  # whole places
    weight = RNG.randn(*image.shape)
    expected = warp(image, flow, weight, 0.0 if fill == "ZERO" else np.nan)
    inputs = [torch.from_numpy(x).requires_grad_() for x in (image, flow)]
    settings = f"flow_warp_param {{ fill_value: {fill} }}"
    top = layer(f'type: "FlowWarp" {settings}', [image.shape, flow.shape])(*inputs)
    top.backward(torch.from_numpy(weight))
    for found, wanted in zip((top.detach(), inputs[0].grad, inputs[1].grad), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)


def test_flow_warp_equals_opencv(tmp_path: Path) -> None:
    image, flow = RNG.randn(2, 4, 11, 13).astype(np.float32), RNG.randn(2, 2, 11, 13).astype(np.float32) * 4
    found = layer('type: "FlowWarp"', [image.shape, flow.shape])(torch.from_numpy(image), torch.from_numpy(flow))
    np.testing.assert_allclose(found, opencv.run(tmp_path, 'type: "FlowWarp"', [image, flow]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("flow", [(2, 2, 4, 5), (1, 2, 4, 6), (2, 3, 4, 6), (2, 2)])
def test_flow_warp_refuses_flows_of_other_shapes(flow: tuple[int, ...]) -> None:
    with pytest.raises(LayerError, match=r"expected an image \(N, C, H, W\) and a flow"):
        layer('type: "FlowWarp"', [(2, 3, 4, 6), flow])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_flow_warp_in_half_precision_finds_every_column_of_a_wide_image(dtype: torch.dtype) -> None:
    image = torch.arange(3000).remainder(7).reshape(1, 1, 1, 3000).to(dtype)
    flow = torch.zeros(1, 2, 1, 3000, dtype=dtype)
    flow[:, 0] = 1.5
    found = layer('type: "FlowWarp"', [image.shape, flow.shape])(image, flow)
    assert found.dtype == dtype
    assert torch.equal(found[..., :-2], (image[..., 1:-1] + image[..., 2:]) / 2)


def test_channel_norm_and_its_gradient() -> None:
    x = RNG.randn(2, 3, 4, 5)
    x[0, :, 1, 2] = 0
    weight = RNG.randn(2, 1, 4, 5)
    expected, gradient = np.zeros((2, 1, 4, 5)), np.zeros(x.shape)
    for n, i, j in np.ndindex(2, 4, 5):
        norm = np.sqrt(sum(x[n, c, i, j] ** 2 for c in range(3)))
        expected[n, 0, i, j] = norm
        for c in range(3):
            gradient[n, c, i, j] = weight[n, 0, i, j] * x[n, c, i, j] / (norm + 1e-9)
    bottom = torch.from_numpy(x).requires_grad_()
    top = layer('type: "ChannelNorm"', [x.shape])(bottom)
    top.backward(torch.from_numpy(weight))
    np.testing.assert_allclose(top.detach(), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(bottom.grad, gradient, rtol=0, atol=1e-12)


def test_channel_norm_in_float16_has_a_gradient_where_the_norm_is_0_or_large() -> None:
    x = torch.zeros(1, 2, 1, 2, dtype=torch.float16)
    x[0, :, 0, 1] = torch.tensor([3000, 4000])  # the squares are beyond float16
    x.requires_grad_()
    top = layer('type: "ChannelNorm"', [x.shape])(x)
    top.sum().backward()
    assert top.tolist() == [[[[0, 5000]]]]
    torch.testing.assert_close(x.grad, torch.tensor([[[[0, 0.6]], [[0, 0.8]]]], dtype=torch.float16))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_correlation_by_differences_in_half_precision(dtype: torch.dtype) -> None:
    a, b = (torch.from_numpy(RNG.randint(-4, 5, (1, 4, 3, 3))).to(dtype) for _ in range(2))
    made = layer(correlation("pad: 1 kernel_size: 1 max_displacement: 1 correlation_type: SUBTRACT"), [a.shape] * 2)
    found = made(a.requires_grad_(), b)
    assert found.dtype == dtype
    assert torch.equal(found.double(), made(a.double(), b.double()).detach())  # whole numbers over 4


def test_channel_norm_refuses_a_matrix() -> None:
    with pytest.raises(LayerError, match="expected 4 axes"):
        layer('type: "ChannelNorm"', [(2, 3)])
