"""LevelDB databases, written without LevelDB: sorted tables, and the manifest that names them.

The tables lie in the last level, whose size LevelDB does not limit, so opening the database sets off no compaction.
Blocks are not compressed. Format: doc/ of google/leveldb.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

from caffe2torch.data.crc32c import masked
from caffe2torch.data.leveldb import BLOCK, COMPARATOR, FIRST, FULL, HEADER, LAST, MIDDLE
from caffe2torch.data.leveldb_table import FOOTER, MAGIC, PLAIN
from caffe2torch.errors import OutputError
from caffe2torch.wire import varint

_BLOCK_SIZE = 1 << 16  # as Caffe asks for
_TABLE_SIZE = 1 << 26
_RESTART = 16  # records, after which a key is written in full
_LEVEL = 6
_VALUE = 1
_MANIFEST, _FIRST_TABLE = 1, 2


class LevelDbWriter:
    """A database in a folder that is there and empty."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sequence = 0
        self._last = b""
        self._table: _Table | None = None
        self._done: list[tuple[int, int, bytes, bytes]] = []  # number, bytes, smallest and largest key

    def put(self, key: bytes, value: bytes) -> None:
        """Add a record; OutputError for a key that is not behind the one before."""
        if self._sequence and key <= self._last:
            raise OutputError(f"record {key!r} comes after {self._last!r}, expected keys in their order")
        self._sequence, self._last = self._sequence + 1, key
        if self._table is None:
            number = _FIRST_TABLE + len(self._done)
            self._table = _Table((self._folder / f"{number:06d}.ldb").open("wb"))
        self._table.add(key + struct.pack("<Q", self._sequence << 8 | _VALUE), value)
        if self._table.size >= _TABLE_SIZE:
            self._end_table()

    def finish(self) -> None:
        """Write what makes the folder a database."""
        self._end_table()
        name = f"MANIFEST-{_MANIFEST:06d}"
        (self._folder / name).write_bytes(log_record(self._edit()))
        (self._folder / "CURRENT").write_text(f"{name}\n", encoding="ascii")

    def close(self) -> None:
        """Close the files."""
        if self._table is not None:
            self._table.file.close()

    def _end_table(self) -> None:
        if self._table is None:
            return
        self._table.finish()
        self._table.file.close()
        table = self._table
        self._done.append((_FIRST_TABLE + len(self._done), table.size, table.smallest, table.largest))
        self._table = None

    def _edit(self) -> bytes:
        """The change of the set of files that makes an empty database this one."""
        edit = varint(1) + _text(COMPARATOR)
        for tag, number in ((2, 0), (9, 0), (3, _FIRST_TABLE + len(self._done)), (4, self._sequence)):
            edit += varint(tag) + varint(number)  # log, previous log, next file, last sequence number
        for number, size, smallest, largest in self._done:
            edit += varint(7) + varint(_LEVEL) + varint(number) + varint(size) + _text(smallest) + _text(largest)
        return edit


class _Table:
    """A table file: blocks of records, a block that lists them, and a footer."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.size = file, 0
        self.smallest = self.largest = b""
        self._block, self._index = _Block(), _Block()

    def add(self, key: bytes, value: bytes) -> None:
        self.smallest = self.smallest or key
        self.largest = key
        self._block.add(key, value)
        if self._block.size >= _BLOCK_SIZE:
            self._end_block()

    def finish(self) -> None:
        if self._block.size:
            self._end_block()
        filters = self._write(_Block())
        footer = filters + self._write(self._index)
        self.file.write(footer.ljust(FOOTER - 8, b"\0") + struct.pack("<Q", MAGIC))
        self.size += FOOTER

    def _end_block(self) -> None:
        self._index.add(self.largest, self._write(self._block))
        self._block = _Block()

    def _write(self, block: _Block) -> bytes:
        """Write a block; where it is, as the index says it."""
        content = block.content() + bytes([PLAIN])
        self.file.write(content + struct.pack("<I", masked(content)))
        handle = varint(self.size) + varint(len(content) - 1)
        self.size += len(content) + 4
        return handle


class _Block:
    """Records; a key is written as what differs from the one before."""

    def __init__(self) -> None:
        self.size = 0
        self._parts: list[bytes] = []
        self._restarts = [0]
        self._count = 0
        self._last = b""

    def add(self, key: bytes, value: bytes) -> None:
        shared = 0
        if self._count % _RESTART:
            while shared < min(len(key), len(self._last)) and key[shared] == self._last[shared]:
                shared += 1
        elif self._count:
            self._restarts.append(self.size)
        head = varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:]
        self._parts += [head, value]
        self.size += len(head) + len(value)
        self._count, self._last = self._count + 1, key

    def content(self) -> bytes:
        count = len(self._restarts)
        return b"".join(self._parts) + struct.pack(f"<{count + 1}I", *self._restarts, count)


def log_record(data: bytes) -> bytes:
    """One record as the beginning of a log or manifest: pieces that do not cross the blocks of 32 KB."""
    out, position = bytearray(), 0
    while not out or position < len(data):
        piece = data[position : position + BLOCK - HEADER]  # every piece but the last fills its block
        first, last = position == 0, position + len(piece) == len(data)
        kind = bytes([FULL if first and last else FIRST if first else LAST if last else MIDDLE])
        out += struct.pack("<IH", masked(kind + piece), len(piece)) + kind + piece
        position += len(piece)
    return bytes(out)


def _text(value: bytes) -> bytes:
    return varint(len(value)) + value
