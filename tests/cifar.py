"""CIFAR-10 from the lossless strips of the reference material, in B, G, R order as nets read pictures."""

from __future__ import annotations

import zipfile
from functools import lru_cache
from pathlib import Path

import numpy as np

from caffe2torch.data.cifar10 import BATCHES, Batch, open_cifar10


def strips(reference: Path) -> Path:
    return reference / "cifar10" / "cifar10_lossless_webp.zip"


@lru_cache(maxsize=1)
def held_out(reference: Path) -> Batch:
    """The test batch, read once in a test run."""
    return open_cifar10(strips(reference)).test


def train_images(reference: Path, count: int = 50_000) -> np.ndarray:
    """The first ``count`` training images in the standard order, (N, 32, 32, 3) uint8 BGR."""
    names = BATCHES[: -(-count // 10_000)]
    images = np.concatenate([batch.images for batch in open_cifar10(strips(reference)).batches(names)])
    return np.ascontiguousarray(images[:count, ..., ::-1])


def held_out_images(reference: Path) -> np.ndarray:
    """The 10,000 test images in the standard order, (N, 32, 32, 3) uint8 BGR."""
    return np.ascontiguousarray(held_out(reference).images[..., ::-1])


def labels(reference: Path) -> np.ndarray:
    with zipfile.ZipFile(strips(reference)) as archive:
        return np.frombuffer(archive.read("labels.bin"), np.uint8)


def held_out_labels(reference: Path) -> np.ndarray:
    return labels(reference)[50_000:]
