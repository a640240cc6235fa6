"""Caffe's two databases behind one protocol: records in the order of their keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from caffe2torch.data.leveldb import LevelDb
from caffe2torch.data.lmdb import open_lmdb
from caffe2torch.errors import FormatError

_SIGN = {"LMDB": "data.mdb", "LEVELDB": "CURRENT"}
"""A file that only a database of this kind has."""


class Database(Protocol):
    """An open database."""

    @property
    def path(self) -> Path:
        """Its folder."""

    def records(self, start: int = 0) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values in the order of the keys, without the first ``start``; FormatError for damage."""

    def count(self) -> int:
        """How many records there are."""


def open_database(path: Path, backend: str) -> Database:
    """Open the database in a folder; ``backend`` is ``LMDB`` or ``LEVELDB``.

    Raises FormatError for a folder that is missing, holds the other kind, or is damaged; UsageError when the package
    that reads it is not installed.
    """
    if not path.is_dir():
        raise FormatError(f"{path}: no such folder, expected an {backend} database")
    if not (path / _SIGN[backend]).is_file():
        other = next((kind for kind, sign in _SIGN.items() if (path / sign).is_file()), None)
        advice = f"it is a database of kind {other}: name {other} as its backend" if other else "it is none"
        raise FormatError(f"{path}: expected an {backend} database, which has a file {_SIGN[backend]}; {advice}")
    return open_lmdb(path) if backend == "LMDB" else LevelDb(path)
