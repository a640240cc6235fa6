"""Databases we write: what LMDB and LevelDB themselves read from them, and what is left when writing fails."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from caffe2torch.data import leveldb_writer
from caffe2torch.data.database import open_database
from caffe2torch.data.leveldb import LevelDb
from caffe2torch.data.lmdb import LmdbWriter
from caffe2torch.data.writing import new_database
from caffe2torch.errors import OutputError, UsageError

lmdb = pytest.importorskip("lmdb")
Records = list[tuple[bytes, bytes]]
BACKENDS = ["lmdb", "leveldb"]


def some(count: int, sizes: list[int], seed: int = 0) -> Records:
    rng = random.Random(seed)
    return [(b"%08d_%s.png" % (i, b"x" * rng.randrange(30)), rng.randbytes(rng.choice(sizes))) for i in range(count)]


def write(path: Path, backend: str, records: Records) -> Path:
    with new_database(path, backend) as writer:
        for key, value in records:
            writer.put(key, value)
    return path


def read_lmdb(path: Path) -> Records:
    with lmdb.open(str(path), readonly=True, lock=False) as environment, environment.begin() as transaction:
        return list(transaction.cursor())


def read_leveldb(path: Path, extra: Records = []) -> Records:  # noqa: B006
    """By LevelDB, which checks every checksum; ``extra`` is written first."""
    plyvel = pytest.importorskip("plyvel", reason="plyvel, which reads the database, has no wheel for this Python")
    with plyvel.DB(str(path), paranoid_checks=True) as database:
        for key, value in extra:
            database.put(key, value)
        assert all(database.get(key) == value for key, value in extra)
        return list(database.iterator(verify_checksums=True))


SETS = [
    some(1, [10]),
    some(40, [0, 1, 100]),
    some(3000, [20, 200]),
    some(30, [1, 70_000, 200_000]),
    [(bytes([i // 256, i % 256]), b"v") for i in range(1, 700)],
]


@pytest.mark.parametrize("records", SETS, ids=["one", "small", "many", "large", "short-keys"])
def test_lmdb_and_we_read_an_lmdb(records: Records, tmp_path: Path) -> None:
    path = write(tmp_path / "db", "lmdb", records)
    assert read_lmdb(path) == records
    assert list(open_database(path, "LMDB").records()) == records


@pytest.mark.parametrize("table", [1 << 26, 5000], ids=["one-table", "tables"])
@pytest.mark.parametrize("records", SETS, ids=["one", "small", "many", "large", "short-keys"])
def test_leveldb_and_we_read_a_leveldb(
    records: Records, table: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leveldb_writer, "_TABLE_SIZE", table)
    monkeypatch.setattr(leveldb_writer, "_BLOCK_SIZE", min(table // 4, 1 << 16))
    path = write(tmp_path / "db", "leveldb", records)
    assert list(LevelDb(path).records()) == records
    assert read_leveldb(path) == records


def test_leveldb_goes_on_writing_in_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leveldb_writer, "_TABLE_SIZE", 5000)
    monkeypatch.setattr(leveldb_writer, "_BLOCK_SIZE", 1000)
    records = some(300, [100])
    path = write(tmp_path / "db", "leveldb", records)
    changed = [(records[7][0], b"new"), (b"zz", b"last")]
    expected = sorted({**dict(records), **dict(changed)}.items())
    assert read_leveldb(path, changed) == expected
    assert read_leveldb(path) == expected
    assert list(LevelDb(path).records()) == expected


def test_manifest_longer_than_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leveldb_writer, "_TABLE_SIZE", 1)
    monkeypatch.setattr(leveldb_writer, "_BLOCK_SIZE", 1)
    records = some(900, [3])
    path = write(tmp_path / "db", "leveldb", records)
    assert (path / "MANIFEST-000001").stat().st_size > 1 << 15
    assert list(LevelDb(path).records()) == records
    assert read_leveldb(path) == records


def test_map_of_an_lmdb_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("caffe2torch.data.lmdb._MAP", 1 << 15)
    records = some(300, [3000, 20])
    assert read_lmdb(write(tmp_path / "db", "lmdb", records)) == records


@pytest.mark.parametrize("backend", BACKENDS)
def test_database_appears_when_it_is_complete(backend: str, tmp_path: Path) -> None:
    with new_database(tmp_path / "db", backend) as writer:
        writer.put(b"a", b"1")
        assert not (tmp_path / "db").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["db"]


class _Stop(BaseException):
    """Something that nobody catches."""


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_is_left_of_one_that_fails(backend: str, tmp_path: Path) -> None:
    def fail() -> None:
        with new_database(tmp_path / "db", backend) as writer:
            for key, value in some(2000, [100]):
                writer.put(key, value)
            raise _Stop

    with pytest.raises(_Stop):
        fail()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_killed_writer_leaves_nothing_of_that_name(backend: str, tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from caffe2torch.data.writing import new_database\n"
        "with new_database(Path('db'), sys.argv[1]) as writer:\n"
        "    for index in range(3000): writer.put(b'%08d' % index, bytes(50))\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, backend], cwd=tmp_path, check=False).returncode == -9
    left = list(tmp_path.iterdir())
    assert [path.name[:4] for path in left] == [".db."]
    assert not (left[0] / "CURRENT").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="limits of file sizes are POSIX")
@pytest.mark.parametrize("backend", BACKENDS)
def test_full_disk_is_one_clear_error(backend: str, tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys; from pathlib import Path; from caffe2torch.data.writing import new_database\n"
        "from caffe2torch.errors import OutputError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (300000, 300000))\n"
        "try:\n"
        "    with new_database(Path('db'), sys.argv[1]) as writer:\n"
        "        for index in range(5000): writer.put(b'%08d' % index, bytes(1000))\n"
        "except OutputError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, backend], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert done.stdout in (
        "db: cannot be written: the file would exceed the size limit that holds here\n",
        "db: cannot be written: a write failed: the disk is full, or the device reports an error\n",  # LMDB's EIO
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("keys", [[b"b", b"a"], [b"a", b"a"]])
def test_keys_out_of_order_are_refused(backend: str, keys: list[bytes], tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="expected keys in their order"):
        write(tmp_path / "db", backend, [(key, b"") for key in keys])


def test_key_too_long_for_lmdb(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"the key has 512 bytes, LMDB takes 1 to 511.*LevelDB"):
        write(tmp_path / "db", "lmdb", [(bytes(511), b""), (b"k" * 512, b"")])


@pytest.mark.parametrize("made", ["folder", "file", "link"])
def test_what_is_there_is_not_overwritten(made: str, tmp_path: Path) -> None:
    path = tmp_path / "db"
    {"folder": path.mkdir, "file": path.touch, "link": lambda: path.symlink_to("nowhere")}[made]()
    with pytest.raises(OutputError, match="db: is there already"):
        write(path, "lmdb", [])
    assert os.path.lexists(path)


def test_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file"):
        write(tmp_path / "file" / "db", "lmdb", [])


def test_unknown_backend(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="backend 'rocksdb': expected lmdb or leveldb"):
        write(tmp_path / "db", "rocksdb", [])


def test_errors_of_others_pass_unchanged(tmp_path: Path) -> None:
    def fail() -> Any:
        with new_database(tmp_path / "db", "lmdb"):
            return (tmp_path / "gone.jpg").read_bytes()

    with pytest.raises(FileNotFoundError, match="gone"):
        fail()


def test_lmdb_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(UsageError, match=r"pip install 'caffe2torch\[data\]'"):
        LmdbWriter(tmp_path)
