"""Small sets of codes with labels, and a small CIFAR-10, drawn at random but always the same."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from caffe2torch.data.cifar10 import Batch
from caffe2torch.retrieval.codes import Codes, as_text


def draw_codes(count: int, *, bits: int = 12, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Bits (count, bits) that lie near one of ``classes`` centres, and which one; many codes are equal."""
    rng = np.random.RandomState(seed)
    labels = rng.randint(0, classes, count)
    centres = np.random.RandomState(99).rand(classes, bits) > 0.5
    return centres[labels] ^ (rng.rand(count, bits) < 0.1), labels


def as_codes(bits: np.ndarray, labels: np.ndarray | None = None, **provenance: object) -> Codes:
    names = tuple(f"d/{number}.png" for number in range(len(bits)))
    return Codes(np.packbits(bits, axis=1), bits.shape[1], names, provenance, labels=labels)


def write_csv(path: Path, bits: np.ndarray, labels: np.ndarray | None = None, folder: str = "d") -> Path:
    rows = [f"{folder}/{number}.png,{code}" for number, code in enumerate(as_text(np.packbits(bits, 1), bits.shape[1]))]
    if labels is not None:
        rows = [f"{row},{label}" for row, label in zip(rows, labels, strict=True)]
    path.write_text("\n".join(["path,code" + (",label" if labels is not None else ""), *rows]) + "\n")
    return path


@dataclass
class SmallCifar10:
    """``size`` pictures in each batch, smooth so that JPEG keeps them recognisable."""

    size: int = 6
    path: Path = Path("small")

    def _part(self, name: str, batches: int, seed: int) -> Batch:
        rng = np.random.RandomState(seed)
        small = rng.randint(0, 256, (batches * self.size, 4, 4, 3), np.uint8)
        images = small.repeat(8, axis=1).repeat(8, axis=2)
        return Batch(name, images, (np.arange(len(images)) % 3).astype(np.uint8))

    @cached_property
    def train(self) -> Batch:
        return self._part("train", 5, 1)

    @cached_property
    def test(self) -> Batch:
        return self._part("test", 1, 2)
