"""The full-size golden nets: weights by the recipe of the goldens' README, written as real caffemodels."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from caffe2torch.caffemodel import write_caffemodel
from caffe2torch.loading import load
from caffe2torch.net import CaffeNet
from caffe2torch.prototxt import read_net


@dataclass(frozen=True)
class FullSize:
    """One golden: its published prototxt, the seed of its weights and the layer whose sigmoid gives the code."""

    name: str
    prototxt: str
    seed: int
    latent: str
    syntax: str


NETS = (
    FullSize("kevinnet48", "caffe-cvprw15/KevinNet_CIFAR10_48_deploy.prototxt", 101, "fc8_kevin", "V1"),
    FullSize("ssdh", "Caffe-DeepBinaryCode/SSDH/deploy.prototxt", 102, "latent", "V2"),
    FullSize("ssdh_vgg16_48", "Caffe-DeepBinaryCode/SSDH-VGG16-48/deploy.prototxt", 103, "latent_layer", "V2"),
    FullSize("ssdh_vgg16_avg_48", "Caffe-DeepBinaryCode/SSDH-VGG16-Avg-48/deploy.prototxt", 104, "latent_layer", "V2"),
)


def prototxt(case: FullSize, reference: Path) -> Path:
    return reference / "published" / "prototxt" / case.prototxt


def parameters(net: CaffeNet, case: FullSize) -> dict[str, list[np.ndarray]]:
    """The recipe: one legacy generator, weight before bias, layers in prototxt order, float64 then one cast."""
    rng = np.random.RandomState(case.seed)
    made = {}
    for node, layer in net.built():
        blobs = layer.blob_items()
        if not blobs:
            continue
        shape = tuple(blobs[0][1].shape)
        gain = 0.02 if node.name == case.latent else 1.0
        weight = (rng.standard_normal(shape) * (np.sqrt(2.0 / np.prod(shape[1:])) * gain)).astype(np.float32)
        made[node.name] = [weight, rng.uniform(-0.1, 0.1, (shape[0],)).astype(np.float32)]
    return made


def input_batch(case: FullSize, size: int) -> np.ndarray:
    return (np.random.RandomState(case.seed + 1000).standard_normal((4, 3, size, size)) * 50.0).astype(np.float32)


def sha256(array: np.ndarray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(array, dtype="<f4").tobytes()).digest()


def write_weights(case: FullSize, reference: Path, target: Path) -> dict[str, list[np.ndarray]]:
    """Write the golden's weights to ``target`` with our own writer, in the syntax of its prototxt."""
    path = prototxt(case, reference)
    made = parameters(load(path), case)
    write_caffemodel(target, read_net(path), made, syntax=case.syntax)
    return made
