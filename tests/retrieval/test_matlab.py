"""MATLAB's own files: the authors' of 2015 to 2018, both formats, both directions, and whatever is not clear."""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe2torch.errors import FormatError, UsageError
from caffe2torch.retrieval.readers import read_codes

Write = Callable[..., Path]
BITS = np.random.RandomState(3).rand(40, 5) > 0.5  # 40 codes of 5 bits


def write_v73(path: Path, **variables: Any) -> Path:
    """What MATLAB's save -v7.3 stores, seen as HDF5: every array transposed, its class as an attribute."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, value in variables.items():
            array = np.asarray(value)
            logical = array.dtype == np.bool_
            dataset = file.create_dataset(name, data=array.T.astype(np.uint8) if logical else array.T)
            kind = "logical" if logical else {"float64": "double", "float32": "single"}.get(array.dtype.name)
            dataset.attrs["MATLAB_class"] = np.bytes_(kind or array.dtype.name)
    return path


def write_v5(path: Path, **variables: Any) -> Path:
    scipy.io.savemat(path, variables, do_compression=True)
    return path


both = pytest.mark.parametrize("write", [write_v73, write_v5], ids=["v7.3", "v5"])


@pytest.mark.parametrize(
    "name, variable, count, bits",
    [
        ("kevinnet48/binary-test.mat", "binary_test", 10000, 48),
        ("kevinnet48_transposed_mean/binary-train.mat", "binary_train", 50000, 48),
        ("codes_2015/binary12_test.mat", "binary12_test", 10000, 12),
        ("codes_2015/binary64_train.mat", "binary64_train", 50000, 64),
    ],
)
def test_the_authors_files_of_version_73(reference: Path, name: str, variable: str, count: int, bits: int) -> None:
    said: list[str] = []
    codes = read_codes(reference / "published" / name, say=said.append)
    with h5py.File(reference / "published" / name) as raw:
        np.testing.assert_array_equal(codes.unpacked(), raw[variable][()] == 1)
    assert (len(codes), codes.bits, codes.paths) == (count, bits, ())
    assert f"{variable}, {count:,} codes of {bits} bits, one per column" in said[0]


@pytest.mark.parametrize("part, count", [("test", 10000), ("train", 50000)])
def test_the_authors_files_of_version_5(reference: Path, part: str, count: int) -> None:
    file = reference / "published" / "codes_2015" / f"binary32_{part}.mat"
    codes = read_codes(file)
    np.testing.assert_array_equal(codes.unpacked(), scipy.io.loadmat(file)[f"binary32_{part}"].T == 1)
    assert (len(codes), codes.bits) == (count, 32)


def test_the_authors_demo_names_its_twelve_pictures(reference: Path) -> None:
    file = reference / "published" / "kevinnet48_transposed_mean" / "demo12-binary48.mat"
    codes = read_codes(file)
    with h5py.File(file) as raw:
        np.testing.assert_array_equal(codes.unpacked(), raw["binary_codes"][()] == 1)
    assert codes.bits == 48
    assert codes.paths[0] == "/examples/cvprw15-cifar10/imgs/horse2.jpg"
    assert len(codes) == len(codes.paths) == 12


@pytest.mark.parametrize("folder", ["kevinnet48", "kevinnet48_transposed_mean"])
def test_sigmoid_values_are_thresholded_when_asked_for(reference: Path, folder: str) -> None:
    said: list[str] = []
    features = reference / "published" / folder / "feat-test.mat"
    codes = read_codes(features, values="sigmoid", say=said.append)
    np.testing.assert_array_equal(codes.packed, read_codes(features.with_name("binary-test.mat")).packed)
    assert said[0].endswith("a bit is set where the value is > 0.5")


def test_sigmoid_values_are_never_thresholded_unasked(reference: Path) -> None:
    with pytest.raises(UsageError, match=r"feat_test has numbers between 0 and 1 .* choose the values 'sigmoid'"):
        read_codes(reference / "published" / "kevinnet48" / "feat-test.mat")


@both
@pytest.mark.parametrize("kind", [np.bool_, np.uint8, np.int16, np.float32, np.float64])
@pytest.mark.parametrize("columns", [True, False], ids=["columns", "rows"])
def test_bits_of_any_class_in_either_direction(tmp_path: Path, write: Write, kind: Any, columns: bool) -> None:
    stored = (BITS.T if columns else BITS).astype(kind)
    codes = read_codes(write(tmp_path / "x.mat", anything=stored))
    np.testing.assert_array_equal(codes.unpacked(), BITS)
    assert codes.provenance == {}


@both
def test_a_half_is_no_set_bit_and_doubles_round_to_float32(tmp_path: Path, write: Write) -> None:
    values = np.tile([0.5, 0.5 + 1e-12, np.nextafter(np.float32(0.5), np.float32(1)), 0.0, 1.0], (40, 1))
    codes = read_codes(write(tmp_path / "x.mat", feat_test=values), values="sigmoid")
    assert codes.unpacked()[7].tolist() == [False, False, True, False, True]


@both
@pytest.mark.parametrize("shape", [(6, 6), (12, 48), (48, 12)], ids=str)
def test_a_shape_that_fits_both_directions_asks(tmp_path: Path, write: Write, shape: tuple[int, int]) -> None:
    bits = np.arange(shape[0] * shape[1]).reshape(shape) % 3 == 0
    path = write(tmp_path / "x.mat", binary_codes=bits)
    with pytest.raises(UsageError, match=rf"{shape[0]}x{shape[1]} logical: one code per column .* option layout"):
        read_codes(path)
    np.testing.assert_array_equal(read_codes(path, layout="columns").unpacked(), bits.T)
    np.testing.assert_array_equal(read_codes(path, layout="rows").unpacked(), bits)


@both
def test_the_number_of_bits_decides_where_it_can(tmp_path: Path, write: Write) -> None:
    bits = np.arange(576).reshape(12, 48) % 3 == 0
    path = write(tmp_path / "x.mat", binary_codes=bits)
    np.testing.assert_array_equal(read_codes(path, bits=48).unpacked(), bits)
    np.testing.assert_array_equal(read_codes(path, bits=12).unpacked(), bits.T)
    with pytest.raises(FormatError, match="is 12x48 logical, but a code has 32 bits"):
        read_codes(path, bits=32)
    with pytest.raises(FormatError, match="holds 12-bit codes, expected 48"):
        read_codes(path, bits=48, layout="columns")
    square = write(tmp_path / "y.mat", binary_codes=bits[:, :12])
    with pytest.raises(UsageError, match="option layout"):
        read_codes(square, bits=12)


def test_the_pictures_names_of_a_version_5_file(tmp_path: Path) -> None:
    names = np.array([f"{k}.jpg" for k in range(12)], object).reshape(-1, 1)
    codes = read_codes(write_v5(tmp_path / "x.mat", binary_codes=np.eye(48, 12) == 1, list_im=names))
    assert codes.paths == tuple(f"{k}.jpg" for k in range(12))
    np.testing.assert_array_equal(codes.unpacked(), np.eye(12, 48) == 1)


def test_names_beyond_latin_1_in_a_version_5_file(tmp_path: Path) -> None:
    names = np.array(["é.jpg", "猫.jpg", ""], object).reshape(1, -1)
    codes = read_codes(write_v5(tmp_path / "x.mat", binary_codes=np.eye(48, 3) == 1, list_im=names))
    assert codes.paths == ("é.jpg", "猫.jpg", "")


def test_version_5_of_a_big_endian_machine(tmp_path: Path) -> None:
    """By hand: 2 x 16 doubles kept as bytes, as MATLAB stores small whole numbers."""
    values = bytes([0, 1, 1, 1] * 8)
    flags, dims = struct.pack(">IIII", 6, 8, 6, 0), struct.pack(">IIii", 5, 8, 2, 16)
    name, numbers = struct.pack(">HH4s", 4, 1, b"code"), struct.pack(">II", 2, 32) + values
    array = flags + dims + name + numbers
    header = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x01\x00MI"
    (tmp_path / "x.mat").write_bytes(header + struct.pack(">II", 14, len(array)) + array)
    np.testing.assert_array_equal(read_codes(tmp_path / "x.mat").unpacked(), np.array(list(values)).reshape(16, 2) == 1)


def test_version_5_variables_that_are_no_matrices(tmp_path: Path) -> None:
    others = {"z": np.eye(3) * 1j, "s": scipy.sparse.csc_matrix(np.eye(3)), "t": {"a": 1}, "c": "text"}
    path = write_v5(tmp_path / "x.mat", **others)
    with pytest.raises(FormatError, match=r"z \(complex double\), s \(sparse matrix\), t \(struct\), c \(char\)"):
        read_codes(path)
    with pytest.raises(
        FormatError, match="s is a sparse matrix; expected the name of a matrix of numbers: there is none"
    ):
        read_codes(path, variable="s")


def test_names_that_fit_neither_side(tmp_path: Path) -> None:
    names = np.array(["a.jpg", "b.jpg"], object).reshape(-1, 1)
    path = write_v5(tmp_path / "x.mat", binary_codes=np.eye(48, 12) == 1, list_im=names)
    with pytest.raises(FormatError, match="list_im names 2 pictures"):
        read_codes(path)
    with pytest.raises(FormatError, match="12 codes but 2 paths"):
        read_codes(path, layout="columns")


@both
def test_several_matrices_ask_for_the_name(tmp_path: Path, write: Write) -> None:
    path = write(tmp_path / "x.mat", binary_test=BITS, binary_train=~BITS, other=BITS)
    with pytest.raises(UsageError, match=r"option variable .*binary_test \(40x5 logical\), binary_train"):
        read_codes(path)
    np.testing.assert_array_equal(read_codes(path, variable="binary_train").unpacked(), ~BITS)
    with pytest.raises(FormatError, match="there is no codes; expected the name of a matrix of numbers: binary_test"):
        read_codes(path, variable="codes")


@both
def test_the_papers_names_win_over_others(tmp_path: Path, write: Write) -> None:
    path = write(tmp_path / "x.mat", binary_test=BITS, feat_test=np.full((40, 5), 0.7), labels=np.arange(40.0)[None])
    np.testing.assert_array_equal(read_codes(path).unpacked(), BITS)
    assert read_codes(path, values="sigmoid").unpacked().all()


@both
@pytest.mark.parametrize(
    "values, message",
    [
        pytest.param(np.full((40, 5), 2.0), "values from 2 to 2, expected 0 and 1 only", id="twos"),
        pytest.param(np.tile([1, -1], (40, 1)), r"from -1 to 1, .*for signs, save \(x > 0\)", id="signs"),
        pytest.param(np.full((40, 6), 200, np.uint8), "packed into bytes", id="packed"),
        pytest.param(np.full((40, 5), np.nan), "not finite", id="NaN"),
        pytest.param(np.zeros((40, 5, 2)), r"holds no matrix of numbers, so no codes; it holds x", id="cube"),
        pytest.param(np.array("text"), "holds no matrix of numbers", id="text"),
    ],
)
def test_what_is_no_code(tmp_path: Path, write: Write, values: Any, message: str) -> None:
    if values.dtype.kind == "U" and write is write_v73:
        values = np.frombuffer(b"t\0e\0x\0t\0", np.uint16)[:, None]
        path = write(tmp_path / "x.mat", x=values)
        with h5py.File(path, "r+") as file:
            file["x"].attrs["MATLAB_class"] = np.bytes_("char")
    else:
        path = write(tmp_path / "x.mat", x=values)
    with pytest.raises(FormatError, match=message):
        read_codes(path)


def test_sigmoid_values_outside_of_0_and_1(reference: Path) -> None:
    with pytest.raises(FormatError, match=r"from 0 to 12\.7594; the outputs of a sigmoid"):
        read_codes(reference / "published" / "kevinnet48_transposed_mean" / "demo12-feat4096.mat", values="sigmoid")


@pytest.mark.parametrize("options", [{"layout": "diagonal"}, {"values": "floats"}], ids=str)
def test_options_nobody_knows(tmp_path: Path, options: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="expected one of"):
        read_codes(write_v73(tmp_path / "x.mat", x=BITS), **options)


def test_empty_matrices(tmp_path: Path) -> None:
    path = write_v73(tmp_path / "x.mat", binary_test=np.zeros(2, np.uint64).reshape(2, 1))
    with h5py.File(path, "r+") as file:
        file["binary_test"].attrs["MATLAB_empty"] = np.uint8(1)
    with pytest.raises(FormatError, match=r"it holds binary_test \(empty uint64\)"):
        read_codes(path)
    with pytest.raises(FormatError, match="holds no matrix of numbers"):
        read_codes(write_v5(tmp_path / "y.mat", binary_test=np.zeros((48, 0))))


def test_no_package_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [write_v5(tmp_path / "x.mat", binary_test=BITS), write_v73(tmp_path / "y.mat", binary_test=BITS)]
    monkeypatch.setitem(sys.modules, "scipy", None)
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    assert [len(read_codes(path)) for path in paths] == [40, 40]


def test_version_73_claiming_more_than_it_holds(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.mat", "w", userblock_size=512) as file:
        file.create_dataset("binary_test", shape=(1 << 40, 48), dtype=np.uint8, chunks=(1024, 48))
    with pytest.raises(FormatError, match="claims shape"):
        read_codes(tmp_path / "x.mat")


def test_version_5_claiming_more_than_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "x.mat"
    scipy.io.savemat(path, {"binary_test": BITS}, do_compression=False)
    raw = bytearray(path.read_bytes())
    dims = raw.index((40).to_bytes(4, "little") + (5).to_bytes(4, "little"))
    raw[dims : dims + 8] = (1 << 30).to_bytes(4, "little") + (1 << 20).to_bytes(4, "little")
    path.write_bytes(raw)
    with pytest.raises(FormatError, match="claims 1073741824 x 1048576 numbers"):
        read_codes(path)


def test_two_variables_of_one_name(tmp_path: Path) -> None:
    once = write_v5(tmp_path / "x.mat", binary_test=BITS).read_bytes()
    (tmp_path / "x.mat").write_bytes(once + once[128:])
    with pytest.raises(FormatError, match="two variables of the name 'binary_test'"):
        read_codes(tmp_path / "x.mat")


@pytest.mark.parametrize("content", [b"", b"MATLAB 4", bytes(200), b"\0" * 126 + b"MI"], ids=["0", "8", "200", "128"])
def test_no_matlab_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.mat").write_bytes(content)
    with pytest.raises(FormatError, match=r"x\.mat: "):
        read_codes(tmp_path / "x.mat")


def whole_files(folder: Path) -> list[bytes]:
    names = np.array([f"{k}.jpg" for k in range(40)], object).reshape(-1, 1)
    plain = folder / "plain.mat"
    scipy.io.savemat(plain, {"binary_test": BITS.astype(float), "list_im": names}, do_compression=False)
    packed = write_v5(folder / "packed.mat", binary_test=BITS, list_im=names)
    return [plain.read_bytes(), packed.read_bytes(), write_v73(folder / "new.mat", binary_test=BITS).read_bytes()]


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_damaged_files_give_codes_or_our_error(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp() / "mat"
    if not folder.exists():
        folder.mkdir()
        for number, content in enumerate(whole_files(folder)):
            (folder / f"{number}.whole").write_bytes(content)
    raw = bytearray((folder / f"{data.draw(st.integers(0, 2))}.whole").read_bytes())
    start = 0 if len(raw) < 512 else data.draw(st.sampled_from([0, 0, 116]))
    for position in data.draw(st.lists(st.integers(start, len(raw) - 1), min_size=1, max_size=4)):
        raw[position] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.integers(0, len(raw)))] if data.draw(st.booleans()) else raw
    (folder / "x.mat").write_bytes(raw)
    try:
        codes = read_codes(folder / "x.mat")
    except (FormatError, UsageError):
        return
    assert codes.packed.shape == (len(codes), (codes.bits + 7) // 8)
