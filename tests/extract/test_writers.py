"""Each format holds what it should, in the types its readers expect."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from caffe2torch.extract import writers
from caffe2torch.extract.contents import Contents
from caffe2torch.extract.journal import Failure
from caffe2torch.extract.listing import Entry
from caffe2torch.extract.matfile import _reference_name
from caffe2torch.extract.rows import Chunk
from caffe2torch.retrieval.codes import pack
from caffe2torch.retrieval.readers import read_codes

ROWS, BITS = 70, 12
RNG = np.random.RandomState(0)
CODES = RNG.rand(ROWS, BITS) > 0.5
FEATURES = RNG.standard_normal((ROWS, 5)).astype(np.float32)
NAMES = ['a b,"c".jpg', "ü/漢字 😀.jpg", "latin\udce9.jpg", *(f"/x/{n}.jpg" for n in range(ROWS - 3))]


def contents(*, rows: int = ROWS, labelled: bool = False, failed: tuple[int, ...] = ()) -> Contents:
    def chunks() -> Iterator[Chunk]:
        for first in range(0, rows, 32):
            part = slice(first, min(first + 32, rows))
            entries = [Entry(NAMES[n], NAMES[n], n - 5 if labelled else None) for n in range(part.start, part.stop)]
            yield Chunk(entries, pack(CODES[part]), FEATURES[part], np.isin(np.arange(part.start, part.stop), failed))

    return Contents(
        rows=rows,
        bits=BITS,
        feature_size=5,
        labelled=labelled,
        longest=max(map(len, NAMES)),
        keeps_failed=bool(failed),
        provenance={"model": "ü"},
        chunks=chunks,
        failures=lambda: iter([Failure(n, NAMES[n], "cut short") for n in failed]),
    )


@pytest.mark.parametrize("suffix", [".h5", ".mat", ".npz", ".csv"])
@pytest.mark.parametrize("labelled", [False, True], ids=["plain", "labelled"])
def test_codes_are_read_back(tmp_path: Path, suffix: str, labelled: bool) -> None:
    out = tmp_path / f"codes{suffix}"
    writers.write(out, contents(labelled=labelled))
    codes = read_codes(out)
    np.testing.assert_array_equal(codes.unpacked(), CODES)
    assert codes.paths == tuple(NAMES)
    assert codes.provenance == ({} if suffix == ".csv" else {"model": "ü"})
    if suffix in (".h5", ".npz"):
        np.testing.assert_array_equal(codes.features, FEATURES)
    if labelled and suffix != ".mat":
        assert codes.labels is not None
        assert codes.labels.tolist() == [n - 5 for n in range(ROWS)]
    else:
        assert codes.labels is None
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


@pytest.mark.parametrize("suffix", [".h5", ".mat", ".npz"])
def test_no_rows_is_a_file_too(tmp_path: Path, suffix: str) -> None:
    writers.write(tmp_path / f"codes{suffix}", contents(rows=0))
    assert len(read_codes(tmp_path / f"codes{suffix}")) == 0


def test_mat_has_the_form_of_the_authors_own_file(tmp_path: Path, reference: Path) -> None:
    writers.write(tmp_path / "binary12.mat", contents())
    theirs = reference / "published" / "kevinnet48_transposed_mean" / "demo12-binary48.mat"
    with h5py.File(tmp_path / "binary12.mat") as our, h5py.File(theirs) as their:
        assert our.userblock_size == their.userblock_size == 512
        assert our["binary_codes"].shape == (ROWS, BITS)
        for name in ("binary_codes", "list_im", "#refs#", "#refs#/a", "#refs#/b"):
            assert described(our[name]) == described(their[name]), name
        assert our["list_im"].shape == (1, ROWS)
        cell = our[our["list_im"][0, 0]]
        assert cell[()].astype("<u2").tobytes().decode("utf-16-le") == NAMES[0]
        assert cell.shape == (len(NAMES[0]), 1)
        np.testing.assert_array_equal(our["binary_codes"][()], CODES)


def test_mat_features_have_the_form_of_the_authors_own_file(tmp_path: Path, reference: Path) -> None:
    writers.write_features(tmp_path / "feat5.mat", contents())
    theirs = reference / "published" / "kevinnet48_transposed_mean" / "demo12-feat4096.mat"
    with h5py.File(tmp_path / "feat5.mat") as our, h5py.File(theirs) as their:
        for name in ("feat_test", "list_im"):
            assert described(our[name]) == described(their[name]), name
        np.testing.assert_array_equal(our["feat_test"][()], FEATURES)


def described(item: h5py.Dataset | h5py.Group) -> dict[str, object]:
    """Type and attributes, without the sizes."""
    kinds = {name: (item.attrs.get_id(name).dtype, str(item.attrs[name])) for name in item.attrs}
    return {"dtype": getattr(item, "dtype", None), **kinds}


def test_mat_header(tmp_path: Path, reference: Path) -> None:
    writers.write(tmp_path / "x.mat", contents())
    ours = (tmp_path / "x.mat").read_bytes()[:520]
    theirs = (reference / "published" / "kevinnet48_transposed_mean" / "demo12-binary48.mat").read_bytes()[:520]
    assert ours[:19] == theirs[:19] == b"MATLAB 7.3 MAT-file"
    assert ours[116:] == theirs[116:]


@pytest.mark.parametrize("row, name", [(0, "b"), (24, "z"), (25, "aa"), (26, "ab"), (25 + 26 * 26, "aaa")])
def test_reference_names_count_as_matlab_does(row: int, name: str) -> None:
    assert _reference_name(row) == name


def test_h5_says_how_to_read_it_and_what_failed(tmp_path: Path) -> None:
    writers.write(tmp_path / "x.h5", contents(failed=(3, 40)))
    with h5py.File(tmp_path / "x.h5") as file:
        assert (file.attrs["bits"], file.attrs["threshold"]) == (BITS, 0.5)
        assert "most significant bit" in file.attrs["bit_order"]
        assert file["errors/rows"][()].tolist() == [3, 40]
        assert file["errors/paths"].asstr()[()].tolist() == [NAMES[3], NAMES[40]]
        assert file["errors/messages"].asstr()[()].tolist() == ["cut short"] * 2


def test_npz_opens_with_plain_numpy(tmp_path: Path) -> None:
    writers.write(tmp_path / "x.npz", contents(failed=(3,)))
    with np.load(tmp_path / "x.npz") as file:
        assert sorted(file.files) == ["bits", "codes", "errors", "features", "format", "paths", "provenance"]
        np.testing.assert_array_equal(np.unpackbits(file["codes"], axis=1, count=BITS), CODES)
        assert file["errors"].tolist() == [["3", NAMES[3], "cut short"]]


def test_csv_columns(tmp_path: Path) -> None:
    writers.write(tmp_path / "x.csv", contents(labelled=True, failed=(1,)))
    with (tmp_path / "x.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        table = list(csv.reader(file))
    assert table[0] == ["path", "code", "label", "status"]
    assert table[1] == [NAMES[0], "".join("01"[int(bit)] for bit in CODES[0]), "-5", "ok"]
    assert table[2][3] == "unreadable"


def test_csv_features_give_every_float_back(tmp_path: Path) -> None:
    writers.write_features(tmp_path / "x.csv", contents())
    with (tmp_path / "x.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.reader(file))[1:]
    np.testing.assert_array_equal(np.array([row[1:] for row in rows], np.float32), FEATURES)


@pytest.mark.parametrize(
    "out, expected", [("a/codes.h5", None), ("a/codes.npz", None), ("a/codes.mat", "a/codes.l_7.mat")]
)
def test_where_features_go(out: str, expected: str | None) -> None:
    assert writers.features_path(Path(out), "l/7") == (None if expected is None else Path(expected))
