"""CIFAR-10 as the two databases that ``prototxt/ssdh48_small/train_val.prototxt`` reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caffe2torch import schema
from caffe2torch.data.cifar10.dataset import Batch, Cifar10
from caffe2torch.data.datum import to_record
from caffe2torch.data.picture import Image
from caffe2torch.data.writing import new_database

TRAIN, TEST = "cifar10_train_lmdb", "cifar10_test_lmdb"
COPIES = 4
"""How often each training picture is in the database, with other colours and another square erased each time."""
PAD = 4
"""Pixels by which training pictures are mirrored on at every side, so that crops of 32 x 32 shift them."""
HOLE = 12
"""Side of the square that is erased from a training picture ("cutout", DeVries and Taylor, 2017), in pixels."""
ERASED = (114, 123, 125)
"""What is put there: the mean of the channels, B, G, R."""
GREY_SHARE = 0.15
"""Of the training pictures, how many become grey, so that classes are not told by their usual colours."""
LUMA = np.array([0.114, 0.587, 0.299], np.float32)
"""Shares of B, G, R in the grey of a pixel (ITU-R BT.601)."""


def write_databases(
    cifar: Cifar10, folder: Path, *, backend: str = "lmdb", progress: Callable[[int, int], None] | None = None
) -> None:
    """Write the test pictures in their order, and the training pictures for learning: the same records each time.

    The training database holds ``COPIES`` times all training pictures, shuffled each time, (32 + 2 ``PAD``) wide, each
    with other colours (``_recoloured``) and a square erased. Records are Caffe's: B, G, R planes of bytes under keys of
    eight digits. ``progress`` hears after each how many are done, and of how many. Raises OutputError where a database
    is there already or cannot be written.
    """
    total, done = COPIES * len(cifar.train) + len(cifar.test), 0
    for name, records in ((TRAIN, _training(cifar.train)), (TEST, _as_they_are(cifar.test))):
        with new_database(folder / name, backend) as database:
            for number, record in enumerate(records):
                database.put(b"%08d" % number, record)
                done += 1
                if progress:
                    progress(done, total)


def _training(batch: Batch) -> Iterator[bytes]:
    draws = np.random.default_rng(0)
    for _ in range(COPIES):
        for row in draws.permutation(len(batch)):
            bgr = _recoloured(batch.images[row][..., ::-1].astype(np.float32), draws)
            bgr = np.pad(bgr, ((PAD, PAD), (PAD, PAD), (0, 0)), mode="reflect")
            y, x = draws.integers(0, len(bgr) + 1, 2) - HOLE // 2  # its middle lies anywhere, from border to border
            bgr[max(y, 0) : y + HOLE, max(x, 0) : x + HOLE] = ERASED
            yield _datum(bgr, batch.labels[row])


def _recoloured(bgr: NDArray[np.floating[Any]], draws: np.random.Generator) -> Image:
    """A picture made grey, or half of the others more or less colourful and tinted; and half of all in other light."""
    if draws.random() < GREY_SHARE:
        bgr = np.repeat((bgr @ LUMA)[..., None], 3, 2)
    elif draws.random() < 0.5:
        grey = (bgr @ LUMA)[..., None]
        bgr = grey + (bgr - grey) * draws.uniform(0.6, 1.4)
        bgr = bgr * draws.uniform(0.92, 1.08, 3).astype(np.float32)
    if draws.random() < 0.5:
        mean = bgr.mean()
        bgr = (bgr - mean) * draws.uniform(0.75, 1.25) + mean * draws.uniform(0.8, 1.2)
    rounded: Image = np.clip(np.rint(bgr), 0, 255).astype(np.uint8)
    return rounded


def _as_they_are(batch: Batch) -> Iterator[bytes]:
    for image, label in zip(batch.images, batch.labels, strict=True):
        yield _datum(image[..., ::-1], label)


def _datum(bgr: Image, label: np.uint8) -> bytes:
    record = to_record(np.ascontiguousarray(bgr))
    datum = schema.new("Datum")
    datum.channels, datum.height, datum.width = record.shape
    datum.data, datum.label = record.tobytes(), int(label)
    value: bytes = datum.SerializeToString()
    return value
