"""Data layers: batches from an LMDB or LevelDB database of Datum records.

Records come in the order of their keys and start again after the last. ``rand_skip`` is ignored, as by Caffe 1.0.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from caffe2torch.data.database import Database, open_database
from caffe2torch.data.datum import read_datum
from caffe2torch.data.examples import Example, ExampleSource
from caffe2torch.data.source import Source, batch_size, check_tops
from caffe2torch.data.transform import Transform, place
from caffe2torch.errors import FormatError, GraphError
from caffe2torch.schema import Message

_BACKENDS = ("LEVELDB", "LMDB")


def open_records(layer: Message, folder: Path, *, phase: str, rng: np.random.Generator) -> Source:
    """The source of a Data layer; its database is looked up below ``folder``."""
    check_tops(layer, 1, 2)
    size = batch_size(layer, layer.data_param.batch_size)
    transform = Transform(layer, folder, phase=phase, rng=rng)
    return ExampleSource(layer, _endless(layer, database_of(layer, folder), rng), size, transform)


def database_of(layer: Message, folder: Path) -> Database:
    """The layer's database, opened; FormatError when there is none."""
    p = layer.data_param
    if not p.source:
        raise GraphError(f"{place(layer)} has no source, expected the folder of a database")
    return open_database(folder / p.source, _BACKENDS[p.backend])


def first_example(layer: Message, folder: Path) -> Example:
    """The first example of a Data layer."""
    return next(_endless(layer, database_of(layer, folder), None))


def _endless(layer: Message, database: Database, rng: np.random.Generator | None) -> Iterator[Example]:
    grey = _grey(layer)
    shuffled = list(database.records()) if layer.data_param.shuffle else None  # NVCaffe: shuffle needs cache
    while True:
        count = 0
        if shuffled is not None and rng is not None:
            rng.shuffle(shuffled)
        for key, value in database.records() if shuffled is None else shuffled:
            count += 1
            where = f"{database.path}: record {key.decode('utf-8', 'backslashreplace')!r}"
            yield Example(*read_datum(value, where, grey=grey), where)
        if not count:
            raise FormatError(f"{database.path}: the database holds no records")


def _grey(layer: Message) -> bool | None:
    """How encoded pictures are decoded."""
    t = layer.transform_param
    if t.force_color and t.force_gray:
        raise GraphError(f"{place(layer)}: transform_param has both force_color and force_gray: remove one of them")
    return True if t.force_gray else False if t.force_color else None
