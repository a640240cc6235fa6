"""How the papers' authors laid CIFAR-10 out: their pictures, their order, their lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from caffe2torch.data.cifar10.records import BATCHES, SIZE
from caffe2torch.errors import FormatError

TRAIN_WALK = ("batch1", "batch2", "batch4", "batch3", "batch5")
TEST_WALK = ("test",)
PASSES = 2
"""How often the authors' pictures went through JPEG: their 12 demo images appear after two, not one, three or four."""
PREFIX = "examples/cvprw15-cifar10/dataset"
"""Folder of the pictures, below the root of the authors' repository; their lists write it with a leading slash."""

_ORDER = Path(__file__).with_name("papers_order.txt")
_JPEG = (
    *(cv2.IMWRITE_JPEG_QUALITY, 75),
    *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420),
    *(cv2.IMWRITE_JPEG_OPTIMIZE, 0),
    *(cv2.IMWRITE_JPEG_PROGRESSIVE, 0),
)


@dataclass(frozen=True)
class Layout:
    """Where everything lies below the root: as in the authors' repository, where their scripts look for it."""

    root: Path

    @property
    def dataset(self) -> Path:
        """The folder of batch1 to batch5 and test, and of the lists."""
        return self.root / PREFIX

    @property
    def train_list(self) -> Path:
        return self.dataset / "cvprw15-train-file-list.txt"

    @property
    def test_list(self) -> Path:
        return self.dataset / "cvprw15-test-file-list.txt"

    @property
    def train_labels(self) -> Path:
        return self.dataset / "train-label.txt"

    @property
    def test_labels(self) -> Path:
        return self.dataset / "test-label.txt"

    @property
    def labelled_train_list(self) -> Path:
        """Paths below ``dataset``, each with its label, as convert_imageset and ImageData layers read them."""
        return self.dataset / "train.txt"

    @property
    def labelled_test_list(self) -> Path:
        return self.dataset / "val.txt"

    def picture(self, batch: str, index: int) -> Path:
        """The file of picture ``index`` (from 0) of a batch."""
        return self.dataset / papers_file(batch, index)


def papers_file(batch: str, index: int) -> str:
    """Name of picture ``index`` (from 0) of a batch below the dataset folder: batch1/1.jpg is the first."""
    return f"{batch}/{index + 1}.jpg"


def papers_jpeg(image: NDArray[np.uint8], *, passes: int = PASSES) -> bytes:
    """The papers' picture of a CIFAR image, (32, 32, 3) RGB: mirrored left-right, then JPEG ``passes`` times.

    Quality 75, chroma at half resolution (4:2:0), standard Huffman tables, one JFIF header and nothing else: what
    libjpeg writes unless told otherwise, and libjpeg-turbo in OpenCV writes the same bytes.
    """
    pixels = np.ascontiguousarray(image[:, ::-1, ::-1])  # mirrored, and RGB to BGR
    for _ in range(passes - 1):
        pixels = np.asarray(cv2.imdecode(_encode(pixels), cv2.IMREAD_COLOR), np.uint8)
    return _encode(pixels).tobytes()


def _encode(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    done, data = cv2.imencode(".jpg", pixels, _JPEG)
    assert done  # it fails for unknown formats only
    return data


@lru_cache(maxsize=1)
def _permutation() -> NDArray[np.int64]:
    """The order, the same in every batch, in which the authors' lists name the pictures; from 0."""
    try:
        order = np.loadtxt(_ORDER, np.int64) - 1
    except (OSError, ValueError) as error:
        raise FormatError(f"{_ORDER}: cannot be read: {error}; the installation is incomplete") from error
    if not np.array_equal(np.sort(order), np.arange(SIZE)):
        raise FormatError(f"{_ORDER}: names not every picture once; the installation is damaged")
    order.setflags(write=False)
    return order


def papers_order(walk: Sequence[str], *, first: int = SIZE) -> NDArray[np.int64]:
    """Positions in the standard order of the pictures in the papers' order, for TRAIN_WALK or TEST_WALK.

    Into the 50,000 training or the 10,000 test pictures: ``cifar.train.images[papers_order(TRAIN_WALK)]`` are the
    papers' database. With ``first`` only that many pictures of each batch exist.
    """
    order = _permutation()
    order = order[order < first]
    starts = [0 if name == "test" else BATCHES.index(name) * first for name in walk]
    return np.concatenate([start + order for start in starts])


def list_text(walk: Sequence[str], *, first: int = SIZE) -> str:
    """A file list as the authors wrote it: /examples/cvprw15-cifar10/dataset/batch1/4590.jpg and so on."""
    order = _permutation()
    return "".join(f"/{PREFIX}/{papers_file(name, int(i))}\n" for name in walk for i in order[order < first])


def label_text(walk: Sequence[str], labels: Mapping[str, NDArray[np.uint8]], *, first: int = SIZE) -> str:
    """The labels, one on a line, in the order of the list; ``labels`` are those of each batch."""
    order = _permutation()
    return "".join(f"{labels[name][i]}\n" for name in walk for i in order[order < first])


def labelled_list_text(walk: Sequence[str], labels: Mapping[str, NDArray[np.uint8]], *, first: int = SIZE) -> str:
    """Paths below the dataset folder with their labels: batch1/4590.jpg 7 and so on, in the order of the lists."""
    order = _permutation()
    return "".join(f"{papers_file(name, int(i))} {labels[name][i]}\n" for name in walk for i in order[order < first])
