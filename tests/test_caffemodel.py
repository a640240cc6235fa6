"""Reading caffemodels: every encoding gives the values protobuf reads."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe2torch import schema, wire
from caffe2torch.caffemodel import open_weights
from caffe2torch.caffemodel.types import V1_TYPES
from weights_files import (
    doubles,
    field,
    floats,
    golden_files,
    layers_of,
    net_of,
    parsed,
    raw,
    shape,
    unpacked,
)

SIX = [0.5, -1.25, 3.0, 1e-30, -0.0, 6.5]


def _read(path: Path) -> list[tuple[str, list[np.ndarray]]]:
    with open_weights(path) as file:
        return [(layer.name, [blob.read() for blob in layer.blobs]) for layer in file.layers]


def _blob(tmp_path: Path, encoded: bytes) -> np.ndarray:
    path = tmp_path / "net.caffemodel"
    path.write_bytes(net_of(encoded))
    ((_, blobs),) = _read(path)
    return blobs[0]


def _assert_equal(mine: list[tuple[str, list[np.ndarray]]], theirs: list[tuple[str, list[np.ndarray]]]) -> None:
    assert [name for name, _ in mine] == [name for name, _ in theirs]
    for (name, got), (_, expected) in zip(mine, theirs, strict=True):
        assert [blob.shape for blob in got] == [blob.shape for blob in expected], name
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_array_equal(a, b)


def test_every_file_of_the_reference_is_read_as_protobuf_reads_it(reference: Path) -> None:
    files = golden_files(reference)
    assert len(files) > 100
    for path in files:
        _assert_equal(_read(path), layers_of(parsed(path.read_bytes())))


@pytest.mark.parametrize("case", ["weights", "weights_shared"])
def test_values_are_those_real_caffe_held(reference: Path, case: str) -> None:
    folder = reference / "goldens" / "formats" / case
    stored = np.load(folder / "blobs.npz")
    found = {f"w:{n}:{i}": b for n, blobs in _read(folder / "weights.caffemodel") for i, b in enumerate(blobs)}
    assert set(found) == {key for key in stored if key.startswith("w:")}
    for key, value in found.items():
        np.testing.assert_array_equal(value, stored[key])


@pytest.mark.parametrize(
    "name, syntax, net_name",
    [
        ("cifar10_full_iter_60000.caffemodel", "V1", "CIFAR10_full"),
        ("squeezenet_v1.0.caffemodel", "V2", "FireNet"),
    ],
)
def test_syntax_and_net_name(reference: Path, name: str, syntax: str, net_name: str) -> None:
    with open_weights(reference / "models" / name) as file:
        assert (file.syntax, file.net_name) == (syntax, net_name)


def test_v1_types_appear_under_their_present_names(reference: Path) -> None:
    with open_weights(reference / "models" / "lenet_iter_10000.caffemodel") as file:
        types = {layer.name: layer.type for layer in file.layers}
    assert types["conv1"] == "Convolution"
    assert types["ip1"] == "InnerProduct"
    assert types["loss"] == "SoftmaxWithLoss"


def test_legacy_headers_keep_their_four_axes(reference: Path) -> None:
    with open_weights(reference / "goldens" / "layers" / "v1_net_v1_weights" / "weights.caffemodel") as file:
        blobs = {layer.name: layer.blobs for layer in file.layers}
    assert [(blob.shape, blob.legacy) for blob in blobs["fc"]] == [((1, 1, 5, 36), True), ((1, 1, 1, 5), True)]


def test_the_table_of_v1_types_agrees_with_the_schema() -> None:
    enum = schema.message_type("V1LayerParameter").DESCRIPTOR.enum_types_by_name["LayerType"]
    squeezed = {value.number: value.name.replace("_", "").lower() for value in enum.values if value.number}
    ours = {number: name.lower().replace("withloss", "loss") for number, name in V1_TYPES.items()}
    assert ours == squeezed


@pytest.mark.parametrize(
    "encoded",
    [
        floats(*SIX) + shape(2, 3),
        shape(2, 3) + floats(*SIX),
        shape(2, 3) + unpacked(*SIX),
        shape(2, 3) + floats(*SIX[:2]) + floats(*SIX[2:]),
        floats(*SIX[:1]) + shape(2, 3) + floats() + floats(*SIX[1:]),
        unpacked(*SIX[:2]) + floats(*SIX[2:4]) + shape(2, 3) + unpacked(*SIX[4:]),
        shape(2) + shape(3) + floats(*SIX),
        field(7, b"\x08\x02\x08\x03") + floats(*SIX),
        field(7, b"\x08\x02" + field(1, b"\x03")) + floats(*SIX),
        shape(2, 3) + doubles(*SIX),
        shape(2, 3) + doubles(*SIX[:3]) + b"".join(b"\x41" + np.float64(v).tobytes() for v in SIX[3:]),
        shape(2, 3) + floats(9, 9) + doubles(*SIX),
        shape(2, 3) + floats(*SIX) + field(6, np.zeros(6, "<f4").tobytes()) + field(9, bytes(48)),
        shape(2, 3) + raw(0, "<f8", *SIX),
        shape(2, 3) + raw(1, "<f4", *SIX),
        shape(2, 3) + raw(2, "<f2", *SIX),
        shape(2, 3) + raw(1, "<f4", 1, 2) + raw(1, "<f4", *SIX),
        shape(2, 3) + raw(1, "<f4", 1, 2) + floats(*SIX),
        b"\x08\x01\x10\x01\x18\x02\x20\x03" + floats(*SIX),
        b"\x18\x02\x20\x03\x08\x01\x10\x01" + shape(7) + floats(*SIX),
        b"\xf2\x3d\x03abc" + shape(2, 3) + b"\x28\x05" + floats(*SIX) + b"\x3d" + bytes(4),
    ],
    ids=[
        "data_shape",
        "shape_data",
        "unpacked",
        "two_chunks",
        "shape_between_chunks",
        "mixed",
        "shape_in_two_messages",
        "unpacked_dims",
        "mixed_dims",
        "double",
        "double_mixed",
        "double_wins_over_data",
        "diff_is_ignored",
        "raw_double",
        "raw_float",
        "raw_half",
        "last_raw_counts",
        "data_wins_over_raw",
        "legacy",
        "legacy_wins_over_shape",
        "unknown_fields_and_wire_types",
    ],
)
def test_every_encoding_gives_the_same_values(tmp_path: Path, encoded: bytes) -> None:
    blob = _blob(tmp_path, encoded)
    expected = np.array(SIX, np.float16 if b"\x50\x02" in encoded else np.float32).astype(np.float32)
    np.testing.assert_array_equal(blob.ravel(), expected)
    ((_, (theirs,)),) = layers_of(parsed(net_of(encoded)))
    np.testing.assert_array_equal(blob, theirs)
    assert blob.shape == theirs.shape


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    parts=st.lists(st.tuples(st.booleans(), st.integers(0, 300)), max_size=6),
    order=st.randoms(use_true_random=False),
    seed=st.integers(0, 2**16),
)
def test_any_mix_of_chunks_is_read_as_protobuf_reads_it(
    tmp_path_factory: pytest.TempPathFactory, parts: list[tuple[bool, int]], order: object, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    chunks = [(floats if packed else unpacked)(*rng.standard_normal(size)) for packed, size in parts]
    chunks.insert(int(rng.integers(len(chunks) + 1)), shape(sum(size for _, size in parts)))
    path = tmp_path_factory.getbasetemp() / "mixed.caffemodel"
    path.write_bytes(net_of(b"".join(chunks)))
    _assert_equal(_read(path), layers_of(parsed(path.read_bytes())))


def test_unpacked_values_longer_than_a_window_are_read(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal(1_300_000).astype("<f4")
    rows = np.empty((values.size, 5), np.uint8)
    rows[:, 0] = 0x2D
    rows[:, 1:] = values.view(np.uint8).reshape(-1, 4)
    np.testing.assert_array_equal(_blob(tmp_path, rows.tobytes() + shape(values.size)), values)


def test_doubles_are_kept_when_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "net.caffemodel"
    path.write_bytes(net_of(shape(2) + doubles(0.1, 1e300)))
    with open_weights(path) as file:
        blob = file.layers[0].blobs[0]
        assert blob.dtype == np.float64
        np.testing.assert_array_equal(blob.read(np.float64), [0.1, 1e300])
        np.testing.assert_array_equal(blob.read(), np.array([0.1, np.inf], np.float32))


def test_a_blob_without_shape_is_a_single_number(tmp_path: Path) -> None:
    assert _blob(tmp_path, floats(4.0)).shape == ()


def test_an_axis_of_zero_makes_an_empty_blob(tmp_path: Path) -> None:
    assert _blob(tmp_path, shape(0, 5)).shape == (0, 5)


def test_arrays_are_fresh_writable_aligned_and_outlive_the_file(tmp_path: Path) -> None:
    path = tmp_path / "net.caffemodel"
    path.write_bytes(net_of(shape(2, 3) + floats(*SIX)))
    with open_weights(path) as file:
        blob = file.layers[0].blobs[0]
        first, second = blob.read(), blob.read()
    first[:] = 7
    np.testing.assert_array_equal(second.ravel(), np.array(SIX, np.float32))
    assert second.flags.writeable
    assert second.flags.c_contiguous
    assert second.flags.aligned


def test_values_can_be_read_into_a_given_array(tmp_path: Path) -> None:
    path = tmp_path / "net.caffemodel"
    path.write_bytes(net_of(shape(2, 3) + floats(*SIX)))
    out = np.zeros((3, 2), np.float32)
    with open_weights(path) as file:
        file.layers[0].blobs[0].read_into(out)
        with pytest.raises(ValueError, match="6 values"):
            file.layers[0].blobs[0].read_into(np.zeros(5, np.float32))
    np.testing.assert_array_equal(out.ravel(), np.array(SIX, np.float32))


def test_v0_layers_keep_everything_in_the_message_inside(tmp_path: Path) -> None:
    net = schema.new("NetParameter")
    layer = net.layers.add(bottom=["x"], top=["y"]).layer
    layer.name, layer.type = "fc8", "innerproduct"
    layer.blobs.add(num=1, channels=1, height=2, width=3, data=SIX)
    net.layers.add().layer.name = "odd"
    (tmp_path / "v0.caffemodel").write_bytes(net.SerializeToString())
    with open_weights(tmp_path / "v0.caffemodel") as file:
        assert file.syntax == "V0"
        assert [(layer.name, layer.type) for layer in file.layers] == [("fc8", "InnerProduct"), ("odd", None)]
    _assert_equal(_read(tmp_path / "v0.caffemodel"), layers_of(net))


def test_repeated_names_are_kept_in_order(tmp_path: Path) -> None:
    one = field(100, field(1, b"f") + field(7, shape(1) + floats(1)))
    two = field(100, field(7, shape(1) + floats(2)) + field(1, b"f"))
    (tmp_path / "net.caffemodel").write_bytes(one + two)
    found = _read(tmp_path / "net.caffemodel")
    assert [(name, blobs[0].tolist()) for name, blobs in found] == [("f", [1.0]), ("f", [2.0])]


def test_the_settings_are_all_but_the_blobs(reference: Path) -> None:
    for name in ("cifar10_full_iter_60000.caffemodel", "squeezenet_v1.0.caffemodel"):
        path = reference / "models" / name
        expected = parsed(path.read_bytes())
        for layer in (*expected.layer, *expected.layers):
            layer.ClearField("blobs")
        with open_weights(path) as file:
            assert file.net_message() == expected


def test_the_settings_of_v0_layers_are_all_but_the_blobs(tmp_path: Path) -> None:
    net = schema.new(
        "NetParameter",
    )
    layer = net.layers.add(bottom=["x"], top=["y"]).layer
    layer.name, layer.type, layer.num_output = "fc8", "innerproduct", 2
    layer.blobs.add(num=1, channels=1, height=2, width=3, data=SIX)
    (tmp_path / "v0.caffemodel").write_bytes(net.SerializeToString())
    layer.ClearField("blobs")
    with open_weights(tmp_path / "v0.caffemodel") as file:
        assert file.net_message() == net


def test_blobs_can_be_read_from_several_threads(reference: Path) -> None:
    path = reference / "models" / "squeezenet_v1.0.caffemodel"
    expected = _read(path)
    with open_weights(path) as file:
        results: list[list[tuple[str, list[np.ndarray]]]] = []

        def work() -> None:
            results.append([(layer.name, [blob.read() for blob in layer.blobs]) for layer in file.layers])

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(results) == 4
    for result in results:
        _assert_equal(result, expected)


def test_a_file_over_4_gb_is_read(tmp_path: Path) -> None:
    """Sparse: an unknown field of 4.5 GB of zeros, and only then the layer."""
    path = tmp_path / "large.caffemodel"
    layer = field(100, field(1, b"f") + field(7, shape(2, 3) + floats(*SIX)))
    hole = wire.length_prefix(300, 4_500_000_000)
    with path.open("wb") as stream:
        stream.write(hole)
        stream.seek(4_500_000_000, os.SEEK_CUR)
        stream.write(layer)
    if path.stat().st_blocks * 512 > 1 << 20:
        pytest.skip("this file system has no sparse files")
    ((name, (blob,)),) = _read(path)
    assert name == "f"
    np.testing.assert_array_equal(blob.ravel(), np.array(SIX, np.float32))
