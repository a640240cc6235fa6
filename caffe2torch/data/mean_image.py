"""The mean of the pictures in a database, as Caffe's compute_image_mean computes it.

Like Caffe's, sums are in float32, added up in the order of the keys: from about 65,000 records on they are rounded.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial

import numpy as np
from numpy.typing import NDArray

from caffe2torch.data.database import Database
from caffe2torch.data.datum import Record
from caffe2torch.data.prefetch import in_threads
from caffe2torch.data.records import decode_record
from caffe2torch.errors import FormatError

Mean = NDArray[np.float32]


def mean_image(
    database: Database, *, workers: int = 1, progress: Callable[[int], object] = lambda count: None
) -> tuple[Mean, int]:
    """The mean (C, H, W) and the number of records; ``progress`` is called with the number of records done.

    Raises FormatError or ImageError, naming the record, for one that is damaged or of another size than the first.
    """
    total: Mean | None = None
    count = 0
    with closing(in_threads(database.records(), partial(_decode, database), workers=workers)) as examples:
        for count, (record, where) in enumerate(examples, 1):
            if total is None:
                total = np.zeros(record.shape, np.float32)
            if record.shape != total.shape:
                raise FormatError(
                    f"{where}: {_text(record)}, but the first record is {_text(total)}; bring all to one size"
                )
            total += record
            progress(count)
    if total is None:
        raise FormatError(f"{database.path}: the database holds no records")
    total /= np.float32(count)
    return total, count


def channel_means(mean: Mean) -> list[float]:
    """The mean of each channel, added up value after value in float32, as Caffe prints them."""
    planes = mean.reshape(mean.shape[0], -1)
    return [float(np.cumsum(plane, dtype=np.float32)[-1] / np.float32(plane.size)) for plane in planes]


def _decode(database: Database, record: tuple[bytes, bytes]) -> tuple[Record, str]:
    example = decode_record(record, database, None)
    return example.record, example.where


def _text(record: Record) -> str:
    return "x".join(map(str, record.shape)) + " (channels x height x width)"
