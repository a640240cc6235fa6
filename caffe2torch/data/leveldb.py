"""LevelDB databases, read without LevelDB and without a change to their folder.

The bindings that exist (plyvel, plyvel-ci) were last built for Python 3.12 and want to write to the folder they read
from. What is needed is little: the manifest names the live files; tables hold sorted records; the log holds those that
were written last (with Caffe's 256 MB write buffer often all). Format: doc/ of google/leveldb.
"""

from __future__ import annotations

import heapq
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from caffe2torch.data.leveldb_table import Entry, split_key, table_entries
from caffe2torch.errors import FormatError
from caffe2torch.wire import read_varint

BLOCK = 1 << 15
HEADER = 7  # checksum, length, type
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4
COMPARATOR = b"leveldb.BytewiseComparator"


class LevelDb:
    """A database folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files = _read_manifest(path)
        self._count: int | None = None

    def records(self, start: int = 0) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values in the order of the keys, without the first ``start``.

        FormatError, naming the file, for anything damaged.
        """
        return islice(self._records(), start, None)

    def count(self) -> int:
        """How many records there are; the first call goes through all of them, as LevelDB keeps no count."""
        if self._count is None:
            self._count = sum(1 for _ in self._records())
        return self._count

    def _records(self) -> Iterator[tuple[bytes, bytes]]:
        last: bytes | None = None
        for key, _, kind, value in heapq.merge(*self._streams()):
            if key == last:
                continue  # an older write
            last = key
            if kind == 1:
                yield key, value

    def _streams(self) -> Iterator[Iterator[Entry]]:
        """Sorted runs of entries: the logs, each table of level 0, each other level (its tables do not overlap)."""
        yield iter(sorted(entry for log in self._logs() for entry in _log_entries(log)))
        levels: dict[int, list[tuple[bytes, int]]] = {}
        for (level, number), smallest in self._files.tables.items():
            levels.setdefault(level, []).append((smallest, number))
        for level, tables in sorted(levels.items()):
            if level == 0:
                yield from (table_entries(self._table(number)) for _, number in tables)
            else:
                yield self._chain([number for _, number in sorted(tables)])

    def _chain(self, numbers: list[int]) -> Iterator[Entry]:
        for number in numbers:
            yield from table_entries(self._table(number))

    def _table(self, number: int) -> Path:
        for suffix in ("ldb", "sst"):
            path = self.path / f"{number:06d}.{suffix}"
            if path.is_file():
                return path
        raise FormatError(f"{self.path}: the table {number:06d}.ldb is missing; copy the whole folder")

    def _logs(self) -> list[Path]:
        """The logs whose records are not in tables yet, oldest first."""
        numbered = {int(path.stem): path for path in self.path.glob("*.log") if path.stem.isdecimal()}
        live = [n for n in sorted(numbered) if n >= self._files.log or n == self._files.previous_log]
        return [numbered[n] for n in live]


@dataclass
class _Files:
    """What the manifest says: (level, number) -> smallest user key of the live tables, and the oldest live log."""

    tables: dict[tuple[int, int], bytes] = field(default_factory=dict)
    log: int = 0
    previous_log: int = 0


def _read_manifest(folder: Path) -> _Files:
    current = _bytes(folder / "CURRENT")
    if re.fullmatch(rb"MANIFEST-\d+\n", current) is None:
        raise FormatError(f"{folder / 'CURRENT'}: found {current[:40]!r}, expected a manifest's name and a newline")
    path = folder / current.decode().strip()
    files = _Files()
    for edit in _log_records(_bytes(path), path):
        try:
            _apply(edit, files)
        except FormatError as error:
            raise FormatError(f"{path}: a damaged manifest: {error}") from error
    return files


def _apply(edit: bytes, files: _Files) -> None:
    """One change of the set of files; a field is a tag and the numbers and texts it stands for."""
    reader = _Reader(edit)
    while reader.position < len(edit):
        tag = reader.number()
        if tag == 1:
            comparator = reader.text()
            if comparator != COMPARATOR:
                raise FormatError(f"keys are ordered by {comparator!r}, expected {COMPARATOR!r}")
        elif tag == 2:
            files.log = reader.number()
        elif tag in (3, 4):  # next file, last sequence number
            reader.number()
        elif tag == 5:  # where the next compaction begins
            reader.number()
            reader.text()
        elif tag == 6:
            files.tables.pop((reader.number(), reader.number()), None)
        elif tag == 7:
            place = (reader.number(), reader.number())
            reader.number()  # bytes
            files.tables[place], _, _ = split_key(reader.text())
            reader.text()
        elif tag == 9:
            files.previous_log = reader.number()
        else:
            raise FormatError(f"unknown tag {tag}")


def _log_entries(path: Path) -> Iterator[Entry]:
    """The writes in a log: batches of a sequence number, a count, and that many keys with or without a value."""
    for batch in _log_records(_bytes(path), path):
        try:
            if len(batch) < 12:
                raise FormatError(f"a batch of {len(batch)} bytes, expected at least 12")
            sequence, count = struct.unpack_from("<QI", batch)
            reader = _Reader(batch, 12)
            for index in range(count):
                kind = reader.number()
                if kind not in (0, 1):
                    raise FormatError(f"a write of kind {kind}, expected 0 or 1")
                key = reader.text()
                yield Entry(key, -(sequence + index), kind, reader.text() if kind else b"")
        except FormatError as error:
            raise FormatError(f"{path}: a damaged log of LevelDB: {error}") from error


def _log_records(data: bytes, path: Path) -> Iterator[bytes]:
    """The records of a log or manifest: pieces in blocks of 32 KB."""
    parts: list[bytes] = []
    position = 0
    while position < len(data):
        room = BLOCK - position % BLOCK
        if room < HEADER:
            position += room
            continue
        end = position + HEADER
        length, kind = struct.unpack_from("<HB", data, position + 4) if end <= len(data) else (0, LAST)
        if kind == 0 and length == 0:  # space that was reserved and not used
            position += room
            continue
        if end + length > len(data) or HEADER + length > room or not FULL <= kind <= LAST:
            raise FormatError(f"{path}: cut short or damaged at byte {position} of {len(data)}; copy the folder again")
        if (kind in (FULL, FIRST)) == bool(parts):
            raise FormatError(f"{path}: damaged at byte {position}: a piece of a record without its beginning or end")
        parts.append(data[end : end + length])
        position = end + length
        if kind in (FULL, LAST):
            yield parts[0] if len(parts) == 1 else b"".join(parts)
            parts = []
    if parts:
        raise FormatError(f"{path}: cut short: the last record does not end; copy the folder again")


class _Reader:
    """Numbers and length-prefixed texts from a record."""

    def __init__(self, data: bytes, position: int = 0) -> None:
        self.data, self.position = data, position

    def number(self) -> int:
        value, self.position = read_varint(self.data, self.position, len(self.data))
        return value

    def text(self) -> bytes:
        length = self.number()
        start, self.position = self.position, self.position + length
        if self.position > len(self.data):
            raise FormatError(f"a text of {length} bytes, {len(self.data) - start} are left")
        return self.data[start : self.position]


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror or error}") from error
