"""Files that are no sound caffemodel: one clear error that says where, what and what to do."""

from __future__ import annotations

import gzip
import io
import os
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from caffe2torch import wire
from caffe2torch.caffemodel import open_weights
from caffe2torch.errors import FormatError
from weights_files import field, floats, net_of, raw, shape


def _refused(tmp_path: Path, data: bytes) -> str:
    """The message with which the file is refused, without the leading path."""
    path = tmp_path / "net.caffemodel"
    path.write_bytes(data)
    with pytest.raises(FormatError) as caught:
        open_weights(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def _negative(value: int) -> bytes:
    return field(7, field(1, wire.varint(value)))


@pytest.mark.parametrize(
    "blob, message",
    [
        (floats(1, 2) + shape(3), "2 values in data, expected 3 for the shape (3,)"),
        (shape(2, 2), "0 values in data, expected 4 for the shape (2, 2)"),
        (b"", "0 values in data, expected 1 for the shape ()"),
        (b"\x08\x02\x10\x02" + floats(1), "1 values in data, expected 0 for the shape (2, 2, 0, 0)"),
        (_negative(-3) + floats(1), "the shape (-3,) has a negative axis"),
        (b"\x08" + wire.varint(-1) + floats(1), "the shape (-1, 0, 0, 0) has a negative axis"),
        (shape(2**40) + floats(1), "the shape (1099511627776,) is too large"),
        (shape(2**31 - 1, 2**31 - 1) + floats(1), "is too large, Caffe's limit is 2147483647 values"),
        (shape(0, 2**62, 2**62), "is too large"),
        (shape(2**30) + floats(1), "1 values in data, expected 1073741824"),
        (shape(*[1] * 33) + floats(1), "a shape of more than 32 axes"),
        (field(5, b"12345") + shape(1), "5 bytes of data, not a multiple of 4"),
        (field(8, b"1234") + shape(1), "4 bytes of double_data, not a multiple of 8"),
        (raw(2, "u1", 1, 2, 3) + shape(1), "3 bytes of raw_data, not a multiple of 2 (float16)"),
        (raw(3, "<i4", 1) + shape(1), "raw_data_type 3, expected 0 (double), 1 (float) or 2 (float16)"),
        (field(7, b"\x0a\x02\x80\x80"), "a number is cut off"),
        (b"\x2a\x7f", "field 5 claims 127 bytes, but its message has only 0 left"),
    ],
)
def test_a_damaged_blob_is_named_with_its_layer(tmp_path: Path, blob: bytes, message: str) -> None:
    found = _refused(tmp_path, net_of(shape(1) + floats(1), blob))
    assert found.startswith("layer 0 ('f'), blob 1: ")
    assert message in found


def test_every_cut_of_a_file_is_refused_or_ends_between_layers(reference: Path, tmp_path: Path) -> None:
    data = (reference / "goldens" / "formats" / "weights" / "weights.caffemodel").read_bytes()
    path = tmp_path / "cut.caffemodel"
    ends = {item.stop for item in wire.fields(data)}
    for size in range(1, len(data)):
        path.write_bytes(data[:size])
        try:
            open_weights(path).close()
        except FormatError:
            continue
        assert size in ends


def test_a_cut_off_download_says_so(reference: Path, tmp_path: Path) -> None:
    data = (reference / "models" / "lenet_iter_10000.caffemodel").read_bytes()
    message = _refused(tmp_path, data[: len(data) // 2])
    assert "bytes, but its message has only" in message
    assert "the file is damaged, cut off or not a caffemodel" in message


@pytest.mark.parametrize(
    "data, meaning",
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html>\n<html>Sign in</html>", "is a web page, saved in place of the download"),
        (b"\xef\xbb\xbf\r\n <HTML>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "`git lfs pull`"),
        (b'name: "LeNet"\nlayer {\n  name: "conv1"\n}\n', "is text, perhaps a prototxt"),
        ('# 网络\nname: "LeNet"\n'.encode("gbk"), "is text, perhaps a prototxt"),
        (b"404 Not Found\n", "is text, not a caffemodel"),
        (b'{"error": "quota"}', "is text"),
        (gzip.compress(b"x"), "is a gzip archive; unpack it"),
        (bytes(5000), "begins with nothing but zeros"),
        (b"\x0a\x03net", "holds no layers"),
        (b"\xff\xd8\xff\xe0" + bytes(30), "is a JPEG image"),
        (b"\x0a\x03\xff\xfe\xfd", "the name b'\\xff\\xfe\\xfd' is not UTF-8 text"),
        (field(100, b"") + field(2, b""), "layers of the old and the new kind"),
        (field(100, b"") * 70000, "more than 65536 layers"),
        (field(100, field(7, b"\x08\x00") * 70000), "more than 65536 blobs"),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else "",
)
def test_other_files_are_recognised(tmp_path: Path, data: bytes, meaning: str) -> None:
    assert meaning in _refused(tmp_path, data)


def test_archives_and_arrays_are_recognised(tmp_path: Path) -> None:
    packed, array = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("net.caffemodel", b"x")
    np.save(array, np.zeros(3))
    assert "is a zip archive" in _refused(tmp_path, packed.getvalue())
    assert "is a NumPy array" in _refused(tmp_path, array.getvalue())


@pytest.mark.parametrize("case", ["state_sgd", "state_adam", "state_adadelta"])
@pytest.mark.parametrize("suffix", ["solverstate", "solverstate.h5"])
def test_a_solver_state_is_recognised(reference: Path, case: str, suffix: str) -> None:
    with pytest.raises(FormatError, match="is a solver state, which holds no weights"):
        open_weights(reference / "goldens" / "formats" / case / f"s_iter_3.{suffix}")


@pytest.mark.parametrize("header", ["legacy", "shape"])
def test_a_mean_image_is_recognised(reference: Path, header: str) -> None:
    with pytest.raises(FormatError, match="is a single blob, such as a mean image"):
        open_weights(reference / "goldens" / "formats" / "mean" / f"mean_{header}.binaryproto")


def test_a_prototxt_is_recognised(reference: Path) -> None:
    for path in sorted((reference / "models").glob("*.prototxt")):
        with pytest.raises(FormatError, match="is text, perhaps a prototxt"):
            open_weights(path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, problem in [
        (tmp_path, "is a folder"),
        (tmp_path / "absent", "No such file"),
        (Path(os.devnull), "is a device or a pipe"),
        (tmp_path / "pipe", "is a device or a pipe"),
        (Path("a\0b"), "null"),
    ]:
        with pytest.raises(FormatError, match=problem):
            open_weights(path)


def test_a_file_that_shrinks_after_opening_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "net.caffemodel"
    path.write_bytes(net_of(shape(1000) + floats(*range(1000))))
    with open_weights(path) as file:
        os.truncate(path, 100)
        with pytest.raises(FormatError, match="ends at byte 100"):
            file.layers[0].blobs[0].read()


def test_a_closed_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "net.caffemodel"
    path.write_bytes(net_of(shape(1) + floats(1)))
    with open_weights(path) as file:
        blob = file.layers[0].blobs[0]
    with pytest.raises(FormatError, match="closed file"):
        blob.read()
    with pytest.raises(FormatError, match="was closed"):
        file.net_message()


def test_damaged_settings_are_an_error_only_when_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "net.caffemodel"
    path.write_bytes(field(100, field(1, b"f") + field(106, b"\xff\xff")))
    with open_weights(path) as file:
        assert [layer.name for layer in file.layers] == ["f"]
        with pytest.raises(FormatError, match="the net settings in it cannot be read"):
            file.net_message()


@pytest.mark.parametrize(
    "data",
    [
        net_of(*[shape(2**31 - 1) + floats(1)] * 10),
        net_of(b"\x08\x00" * 20000),
        net_of(shape(1) + floats(1), *[b"\x08\x00"] * 20000),
        field(100, b"") * 20000,
        net_of(floats() * 20000 + shape(0)),
        net_of((floats(1) + field(5, b"")) * 10000 + shape(10000)),
        b"\x12\x00" * 20000,
        b"\x98\x06\x00" * 20000,
    ],
    ids=["huge_shapes", "headers", "empty_blobs", "empty_layers", "empty_chunks", "chunks", "v1_layers", "unknown"],
)
def test_memory_stays_bounded(tmp_path: Path, data: bytes) -> None:
    """What a hostile file can make us hold: some objects for each layer and blob, at most 2**16 of each."""
    path = tmp_path / "net.caffemodel"
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with open_weights(path) as file:
            for layer in file.layers:
                for blob in layer.blobs:
                    blob.read()
    except FormatError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 4 * len(data) + 600 * 20000
