"""CIFAR-10 in memory, in the standard order: data_batch_1 to data_batch_5, then the test batch."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from caffe2torch.data.cifar10.records import BATCHES, Records, prove
from caffe2torch.data.cifar10.sources import find_reader

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class Batch:
    """Pictures (N, 32, 32, 3) uint8 in R, G, B order and their labels (N,) uint8, 0 to 9.

    ``name`` is batch1 to batch5 or test, or train for the five together.
    """

    name: str
    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int) -> Batch:
        """The first ``count`` pictures."""
        return Batch(self.name, self.images[:count], self.labels[:count])


class Cifar10:
    """The data set in one of its forms on disk, read when first asked for.

    Every batch that is read is proved to be the published one, unless ``check`` is False. Reading raises FormatError.
    """

    def __init__(self, path: Path, *, check: bool = True) -> None:
        self.path = path
        self._check = check
        self._reader = find_reader(path)

    def batches(self, names: Collection[str] = BATCHES) -> Iterator[Batch]:
        """These batches, one at a time in the order in which they lie in the file, in a single pass over it."""
        unknown = sorted(set(names) - set(BATCHES))
        if unknown:
            raise ValueError(f"no batch of CIFAR-10 is called {', '.join(unknown)}; there are {', '.join(BATCHES)}")
        for name, records in self._reader(names):
            if self._check:
                prove(records, name, self.path)
            yield _batch(name, records)

    @cached_property
    def train(self) -> Batch:
        """The 50,000 training pictures, 150 MB."""
        found = {batch.name: batch for batch in self.batches(BATCHES[:5])}
        parts = [found[name] for name in BATCHES[:5]]
        return Batch(
            "train", np.concatenate([part.images for part in parts]), np.concatenate([part.labels for part in parts])
        )

    @cached_property
    def test(self) -> Batch:
        """The 10,000 test pictures, 30 MB."""
        return next(self.batches(("test",)))


def open_cifar10(source: str | os.PathLike[str], *, check: bool = True) -> Cifar10:
    """CIFAR-10 from ``source``, whose form is told from its contents.

    It may be cifar-10-python.tar.gz or cifar-10-binary.tar.gz, the folder either unpacks to, or 120 lossless strips
    (a zip or a folder: 000.webp to 119.webp of 500 pictures each, and labels.bin). Raises FormatError for anything
    else. With ``check`` False altered pictures and labels pass; only their form is checked.
    """
    return Cifar10(Path(source), check=check)


def _batch(name: str, records: Records) -> Batch:
    planes = records[:, 1:].reshape(-1, 3, 32, 32)
    return Batch(name, np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), records[:, 0].copy())
