"""CIFAR-10 from the lossless strips of the reference material."""

from __future__ import annotations

import zipfile
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

STRIP = 500


def _strips(reference: Path, first: int, last: int) -> np.ndarray:
    images = []
    with zipfile.ZipFile(reference / "cifar10" / "cifar10_lossless_webp.zip") as archive:
        for number in range(first, last):
            data = np.frombuffer(archive.read(f"{number:03d}.webp"), np.uint8)
            images.append(cv2.imdecode(data, cv2.IMREAD_COLOR).reshape(STRIP, 32, 32, 3))
    return np.concatenate(images)


def train_images(reference: Path, count: int = 50_000) -> np.ndarray:
    """The first ``count`` training images in the standard order, (N, 32, 32, 3) uint8 BGR; a multiple of 500."""
    return _strips(reference, 0, count // STRIP)


@lru_cache(maxsize=1)
def held_out_images(reference: Path) -> np.ndarray:
    """The 10,000 test images in the standard order, (N, 32, 32, 3) uint8 BGR."""
    return _strips(reference, 100, 120)


def labels(reference: Path) -> np.ndarray:
    with zipfile.ZipFile(reference / "cifar10" / "cifar10_lossless_webp.zip") as archive:
        return np.frombuffer(archive.read("labels.bin"), np.uint8)


def held_out_labels(reference: Path) -> np.ndarray:
    return labels(reference)[50_000:]
