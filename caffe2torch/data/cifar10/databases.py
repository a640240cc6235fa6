"""CIFAR-10 as the two databases that ``prototxt/ssdh48_small/train_val.prototxt`` reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from caffe2torch import schema
from caffe2torch.data.cifar10.dataset import Batch, Cifar10
from caffe2torch.data.datum import to_record
from caffe2torch.data.writing import new_database

TRAIN, TEST = "cifar10_train_lmdb", "cifar10_test_lmdb"
PAD = 4
"""Pixels by which training pictures are mirrored on at every side, so that crops of 32 x 32 shift them."""


def write_databases(
    cifar: Cifar10,
    folder: Path,
    *,
    pad: int = PAD,
    backend: str = "lmdb",
    progress: Callable[[int], None] | None = None,
) -> None:
    """Write the training pictures in a fixed shuffled order, (32 + 2 pad) wide, and the test pictures in theirs.

    Records are Caffe's: B, G, R planes of bytes under keys of eight digits. ``progress`` hears after each how many are
    done of the 60,000. Raises OutputError where a database is there already or cannot be written.
    """
    order = np.random.default_rng(0).permutation(len(cifar.train))
    done = 0
    for name, batch, rows, margin in ((TRAIN, cifar.train, order, pad), (TEST, cifar.test, range(len(cifar.test)), 0)):
        with new_database(folder / name, backend) as database:
            for number, row in enumerate(rows):
                database.put(b"%08d" % number, _datum(batch, int(row), margin))
                done += 1
                if progress:
                    progress(done)


def _datum(batch: Batch, row: int, margin: int) -> bytes:
    bgr: NDArray[np.uint8] = batch.images[row][..., ::-1]
    if margin:
        bgr = np.pad(bgr, ((margin, margin), (margin, margin), (0, 0)), mode="reflect")
    record = to_record(np.ascontiguousarray(bgr))
    datum = schema.new("Datum")
    datum.channels, datum.height, datum.width = record.shape
    datum.data, datum.label = record.tobytes(), int(batch.labels[row])
    value: bytes = datum.SerializeToString()
    return value
