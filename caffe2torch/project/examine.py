"""A look at every picture before training: can it be read, is it there twice, and what is the mean of all."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from caffe2torch.data.datum import to_record
from caffe2torch.data.picture import read_bytes, resize
from caffe2torch.data.prefetch import in_threads
from caffe2torch.errors import ImageError
from caffe2torch.preprocess import decode
from caffe2torch.project.collect import Collection

Mean = NDArray[np.float32]
SAMPLE = 2000
"""Pictures whose mean is taken where not all are looked at."""


@dataclass
class Found:
    """``mean`` is (3, H, W), of the training pictures that can be read; ``bad`` says of a row why it cannot be."""

    mean: Mean | None = None
    bad: dict[int, str] = field(default_factory=dict)
    copies: list[tuple[int, int]] = field(default_factory=list)
    """Rows of a file and of an earlier one with the same bytes."""


def examine(
    pictures: Collection,
    train: NDArray[np.bool_],
    size: int,
    *,
    rows: NDArray[np.int64] | None = None,
    workers: int = 1,
    progress: Callable[[int], object] = lambda count: None,
) -> Found:
    """Look at the pictures, or only at ``rows``; the mean is of those in ``train``, resized to ``size`` pixels square.

    As in Caffe's compute_image_mean the sums are float32 in the order of the list. ``progress`` is called with the
    number of pictures done.
    """
    found = Found()
    total, count = np.zeros((3, size, size), np.float32), 0
    seen: dict[bytes, int] = {}
    wanted = range(len(pictures)) if rows is None else rows.tolist()
    look = partial(_look, pictures, train, size)
    with closing(in_threads(wanted, look, workers=workers)) as results:
        for done, (row, result) in enumerate(zip(wanted, results, strict=True), 1):
            if isinstance(result, str):
                found.bad[row] = result
            else:
                digest, record = result
                if digest in seen:
                    found.copies.append((row, seen[digest]))
                seen.setdefault(digest, row)
                if record is not None:
                    total += record
                    count += 1
            progress(done)
    if count:
        found.mean = total / np.float32(count)
    return found


def sample(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """At most SAMPLE of the rows, evenly."""
    return rows[:: -(-len(rows) // SAMPLE)]


def _look(
    pictures: Collection, train: NDArray[np.bool_], size: int, row: int
) -> str | tuple[bytes, NDArray[np.uint8] | None]:
    """Why the picture cannot be read; or the hash of its bytes, and its (3, H, W) record where it counts."""
    path = pictures.path(row)
    try:
        data = read_bytes(path)
        image = decode(data, str(path), grey=False)
    except ImageError as error:
        return str(error)
    record = np.asarray(to_record(resize(image, (size, size))), np.uint8) if train[row] else None
    return hashlib.blake2b(data, digest_size=16).digest(), record
