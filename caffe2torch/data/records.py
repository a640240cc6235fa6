"""Data layers: batches from an LMDB or LevelDB database of Datum records.

Records come in the order of their keys and start again after the last. ``rand_skip`` is ignored, as by Caffe 1.0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from caffe2torch.data.database import Database, open_database
from caffe2torch.data.datum import read_datum
from caffe2torch.data.draws import Draws
from caffe2torch.data.examples import Example, ExampleSource, ListedRows, Rows
from caffe2torch.data.source import Source, batch_size, check_tops
from caffe2torch.data.transform import Transform, place
from caffe2torch.errors import FormatError, GraphError
from caffe2torch.schema import Message

_BACKENDS = ("LEVELDB", "LMDB")

KeyValue = tuple[bytes, bytes]


class DatabaseRows:
    """The records of a database as an endless row. Going on where the last call ended is quick."""

    def __init__(self, database: Database, grey: bool | None) -> None:
        self._database, self._grey = database, grey
        self._records: Iterator[KeyValue] = iter(())
        self._next = -1  # the position that _records stands at; -1: at none

    def take(self, position: int, count: int, draws: Draws) -> Sequence[Callable[[], Example]]:
        if position != self._next:
            start = position % self._database.count() if position else 0
            self._records = self._database.records(start)
        self._next = -1
        taken: list[Callable[[], Example]] = []
        while len(taken) < count:
            record = next(self._records, None)
            if record is None:
                self._records = self._database.records()
                record = next(self._records, None)
            if record is None:
                raise _empty(self._database)
            taken.append(partial(decode_record, record, self._database, self._grey))
        self._next = position + count
        return taken


def open_records(layer: Message, folder: Path, *, phase: str, draws: Draws) -> Source:
    """The source of a Data layer; its database is looked up below ``folder``."""
    check_tops(layer, 1, 2)
    size = batch_size(layer, layer.data_param.batch_size)
    transform = Transform(layer, folder, phase=phase)
    return ExampleSource(layer, _rows(layer, database_of(layer, folder)), size, transform, draws)


def database_of(layer: Message, folder: Path) -> Database:
    """The layer's database, opened; FormatError when there is none."""
    p = layer.data_param
    if not p.source:
        raise GraphError(f"{place(layer)} has no source, expected the folder of a database")
    return open_database(folder / p.source, _BACKENDS[p.backend])


def first_example(layer: Message, folder: Path) -> Example:
    """The first example of a Data layer."""
    database = database_of(layer, folder)
    record = next(database.records(), None)
    if record is None:
        raise _empty(database)
    return decode_record(record, database, _grey(layer))


def _rows(layer: Message, database: Database) -> Rows:
    grey = _grey(layer)
    if not layer.data_param.shuffle:
        return DatabaseRows(database, grey)
    records = list(database.records())  # NVCaffe, where shuffle needs cache
    if not records:
        raise _empty(database)
    return ListedRows(records, partial(decode_record, database=database, grey=grey), shuffle=True)


def decode_record(record: KeyValue, database: Database, grey: bool | None) -> Example:
    where = f"{database.path}: record {record[0].decode('utf-8', 'backslashreplace')!r}"
    return Example(*read_datum(record[1], where, grey=grey), where)


def _empty(database: Database) -> FormatError:
    return FormatError(f"{database.path}: the database holds no records")


def _grey(layer: Message) -> bool | None:
    """How encoded pictures are decoded."""
    t = layer.transform_param
    if t.force_color and t.force_gray:
        raise GraphError(f"{place(layer)}: transform_param has both force_color and force_gray: remove one of them")
    return True if t.force_gray else False if t.force_color else None
