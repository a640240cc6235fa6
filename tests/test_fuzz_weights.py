"""Thousands of damaged weights files: our error or what protobuf reads, never another exception, in bounded memory.

Run as a program (``test_fuzz_weights.py FILE COUNT``) it damages an HDF5 file COUNT times and reads each; the test does
so in a process of its own, where a crash or a hang of the HDF5 library would be seen.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe2torch import schema
from caffe2torch.binaryproto import read_mean
from caffe2torch.caffemodel import open_weights
from caffe2torch.errors import FormatError
from weights_files import doubles, field, floats, layers_of, net_of, parsed, raw, shape, unpacked


def _old(syntax: str) -> bytes:
    net = schema.new("NetParameter")
    net.name = "old"
    for name in ("conv1", "fc2"):
        layer = net.layers.add(bottom=["x"], top=["y"])
        if syntax == "V1":
            layer.name, layer.type = name, 4
        else:
            layer = layer.layer
            layer.name, layer.type = name, "conv"
        layer.blobs.add(num=2, channels=1, height=2, width=3, data=range(12))
        layer.blobs.add(num=1, channels=1, height=1, width=2, data=[1, 2])
    data: bytes = net.SerializeToString()
    return data


SEEDS = {
    "packed": net_of(floats(*range(12)) + shape(3, 4), floats(1, 2, 3) + shape(3)),
    "unpacked": net_of(shape(3, 4) + unpacked(*range(12)), unpacked(1, 2) + floats(3) + shape(3)),
    "double": net_of(shape(3, 4) + doubles(*range(12)), shape(3) + doubles(1, 2, 3)),
    "half": net_of(shape(3, 4) + raw(2, "<f2", *range(12)), shape(3) + raw(1, "<f4", 1, 2, 3)),
    "v1": _old("V1"),
    "v0": _old("V0"),
    "two_layers": field(100, field(1, b"a")) + net_of(floats(*range(6)) + shape(1, 1, 2, 3)) + b"\x9a\x1f\x03abc",
}
MEAN = (b"\x08\x01\x10\x03\x18\x02\x20\x02" + floats(*range(12)), floats(*range(12)) + shape(1, 3, 2, 2))
LARGE = [
    net_of(encoded + shape(100, 200), floats(1, 2, 3) + shape(3))
    for encoded in (floats(*range(20_000)), unpacked(*range(20_000)))
]
SPECIAL = [
    b"\xff\xff\xff\xff\x07",  # 2**31 - 1
    b"\xff\xff\xff\xff\x0f",  # 2**32 - 1
    b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f",  # 2**63 - 1
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # -1
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80",
    b"\x00",
    b"\x2a",
    b"\x2d",
    b"\x3a",
    b"\x12",
    b"\xa2\x06",
]

position = st.floats(0, 1, exclude_max=True)
edit = st.one_of(
    st.tuples(st.just("flip"), position, st.integers(0, 7)),
    st.tuples(st.just("insert"), position, st.one_of(st.sampled_from(SPECIAL), st.binary(min_size=1, max_size=6))),
    st.tuples(st.just("replace"), position, st.one_of(st.sampled_from(SPECIAL), st.binary(min_size=1, max_size=6))),
    st.tuples(st.just("delete"), position, st.integers(1, 9)),
    st.tuples(st.just("repeat"), position, st.integers(1, 40)),
    st.tuples(st.just("cut"), position, st.none()),
)
edits = st.lists(edit, min_size=1, max_size=4)


def damage(data: bytes, changes: list[tuple[str, float, object]]) -> bytes:
    result = bytearray(data)
    for kind, where, what in changes:
        at = int(where * len(result))
        if kind == "flip" and result:
            result[at] ^= 1 << what
        elif kind == "insert":
            result[at:at] = what
        elif kind == "replace":
            result[at : at + len(what)] = what
        elif kind == "delete":
            del result[at : at + what]
        elif kind == "repeat":
            result[at:at] = result[at : at + what]
        elif kind == "cut":
            del result[at:]
    return bytes(result)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "file"


def _names_the_file(error: FormatError, path: Path) -> None:
    assert str(error).startswith(f"{path}: ")
    assert "\n" not in str(error)


def _assert_equal(mine: list[np.ndarray], theirs: list[np.ndarray]) -> None:
    for a, b in zip(mine, theirs, strict=True):
        assert a.shape == b.shape
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("seed", SEEDS)
@settings(max_examples=700, deadline=None, derandomize=True)
@given(changes=edits)
def test_a_damaged_caffemodel_is_refused_or_read_as_protobuf_reads_it(
    scratch: Path, seed: str, changes: list[tuple[str, float, object]]
) -> None:
    data = damage(SEEDS[seed], changes)
    scratch.write_bytes(data)
    try:
        with open_weights(scratch) as file:
            found = [(layer.name, [blob.read() for blob in layer.blobs]) for layer in file.layers]
    except FormatError as error:
        _names_the_file(error, scratch)
        return
    try:
        expected = layers_of(parsed(data))
    except DecodeError:
        return  # damage in settings, which we do not look at
    assert [name for name, _ in found] == [name for name, _ in expected]
    for (_, mine), (_, theirs) in zip(found, expected, strict=True):
        _assert_equal(mine, theirs)


@pytest.mark.parametrize("seed", [0, 1], ids=["legacy", "shape"])
@settings(max_examples=700, deadline=None, derandomize=True)
@given(changes=edits)
def test_a_damaged_mean_is_refused_or_read_as_protobuf_reads_it(
    scratch: Path, seed: int, changes: list[tuple[str, float, object]]
) -> None:
    data = damage(MEAN[seed], changes)
    scratch.write_bytes(data)
    try:
        found = read_mean(scratch)
    except FormatError as error:
        _names_the_file(error, scratch)
        return
    ((_, (expected,)),) = layers_of(parsed(net_of(data)))
    _assert_equal([found.ravel()], [expected.ravel()])
    assert found.shape == expected.shape[-3:]


@pytest.mark.parametrize("seed", [0, 1], ids=["packed", "unpacked"])
@settings(max_examples=150, deadline=None, derandomize=True)
@given(changes=edits, begin=st.booleans())
def test_memory_stays_within_a_few_times_the_file(
    scratch: Path, seed: int, changes: list[tuple[str, float, object]], begin: bool
) -> None:
    intact = LARGE[seed]
    if begin:  # most of what can be damaged lies around the numbers
        changes = [(kind, where * 40 / len(intact), what) for kind, where, what in changes]
    data = damage(intact, changes)
    scratch.write_bytes(data)
    tracemalloc.start()
    try:
        with open_weights(scratch) as file:
            for layer in file.layers:
                for stored in layer.blobs:
                    stored.read()
    except FormatError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 4 * len(intact)


def _hdf5_seeds(folder: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((8, 3, 3, 3), np.float32)
    with h5py.File(folder / "plain.h5", "w") as file:
        for name in ("conv1", "conv2"):
            file[f"data/{name}/0"] = weight
            file[f"data/{name}/1"] = weight[0, 0, 0]
        file.create_group("data/relu")
    with h5py.File(folder / "chunked.h5", "w", libver="latest") as file:
        file.create_dataset("data/f/0", data=weight, chunks=(4, 3, 3, 3), compression="gzip", shuffle=True)
        file.create_dataset("data/f/1", data=weight[0, 0].astype("f8"), chunks=(2, 2), fletcher32=True)
    return [folder / "plain.h5", folder / "chunked.h5"]


@pytest.mark.parametrize("seed", [0, 1], ids=["plain", "chunked"])
def test_a_damaged_hdf5_file_is_refused_or_read(tmp_path: Path, seed: int) -> None:
    source = _hdf5_seeds(tmp_path)[seed]
    done = subprocess.run(
        [sys.executable, __file__, str(source), "1500"],
        capture_output=True,
        text=True,
        timeout=240,
        cwd=Path(__file__).resolve().parent.parent,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    read, refused = map(int, done.stdout.split())
    assert read > 50
    assert refused > 50


def _damage_hdf5(data: bytes, generator: random.Random) -> bytes:
    changes: list[tuple[str, float, object]] = []
    for _ in range(generator.choice([1, 1, 1, 2, 4, 8])):
        what: dict[str, object] = {
            "flip": generator.randrange(8),
            "replace": generator.choice([b"\xff" * 8, bytes(8), b"\x7f" + b"\xff" * 7, generator.randbytes(1)]),
            "delete": generator.randrange(1, 40),
            "cut": None,
        }
        kind = generator.choice(["flip", "flip", "replace", "replace", "delete", "cut"])
        changes.append((kind, generator.random(), what[kind]))
    return damage(data, changes)


def main(path: Path, count: int) -> None:
    import resource
    import signal

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    data = path.read_bytes()
    target = path.with_suffix(".damaged")
    read = 0
    for number in range(count):
        target.write_bytes(_damage_hdf5(data, random.Random(number)))
        signal.alarm(20)  # a hang ends the process
        try:
            with open_weights(target) as file:
                for layer in file.layers:
                    for blob in layer.blobs:
                        blob.read()
            read += 1
        except FormatError as error:
            _names_the_file(error, target)
    signal.alarm(0)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used
    assert grown < 64 * 1024, f"{grown} KiB more than at the start"
    print(read, count - read)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
