"""The pictures an evaluation starts from: files that lists and folders name, or CIFAR-10 in memory."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from caffe2torch.data.cifar10 import (
    TEST_WALK,
    TRAIN_WALK,
    Batch,
    Cifar10,
    Layout,
    papers_file,
    papers_jpeg,
    papers_order,
)
from caffe2torch.errors import FormatError, UsageError
from caffe2torch.extract.listing import Entry, Found, walk

FORMS = ("lossless", "papers")
"""CIFAR-10 as it is, or as the papers' authors had it: mirrored and JPEG-coded."""


@dataclass(frozen=True)
class Listing:
    """How many pictures there are, and the SHA-256 of their names, places and labels as extract's journal takes it."""

    count: int
    sha256: str


class Pictures(ABC):
    """Pictures in one order, perhaps with labels."""

    @abstractmethod
    def entries(self) -> Iterator[Entry]:
        """Name, place and label of each."""

    @cached_property
    def listing(self) -> Listing:
        digest, count = hashlib.sha256(), 0
        for entry in self.entries():
            digest.update(json.dumps([entry.shown, entry.file, entry.label]).encode("ascii") + b"\n")
            count += 1
        return Listing(count, digest.hexdigest())


@dataclass(frozen=True)
class Files(Pictures):
    """Folders, list files and single pictures; ``root`` is where the paths of lists start."""

    inputs: tuple[Path, ...]
    root: Path | None = None

    def entries(self) -> Iterator[Entry]:
        return walk(self.inputs, root=self.root, found=Found())


@dataclass(frozen=True, eq=False)
class CifarPart(Pictures):
    """The test or the training pictures of CIFAR-10 in the order of the papers' lists, without files of their own.

    ``form`` is one of FORMS.
    """

    cifar: Cifar10
    test: bool
    form: str

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise UsageError(f"form {self.form!r}: expected one of {', '.join(FORMS)}")

    @cached_property
    def _batch(self) -> Batch:
        return self.cifar.test if self.test else self.cifar.train

    @cached_property
    def _size(self) -> int:
        """Pictures in each of the batches that are read as one: 10,000."""
        return len(self._batch) // (1 if self.test else len(TRAIN_WALK))

    @cached_property
    def _order(self) -> npt.NDArray[np.int64]:
        return papers_order(TEST_WALK if self.test else TRAIN_WALK, first=self._size)

    def entries(self) -> Iterator[Entry]:
        labels = self._batch.labels
        for index in self._order.tolist():
            batch, number = divmod(index, self._size)
            name = papers_file("test" if self.test else f"batch{batch + 1}", number)
            yield Entry(name, f"CIFAR-10, {self.form}: {name}", int(labels[index]))

    def image(self, row: int) -> npt.NDArray[np.uint8]:
        """Picture ``row``, (32, 32, 3) BGR."""
        image = self._batch.images[self._order[row]]
        if self.form == "lossless":
            return np.ascontiguousarray(image[:, :, ::-1])
        return np.asarray(cv2.imdecode(np.frombuffer(papers_jpeg(image), np.uint8), cv2.IMREAD_COLOR), np.uint8)


def from_folder(root: Path) -> tuple[Files, Files]:
    """Queries and database from a folder with the labelled lists val.txt and train.txt.

    ``root`` is what `caffe2torch cifar10` was given, or the folder of the lists itself, where their paths start.
    """
    for folder in (Layout(root).dataset, root):
        lists = folder / "val.txt", folder / "train.txt"
        if all(path.is_file() for path in lists):
            return Files((lists[0],), folder), Files((lists[1],), folder)
    raise FormatError(
        f"{root}: has no val.txt (queries) and train.txt (database) with a path and a label on each line, neither "
        f"there nor in {Layout(root).dataset}; `caffe2torch cifar10` builds such a folder, or name two lists with "
        "--queries and --database"
    )
