"""Mean images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from caffe2torch import schema
from caffe2torch.binaryproto import read_mean, write_mean
from caffe2torch.errors import FormatError, OutputError, WeightsError


def _mean() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (3, 4, 5)).astype(np.float32)


@pytest.mark.parametrize("header", ["legacy", "shape"])
def test_caffes_files_give_the_values_caffe_had(reference: Path, header: str) -> None:
    folder = reference / "goldens" / "formats" / "mean"
    mean = read_mean(folder / f"mean_{header}.binaryproto")
    assert mean.dtype == np.float32
    np.testing.assert_array_equal(mean, np.load(folder / "blobs.npz")["mean"])


@pytest.mark.parametrize("header", ["legacy", "shape"])
def test_written_files_equal_caffes_to_the_byte(reference: Path, tmp_path: Path, header: str) -> None:
    source = reference / "goldens" / "formats" / "mean" / f"mean_{header}.binaryproto"
    write_mean(tmp_path / "mean", read_mean(source), legacy=header == "legacy")
    assert (tmp_path / "mean").read_bytes() == source.read_bytes()


def test_the_released_mean_is_read_as_protobuf_reads_it(reference: Path) -> None:
    path = reference / "models" / "cifar10_mean.binaryproto"
    blob = schema.new("BlobProto")
    blob.ParseFromString(path.read_bytes())
    np.testing.assert_array_equal(read_mean(path).ravel(), np.array(blob.data, np.float32))
    assert read_mean(path).shape == (blob.channels, blob.height, blob.width)


@pytest.mark.parametrize("legacy", [True, False], ids=["legacy", "shape"])
def test_protobuf_reads_what_is_written(tmp_path: Path, legacy: bool) -> None:
    mean = _mean()
    write_mean(tmp_path / "mean", mean, legacy=legacy)
    blob = schema.new("BlobProto")
    blob.ParseFromString((tmp_path / "mean").read_bytes())
    header = [blob.num, blob.channels, blob.height, blob.width] if legacy else list(blob.shape.dim)
    assert header == [1, 3, 4, 5]
    np.testing.assert_array_equal(np.array(blob.data, np.float32), mean.ravel())


def test_doubles_and_three_axes_are_accepted(tmp_path: Path) -> None:
    mean = _mean()
    blob = schema.new("BlobProto")
    blob.shape.dim.extend(mean.shape)
    blob.double_data.extend(mean.ravel().astype(float))
    (tmp_path / "mean").write_bytes(blob.SerializeToString())
    np.testing.assert_array_equal(read_mean(tmp_path / "mean"), mean)


def test_the_mean_belongs_to_the_caller(tmp_path: Path) -> None:
    write_mean(tmp_path / "mean", _mean())
    mean = read_mean(tmp_path / "mean")
    assert mean.flags.writeable
    assert mean.flags.c_contiguous
    assert mean.flags.aligned


@pytest.mark.parametrize("shape", [(2, 3, 1, 1), (6,), (2, 3), (1, 1, 1, 2, 3)])
def test_other_blobs_than_one_image_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    blob = schema.new("BlobProto")
    blob.shape.dim.extend(shape)
    blob.data.extend(range(6))
    (tmp_path / "x.binaryproto").write_bytes(blob.SerializeToString())
    with pytest.raises(FormatError, match=r"x\.binaryproto: holds a blob of shape .* expected one image"):
        read_mean(tmp_path / "x.binaryproto")


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    write_mean(tmp_path / "mean", _mean())
    (tmp_path / "cut").write_bytes((tmp_path / "mean").read_bytes()[:-1])
    with pytest.raises(FormatError, match=r"cut: .* claims 240 bytes, but its message has only 239 left"):
        read_mean(tmp_path / "cut")


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"absent: cannot be read: No such file"):
        read_mean(tmp_path / "absent")


def test_a_web_page_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "mean").write_bytes(b"<!DOCTYPE html><html>quota exceeded</html>")
    with pytest.raises(FormatError, match="is a web page"):
        read_mean(tmp_path / "mean")


def test_an_array_of_another_rank_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"expected numbers of shape \(C, H, W\)"):
        write_mean(tmp_path / "mean", np.zeros((4, 5), np.float32))
    assert not (tmp_path / "mean").exists()


def test_a_missing_folder_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="folder does not exist"):
        write_mean(tmp_path / "no" / "mean", _mean())
