"""Opening databases: the right folder, the right kind, the right package."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from caffe2torch.data.database import open_database
from caffe2torch.errors import FormatError, UsageError
from caffe2torch.loading import load

from .sources import datum, feed, images, write_lmdb

LAYER = 'layer { name: "d" type: "Data" top: "x" data_param { source: "db" batch_size: 2 backend: LMDB } }'


def test_records_come_in_the_order_of_their_keys(tmp_path: Path) -> None:
    write_lmdb(tmp_path / "db", {"b": b"2", "a": b"1", "00c": b"3"})
    assert list(open_database(tmp_path / "db", "LMDB").records()) == [(b"00c", b"3"), (b"a", b"1"), (b"b", b"2")]


def test_one_database_may_be_open_twice(tmp_path: Path) -> None:
    write_lmdb(tmp_path / "db", {"a": b"1", "b": b"2"})
    first, second = (open_database(tmp_path / "db", "LMDB").records() for _ in range(2))
    assert [next(first), next(second), next(first)] == [(b"a", b"1"), (b"a", b"1"), (b"b", b"2")]


@pytest.mark.parametrize("backend", ["LMDB", "LEVELDB"])
def test_missing_folder(backend: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=f"gone: no such folder, expected an {backend} database"):
        open_database(tmp_path / "gone", backend)


@pytest.mark.parametrize("backend", ["LMDB", "LEVELDB"])
def test_folder_without_a_database(backend: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=f"expected an {backend} database.*it is none"):
        open_database(tmp_path, backend)


def test_database_of_the_other_kind(tmp_path: Path) -> None:
    write_lmdb(tmp_path / "db", {"a": b"1"})
    with pytest.raises(FormatError, match="name LMDB as its backend"):
        open_database(tmp_path / "db", "LEVELDB")


def test_empty_database(tmp_path: Path) -> None:
    write_lmdb(tmp_path / "db", {})
    with pytest.raises(FormatError, match="db: the database holds no records"):
        feed(LAYER, tmp_path)


@pytest.mark.parametrize("size", [0, 100, 4096, -4096])
def test_cut_lmdb_is_refused(size: int, tmp_path: Path) -> None:
    write_lmdb(tmp_path / "db", {f"{n:04}": bytes(3000) for n in range(50)})
    path = tmp_path / "db" / "data.mdb"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(FormatError, match="db"):
        list(open_database(tmp_path / "db", "LMDB").records())


def test_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_lmdb(tmp_path / "db", {"a": datum(data=images(1)[0])})
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(UsageError, match=r"pip install 'caffe2torch\[data\]'"):
        feed(LAYER, tmp_path)


def test_net_builds_without_the_package_where_the_layer_says_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_lmdb(tmp_path / "db", {"a": datum(data=images(1)[0])})
    (tmp_path / "net.prototxt").write_text(LAYER.replace("data_param", "transform_param { crop_size: 2 } data_param"))
    monkeypatch.setattr("caffe2torch.data.shapes.find_spec", lambda name: None)
    with pytest.warns(UserWarning, match="not read without the package lmdb.*taken to have 3 channels"):
        assert load(tmp_path / "net.prototxt").input_shapes == {"x": (2, 3, 2, 2)}


def test_shape_of_a_net_comes_from_its_database(tmp_path: Path) -> None:
    write_lmdb(tmp_path / "db", {"a": datum(data=images(1, (2, 7, 6))[0])})
    (tmp_path / "net.prototxt").write_text(LAYER)
    assert load(tmp_path / "net.prototxt").input_shapes == {"x": (2, 2, 7, 6)}
