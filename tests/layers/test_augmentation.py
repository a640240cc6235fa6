"""DataAugmentation and Mean: what FlowNet2's deploy nets subtract from their images."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import caffe2torch
from caffe2torch import prototxt, surgery
from caffe2torch.caffemodel import write_caffemodel
from caffe2torch.errors import LayerError, WeightsError
from caffe2torch.loading import load_weights
from caffe2torch.surgery.measure import runnable
from caffe2torch.surgery.model import check_weights, states

from . import opencv
from .messages import layer

Array = NDArray[Any]
RNG = np.random.RandomState(0)
SHAPE = (2, 3, 4, 5)


def augmentation(settings: str) -> str:
    return f'type: "DataAugmentation" augmentation_param {{ {settings} }}'


def stored(settings: str, count: float, mean: Array, channel_mean: Array) -> Any:
    """The layer with these blobs, the mean image as large as it is in the file."""
    built = layer(augmentation(settings), [SHAPE]).double()
    built.adapt([(1, 1, 1, 1), mean.shape, channel_mean.shape])
    for (_, blob), value in zip(built.blob_items(), (np.full((1, 1, 1, 1), count), mean, channel_mean), strict=True):
        blob.copy_(torch.from_numpy(value))
    return built


@pytest.mark.parametrize("count", [1000, 1.2e6])
@pytest.mark.parametrize("size", [(4, 5), (6, 7)])
def test_a_trained_mean_is_subtracted(size: tuple[int, int], count: float) -> None:
    x, mean, channel_mean = RNG.randn(*SHAPE), RNG.randn(1, 3, *size), RNG.randn(1, 3, 1, 1)
    by_channel = stored("recompute_mean: 1000 mean_per_pixel: false", count, mean, channel_mean)
    np.testing.assert_allclose(by_channel(torch.from_numpy(x)), x - channel_mean, rtol=0, atol=1e-12)
    by_pixel = stored("recompute_mean: 1000", count, mean, channel_mean)
    subtracted = np.empty((1, 3, 4, 5))
    for c in range(3):
        # A mean image of another size gives its own mean.
        subtracted[0, c] = mean[0, c] if size == (4, 5) else sum(mean[0, c].flat) / mean[0, c].size
    np.testing.assert_allclose(by_pixel(torch.from_numpy(x)), x - subtracted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("count", [0, 3, 998.9])
@pytest.mark.parametrize("per_pixel", ["true", "false"])
def test_a_mean_of_too_few_batches_takes_in_the_one_at_hand(per_pixel: str, count: float) -> None:
    x, mean, channel_mean = RNG.randn(*SHAPE), RNG.randn(1, 3, 4, 5), RNG.randn(1, 3, 1, 1)
    number = int(count) + 1
    image = np.empty((3, 4, 5))
    for c, i, j in np.ndindex(3, 4, 5):
        old = mean[0, c, i, j] if per_pixel == "true" else 0  # the fork does not load it otherwise
        image[c, i, j] = (old * (number - 1) + (x[0, c, i, j] + x[1, c, i, j]) / 2) / number
    if per_pixel == "false":
        image[:] = image.mean((1, 2), keepdims=True)
    built = stored(f"recompute_mean: 1000 mean_per_pixel: {per_pixel}", count, mean, channel_mean)
    np.testing.assert_allclose(built(torch.from_numpy(x)), x - image, rtol=0, atol=1e-12)


def test_without_weights_an_image_loses_its_own_mean_as_in_opencv(tmp_path: Path) -> None:
    x = RNG.rand(1, 3, 6, 7).astype(np.float32)
    settings = "augment_during_test: true recompute_mean: 1000 mean_per_pixel: false"
    text = f'type: "DataAugmentation" augmentation_param {{ {settings} }}'
    blobs = [np.zeros(s, np.float32) for s in ((1, 1, 1, 1), (1, 3, 6, 7), (1, 3, 1, 1))]
    built = layer(text, [x.shape])
    for _, blob in built.blob_items():
        blob.zero_()
    found = built(torch.from_numpy(x.copy()))
    np.testing.assert_allclose(found, x - x.mean((2, 3), keepdims=True), rtol=0, atol=1e-6)
    np.testing.assert_allclose(found, opencv.run(tmp_path, text, [x.copy()], blobs), rtol=0, atol=1e-5)


def cropped(x: Array, height: int, width: int) -> Array:
    """The fork's loop for coefficients that change nothing."""
    rows, columns = x.shape[2:]
    top = np.empty((*x.shape[:2], height, width))
    for j, i in np.ndindex(height, width):
        u = max(0.0, min(i - 0.5 * width + 0.5 * columns, columns - 1.05))
        v = max(0.0, min(j - 0.5 * height + 0.5 * rows, rows - 1.05))
        left, above = math.floor(u), math.floor(v)
        a, b = u - left, v - above
        top[:, :, j, i] = (1 - a) * (1 - b) * x[:, :, above, left]
        top[:, :, j, i] += a * b * x[:, :, above + 1, left + 1] + (1 - a) * b * x[:, :, above + 1, left]
        top[:, :, j, i] += a * (1 - b) * x[:, :, above, left + 1]
    return top


@pytest.mark.parametrize("height, width", [(4, 5), (3, 3), (1, 2), (2, 5)])
def test_a_crop_is_the_middle(height: int, width: int) -> None:
    x = RNG.randn(*SHAPE)
    built = layer(augmentation(f"crop_height: {height} crop_width: {width}"), [SHAPE])
    np.testing.assert_allclose(built(torch.from_numpy(x)), cropped(x, height, width), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "settings, subtracted",
    [
        ("mean: [1, 2, 3] mean_per_pixel: false", [1, 2, 3]),
        ("mean: [1, 2, 3]", [0, 0, 0]),  # mean_per_pixel is true
        ("mean: [1, 2] mean_per_pixel: false", [0, 0, 0]),
        ("", [0, 0, 0]),
        ("mirror { rand_type: 'bernoulli' } crop_height: 4", [0, 0, 0]),  # not cropped, so not changed
    ],
)
def test_the_mean_of_the_prototxt(settings: str, subtracted: list[float]) -> None:
    x = RNG.randn(*SHAPE)
    found = layer(augmentation(settings), [SHAPE])(torch.from_numpy(x))
    np.testing.assert_allclose(found, x - np.reshape(subtracted, (1, 3, 1, 1)), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "settings, shape, problem",
    [
        ("crop_height: 5 crop_width: 5", SHAPE, r"crop_height and crop_width are 5 and 5: expected 1 to \(4, 5\)"),
        ("crop_height: 0 crop_width: 5", SHAPE, "expected 1 to"),
        (
            "crop_height: 4 crop_width: 5 augment_during_test: true noise { spread: 1 } mirror { prob: 1 }",
            SHAPE,
            "augment_during_test and mirror, noise: random changes are not supported",
        ),
        ("mean: [1, 2, 3] mean_per_pixel: false", (1, 4, 2, 2), "the bottom 4 channels: expected 3"),
        ("", (1, 3), "expected 4 axes"),
    ],
)
def test_data_augmentation_refuses(settings: str, shape: tuple[int, ...], problem: str) -> None:
    with pytest.raises(LayerError, match=problem):
        layer(augmentation(settings), [shape])


def test_data_augmentation_refuses_the_training_phase() -> None:
    built = layer(augmentation("recompute_mean: 1"), [SHAPE], training=True)
    with pytest.raises(LayerError, match="in the test phase alone"):
        built(torch.rand(SHAPE))


NET = """
input: "x" input_shape { dim: 1 dim: 3 dim: 4 dim: 5 }
layer { name: "aug" type: "DataAugmentation" bottom: "x" top: "y"
  augmentation_param { recompute_mean: 10 mean_per_pixel: false } }
layer { name: "scale" type: "Convolution" bottom: "y" top: "z"
  convolution_param { num_output: 3 kernel_size: 1 bias_term: false
    weight_filler { type: "diagonal" diag_val: 0.5 diag_val: 0.25 } } }
"""


def written(folder: Path, blobs: list[Array]) -> tuple[Path, Path]:
    net, weights = folder / "net.prototxt", folder / "net.caffemodel"
    net.write_text(NET, "utf-8")
    write_caffemodel(weights, prototxt.read_net(net), {"aug": blobs})
    return net, weights


def test_weights_with_a_mean_image_of_another_size_load(tmp_path: Path) -> None:
    channel_mean = np.float32([1, 2, 3]).reshape(1, 3, 1, 1)
    blobs = [np.full((1, 1, 1, 1), 20, np.float32), np.zeros((1, 3, 8, 9), np.float32), channel_mean]
    net = caffe2torch.load(*written(tmp_path, blobs), allow_missing=True)
    x = RNG.rand(1, 3, 4, 5).astype(np.float32)
    with torch.no_grad():
        found = net(torch.from_numpy(x))["z"]
    np.testing.assert_allclose(found, (x - channel_mean) * np.float32([0.5, 0.25, 1]).reshape(1, 3, 1, 1))
    again = tmp_path / "again.caffemodel"
    caffe2torch.save(net, weights=again)
    assert torch.equal(caffe2torch.load(tmp_path / "net.prototxt", again)(torch.from_numpy(x))["z"], found)


def test_weights_that_are_refused_leave_the_mean_image_as_it_was(tmp_path: Path) -> None:
    blobs = [np.full(s, 20, np.float32) for s in ((1, 1, 1, 1), (1, 3, 4, 5), (1, 3, 1, 1))]
    prototxt_path, weights = written(tmp_path, blobs)
    net = caffe2torch.load(prototxt_path, weights, allow_missing=True)
    blobs[1] = np.zeros((1, 3, 8, 9), np.float32)
    with pytest.raises(WeightsError, match="no weights for layer 'scale'"):
        load_weights(net, written(tmp_path, blobs)[1])
    assert torch.equal(net.state_dict()["aug.mean"], torch.full((1, 3, 4, 5), 20.0))


def test_a_mean_image_that_two_layers_share_is_saved_and_loaded(tmp_path: Path) -> None:
    names = " ".join(f'param {{ name: "{name}" }}' for name in ("count", "mean", "channels"))
    layers = (
        f'layer {{ name: "{name}" type: "DataAugmentation" bottom: "x" top: "{name}" {names} '
        "augmentation_param { recompute_mean: 10 } }"
        for name in ("first", "second")
    )
    path, weights = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    path.write_text("\n".join(['input: "x" input_shape { dim: 1 dim: 3 dim: 4 dim: 5 }', *layers]), "utf-8")
    net = caffe2torch.load(path)
    for name, value in (("count", 10.0), ("mean", 2.0)):
        net.get_submodule("first").get_buffer(name).fill_(value)
    caffe2torch.save(net, weights=weights)
    found = caffe2torch.load(path, weights)(torch.ones(1, 3, 4, 5))
    assert all(torch.equal(found[name], torch.full((1, 3, 4, 5), -1.0)) for name in ("first", "second"))


def test_surgery_reads_a_mean_image_of_another_size(tmp_path: Path) -> None:
    blobs = [np.zeros(s, np.float32) for s in ((1, 1, 1, 1), (1, 3, 8, 9), (1, 3, 1, 1))]
    model = surgery.read(*written(tmp_path, blobs), allow_missing=True)
    assert model.weights is not None
    assert model.weights["aug"][1].shape == (1, 3, 8, 9)
    check_weights(model)
    net = runnable(model, next(iter(states(model.net))))
    assert net(torch.ones(1, 3, 4, 5))["z"].count_nonzero() == 0  # less its own mean: nothing was counted


def test_weights_with_a_mean_image_of_other_channels_do_not_load(tmp_path: Path) -> None:
    shapes = ((1, 1, 1, 1), (1, 4, 8, 9), (1, 3, 1, 1))
    with pytest.raises(WeightsError, match="mean is 1x3x4x5 in the net, 1x4x8x9 in the weights"):
        caffe2torch.load(*written(tmp_path, [np.zeros(s, np.float32) for s in shapes]), allow_missing=True)


@pytest.mark.parametrize("operation, sign", [("ADD", 1), ("SUBTRACT", -1)])
def test_mean_equals_the_forks_loop(operation: str, sign: int) -> None:
    shapes = [(2, 4, 2, 3), (1, 2, 3, 1)]
    text = f"operation: {operation} value: [1, 2] mean_scale: 0.5 input_scale: 3 output_scale: 2"
    built = layer(f'type: "Mean" top: "a" top: "b" mean_param {{ {text} }}', shapes)
    bottoms = [RNG.randn(*shape) for shape in shapes]
    tops = built(*map(torch.from_numpy, bottoms))
    for x, top in zip(bottoms, tops, strict=True):
        expected = np.empty(x.shape)
        for n, c, i, j in np.ndindex(*x.shape):
            expected[n, c, i, j] = 2 * (3 * x[n, c, i, j] + sign * 0.5 * (1, 2)[c % 2])
        np.testing.assert_allclose(top, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "settings, problem",
    [
        ("value: 1", "no operation"),
        ("operation: ADD", "has 0 values"),
        ("operation: ADD value: [1, 2]", "has 2 values, .* that the number of values divides"),
        ('operation: ADD file: "mean.binaryproto"', "the file 'mean.binaryproto', which is not supported"),
    ],
)
def test_mean_refuses(settings: str, problem: str) -> None:
    with pytest.raises(LayerError, match=problem):
        layer(f'type: "Mean" mean_param {{ {settings} }}', [SHAPE])


def test_mean_refuses_other_numbers_of_tops() -> None:
    with pytest.raises(LayerError, match="found 2 bottoms and 1 tops"):
        layer('type: "Mean" mean_param { operation: ADD value: 1 }', [SHAPE, SHAPE])
