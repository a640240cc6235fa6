"""A small hashing net with KevinNet's preprocessing, and its codes by a path that shares nothing with ours.

Pictures are prepared in float64 from the definition of MATLAB's imresize, the net is run by OpenCV.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from caffe2torch.caffemodel import write_caffemodel
from caffe2torch.prototxt import parse
from preprocess.naive import matlab_weights

BITS = 48
CROP = 227
RESIZE = 256

NET = """
name: "standin"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 227 dim: 227 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
        convolution_param { num_output: 12 kernel_size: 11 stride: 8 } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1"
        pooling_param { pool: MAX kernel_size: 3 stride: 3 } }
layer { name: "latent" type: "InnerProduct" bottom: "pool1" top: "latent" inner_product_param { num_output: 48 } }
layer { name: "code" type: "Sigmoid" bottom: "latent" top: "code" }
"""


@dataclass(frozen=True, eq=False)
class StandIn:
    """The files of a release: net, weights, mean image and codes of the first test pictures, in list order."""

    net: Path
    weights: Path
    mean: Path
    codes: Path


def enlarging() -> np.ndarray:
    """(256, 32): imresize of 32 pixels to 256 along one axis, from its definition."""
    matrix = np.zeros((RESIZE, 32))
    for x in range(RESIZE):
        for i, weight in matlab_weights(x, 32, RESIZE).items():
            matrix[x, i] += weight
    return matrix


def prepare(image: np.ndarray, mean: np.ndarray, *, offset: int = 15) -> np.ndarray:
    """(32, 32, 3) BGR and the mean (3, 256, 256) to (3, 227, 227) float64, as the papers' MATLAB script does it."""
    matrix = enlarging()
    planes = np.stack([matrix @ image[..., c].astype(np.float64) @ matrix.T for c in range(3)]) - mean
    return planes[:, offset : offset + CROP, offset : offset + CROP]


def make(folder: Path, images: list[np.ndarray], mean: np.ndarray) -> StandIn:
    """Write the release; its bits are set for about half of the pictures each."""
    found = StandIn(folder / "net.prototxt", folder / "x.caffemodel", folder / "mean.npy", folder / "codes.npy")
    found.net.write_text(NET, "utf-8")
    np.save(found.mean, mean.astype(np.float32))
    rng = np.random.default_rng(48)
    weights = {
        "conv1": [rng.standard_normal((12, 3, 11, 11)) / 60, rng.uniform(-1, 1, 12)],
        "latent": [rng.standard_normal((BITS, 12 * 10 * 10)) / 300, np.zeros(BITS)],
    }
    batch = np.stack([prepare(image, mean) for image in images]).astype(np.float32)
    _write(found.weights, weights)
    weights["latent"][1] = -np.median(forward(found, batch, "latent"), axis=0)
    _write(found.weights, weights)
    np.save(found.codes, forward(found, batch, "code") > np.float32(0.5))
    return found


def _write(path: Path, weights: dict[str, list[np.ndarray]]) -> None:
    blobs = {name: [blob.astype(np.float32) for blob in some] for name, some in weights.items()}
    write_caffemodel(path, parse(NET), blobs)


def forward(release: StandIn, batch: np.ndarray, blob: str) -> np.ndarray:
    net = cv2.dnn.readNetFromCaffe(str(release.net), str(release.weights))
    net.setInput(batch)
    return np.array(net.forward(blob)).reshape(len(batch), BITS)


__all__ = ["StandIn", "make", "prepare"]
