"""LMDB databases, through the ``lmdb`` package (of the extra ``data``)."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from caffe2torch.errors import FormatError, MissingPackageError, OutputError

_MAP = 1 << 26  # bytes of the memory map that writing begins with
_COMMIT = 1 << 26  # bytes of records in a transaction


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


class LmdbWriter:
    """A database in a folder that is there and empty."""

    def __init__(self, folder: Path) -> None:
        self._lmdb = _package()
        self._last = b""
        self._pending: list[tuple[bytes, bytes]] = []
        self._bytes = 0
        with self._failing():
            self._environment: Any = self._lmdb.open(
                str(folder), map_size=_MAP, lock=False, sync=False, metasync=False, readahead=False
            )

    def put(self, key: bytes, value: bytes) -> None:
        """Add a record; OutputError for a key that is too long or not behind the one before."""
        if self._last and key <= self._last:
            raise OutputError(f"record {key!r} comes after {self._last!r}, expected keys in their order")
        if not 0 < len(key) <= self._environment.max_key_size():
            raise OutputError(
                f"record {key!r}: the key has {len(key)} bytes, LMDB takes 1 to {self._environment.max_key_size()}; "
                "shorten the picture's name, or write a LevelDB database"
            )
        self._last = key
        self._pending.append((key, value))
        self._bytes += len(value)
        if len(self._pending) == 1000 or self._bytes >= _COMMIT:
            self._commit()

    def finish(self) -> None:
        """Write what is left."""
        self._commit()
        with self._failing():
            self._environment.sync(True)

    def close(self) -> None:
        """Close the files."""
        self._environment.close()

    def _commit(self) -> None:
        """Write the records put so far, in a larger map if they do not fit."""
        while self._pending:
            with self._failing():
                try:
                    with self._environment.begin(write=True) as transaction:
                        for key, value in self._pending:
                            transaction.put(key, value, append=True)
                    self._pending, self._bytes = [], 0
                except self._lmdb.MapFullError:
                    self._environment.set_mapsize(2 * self._environment.info()["map_size"])

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """Turn LMDB's words for a failed write into the system's."""
        try:
            yield
        except self._lmdb.Error as error:
            number = next((n for n in errno.errorcode if str(error).endswith(os.strerror(n))), None)
            if number == errno.EIO:  # its word for a write that stopped half-way, too
                raise OSError("a write failed: the disk is full, or the device reports an error") from error
            raise OSError(number, str(error)) from error


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
            "LMDB databases need the package lmdb: pip install 'caffe2torch[data]' (or pip install lmdb)"
        ) from error
    return lmdb
