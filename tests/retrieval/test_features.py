"""Feature files of every kind give the rows that were put in, and say what is wrong with those that are damaged."""

from __future__ import annotations

import io
import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from caffe2torch.errors import Caffe2TorchError, FormatError, OutputError, RetrievalError
from caffe2torch.retrieval import feature_files
from caffe2torch.retrieval.features import Features

ROWS, WIDTH = 50, 7
VALUES = np.random.RandomState(0).standard_normal((ROWS, WIDTH)).astype(np.float32)


@pytest.fixture(autouse=True)
def _no_unexpected_warnings() -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def npy(path: Path, values: np.ndarray = VALUES) -> Path:
    np.save(path.with_suffix(".npy"), values)
    return path.with_suffix(".npy")


def npz(path: Path) -> Path:
    np.savez(path.with_suffix(".npz"), codes=np.zeros((ROWS, 6), np.uint8), features=VALUES)
    return path.with_suffix(".npz")


def packed_npz(path: Path) -> Path:
    np.savez_compressed(path.with_suffix(".npz"), features=VALUES)
    return path.with_suffix(".npz")


def raw(path: Path) -> Path:
    VALUES.astype("<f4").tofile(path.with_suffix(".bin"))
    return path.with_suffix(".bin")


def hdf5(suffix: str, name: str = "features", **options: object) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        block = 512 if suffix == ".mat" else None
        with h5py.File(path.with_suffix(suffix), "w", userblock_size=block) as file:
            file.create_dataset("codes", data=np.zeros((ROWS, 6), np.uint8))
            file.create_dataset(name, data=VALUES, **options)
        return path.with_suffix(suffix)

    return write


MAPPED = {
    "npy": npy,
    "npz": npz,
    "h5": hdf5(".h5"),
    "user block": hdf5(".mat", "feat_test"),
    "another name": hdf5(".h5", "feat_train"),
}
UNPACKED = {
    "chunked h5": hdf5(".h5", chunks=(8, 3)),
    "compressed h5": hdf5(".h5", chunks=(16, WIDTH), compression=3),
    "compressed mat": hdf5(".mat", "feat_test", chunks=(16, 3), compression=3),
    "compressed npz": packed_npz,
    "columns npy": lambda path: npy(path, np.asfortranarray(VALUES)),
}


@pytest.mark.parametrize("write", MAPPED.values(), ids=MAPPED.keys())
def test_plain_rows_are_mapped_where_they_lie(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    path = write(tmp_path / "x")
    features = Features.open(path, count=ROWS)
    np.testing.assert_array_equal(features.block(0, ROWS), VALUES)
    before = path.read_bytes()
    place = before.index(VALUES[3].tobytes())
    changed = np.float32(42).tobytes()
    with path.open("r+b") as file:  # a change of the file shows through the mapping
        file.seek(place)
        file.write(changed)
    assert features.take(np.array([3]))[0, 0] == 42


@pytest.mark.parametrize("write", UNPACKED.values(), ids=UNPACKED.keys())
@pytest.mark.parametrize("block", [1, 1 << 26], ids=["row by row", "at once"])
def test_other_forms_are_unpacked_with_a_warning(
    tmp_path: Path, write: Callable[[Path], Path], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_files, "BLOCK", block)
    path = write(tmp_path / "x")
    with pytest.warns(UserWarning, match=r"unpacked into .* first"):
        features = Features.open(path, count=ROWS)
    np.testing.assert_array_equal(features.block(0, ROWS), VALUES)


def test_raw_floats_need_their_width(tmp_path: Path) -> None:
    path = raw(tmp_path / "x")
    np.testing.assert_array_equal(Features.open(path, width=WIDTH).block(0, ROWS), VALUES)
    with pytest.raises(FormatError, match="needs the width"):
        Features.open(path)
    with pytest.raises(FormatError, match="1400 bytes are no whole rows of 9 float32"):
        Features.open(path, width=9)
    with pytest.raises(FormatError, match="leave out the width"):
        Features.open(npy(tmp_path / "y"), width=WIDTH)


@pytest.mark.parametrize("write", [npy, hdf5(".h5"), hdf5(".h5", chunks=(8, 3))], ids=["npy", "h5", "chunked h5"])
def test_transposed_files_are_turned(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    path = write(tmp_path / "x")
    with pytest.warns(UserWarning, match="unpacked"):
        features = Features.open(path, count=WIDTH, transposed=True)
    np.testing.assert_array_equal(features.block(0, WIDTH), VALUES.T)


def test_a_transposed_file_is_recognised(tmp_path: Path) -> None:
    with pytest.raises(RetrievalError, match=r"50 rows of features for 7 codes; .*transposed=True"):
        Features.open(npy(tmp_path / "x"), count=WIDTH)


@pytest.mark.parametrize("dtype", ["<f2", ">f4", "<f8", ">f8"])
def test_other_floats_are_read_exactly(tmp_path: Path, dtype: str) -> None:
    values = VALUES.astype(dtype)
    features = Features.open(npy(tmp_path / "x", values))
    assert features.dtype == (np.float64 if dtype.endswith("8") else np.float32)
    assert features.dtype.isnative
    np.testing.assert_array_equal(features.take(np.array([4, 1])), values[[4, 1]])
    np.testing.assert_array_equal(features.block(2, 9), values[2:9])


def test_the_authors_own_file(reference: Path) -> None:
    path = reference / "published" / "kevinnet48_transposed_mean" / "demo12-feat4096.mat"
    with pytest.warns(UserWarning, match="unpacked"):
        features = Features.open(path, count=12)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(features.block(0, 12), file["feat_test"][()])
    assert features.width == 4096


def test_what_extract_writes_is_mapped(tmp_path: Path) -> None:
    from caffe2torch.extract import writers
    from extract.test_writers import FEATURES, contents

    for name in ("codes.h5", "codes.npz"):
        writers.write(tmp_path / name, contents())
        np.testing.assert_array_equal(Features.open(tmp_path / name, count=70).block(0, 70), FEATURES)
    writers.write_features(tmp_path / "features.mat", contents())
    with pytest.warns(UserWarning, match="unpacked"):
        features = Features.open(tmp_path / "features.mat", count=70)
    np.testing.assert_array_equal(features.block(0, 70), FEATURES)


def test_save_makes_a_file_that_is_mapped(tmp_path: Path) -> None:
    Features(VALUES.astype(np.float16)).save(tmp_path / "x.npy")
    saved = np.load(tmp_path / "x.npy")
    assert saved.dtype == np.float32
    np.testing.assert_array_equal(saved, VALUES.astype(np.float16))
    with pytest.raises(FormatError, match=r"x\.h5: features are saved as \.npy"):
        Features(VALUES).save(tmp_path / "x.h5")


@pytest.mark.parametrize("count", [49, 51])
def test_features_shorter_or_longer_than_the_codes(tmp_path: Path, count: int) -> None:
    with pytest.raises(RetrievalError, match=rf"x\.npy: 50 rows of features for {count} codes$"):
        Features.open(npy(tmp_path / "x"), count=count)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_with_no_number_is_named_when_it_is_read(tmp_path: Path, bad: float) -> None:
    values = VALUES.copy()
    values[31, 2] = values[31, 5] = bad
    features = Features.open(npy(tmp_path / "x", values))
    np.testing.assert_array_equal(features.take(np.array([30, 32])), VALUES[[30, 32]])
    message = rf"x\.npy: row 31 holds {bad} at value 2 and 1 more"
    for read in (lambda: features.take(np.array([3, 31])), lambda: features.block(20, 40), features.check):
        for _ in range(2):  # the second time too
            with pytest.raises(RetrievalError, match=message):
                read()


def test_check_goes_through_all_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("caffe2torch.retrieval.features.BLOCK", 4 * WIDTH * 7)
    monkeypatch.setattr("caffe2torch.retrieval.features.PIECE", 4 * WIDTH * 3)
    values = VALUES.copy()
    assert [first for first, _ in Features(values).pieces()] == list(range(0, ROWS, 7))
    Features(values).check()
    values[-1, -1] = np.nan
    with pytest.raises(RetrievalError, match="features: row 49 holds nan at value 6;"):
        Features(values).check()


def test_a_value_whose_square_overflows_is_refused() -> None:
    values = VALUES.astype(np.float64)
    values[4, 2] = -1e200
    with pytest.raises(RetrievalError, match=r"row 4 holds -1e\+200, too large"):
        Features(values).check()


@pytest.mark.parametrize("row", [-1, 50])
def test_a_row_that_is_not_there(row: int) -> None:
    with pytest.raises(RetrievalError, match=f"there is no row {row}, it has 50"):
        Features(VALUES).take(np.array([0, row]))


@pytest.mark.parametrize(
    "values",
    [VALUES[0], VALUES[:0], VALUES[:, :0], VALUES.astype(np.int32), VALUES.astype(complex), VALUES.astype(object)],
    ids=["1-D", "no rows", "no values", "int", "complex", "object"],
)
def test_arrays_that_are_no_features(tmp_path: Path, values: np.ndarray) -> None:
    with pytest.raises(RetrievalError, match="features"):
        Features(values)
    np.save(tmp_path / "x.npy", values)
    with pytest.raises(FormatError, match=r"x\.npy"):
        Features.open(tmp_path / "x.npy")


def test_names(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["fc6"], file["fc7"], file["deep/fc7"] = VALUES, 2 * VALUES, 3 * VALUES
    np.testing.assert_array_equal(Features.open(tmp_path / "x.h5", name="fc7").block(0, ROWS), 2 * VALUES)
    np.testing.assert_array_equal(Features.open(tmp_path / "x.h5", name="deep/fc7").block(0, ROWS), 3 * VALUES)
    with pytest.raises(FormatError, match="expected one of features, feat_test, feat_train, found fc6, fc7"):
        Features.open(tmp_path / "x.h5")
    with pytest.raises(FormatError, match="expected 'fc8', found fc6, fc7"):
        Features.open(tmp_path / "x.h5", name="fc8")
    with pytest.raises(FormatError, match="deep is no matrix"):
        Features.open(tmp_path / "x.h5", name="deep")


def test_hdf5_data_in_another_file_is_not_followed(tmp_path: Path) -> None:
    VALUES.tofile(tmp_path / "secret")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("features", VALUES.shape, np.float32, external=[("secret", 0, VALUES.nbytes)])
    with pytest.raises(FormatError, match="lies in other files"):
        Features.open(tmp_path / "x.h5")
    hdf5(".h5")(tmp_path / "other")
    with h5py.File(tmp_path / "y.h5", "w") as file:
        file["features"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "features")
    for name in (None, "features"):
        with pytest.raises(FormatError, match=r"y\.h5: (features lies in other files|expected one of)"):
            Features.open(tmp_path / "y.h5", name=name)


def test_files_of_no_known_kind(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"features are kept in \.npy"):
        Features.open(tmp_path / "codes.fc7.csv")
    with pytest.raises(FormatError, match="cannot be read: No such file"):
        Features.open(tmp_path / "x.npy")
    (tmp_path / "old.mat").write_bytes(b"MATLAB 5.0 MAT-file".ljust(600))
    with pytest.raises(FormatError, match=r"saved again with -v7\.3"):
        Features.open(tmp_path / "old.mat")


def test_a_claim_beyond_the_file_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": (10**12, 10**6)})
    (tmp_path / "x.npy").write_bytes(buffer.getvalue())
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("features.npy", buffer.getvalue())
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("features", (10**12, 10**6), np.float32, chunks=(1, 10**6), compression=3)
    for suffix, message in ((".npy", "would end at byte"), (".npz", "claims shape"), (".h5", "claims shape")):
        with pytest.raises(FormatError, match=re.escape(f"x{suffix}: ") + f".*{message}"):
            Features.open(tmp_path / f"x{suffix}")


@pytest.mark.parametrize("write", [npy, npz, packed_npz, hdf5(".h5"), hdf5(".h5", chunks=(8, 3), compression=3)])
def test_damaged_files_raise_our_errors_only(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    path = write(tmp_path / "x")
    whole, rng = path.read_bytes(), np.random.RandomState(1)
    messages = []
    for trial in range(150):
        data = bytearray(whole)
        if trial % 3 == 0:
            data = data[: rng.randint(len(data))]
        else:
            place = rng.randint(min(len(data), 200 if trial % 3 == 1 else len(data)), size=3)
            for byte in place:
                data[byte] = rng.randint(256)
        other = path.with_name(f"{trial}{path.suffix}")
        other.write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                Features.open(other).check()
            except Caffe2TorchError as error:
                messages.append(f"{other.name} {error}")
    assert len(messages) > 30
    assert all(message.count(message.split()[0]) > 1 for message in messages)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_a_full_disk_while_unpacking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("wb", 0) as full:
        monkeypatch.setattr(feature_files.tempfile, "TemporaryFile", lambda prefix, buffering: full)
        with pytest.warns(UserWarning, match="unpacked"), pytest.raises(OutputError, match=r"TMPDIR .*disk is full"):
            Features.open(packed_npz(tmp_path / "x"))
