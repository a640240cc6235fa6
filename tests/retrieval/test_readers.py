"""Reading the codes files that ``extract`` writes, whole, damaged and contradicting themselves."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe2torch.errors import FormatError, UsageError
from caffe2torch.retrieval.codes import packed_width
from caffe2torch.retrieval.readers import read_codes


def small_h5(path: Path, **changes: object) -> Path:
    parts: dict[str, object] = {"codes": np.zeros((3, 2), np.uint8), "paths": ["a", "b", "c"], "bits": 12}
    parts.update(changes)
    with h5py.File(path, "w") as file:
        for name, value in parts.items():
            if value is None:
                continue
            if name in ("bits", "provenance", "format"):
                file.attrs[name] = value
            else:
                file[name] = value
    return path


@pytest.mark.parametrize(
    "changes, message",
    [
        pytest.param({"codes": None}, "no dataset 'codes'", id="no codes"),
        pytest.param({"bits": None}, "number of bits is None", id="no bits"),
        pytest.param({"bits": 48}, "need uint8", id="width contradicts bits"),
        pytest.param({"bits": 0}, "number of bits is", id="zero bits"),
        pytest.param({"codes": np.zeros((3, 2), np.float32)}, "need uint8", id="floats"),
        pytest.param({"codes": np.full((3, 2), 255, np.uint8)}, "bits beyond the first 12", id="padding bits set"),
        pytest.param({"paths": ["a"]}, "3 codes but 1 paths", id="paths missing"),
        pytest.param({"labels": [1, 2]}, "3 codes but 2 labels", id="labels missing"),
        pytest.param({"paths": [1, 2, 3]}, "expected text", id="paths are numbers"),
        pytest.param({"format": "caffe2torch codes 2"}, "version 2 .* up to 1; update", id="newer version"),
        pytest.param({"format": "other codes 1"}, "format is 'other codes 1'", id="another format"),
        pytest.param({"format": 1}, "format is '1'", id="format is a number"),
        pytest.param({"provenance": "{"}, "not JSON", id="provenance damaged"),
        pytest.param({"provenance": "[]"}, "expected a JSON object", id="provenance of another kind"),
    ],
)
def test_h5_that_contradicts_itself(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read_codes(small_h5(tmp_path / "x.h5", **changes))


def test_h5_claiming_more_than_it_holds_is_refused_before_allocation(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.attrs["bits"] = 12
        file["paths"] = ["a"]
        file.create_dataset("codes", shape=(1 << 40, 2), dtype=np.uint8, chunks=(1024, 2))
    with pytest.raises(FormatError, match="claims shape"):
        read_codes(tmp_path / "x.h5")


def small_npz(path: Path, **more: object) -> Path:
    codes, names = np.zeros((3, 2), np.uint8), np.array(["a", "b", "c"])
    np.savez_compressed(path, codes=codes, bits=np.int64(12), paths=names, provenance="{}", **more)
    return path


def test_npz_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    assert len(read_codes(small_npz(tmp_path / "x.npz", format="caffe2torch codes 1"))) == 3
    with pytest.raises(FormatError, match=r"y\.npz: version 2 .* up to 1; update"):
        read_codes(small_npz(tmp_path / "y.npz", format="caffe2torch codes 2"))


def test_npz_with_pickled_objects_is_refused(tmp_path: Path) -> None:
    small_npz(tmp_path / "x.npz")
    np.savez(tmp_path / "y.npz", codes=np.array([{}], object), bits=12, paths=np.array(["a"]), provenance="{}")
    assert len(read_codes(tmp_path / "x.npz")) == 3
    with pytest.raises(FormatError, match="allow_pickle"):
        read_codes(tmp_path / "y.npz")


def test_npz_header_with_a_huge_shape_is_refused(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (1 << 50, 2)})
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("codes.npy", header.getvalue())
        for name, value in (("bits", np.int64(12)), ("paths", np.array(["a"])), ("provenance", np.array("{}"))):
            member = io.BytesIO()
            np.lib.format.write_array(member, np.asanyarray(value))
            archive.writestr(f"{name}.npy", member.getvalue())
    with pytest.raises(FormatError, match=r"x\.npz"):
        read_codes(tmp_path / "x.npz")


@pytest.mark.parametrize("header", ["{'descr': ((", "{'descr'\n  : 1", "  {\n }", "1 +"])
def test_npz_header_that_is_no_python(tmp_path: Path, header: str) -> None:
    raw = header.encode().ljust(117) + b"\n"
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("codes.npy", b"\x93NUMPY\x01\x00" + len(raw).to_bytes(2, "little") + raw)
    with pytest.raises(FormatError, match=r"not a readable \.npz"):
        read_codes(tmp_path / "x.npz")


@pytest.mark.parametrize(
    "text, message",
    [
        pytest.param("", "expected the columns path and code", id="empty"),
        pytest.param("path,code\n", "holds no codes", id="header only"),
        pytest.param("path,code\na,0101\nb,011\n", r"x\.csv:3: '011' is no code of 4", id="short code"),
        pytest.param("path,code\na,0102\n", "is no code", id="not a bit"),
        pytest.param("path,code\na\n", "is no code", id="no code"),
        pytest.param("path,code,label\na,01,x\n", "not a readable codes table", id="label is no number"),
    ],
)
def test_damaged_csv(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(FormatError, match=message):
        read_codes(tmp_path / "x.csv")


@pytest.mark.parametrize("suffix", [".h5", ".mat", ".npz", ".csv"])
def test_a_file_of_another_kind_is_an_error(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(bytes(range(256)) * 4)
    with pytest.raises(FormatError, match=str(path)):
        read_codes(path)


def test_missing_file_and_unknown_suffix(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="cannot be read: No such file"):
        read_codes(tmp_path / "none.h5")
    with pytest.raises(FormatError, match=r"\.h5, \.mat, \.npz, \.csv"):
        read_codes(tmp_path / "codes.txt")


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_mutated_npz_gives_codes_or_our_error(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("npz", numbered=True)
    raw = bytearray(small_npz(folder / "x.npz").read_bytes())
    for position in data.draw(st.lists(st.integers(0, len(raw) - 1), min_size=1, max_size=4)):
        raw[position] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.integers(0, len(raw)))] if data.draw(st.booleans()) else raw
    (folder / "x.npz").write_bytes(raw)
    try:
        codes = read_codes(folder / "x.npz")
    except FormatError:
        return
    assert codes.packed.shape == (len(codes.paths), packed_width(codes.bits))


def test_csv_provenance_is_empty(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text('path,code\n"a, b.jpg",0101\n')
    codes = read_codes(tmp_path / "x.csv")
    assert (codes.paths, codes.bits, json.dumps(codes.provenance)) == (("a, b.jpg",), 4, "{}")


def test_codes_of_another_length_than_expected(tmp_path: Path) -> None:
    assert read_codes(small_h5(tmp_path / "x.h5"), bits=12).bits == 12
    with pytest.raises(FormatError, match="holds 12-bit codes, expected 48 bits"):
        read_codes(tmp_path / "x.h5", bits=48)


@pytest.mark.parametrize("options", [{"variable": "x"}, {"layout": "rows"}, {"values": "sigmoid"}], ids=str)
def test_options_of_matlab_files_are_refused_elsewhere(tmp_path: Path, options: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="for MATLAB files"):
        read_codes(small_h5(tmp_path / "x.h5"), **options)


def test_provenance_nested_too_deeply_is_our_error(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="not JSON"):
        read_codes(small_h5(tmp_path / "x.h5", provenance="[" * 20000))
