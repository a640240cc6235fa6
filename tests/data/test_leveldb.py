"""Our reader of LevelDB gives what LevelDB itself gives, and refuses damaged folders."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from caffe2torch.data.leveldb import LevelDb
from caffe2torch.data.snappy import decompress
from caffe2torch.errors import FormatError

plyvel = pytest.importorskip("plyvel", reason="plyvel, which writes these databases, has no wheel for this Python")

Fill = Callable[[Any, random.Random], None]


def value(rng: random.Random, size: int) -> bytes:
    """Text that snappy shortens, or noise that it does not."""
    return bytes(rng.choices(range(3), k=size)) if rng.random() < 0.5 else rng.randbytes(size)


def in_order(database: Any, rng: random.Random) -> None:
    for index in range(300):
        database.put(b"%08d_name" % index, value(rng, 500))


def overwritten_and_deleted(database: Any, rng: random.Random) -> None:
    for _ in range(3000):
        key = b"%04d" % rng.randrange(900)
        if rng.random() < 0.3:
            database.delete(key)
        else:
            database.put(key, value(rng, 200))


def in_batches(database: Any, rng: random.Random) -> None:
    for start in range(0, 200, 50):
        with database.write_batch() as batch:
            for index in range(start, start + 50):
                batch.put(b"%06d" % index, value(rng, 3000))


def make(folder: Path, fill: Fill, *, compact: bool = False, **options: Any) -> list[tuple[bytes, bytes]]:
    """A database folder; returns what LevelDB reads from it."""
    with plyvel.DB(str(folder), create_if_missing=True, **options) as database:
        fill(database, random.Random(0))
        if compact:
            database.compact_range()
        return list(database.iterator())


@pytest.mark.parametrize("fill", [in_order, overwritten_and_deleted, in_batches])
@pytest.mark.parametrize(
    "options",
    [{}, {"write_buffer_size": 1 << 16}, {"write_buffer_size": 1 << 16, "compression": None}, {"compact": True}],
    ids=["log", "tables-and-log", "plain-tables", "compacted"],
)
def test_records_equal_leveldbs(fill: Fill, options: dict[str, Any], tmp_path: Path) -> None:
    expected = make(tmp_path / "db", fill, **options)
    database = LevelDb(tmp_path / "db")
    assert list(database.records()) == expected
    assert list(database.records()) == expected


def test_records_larger_than_the_blocks_of_a_log(tmp_path: Path) -> None:
    expected = make(tmp_path / "db", lambda database, rng: database.put(b"k", rng.randbytes(200_000)))
    assert list(LevelDb(tmp_path / "db").records()) == expected


def test_old_name_of_tables(tmp_path: Path) -> None:
    expected = make(tmp_path / "db", in_order, compact=True)
    for table in (tmp_path / "db").glob("*.ldb"):
        table.rename(table.with_suffix(".sst"))
    assert list(LevelDb(tmp_path / "db").records()) == expected


def test_nothing_is_written(tmp_path: Path) -> None:
    make(tmp_path / "db", in_order)
    before = {path.name: path.read_bytes() for path in (tmp_path / "db").iterdir()}
    list(LevelDb(tmp_path / "db").records())
    assert {path.name: path.read_bytes() for path in (tmp_path / "db").iterdir()} == before


@pytest.mark.parametrize("pattern", ["*.ldb", "*.log", "MANIFEST-*"])
@pytest.mark.parametrize("part", [0.3, 0.9])
def test_cut_files_are_refused(pattern: str, part: float, tmp_path: Path) -> None:
    make(tmp_path / "db", in_order, compact=pattern == "*.ldb")
    path = max((tmp_path / "db").glob(pattern), key=lambda path: path.stat().st_size)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    with pytest.raises(FormatError, match=path.name):
        list(LevelDb(tmp_path / "db").records())


def test_missing_table_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "db", in_order, compact=True)
    next((tmp_path / "db").glob("*.ldb")).unlink()
    with pytest.raises(FormatError, match=r"the table \d+\.ldb is missing"):
        list(LevelDb(tmp_path / "db").records())


def test_changed_bytes_give_our_error_or_records(tmp_path: Path) -> None:
    make(tmp_path / "db", in_order, compact=True)
    table = max((tmp_path / "db").glob("*.ldb"), key=lambda path: path.stat().st_size)
    whole, rng = table.read_bytes(), random.Random(1)
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(20):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        table.write_bytes(damaged)
        try:
            list(LevelDb(tmp_path / "db").records())
        except FormatError as error:
            assert table.name in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    "data, expected",
    [
        (b"\x00", b""),
        (b"\x03\x08abc", b"abc"),
        (b"\x07\x04ab\x05\x02", b"abababa"),
        (b"\x46" + b"\xf0\x45" + bytes(70), bytes(70)),
        (b"\x08\x0cabcd\x0e\x04\x00", b"abcdabcd"),
        (b"\x08\x0cabcd\x0f\x04\x00\x00\x00", b"abcdabcd"),
    ],
    ids=["empty", "literal", "overlapping-copy", "long-literal", "copy-2", "copy-4"],
)
def test_snappy_elements(data: bytes, expected: bytes) -> None:
    assert decompress(data) == expected


@pytest.mark.parametrize(
    "data", [b"", b"\x03\x08ab", b"\x04\x08abc", b"\x02\x08abc", b"\x08\x0cabcd\x0e\x05\x00", b"\xff\xff\xff\xff\x0f"]
)
def test_damaged_snappy_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        decompress(data)
