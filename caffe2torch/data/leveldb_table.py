"""LevelDB's tables (``.ldb``, ``.sst``): sorted keys and values in blocks; see doc/table_format.md of google/leveldb.

Checksums of blocks are not compared, as Caffe does not ask LevelDB for it either; every length is checked.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from caffe2torch.data.snappy import decompress
from caffe2torch.errors import FormatError
from caffe2torch.wire import Buffer, read_varint

MAGIC = 0xDB4775248B80FB57
FOOTER = 48
_TRAILER = 5  # type of compression, checksum
PLAIN, _SNAPPY = 0, 1


class Entry(NamedTuple):
    """One write. Entries sort by key, the latest write of a key first."""

    key: bytes
    age: int
    """Minus the sequence number of the write."""
    kind: int
    """0 deletes the key, 1 gives it the value."""
    value: bytes


def table_entries(path: Path) -> Iterator[Entry]:
    """All entries of a table file in order; the file is open while the iterator is. FormatError when it is damaged."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                yield from _entries(data)
            except FormatError as error:
                raise FormatError(f"{path}: a damaged table of LevelDB: {error}") from error
    except (OSError, ValueError) as error:  # ValueError: an empty file
        raise FormatError(f"{path}: cannot be read: {error}") from error


def split_key(internal: bytes) -> tuple[bytes, int, int]:
    """User key, age and kind of an internal key, whose last eight bytes are sequence number and kind."""
    if len(internal) < 8:
        raise FormatError(f"an internal key of {len(internal)} bytes, expected at least 8")
    number = int.from_bytes(internal[-8:], "little")
    return internal[:-8], -(number >> 8), number & 0xFF


def _entries(data: mmap.mmap) -> Iterator[Entry]:
    size = len(data)
    if size < FOOTER or struct.unpack_from("<Q", data, size - 8)[0] != MAGIC:
        raise FormatError("it does not end in a table's footer; it is cut short or of another kind")
    _, position = _handle(data, size - FOOTER, size - 8)  # of the block of filters
    index, _ = _handle(data, position, size - 8)
    for _, value in _block_entries(_block(data, *index)):
        handle, _ = _handle(value, 0, len(value))
        for internal, content in _block_entries(_block(data, *handle)):
            yield Entry(*split_key(internal), content)


def _handle(data: Buffer, position: int, stop: int) -> tuple[tuple[int, int], int]:
    """Offset and size of a block, and the position after them."""
    offset, position = read_varint(data, position, stop)
    size, position = read_varint(data, position, stop)
    return (offset, size), position


def _block(data: mmap.mmap, offset: int, size: int) -> bytes:
    if offset + size + _TRAILER > len(data) - FOOTER:
        raise FormatError(f"a block of {size} bytes at byte {offset} of {len(data)}")
    kind = data[offset + size]
    content = data[offset : offset + size]
    if kind == PLAIN:
        return content
    if kind != _SNAPPY:
        raise FormatError(f"the block at byte {offset} has compression {kind}, expected 0 (none) or 1 (snappy)")
    try:
        return decompress(content)
    except FormatError as error:
        raise FormatError(f"the block at byte {offset}: {error}") from error


def _block_entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values; each key is stored as what differs from the one before."""
    restarts = int.from_bytes(block[-4:], "little")
    stop = len(block) - 4 - 4 * restarts
    if len(block) < 4 or stop < 0:
        raise FormatError(f"a block of {len(block)} bytes with {restarts} restart points")
    position, key = 0, b""
    while position < stop:
        shared, position = read_varint(block, position, stop)
        fresh, position = read_varint(block, position, stop)
        length, position = read_varint(block, position, stop)
        end = position + fresh + length
        if shared > len(key) or end > stop:
            raise FormatError(f"an entry of {fresh} + {length} bytes at byte {position} of a block of {stop}")
        key = key[:shared] + block[position : position + fresh]
        yield key, block[position + fresh : end]
        position = end
