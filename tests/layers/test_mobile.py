"""Layers of the forks for small nets against OpenCV and their definitions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from caffe2torch import cli
from caffe2torch.errors import LayerError
from caffe2torch.layers.registry import Layer

from . import opencv
from .messages import layer

Array = NDArray[Any]
POINTS = [-7.0, -3.5, -3.0, -2.5, -0.0, 0.0, 0.5, 2.5, 3.0, 3.5, 6.0, 6.5]


def random(*shape: int) -> Array:
    return np.random.RandomState(0).randn(*shape).astype(np.float32)


def set_blobs(built: Layer, *values: Array) -> None:
    with torch.no_grad():
        for (_, blob), value in zip(built.blob_items(), values, strict=True):
            blob.copy_(torch.from_numpy(value))


def slopes(built: Layer) -> list[float]:
    """The gradient at ``POINTS``."""
    x = torch.tensor(POINTS, dtype=torch.float64, requires_grad=True)
    built.double()(x).sum().backward()
    assert x.grad is not None
    return list(x.grad.tolist())


def overwritten_slopes(built: Layer) -> list[float]:
    """What Caffe's own backward rule makes of a gradient of 1 at ``POINTS``."""
    x = torch.tensor(POINTS, dtype=torch.float64)
    return list(built.caffe_backward(torch.ones_like(x), x, built.double()(x)).tolist())


DEPTHWISE = [
    ("ConvolutionDepthwise", "kernel_size: 3 stride: 2 pad: 1"),
    ("ConvolutionDepthwise", "num_output: 6 kernel_h: 3 kernel_w: 1 dilation: 2"),
    ("DepthwiseConvolution", "num_output: 6 kernel_size: 3 group: 6"),
    ("ConvolutionDepthWise", "num_output: 6 kernel_size: 2 group: 1"),
    ("DepthwiseConv", "num_output: 6 kernel_size: 2"),
]


@pytest.mark.parametrize("name, settings", DEPTHWISE)
def test_depthwise_convolution_treats_every_channel_by_itself(name: str, settings: str) -> None:
    x = random(2, 6, 9, 8)
    built = layer(f'type: "{name}" convolution_param {{ {settings} }}', [x.shape])
    weight, bias = (blob for _, blob in built.blob_items())
    assert weight.shape[:2] == (6, 1)
    plain = f'type: "Convolution" convolution_param {{ num_output: 1 {settings.replace("num_output: 6", "")} }}'
    plain = plain.replace("group: 6", "")
    expected = []
    for channel in range(6):
        single = layer(plain, [(2, 1, 9, 8)])
        set_blobs(single, weight[channel : channel + 1].detach().numpy(), bias[channel : channel + 1].detach().numpy())
        expected.append(single(torch.from_numpy(x[:, channel : channel + 1])))
    torch.testing.assert_close(built(torch.from_numpy(x)), torch.cat(expected, 1), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("settings", ["num_output: 6 kernel_size: 3 stride: 2 pad: 1", "num_output: 6 kernel_size: 1"])
def test_depthwise_convolution_equals_opencv(tmp_path: Path, settings: str) -> None:
    x = random(2, 6, 9, 8)
    text = f'type: "ConvolutionDepthwise" convolution_param {{ {settings} }}'
    built = layer(text, [x.shape])
    blobs = [blob.detach().numpy() for _, blob in built.blob_items()]
    expected = opencv.run(tmp_path, text, [x], blobs)
    np.testing.assert_allclose(built(torch.from_numpy(x)).detach(), expected, rtol=1e-5, atol=1e-5)


def test_depthwise_convolution_refuses_another_number_of_outputs() -> None:
    with pytest.raises(LayerError, match="num_output is 12, but the bottom has 6 channels"):
        layer('type: "ConvolutionDepthwise" convolution_param { num_output: 12 kernel_size: 3 }', [(1, 6, 5, 5)])


@pytest.mark.parametrize("group", [1, 2, 3, 6])
def test_shuffle_channel_equals_opencv(tmp_path: Path, group: int) -> None:
    x = random(2, 6, 3, 4)
    text = f'type: "ShuffleChannel" shuffle_channel_param {{ group: {group} }}'
    np.testing.assert_array_equal(layer(text, [x.shape])(torch.from_numpy(x)), opencv.run(tmp_path, text, [x]))


def test_shuffle_channel_deals_the_groups_out() -> None:
    x = torch.arange(6.0).reshape(1, 6, 1, 1)
    found = layer('type: "ChannelShuffle" shuffle_channel_param { group: 2 }', [(1, 6, 1, 1)])(x)
    assert found.flatten().tolist() == [0, 3, 1, 4, 2, 5]


@pytest.mark.parametrize("name, settings", [("ShuffleChannel", "group: 4"), ("ChannelShuffle", "")])
def test_shuffle_channel_refuses(name: str, settings: str) -> None:
    with pytest.raises(LayerError, match="group"):
        layer(f'type: "{name}" shuffle_channel_param {{ {settings} }}', [(1, 6, 1, 1)])


@pytest.mark.parametrize("factors", [(2, 3), (2, 3, 1, 1)])
def test_axpy_is_a_x_plus_y(factors: tuple[int, ...]) -> None:
    a, x, y = random(*factors), random(2, 3, 4, 5), random(2, 3, 4, 5)[::-1].copy()
    bottoms = [torch.from_numpy(v).requires_grad_() for v in (a, x, y)]
    found = layer('type: "Axpy"', [v.shape for v in (a, x, y)])(*bottoms)
    expected = y.copy()
    for n, c in np.ndindex(2, 3):
        expected[n, c] += a[n, c] * x[n, c]
    np.testing.assert_allclose(found.detach(), expected, rtol=1e-6, atol=1e-6)
    gradient = random(2, 3, 4, 5)
    found.backward(torch.from_numpy(gradient))
    expected_a = np.array([(gradient[n, c] * x[n, c]).sum() for n, c in np.ndindex(2, 3)]).reshape(factors)
    for bottom, value in zip(bottoms, (expected_a, gradient * a.reshape(2, 3, 1, 1), gradient), strict=True):
        assert bottom.grad is not None
        np.testing.assert_allclose(bottom.grad, value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shapes", [[(2, 3, 2, 1), (2, 3, 4, 5), (2, 3, 4, 5)], [(2, 3), (2, 3, 4, 5), (2, 3, 4, 4)]])
def test_axpy_refuses_other_shapes(shapes: list[tuple[int, ...]]) -> None:
    with pytest.raises(LayerError, match="expected factors"):
        layer('type: "Axpy"', shapes)


def test_relu6_equals_opencv(tmp_path: Path) -> None:
    x = 6 * random(2, 3, 4, 5)
    text = 'type: "ReLU6"'
    np.testing.assert_array_equal(layer(text, [x.shape])(torch.from_numpy(x)), opencv.run(tmp_path, text, [x]))


@pytest.mark.parametrize(
    "settings, top, slope",
    [("", 6.0, 0.0), ("negative_slope: 0.25", 6.0, 0.25), ("threshold: 3", 3.0, 0.0), ("n: 3", 3.0, 0.0)],
)
def test_relu6_and_its_gradient(settings: str, top: float, slope: float) -> None:
    built = layer(f'type: "ReLU6" relu6_param {{ {settings} }}', [(12,)])
    found = built(torch.tensor(POINTS)).tolist()
    assert found == [min(max(x, 0.0) + slope * min(x, 0.0), top) for x in POINTS]
    expected = [(1.0 if x > 0 else slope) * (x < top) for x in POINTS]
    assert slopes(built) == expected
    assert overwritten_slopes(built) == expected


def test_relu6_refuses_two_limits() -> None:
    with pytest.raises(LayerError, match="both n and threshold"):
        layer('type: "ReLU6" relu6_param { n: 5 threshold: 6 }', [(12,)])


@pytest.mark.parametrize("axis, slope", [(1, 0.0), (2, 0.25), (-1, 0.0)])
def test_crelu_appends_the_other_half(axis: int, slope: float) -> None:
    x = random(2, 3, 4, 5)
    text = f'type: "CReLU" crelu_param {{ concat_axis: {axis} negative_slope: {slope} }}'

    def relu(v: Array) -> Array:
        return np.maximum(v, 0) + np.float32(slope) * np.minimum(v, 0)

    expected = np.concatenate([relu(x), relu(-x)], axis)
    np.testing.assert_array_equal(layer(text, [x.shape])(torch.from_numpy(x)), expected)


def test_hsigmoid_and_its_gradient() -> None:
    built = layer('type: "HSigmoid"', [(12,)])
    expected = [min(max(x + 3.0, 0.0), 6.0) / 6.0 for x in POINTS]
    np.testing.assert_allclose(built(torch.tensor(POINTS)), expected, rtol=1e-6)
    np.testing.assert_allclose(slopes(built), [(-3 < x < 3) / 6 for x in POINTS], rtol=1e-12)
    np.testing.assert_allclose(overwritten_slopes(built), [(-3 < x < 3) / 6 for x in POINTS], rtol=1e-12)


@pytest.mark.parametrize("name", ["HSwish", "HardSwish"])
def test_hswish_and_its_gradient(name: str) -> None:
    built = layer(f'type: "{name}"', [(12,)])
    gate = [min(max(x + 3.0, 0.0), 6.0) / 6.0 for x in POINTS]
    np.testing.assert_allclose(built(torch.tensor(POINTS)), np.multiply(POINTS, gate), rtol=1e-6)
    expected = [g + (x / 6 if -3 < x < 3 else 0.0) for x, g in zip(POINTS, gate, strict=True)]
    np.testing.assert_allclose(slopes(built), expected, rtol=1e-12)
    np.testing.assert_allclose(overwritten_slopes(built), expected, rtol=1e-12)


def test_info_counts_the_products_of_a_depthwise_convolution(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = tmp_path / "net.prototxt"
    net.write_text(
        'input: "x" input_shape { dim: 1 dim: 4 dim: 5 dim: 5 } '
        'layer { name: "c" type: "ConvolutionDepthwise" bottom: "x" top: "y" convolution_param { kernel_size: 3 } }',
        "utf-8",
    )
    assert cli.main(["info", "--json", str(net)]) == 0
    assert json.loads(capsys.readouterr().out)["multiply_adds"] == 4 * 3 * 3 * 9
