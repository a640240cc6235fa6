"""CIFAR-10 is read from every form it comes in, proved to be itself, and nothing in a hostile archive runs."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import random
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from caffe2torch.data.cifar10 import CLASSES, Batch, open_cifar10, sources
from caffe2torch.data.cifar10.batch_pickle import read_batch
from caffe2torch.errors import FormatError
from cifar import held_out, strips

N = 10_000
BROKEN = "not read as a batch of CIFAR-10"


def python2_pickle(planes: np.ndarray, labels: list[int]) -> bytes:
    """A batch as Python 2 and its numpy pickled it (protocol 2), opcode by opcode, as in the official archive."""

    def text(value: str) -> bytes:
        return b"U" + struct.pack("<B", len(value)) + value.encode()

    rows, columns = planes.shape
    data = planes.tobytes()
    return (
        b"\x80\x02}q\x01("
        + (text("batch_label") + text("testing batch 1 of 1"))
        + (text("labels") + b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e")
        + (text("data") + b"cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85" + text("b"))
        + (b"\x87R(K\x01M" + struct.pack("<H", rows) + b"M" + struct.pack("<H", columns) + b"\x86")
        + (b"cnumpy\ndtype\nq\x04" + text("u1") + b"K\x00K\x01\x87R(K\x03" + text("|") + b"NNNJ\xff\xff\xff\xffJ")
        + (b"\xff\xff\xff\xffK\x00tb\x89T" + struct.pack("<i", len(data)) + data + b"tb")
        + (text("filenames") + b"](" + text("a_s_000001.png") + text("b_s_000002.png") + b"e")
        + b"u."
    )


def planar(batch: Batch) -> np.ndarray:
    """(N, 3072): red, green, blue, as the official batches hold pictures."""
    return batch.images.transpose(0, 3, 1, 2).reshape(len(batch), -1)


@pytest.fixture(scope="module")
def batch(reference: Path) -> Batch:
    return held_out(reference)


@pytest.fixture(scope="module")
def pickled(batch: Batch) -> bytes:
    return python2_pickle(planar(batch), batch.labels.tolist())


@pytest.fixture(scope="module")
def binary(batch: Batch) -> bytes:
    return np.concatenate([batch.labels[:, None], planar(batch)], axis=1).tobytes()


def tar(path: Path, members: dict[str, bytes], *, packed: bool = True) -> Path:
    with (
        gzip.open(path, "wb", compresslevel=1) if packed else path.open("wb") as file,
        tarfile.open(fileobj=file, mode="w") as archive,
    ):
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def same(one: Batch, other: Batch) -> bool:
    return np.array_equal(one.images, other.images) and np.array_equal(one.labels, other.labels)


# --- the forms


def test_the_strips_hold_the_published_test_batch(batch: Batch) -> None:
    """Reading compares with the published sha256 of test_batch.bin; the first labels are known besides."""
    assert batch.images.shape == (N, 32, 32, 3)
    assert batch.images.dtype == batch.labels.dtype == np.uint8
    names = [CLASSES[label] for label in batch.labels[:5]]
    assert names == ["cat", "ship", "ship", "airplane", "frog"]


@pytest.mark.parametrize(
    ("member", "packed"),
    [
        ("cifar-10-batches-py/test_batch", True),
        ("./cifar-10-batches-py/test_batch", False),
        ("test_batch", False),
        ("cifar-10-batches-bin/test_batch.bin", False),
    ],
)
def test_an_archive(member: str, packed: bool, batch: Batch, pickled: bytes, binary: bytes, tmp_path: Path) -> None:
    data = binary if member.endswith(".bin") else pickled
    path = tar(tmp_path / "any.name", {"cifar-10-batches-py/readme.html": b"<html>", member: data}, packed=packed)
    assert same(open_cifar10(path).test, batch)


@pytest.mark.parametrize(
    "name", ["cifar-10-batches-py/test_batch", "test_batch", "cifar-10-batches-bin/test_batch.bin"]
)
def test_an_unpacked_folder(name: str, batch: Batch, pickled: bytes, binary: bytes, tmp_path: Path) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(binary if name.endswith(".bin") else pickled)
    assert same(open_cifar10(tmp_path).test, batch)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_a_batch_pickled_again_by_python_3(protocol: int, batch: Batch, binary: bytes) -> None:
    content = {"data": planar(batch), "labels": batch.labels.tolist(), "filenames": ["a.png"]}
    assert read_batch(pickle.dumps(content, protocol=protocol), "x").tobytes() == binary


def test_batches_come_in_one_pass_in_the_order_of_the_archive(tmp_path: Path, pickled: bytes) -> None:
    path = tar(tmp_path / "x.tar", {"data_batch_4": pickled, "test_batch": pickled}, packed=False)
    names = [batch.name for batch in open_cifar10(path, check=False).batches(("test", "batch4"))]
    assert names == ["batch4", "test"]


def test_train_is_the_five_batches_in_the_standard_order(tmp_path: Path, batch: Batch) -> None:
    shuffled = (3, 1, 5, 2, 4)
    members = {}
    for number in shuffled:
        records = np.zeros((N, 3073), np.uint8)
        records[:, 0] = number
        records[:, 1:1025] = 10 * number
        members[f"data_batch_{number}.bin"] = records.tobytes()
    train = open_cifar10(tar(tmp_path / "x.tar", members, packed=False), check=False).train
    assert train.labels[::N].tolist() == [1, 2, 3, 4, 5]
    assert train.images[::N, 0, 0].tolist() == [[10 * number, 0, 0] for number in (1, 2, 3, 4, 5)]


def test_an_unknown_batch_is_refused(reference: Path) -> None:
    with pytest.raises(ValueError, match="no batch of CIFAR-10 is called batch6"):
        next(open_cifar10(strips(reference)).batches(("batch6",)))


# --- what it proves


def test_one_altered_pixel_is_found(batch: Batch, tmp_path: Path) -> None:
    images = planar(batch).copy()
    images[5000, 1000] ^= 1
    (tmp_path / "test_batch").write_bytes(python2_pickle(images, batch.labels.tolist()))
    with pytest.raises(FormatError, match=r"test_batch are not those of CIFAR-10 \(sha256 .* published 8e2eb146"):
        _ = open_cifar10(tmp_path).test
    assert len(open_cifar10(tmp_path, check=False).test) == N


def test_one_altered_label_is_found(binary: bytes, tmp_path: Path) -> None:
    (tmp_path / "test_batch.bin").write_bytes(b"\x04" + binary[1:])
    with pytest.raises(FormatError, match="not those of CIFAR-10"):
        _ = open_cifar10(tmp_path).test


# --- hostile pickles


class _Runs:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.function, self.arguments


def _attacks(canary: Path) -> dict[str, bytes]:
    touch = f"touch {canary}"
    inside = {"data": _Runs(os.system, touch), "labels": [1]}
    return {
        "os.system": pickle.dumps(_Runs(os.system, touch), protocol=2),
        "os.system in a dict": pickle.dumps(inside, protocol=4),
        "eval": pickle.dumps(_Runs(eval, f"open({str(canary)!r}, 'w')"), protocol=2),
        "protocol 0": f"cos\nsystem\n(S'{touch}'\ntR.".encode(),
        "INST": f"(S'{touch}'\nios\nsystem\n.".encode(),
        "dotted name": b"\x80\x04\x8c\x05numpy\x8c\x0ef2py.os.system\x93\x8c"
        + bytes([len(touch)])
        + touch.encode()
        + b"\x85R.",
        "numpy.load": b"\x80\x02cnumpy\nload\nX\x01\x00\x00\x00x\x85R.",
        "numpy.core.multiarray": b"\x80\x02cnumpy.core.multiarray\nfromfile\nX\x01\x00\x00\x00x\x85R.",
        "codecs.open": b"\x80\x02c_codecs\ndecode\nX\x01\x00\x00\x00x\x85R.",
        "encode by another codec": b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00xX\x05\x00\x00\x00rot13\x86R.",
        "getattr": b"\x80\x02cbuiltins\ngetattr\nX\x01\x00\x00\x00xX\x04\x00\x00\x00real\x86R.",
        "persistent id": b"Pos.system\n.",
        "extension code": b"\x80\x02\x82\x01.",
        "calls an array": b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n)R)R.",
        "memo as large as memory": b"\x80\x02}r\xff\xff\xff\x7f.",
        "bytes as large as memory": b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",
        "nothing on the stack": b"\x80\x02R.",
        "no end": b"\x80\x02}",
        "a protocol of the future": b"\x80\x63}.",
        "unhashable key": b"\x80\x02}]K\x01s.",
        "a key nested too deep to hash": b"\x80\x02}N" + b"\x85" * 500_000 + b"K\x01s.",
        "such keys together": b"\x80\x02}(N" + b"\x85" * 500_000 + b"K\x01u.",
        "changes a stand-in": b"\x80\x02c_codecs\nencode\n}X\x0c\x00\x00\x00__defaults__)sb.",
        "changes a name's stand-in": b"\x80\x02cnumpy\ndtype\n}X\x08\x00\x00\x00__call__NsN\x86b.",
    }


@pytest.mark.parametrize("name", _attacks(Path("x")))
def test_a_hostile_pickle_runs_nothing(name: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    with pytest.raises(FormatError, match=rf"^x: ({BROKEN}|holds a|has no)"):
        read_batch(_attacks(canary)[name], "x")
    assert not canary.exists()


def test_the_attacks_would_work_on_a_plain_unpickler(tmp_path: Path) -> None:
    """Otherwise the test above would show nothing."""
    attacks = _attacks(tmp_path / "canary")
    for name in ("os.system", "os.system in a dict", "protocol 0", "INST"):
        pickle.loads(attacks[name])
        (tmp_path / "canary").unlink()


def test_a_hostile_archive_is_named_with_its_member(tmp_path: Path) -> None:
    path = tar(tmp_path / "x.tar.gz", {"test_batch": _attacks(tmp_path / "canary")["os.system"]})
    with pytest.raises(FormatError, match=r"x\.tar\.gz: test_batch: .*asks for (posix|nt|os)\.system"):
        _ = open_cifar10(path).test
    assert not (tmp_path / "canary").exists()


# --- batches of the wrong form

SMALL = np.arange(10 * 3072, dtype=np.uint8).reshape(10, 3072)


def _dump(**changes: Any) -> bytes:
    content = {"data": np.zeros((N, 3072), np.uint8), "labels": [1] * N, **changes}
    return pickle.dumps({key: value for key, value in content.items() if value is not None}, protocol=4)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda: pickle.dumps([1, 2]), "holds a list, expected a dict"),
        (lambda: _dump(data=None), r"has no 'data', expected a batch of CIFAR-10 \(its keys: 'labels'\)"),
        (lambda: _dump(labels=None, fine_labels=[1]), "has no 'labels'"),  # CIFAR-100
        (lambda: _dump(data=SMALL), r"10000 labels and pictures of shape \(10, 3072\)"),
        (lambda: _dump(labels=[1, 2]), "2 labels"),
        (lambda: _dump(labels=[1] * (N - 1) + [10]), "a label is 10, those of CIFAR-10 go from 0 to 9"),
        (lambda: _dump(labels=[1] * (N - 1) + [-1]), "not a list of small numbers"),
        (lambda: _dump(labels=[1] * (N - 1) + [True]), "not a list of small numbers"),
        (lambda: _dump(labels="1"), "not a list of small numbers"),
        (lambda: _dump(data=[1, 2]), "data is not a uint8 array"),
        (lambda: _dump(data=np.zeros((N, 3072), np.int8)), "data is not a uint8 array"),
        (lambda: _dump(data=np.zeros((N, 3072), np.uint8, order="F")), "data is not a uint8 array"),
        (lambda: _dump(data=np.array([None, {}], object)), "data is not a uint8 array"),
        (lambda: _dump(data=SMALL[0]), "data is not a uint8 array"),
        (lambda: b"", BROKEN),
        (lambda: b"\xff\xd8\xff\xe0", BROKEN),
    ],
)
def test_a_batch_of_another_form_is_refused(data: Any, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read_batch(data(), "x")


def test_damaged_pickles_give_our_error_only() -> None:
    rng = random.Random(5)
    whole = python2_pickle(SMALL[:, :16], [1] * 10)
    for _ in range(1500):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        with pytest.raises(FormatError):  # a batch of ten is too small even where it parses
            read_batch(bytes(data[: rng.choice((len(data), rng.randrange(len(data))))]), "x")


# --- archives and folders that are none


def test_links_in_an_archive_are_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        for kind, name in ((tarfile.SYMTYPE, "data_batch_1"), (tarfile.LNKTYPE, "test_batch"), (tarfile.DIRTYPE, "d")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    with pytest.raises(
        FormatError, match=r"an archive without test_batch \(it has 'data_batch_1', 'test_batch', 'd'\)"
    ):
        _ = open_cifar10(path).test


def test_nothing_is_unpacked_whatever_the_names_are(tmp_path: Path, binary: bytes) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    path = tar(inner / "x.tar", {"../evil": b"1", str(tmp_path / "evil"): b"1", "../../test_batch.bin": binary})
    assert len(open_cifar10(path).test) == N
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["a", "b", "x.tar"]


def test_an_archive_that_unpacks_without_end_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_WHOLE", 1 << 20)
    path = tar(tmp_path / "x.tar.gz", {"bomb": bytes(4 << 20)})
    with pytest.raises(FormatError, match="unpacks to more than 1,048,576 bytes"):
        _ = open_cifar10(path).test


def test_a_part_larger_than_any_batch_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "LARGEST", 1000)
    (tmp_path / "test_batch").write_bytes(bytes(1001))
    for path in (tmp_path, tar(tmp_path / "x.tar", {"test_batch": bytes(1001)})):
        with pytest.raises(FormatError, match="test_batch: more than the 1,000 bytes"):
            _ = open_cifar10(path).test


@pytest.mark.parametrize("packed", [True, False])
def test_a_truncated_archive_says_what_the_official_one_is(packed: bool, tmp_path: Path, binary: bytes) -> None:
    path = tar(tmp_path / "x.tar.gz", {"test_batch.bin": binary[:1_000_000]}, packed=packed)
    path.write_bytes(path.read_bytes()[:-300_000])
    with pytest.raises(FormatError, match=r"x\.tar\.gz: .*(170,498,071 bytes and md5 c58f|999|expected 30,730,000)"):
        _ = open_cifar10(path).test


def test_a_flipped_bit_in_a_packed_archive_is_found(tmp_path: Path, binary: bytes) -> None:
    path = tar(tmp_path / "x.tar.gz", {"test_batch.bin": binary})
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(FormatError):
        _ = open_cifar10(path).test


@pytest.mark.parametrize("data", [b"", b"PK\x05\x06", b"\x89PNG", bytes(600)], ids=["empty", "zip", "png", "zeros"])
def test_another_file_is_refused_with_what_was_expected(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(FormatError, match=r"x: no form of CIFAR-10; expected cifar-10-python\.tar\.gz or"):
        open_cifar10(tmp_path / "x")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"absent: cannot be read: No such file"):
        open_cifar10(tmp_path / "absent")


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FormatError, match="a device or a pipe"):
        open_cifar10(tmp_path / "pipe")


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="this folder holds no form of CIFAR-10"):
        open_cifar10(tmp_path)


def test_a_folder_without_the_batch_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data_batch_1.bin").write_bytes(b"")
    with pytest.raises(FormatError, match=r"test_batch\.bin: is missing"):
        _ = open_cifar10(tmp_path).test


def test_cifar_100_is_refused(tmp_path: Path) -> None:
    path = tar(tmp_path / "x.tar.gz", {"cifar-100-python/meta": b"1", "cifar-100-python/test": b"2"})
    with pytest.raises(FormatError, match=r"an archive without test_batch \(it has 'meta', 'test'\)"):
        _ = open_cifar10(path).test


# --- strips


@pytest.fixture(scope="module")
def strip_folder(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The strips of the test batch, unpacked, with an empty file for the first."""
    folder = tmp_path_factory.mktemp("strips")
    with zipfile.ZipFile(strips(reference)) as archive:
        for name in (*(f"{number:03d}.webp" for number in range(100, 120)), "labels.bin"):
            (folder / name).write_bytes(archive.read(name))
    (folder / "000.webp").touch()
    return folder


def test_strips_in_a_folder(strip_folder: Path, batch: Batch) -> None:
    assert same(open_cifar10(strip_folder).test, batch)


@pytest.mark.parametrize(
    ("member", "data", "message"),
    [
        ("100.webp", lambda data: data[:1000], r"100\.webp"),
        ("100.webp", lambda data: b"", r"100\.webp: the file is empty"),
        ("100.webp", lambda _: cv2.imencode(".webp", np.zeros((32, 32, 3), np.uint8))[1].tobytes(), "32x32 pixels"),
        ("labels.bin", lambda data: data[:-1], "59,999 bytes, expected a label for each"),
        ("labels.bin", lambda data: data[:-1] + b"\x0a", "a label is 10"),
    ],
)
def test_damaged_strips_are_refused(member: str, data: Any, message: str, strip_folder: Path, tmp_path: Path) -> None:
    for file in strip_folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    whole = (tmp_path / member).read_bytes()
    (tmp_path / member).unlink()
    (tmp_path / member).write_bytes(data(whole))
    with pytest.raises(FormatError, match=message):
        _ = open_cifar10(tmp_path).test


def test_a_zip_of_something_else_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.txt", "a")
    with pytest.raises(FormatError, match=r"a zip without 000\.webp"):
        _ = open_cifar10(tmp_path / "x.zip").test


def test_a_truncated_zip_is_refused(reference: Path, tmp_path: Path) -> None:
    with strips(reference).open("rb") as file:
        (tmp_path / "x.zip").write_bytes(file.read(100_000))
    with pytest.raises(FormatError, match=r"x\.zip: damaged"):
        _ = open_cifar10(tmp_path / "x.zip").test
