"""Real trained models reach the accuracy real Caffe gives them, and survive our writers bit for bit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from caffe2torch.binaryproto import read_mean
from caffe2torch.caffemodel import open_weights, write_caffemodel
from caffe2torch.hdf5 import write_hdf5
from caffe2torch.loading import load
from caffe2torch.net import CaffeNet
from caffe2torch.prototxt import read_net
from cifar import held_out_images, held_out_labels


@dataclass(frozen=True)
class Model:
    prototxt: str
    weights: str
    accuracy: float
    """Per cent of the 10,000 test images, by real Caffe."""
    syntax: str = "V1"


MODELS = (
    Model("cifar10_full.prototxt", "cifar10_full_iter_60000.caffemodel", 79.42),
    Model("cifar10_quick.prototxt", "cifar10_quick_iter_5000.caffemodel", 74.91),
    Model("cifar10_quick_dmsh.prototxt", "cifar10_quick_dmsh_iter_5000.caffemodel.h5", 75.84),
    Model("lenet.prototxt", "lenet_iter_10000.caffemodel", 99.05),
)
SQUEEZENET = Model("squeezenet_v1.0.prototxt", "squeezenet_v1.0.caffemodel", 0.0, "V2")


def inputs(model: Model, reference: Path) -> tuple[np.ndarray, np.ndarray]:
    """(10000, C, H, W) float32 as the net wants it, and labels."""
    if model.prototxt.startswith("lenet"):
        data = np.load(reference / "models" / "mnist_t10k.npz")
        return data["x"].reshape(-1, 1, 28, 28).astype(np.float32) / 256, data["y"]
    # Caffe's own CIFAR-10 database keeps the data set's R, G, B order, and so does its mean image.
    images = held_out_images(reference)[..., ::-1].astype(np.float32).transpose(0, 3, 1, 2)
    return images - read_mean(reference / "models" / "cifar10_mean.binaryproto"), held_out_labels(reference)


def scores(net: CaffeNet, x: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return np.concatenate([net(torch.from_numpy(b))[net.outputs[0]].numpy() for b in np.array_split(x, 20)])


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.prototxt)
def test_accuracy_is_caffes(model: Model, reference: Path) -> None:
    folder = reference / "models"
    x, labels = inputs(model, reference)
    result = scores(load(folder / model.prototxt, folder / model.weights), x)
    accuracy = 100 * (result.reshape(len(labels), -1).argmax(1) == labels).mean()
    assert abs(accuracy - model.accuracy) <= 0.03


@pytest.mark.parametrize("model", [*MODELS, SQUEEZENET], ids=lambda m: m.prototxt)
def test_outputs_survive_every_writer_bit_for_bit(model: Model, reference: Path, tmp_path: Path) -> None:
    folder = reference / "models"
    net = load(folder / model.prototxt, folder / model.weights)
    x = torch.randn(*net.input_shapes[net.inputs[0]], generator=torch.Generator().manual_seed(1)) * 50
    with torch.inference_mode():
        expected = net(x)[net.outputs[0]]
    message = read_net(folder / model.prototxt)
    with open_weights(folder / model.weights) as file:
        weights = {layer.name: [blob.read() for blob in layer.blobs] for layer in file.layers if layer.blobs}
    shaped = {name: [b.reshape(s) for b, s in zip(weights[name], shapes(net, name), strict=True)] for name in weights}
    written = []
    for syntax in ("V2", "V1"):
        written.append(tmp_path / f"{syntax}.caffemodel")
        write_caffemodel(written[-1], message, shaped, syntax=syntax)
    written.append(tmp_path / "weights.caffemodel.h5")
    write_hdf5(written[-1], message, shaped)
    for path in written:
        with torch.inference_mode():
            assert torch.equal(load(folder / model.prototxt, path)(x)[net.outputs[0]], expected), path.name


def shapes(net: CaffeNet, name: str) -> list[tuple[int, ...]]:
    return [tuple(value.shape) for _, value in net.layer(name).blob_items()]


@pytest.mark.skipif(not hasattr(cv2.dnn, "readNetFromCaffe"), reason="this OpenCV no longer reads Caffe's files")
def test_squeezenet_agrees_with_opencv(reference: Path) -> None:
    net_file, weights = (reference / "models" / name for name in (SQUEEZENET.prototxt, SQUEEZENET.weights))
    net, oracle = load(net_file, weights), cv2.dnn.readNetFromCaffe(str(net_file), str(weights))
    picture = cv2.resize(cv2.imread(str(reference / "images" / "cat.jpg")), (227, 227)).astype(np.float32)
    x = np.ascontiguousarray((picture - np.array([104, 117, 123], np.float32)).transpose(2, 0, 1)[None])
    oracle.setInput(x)
    expected = oracle.forward().ravel()
    with torch.inference_mode():
        result = net(torch.from_numpy(x))[net.outputs[0]].numpy().ravel()
    assert np.abs(result - expected).max() <= 1e-4 * np.abs(expected).max()
