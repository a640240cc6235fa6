"""SegNet's Upsample and BN, PSPNet's BN and Interp against OpenCV and their definitions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from caffe2torch import load, write_caffemodel
from caffe2torch.errors import LayerError
from caffe2torch.layers.registry import Layer
from caffe2torch.prototxt import read_net

from . import opencv
from .messages import layer, message

Array = NDArray[Any]


def random(*shape: int, seed: int = 0) -> Array:
    return np.random.RandomState(seed).randn(*shape).astype(np.float32)


def set_blobs(built: Layer, *values: Array) -> None:
    with torch.no_grad():
        for (_, blob), value in zip(built.blob_items(), values, strict=True):
            blob.copy_(torch.from_numpy(value))


def unpool(x: Array, mask: Array, height: int, width: int) -> Array:
    planes = np.zeros((*x.shape[:2], height * width), x.dtype)
    for n, c in np.ndindex(*x.shape[:2]):
        for value, place in zip(x[n, c].flat, mask[n, c].flat, strict=True):
            planes[n, c, int(place)] = value
    return planes.reshape(*x.shape[:2], height, width)


@pytest.mark.parametrize(
    "settings, height, width",
    [
        ("", 6, 8),
        ("scale: 3", 9, 12),
        ("scale_h: 2 scale_w: 4", 6, 16),
        ("pad_out_h: true", 5, 8),
        ("scale: 2 pad_out_h: true pad_out_w: true", 5, 7),
        ("upsample_h: 7 upsample_w: 9", 7, 9),
        ("scale: 2 upsample_h: 5 upsample_w: 4", 5, 4),
    ],
)
def test_upsample_puts_values_where_the_mask_says(settings: str, height: int, width: int) -> None:
    x = random(2, 3, 3, 4)
    mask = np.stack([np.random.RandomState(i).permutation(height * width)[:12] for i in range(6)])
    mask = mask.reshape(x.shape).astype(np.float32)
    built = layer(f'type: "Upsample" upsample_param {{ {settings} }}', [x.shape, x.shape])
    found = built(torch.from_numpy(x), torch.from_numpy(mask))
    np.testing.assert_array_equal(found, unpool(x, mask, height, width))


def test_upsample_lets_the_last_of_two_values_win_and_gives_both_the_gradient() -> None:
    x = torch.tensor([[[[1.0, 2.0, 3.0]]]], requires_grad=True)
    mask = torch.tensor([[[[4.0, 1.0, 4.0]]]])
    y = layer('type: "Upsample"', [(1, 1, 1, 3)] * 2)(x, mask)
    assert y.flatten().tolist() == [0, 2, 0, 0, 3] + [0] * 7
    y.backward(torch.arange(12.0).reshape(1, 1, 2, 6))
    assert x.grad is not None
    assert x.grad.flatten().tolist() == [4, 1, 4]


def test_upsample_undoes_the_pooling_whose_mask_it_gets(tmp_path: Path) -> None:
    net = tmp_path / "net.prototxt"
    net.write_text(
        """
        layer { name: "data" type: "Input" top: "x" input_param { shape { dim: 1 dim: 2 dim: 5 dim: 7 } } }
        layer { name: "p" type: "Pooling" bottom: "x" top: "p" top: "mask" pooling_param { kernel_size: 2 stride: 2 } }
        layer { name: "u" type: "Upsample" bottom: "p" bottom: "mask" top: "y"
                upsample_param { scale: 2 pad_out_h: true pad_out_w: true } }
        """,
        "utf-8",
    )
    x = random(1, 2, 5, 7)
    found = load(net)(torch.from_numpy(x))["y"].numpy()
    expected = np.zeros_like(x)
    for n, c, h, w in np.ndindex(1, 2, 3, 4):
        window = x[n, c, 2 * h : 2 * h + 2, 2 * w : 2 * w + 2]
        row, column = np.unravel_index(window.argmax(), window.shape)
        expected[n, c, 2 * h + row, 2 * w + column] = window.max()
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("place", [-1.0, 4.0])
def test_upsample_refuses_a_place_outside_the_plane(place: float) -> None:
    built = layer('type: "Upsample"', [(1, 1, 1, 1)] * 2)
    with pytest.raises(LayerError, match=r"expected 0 to 3, those of a plane of 2 x 2"):
        built(torch.ones(1, 1, 1, 1), torch.full((1, 1, 1, 1), place))


@pytest.mark.parametrize(
    "settings, problem",
    [
        ("scale: 1", "scale is"),
        ("upsample_h: 1 upsample_w: 4", "size is"),
        ("scale: 3 pad_out_w: true", "pad_out with scale"),
        ("scale: 2 scale_h: 2 scale_w: 2", "scale and scale_h and scale_w"),
        ("upsample_h: 4", "has upsample_h"),
    ],
)
def test_upsample_refuses(settings: str, problem: str) -> None:
    with pytest.raises(LayerError, match=problem):
        layer(f'type: "Upsample" upsample_param {{ {settings} }}', [(1, 1, 2, 2)] * 2)


def normalised(x: Array, mean: Array, variance: Array, scale: Array, shift: Array, eps: float) -> Array:
    """In float64, all statistics of shape (1, C, 1, 1)."""
    double = [v.astype(np.float64) for v in (x, mean, variance, scale, shift)]
    return (double[0] - double[1]) / np.sqrt(double[2] + eps) * double[3] + double[4]


def statistics(x: Array) -> tuple[Array, Array]:
    """Mean and variance over all but the channels, as (1, C, 1, 1), in float64."""
    double = x.astype(np.float64)
    return double.mean((0, 2, 3), keepdims=True), double.var((0, 2, 3), keepdims=True)


@pytest.mark.parametrize("training", [False, True])
def test_segnets_bn_normalises_by_the_batch_in_both_phases(training: bool) -> None:
    x = 3 * random(4, 3, 5, 6) + 2
    built = layer('type: "BN" top: "y" top: "m" top: "v" bn_param { bn_mode: LEARN }', [x.shape], training=training)
    scale, shift = (blob.detach().numpy() for _, blob in built.blob_items())
    assert scale.shape == shift.shape == (1, 3, 1, 1)
    y, mean, variance = built(torch.from_numpy(x))
    expected = statistics(x)
    np.testing.assert_allclose(mean, expected[0], rtol=1e-5)
    np.testing.assert_allclose(variance, expected[1], rtol=1e-5)
    np.testing.assert_allclose(y.detach(), normalised(x, *expected, scale, shift, 1e-9), rtol=1e-4, atol=1e-5)
    assert not mean.requires_grad


def test_segnets_bn_in_inference_scales_and_shifts() -> None:
    x = random(2, 3, 4, 5)
    built = layer('type: "BN" bn_param { bn_mode: INFERENCE }', [x.shape], training=True)
    scale, shift = (blob.detach().numpy() for _, blob in built.blob_items())
    np.testing.assert_allclose(built(torch.from_numpy(x)).detach(), x * scale + shift, rtol=1e-6, atol=1e-6)


def test_segnets_bn_gradient_is_the_derivative() -> None:
    built = layer('type: "BN" bn_param { bn_mode: LEARN }', [(2, 2, 2, 3)]).double()
    x = torch.from_numpy(random(2, 2, 2, 3)).double().requires_grad_()
    assert torch.autograd.gradcheck(built, (x,))


def test_segnets_bn_gives_vectors_two_more_axes() -> None:
    built = layer('type: "BN" bn_param { bn_mode: INFERENCE }', [(2, 3)])
    assert built(torch.ones(2, 3)).shape == (2, 3, 1, 1)


@pytest.mark.parametrize("settings, training", [("eps: 0.01", False), ("eps: 0.01 frozen: true", True)])
def test_pspnets_bn_uses_the_statistics_of_its_blobs(settings: str, training: bool) -> None:
    x = random(2, 3, 4, 5)
    built = layer(f'type: "BN" bn_param {{ {settings} }}', [x.shape], training=training)
    slope, bias, mean, variance = (blob.detach().numpy().copy() for _, blob in built.blob_items())
    found = built(torch.from_numpy(x)).detach()
    np.testing.assert_allclose(found, normalised(x, mean, variance, slope, bias, 0.01), rtol=1e-5, atol=1e-5)
    assert torch.equal(built.blob_items()[2][1], torch.from_numpy(mean))


def test_pspnets_bn_in_training_moves_its_statistics() -> None:
    x = 3 * random(2, 3, 4, 5) + 1
    built = layer('type: "BN" bn_param { momentum: 0.75 }', [x.shape], training=True)
    slope, bias, mean, variance = (blob.detach().numpy().copy() for _, blob in built.blob_items())
    found = built(torch.from_numpy(x)).detach()
    batch = statistics(x)
    np.testing.assert_allclose(found, normalised(x, *batch, slope, bias, 1e-5), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(built.blob_items()[2][1], 0.75 * mean + 0.25 * batch[0], rtol=1e-5)
    np.testing.assert_allclose(built.blob_items()[3][1], 0.75 * variance + 0.25 * batch[1], rtol=1e-5)


def test_pspnets_bn_of_one_value_per_channel_has_no_variance() -> None:
    built = layer('type: "BN" bn_param { momentum: 0.5 }', [(1, 2, 1, 1)], training=True)
    set_blobs(built, *(np.full((1, 2, 1, 1), value, np.float32) for value in (2.0, 3.0, 1.0, 1.0)))
    assert built(torch.full((1, 2, 1, 1), 5.0)).flatten().tolist() == [3.0, 3.0]
    assert [blob.flatten().tolist() for _, blob in built.blob_items()[2:]] == [[3.0, 3.0], [0.5, 0.5]]


def test_pspnets_frozen_bn_learns_nothing() -> None:
    built = layer('type: "BN" bn_param { frozen: true }', [(2, 3, 4, 5)], training=True)
    assert [blob.requires_grad for _, blob in built.blob_items()] == [False] * 4
    x = torch.ones(2, 3, 4, 5, requires_grad=True)
    assert built(x).requires_grad


def test_bn_starts_with_its_fillers_and_zeros() -> None:
    segnet = message('type: "BN" bn_param { scale_filler { value: 2 } }')
    pspnet = message('type: "BN" bn_param { slope_filler { value: 2 } bias_filler { value: 3 } frozen: true }')
    for made, values in ((segnet, [2.0, 0.0]), (pspnet, [2.0, 3.0, 0.0, 1.0])):
        built = layer(f'type: "BN" bn_param {{ {made.bn_param!s} }}', [(1, 1, 1, 1)])
        with torch.no_grad():
            built.fill(made)
        assert [blob.item() for _, blob in built.blob_items()] == values


@pytest.mark.parametrize("settings", ["", "bn_mode: LEARN frozen: true"])
def test_bn_of_no_or_of_two_forks_is_refused(settings: str) -> None:
    with pytest.raises(LayerError, match=r"expected fields that tell SegNet's BN .* from PSPNet's"):
        layer(f'type: "BN" bn_param {{ {settings} }}', [(1, 2, 3, 4)])


@pytest.mark.parametrize("settings, count", [("bn_mode: INFERENCE", 2), ("frozen: true", 4)])
def test_bn_takes_its_blobs_from_a_caffemodel(tmp_path: Path, settings: str, count: int) -> None:
    net, weights = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    net.write_text(
        'input: "x" input_shape { dim: 2 dim: 3 dim: 4 dim: 5 }'
        f'layer {{ name: "bn" type: "BN" bottom: "x" top: "y" bn_param {{ {settings} }} }}',
        "utf-8",
    )
    blobs = [np.abs(random(1, 3, 1, 1, seed=seed)) for seed in range(count)]
    write_caffemodel(weights, read_net(net), {"bn": blobs})
    x = random(2, 3, 4, 5)
    expected = x * blobs[0] + blobs[1] if count == 2 else normalised(x, blobs[2], blobs[3], blobs[0], blobs[1], 1e-5)
    with torch.no_grad():
        found = load(net, weights)(torch.from_numpy(x))["y"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def interpolated(x: Array, height: int, width: int) -> Array:
    """The definition in float64: corners on corners."""
    result = np.zeros((*x.shape[:2], height, width))
    for h, w in np.ndindex(height, width):
        row = h * (x.shape[2] - 1) / (height - 1) if height > 1 else 0.0
        column = w * (x.shape[3] - 1) / (width - 1) if width > 1 else 0.0
        for r, c in np.ndindex(x.shape[2], x.shape[3]):
            share = max(0.0, 1 - abs(row - r)) * max(0.0, 1 - abs(column - c))
            result[:, :, h, w] += share * x[:, :, r, c]
    return result


INTERP = [
    ("height: 7 width: 9", (0, 0), (7, 9)),
    ("height: 1 width: 4", (0, 0), (1, 4)),
    ("zoom_factor: 3", (0, 0), (13, 16)),
    ("shrink_factor: 2", (0, 0), (3, 3)),
    ("shrink_factor: 2 zoom_factor: 4", (0, 0), (9, 9)),
    ("shrink_factor: 2 zoom_factor: 4 height: 5 width: 6", (0, 0), (5, 6)),
    ("zoom_factor: 2 height: 50 width: 60", (0, 0), (9, 11)),
    ("zoom_factor: 2 pad_beg: -1 pad_end: -2", (1, 2), (3, 5)),
]


@pytest.mark.parametrize("settings, crop, size", INTERP, ids=[case[0] for case in INTERP])
def test_interp_equals_its_definition(settings: str, crop: tuple[int, int], size: tuple[int, int]) -> None:
    x = random(2, 3, 5, 6)
    found = layer(f'type: "Interp" interp_param {{ {settings} }}', [x.shape])(torch.from_numpy(x))
    cropped = x[:, :, crop[0] : 5 - crop[1], crop[0] : 6 - crop[1]]
    np.testing.assert_allclose(found, interpolated(cropped, *size), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("settings", ["height: 7 width: 9", "zoom_factor: 2", "height: 3 width: 2"])
def test_interp_equals_opencv(tmp_path: Path, settings: str) -> None:
    x = random(2, 3, 5, 6)
    text = f'type: "Interp" interp_param {{ {settings} }}'
    found = layer(text, [x.shape])(torch.from_numpy(x))
    np.testing.assert_allclose(found, opencv.run(tmp_path, text, [x]), rtol=1e-5, atol=1e-6)


def test_interp_takes_the_size_of_a_second_bottom() -> None:
    x = random(2, 3, 5, 6)
    found = layer('type: "Interp"', [x.shape, (1, 1, 4, 8)])(torch.from_numpy(x), torch.zeros(1, 1, 4, 8))
    np.testing.assert_allclose(found, interpolated(x, 4, 8), rtol=1e-5, atol=1e-6)


def test_interp_gradient_is_the_derivative() -> None:
    built = layer('type: "Interp" interp_param { height: 5 width: 3 pad_beg: -1 }', [(1, 2, 4, 5)])
    x = torch.from_numpy(random(1, 2, 4, 5)).double().requires_grad_()
    assert torch.autograd.gradcheck(built, (x,))


@pytest.mark.parametrize(
    "settings, problem",
    [
        ("", "gives no size"),
        ("height: 4", "gives no size"),
        ("height: 0 width: 4", "expected at least 1"),
        ("zoom_factor: 0", "expected at least 1"),
        ("zoom_factor: 2 pad_beg: 1", "pad_beg and pad_end are 1 and 0"),
        ("zoom_factor: 2 pad_beg: -3 pad_end: -2", "leave nothing"),
    ],
)
def test_interp_refuses(settings: str, problem: str) -> None:
    with pytest.raises(LayerError, match=problem):
        layer(f'type: "Interp" interp_param {{ {settings} }}', [(1, 2, 5, 6)])
