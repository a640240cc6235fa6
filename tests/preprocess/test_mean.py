"""Mean images from every format, against scipy, numpy and the binaryproto of the same image."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from caffe2torch.errors import FormatError, UsageError
from caffe2torch.matlab_v5 import read_variables
from caffe2torch.preprocess import load_mean

MEAN = np.random.default_rng(0).uniform(0, 255, (3, 5, 4)).astype(np.float32)


def mat(values: dict[str, np.ndarray], *, compress: bool = False) -> bytes:
    file = io.BytesIO()
    scipy.io.savemat(file, values, do_compression=compress)
    return file.getvalue()


def saved(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", ["imagenet_mean.binaryproto", "ssdh-ilsvrc_2012_mean.mat"])
def test_released_files_hold_the_usual_imagenet_mean_upright(reference: Path, name: str) -> None:
    means = reference / "published/means"
    assert np.array_equal(load_mean(means / name), np.load(means / "ilsvrc_2012_mean.npy").astype(np.float32))


def test_kevinnets_mean_is_within_a_hundredth_of_the_usual(reference: Path) -> None:
    means = reference / "published/means"
    usual = load_mean(means / "ilsvrc_2012_mean.npy")
    assert np.abs(load_mean(means / "kevinnet-ilsvrc_2012_mean.mat") - usual).max() <= 0.0125


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "compressed"])
@pytest.mark.parametrize("dtype", ["f4", "f8", "u1", "i2"])
@pytest.mark.parametrize(("name", "axes"), [("image_mean", (1, 2, 0)), ("mean_data", (2, 1, 0))])
def test_mat_v5(tmp_path: Path, name: str, axes: tuple[int, int, int], dtype: str, compress: bool) -> None:
    stored = MEAN.transpose(axes).astype(dtype)
    path = saved(tmp_path / "m.mat", mat({name: stored, "note": np.zeros((2, 2))}, compress=compress))
    assert np.array_equal(load_mean(path), MEAN.astype(dtype).astype(np.float32))


@pytest.mark.parametrize(("name", "axes"), [("image_mean", (1, 2, 0)), ("mean_data", (2, 1, 0))])
def test_mat_v7_3_holds_matlabs_indices_in_reverse(tmp_path: Path, name: str, axes: tuple[int, int, int]) -> None:
    path = tmp_path / "m.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        file[name] = MEAN.transpose(axes).T
    data = bytearray(path.read_bytes())
    data[:10] = b"MATLAB 7.3"
    path.write_bytes(data)
    assert np.array_equal(load_mean(path), MEAN)


@pytest.mark.parametrize("layout", ["hwc", "whc"])
def test_other_variable_needs_its_layout_said(tmp_path: Path, layout: str) -> None:
    axes = (1, 2, 0) if layout == "hwc" else (2, 1, 0)
    path = saved(tmp_path / "m.mat", mat({"average": MEAN.transpose(axes)}))
    with pytest.raises(FormatError, match="does not tell its layout"):
        load_mean(path)
    assert np.array_equal(load_mean(path, layout=layout), MEAN)


@pytest.mark.parametrize(
    "stored",
    [MEAN, MEAN.astype("f8"), MEAN.astype(">f4"), np.asfortranarray(MEAN), MEAN[None]],
    ids=["f4", "f8", "big", "fortran", "4-D"],
)
@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_npy(tmp_path: Path, stored: np.ndarray, version: tuple[int, int]) -> None:
    path = tmp_path / "m.npy"
    with path.open("wb") as file:
        np.lib.format.write_array(file, stored, version=version)
    assert np.array_equal(load_mean(path), MEAN)


def test_npy_of_three_numbers_is_one_per_channel(tmp_path: Path) -> None:
    np.save(tmp_path / "m.npy", np.array([104.0, 117.0, 123.0]))
    assert load_mean(tmp_path / "m.npy").tolist() == [[[104.0]], [[117.0]], [[123.0]]]


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (np.zeros((5, 4, 3)), "expected a mean of shape"),
        (np.array(["a"], dtype=object), "plain numbers"),
        (np.zeros((3, 0, 4)), "empty"),
        (np.full((3, 2, 2), np.nan), "not finite"),
        (np.zeros(3, complex), "plain numbers"),
    ],
    ids=["hwc", "objects", "empty", "nan", "complex"],
)
def test_npy_of_something_else_is_refused(tmp_path: Path, stored: np.ndarray, message: str) -> None:
    np.save(tmp_path / "m.npy", stored, allow_pickle=True)
    with pytest.raises(FormatError, match=message):
        load_mean(tmp_path / "m.npy")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"image_mean": np.zeros((4, 4))}, "expected one mean image"),
        ({"a": np.zeros((4, 4, 3)), "b": np.zeros((4, 4, 3))}, "expected one mean image"),
        ({"image_mean": "text"}, "no numeric array"),
    ],
    ids=["flat", "two", "text"],
)
def test_mat_of_something_else_is_refused(tmp_path: Path, values: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        load_mean(saved(tmp_path / "m.mat", mat(values)))


@pytest.mark.parametrize("data", [b"", b"hello", b"\x93NUMPY\x01\x00", b"MATLAB 7.3 and nothing", b"\x89HDF\r\n\x1a\n"])
def test_no_mean_at_all(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(FormatError):
        load_mean(saved(tmp_path / "m", data))


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="cannot read"):
        load_mean(tmp_path / "none.mat")
    with pytest.raises(FormatError, match="cannot read"):
        load_mean(tmp_path)


def test_unknown_layout(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected 'hwc' or 'whc'"):
        load_mean(tmp_path / "m.mat", layout="chw")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), compress=st.booleans())
def test_damaged_mat_is_our_error_or_arrays(data: st.DataObject, compress: bool) -> None:
    original = mat({"image_mean": np.arange(24.0).reshape(2, 4, 3), "s": np.int8([1, 2])}, compress=compress)
    damaged = bytearray(original)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(damaged)))
    for candidate in (bytes(damaged), bytes(damaged[:cut])):
        try:
            arrays = [v.numbers() for v in read_variables(Path("m.mat"), candidate) if v.is_numbers]
        except FormatError:
            continue
        assert sum(array.nbytes for array in arrays) <= 4 * len(original)


@pytest.mark.parametrize("shape", [b"(30 5, 4)", b"(3, , 4) "])
def test_a_shape_that_is_no_tuple_is_no_mean(tmp_path: Path, shape: bytes) -> None:
    file = io.BytesIO()
    np.save(file, MEAN)
    path = tmp_path / "m.npy"
    path.write_bytes(file.getvalue().replace(b"(3, 5, 4)", shape))
    with pytest.raises(FormatError, match=r"m\.npy"):
        load_mean(path)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_npy_is_our_error_or_a_mean(tmp_path: Path, data: st.DataObject) -> None:
    file = io.BytesIO()
    np.save(file, MEAN)
    damaged = bytearray(file.getvalue())
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(6, 130))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(FormatError):
        assert load_mean(saved(tmp_path / "m.npy", bytes(damaged))).ndim == 3
