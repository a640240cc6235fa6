"""LMDB databases, through the ``lmdb`` package (of the extra ``data``)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from caffe2torch.errors import FormatError, MissingPackageError


class Lmdb:
    """A database folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lmdb = _package()
        try:
            # No lock file: the folder may be read-only, and nobody writes a data set while it is read.
            self._environment: Any = lmdb.open(str(path), readonly=True, lock=False, create=False, readahead=False)
            self._check_size()
        except lmdb.Error as error:
            raise FormatError(f"{path}: cannot be opened as an LMDB database: {error}") from error

    def records(self, start: int = 0) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values in the order of the keys, without the first ``start``; FormatError for a damaged database."""
        lmdb = _package()
        try:
            with self._environment.begin() as transaction:
                cursor = transaction.cursor()
                found = cursor.first()
                for _ in range(start):  # reads keys only
                    found = found and cursor.next()
                if found:
                    yield from cursor
        except lmdb.Error as error:
            raise FormatError(f"{self.path}: a damaged LMDB database: {error}") from error

    def count(self) -> int:
        """How many records there are."""
        return int(self._environment.stat()["entries"])

    def _check_size(self) -> None:
        """Refuse a file that lacks pages which are in use: reading them would kill the process."""
        with self._environment.begin() as transaction:
            use = transaction.stat()
        pages = 2 + sum(use[kind] for kind in ("branch_pages", "leaf_pages", "overflow_pages"))
        size = (self.path / "data.mdb").stat().st_size
        if size < pages * use["psize"]:
            raise FormatError(
                f"{self.path / 'data.mdb'}: cut short: it has {size} bytes, its {pages} pages take "
                f"{pages * use['psize']}; copy it again"
            )


_opened: WeakValueDictionary[Path, Lmdb] = WeakValueDictionary()
_opening = threading.Lock()


def open_lmdb(path: Path) -> Lmdb:
    """The database in this folder; who asks again gets the same one, since LMDB can open a file once in a process."""
    with _opening:
        real = path.resolve()
        database = _opened.get(real)
        if database is None:
            database = _opened[real] = Lmdb(path)
        return database


def _package() -> Any:
    try:
        import lmdb
    except ImportError as error:
        raise MissingPackageError(
            "reading LMDB databases needs the package lmdb: pip install 'caffe2torch[data]' (or pip install lmdb)"
        ) from error
    return lmdb
