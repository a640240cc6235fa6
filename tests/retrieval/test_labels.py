"""Label files of every form, and those that are none."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe2torch.errors import FormatError, RetrievalError, UsageError
from caffe2torch.retrieval.labels import LabelFile, align, read_labels


def text(folder: Path, content: str) -> Path:
    path = folder / "labels.txt"
    path.write_bytes(content.encode())
    return path


def test_the_papers_label_files(reference: Path) -> None:
    folder = reference / "published" / "cifar10_lists"
    train = read_labels(folder / "train-label.txt", count=50000)
    assert (train.labels.dtype, train.labels.shape, train.paths) == (np.int64, (50000,), ())
    assert train.labels[:5].tolist() == [7, 2, 0, 1, 8]
    assert np.bincount(train.labels).tolist() == [5000] * 10


@pytest.mark.parametrize(
    "content, labels",
    [
        pytest.param("3\n0\n12\n", [3, 0, 12], id="one each"),
        pytest.param("\ufeff3\r\n0\r\n\r\n", [3, 0], id="Windows"),
        pytest.param("   7.0000000e+00\n   1.2000000e+01\n", [7, 12], id="MATLAB's save -ascii"),
        pytest.param("/a b/c.jpg 3\n/d.jpg\t4", [3, 4], id="list"),
        pytest.param("0 1 1\n1 0 0\n", [[0, 1, 1], [1, 0, 0]], id="0 and 1"),
        pytest.param("0,1,1\n1 , 0;0\n", [[0, 1, 1], [1, 0, 0]], id="other separators"),
        pytest.param("1 4\n0\n4 1 2", [[0, 1, 0, 0, 1], [1, 0, 0, 0, 0], [0, 1, 1, 0, 1]], id="numbers"),
        pytest.param("2 3\n0 1", [[0, 0, 1, 1], [1, 1, 0, 0]], id="numbers, equally many"),
    ],
)
def test_forms_of_text(tmp_path: Path, content: str, labels: list[Any]) -> None:
    found = read_labels(text(tmp_path, content)).labels
    assert found.dtype == (np.bool_ if isinstance(labels[0], list) else np.int64)
    np.testing.assert_array_equal(found, labels)


def test_a_list_keeps_its_paths(tmp_path: Path) -> None:
    assert read_labels(text(tmp_path, "/a b/c.jpg 3\nd 1/e.jpg 4")).paths == ("/a b/c.jpg", "d 1/e.jpg")


@pytest.mark.parametrize(
    "content, message",
    [
        pytest.param("", "holds no labels", id="empty"),
        pytest.param("3\n\n4", r":2: '' is no line like the first, '3'", id="blank line"),
        pytest.param("3\na.jpg 4", r":2: 'a\.jpg 4' is no line like", id="a path further on"),
        pytest.param("a.jpg 4\n3", r":2: '3' is no line like the first", id="a path missing"),
        pytest.param("a.jpg\nb.jpg", r":1: 'a\.jpg' is neither a label nor a path with a label", id="no labels"),
        pytest.param("a.jpg 1 4", ":1: .* has two numbers at its end", id="several behind a path"),
        pytest.param("-1", "label -1 is no whole number from 0 on", id="negative"),
        pytest.param("1.5", r"label 1\.5 is no whole number", id="fraction"),
        pytest.param("1e300", "label 1e300 is no whole number", id="huge"),
        pytest.param("0 1 1\n0 1 0 0", r":1: names a label twice; expected .* equally many", id="ragged 0 and 1"),
        pytest.param("1 2\n70000 1", "has the label 70000", id="too many labels"),
        pytest.param("\0\0\0", "is no text", id="binary"),
    ],
)
def test_text_that_holds_no_labels(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read_labels(text(tmp_path, content))


@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.float64, np.bool_])
@pytest.mark.parametrize("shape", [(4,), (4, 1), (1, 4)], ids=str)
def test_arrays_of_single_labels(tmp_path: Path, kind: Any, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "x.npy", np.array([1, 0, 1, 1], kind).reshape(shape))
    found = read_labels(tmp_path / "x.npy", count=4).labels
    assert (found.dtype, found.tolist()) == (np.int64, [1, 0, 1, 1])


def test_arrays_of_several_labels(tmp_path: Path) -> None:
    table = np.random.RandomState(1).rand(7, 3) > 0.5
    np.save(tmp_path / "x.npy", table.astype(np.float32))
    np.testing.assert_array_equal(read_labels(tmp_path / "x.npy").labels, table)


@pytest.mark.parametrize(
    "array, message",
    [
        pytest.param(np.array(["a"]), "expected whole numbers", id="text"),
        pytest.param(np.zeros((2, 2, 2)), "expected whole numbers", id="cube"),
        pytest.param(np.zeros(0), "holds no labels", id="empty"),
        pytest.param(np.array([1.5]), "expected whole numbers from 0 on", id="fraction"),
        pytest.param(np.array([np.nan]), "expected whole numbers from 0 on", id="NaN"),
        pytest.param(np.array([-1]), "from -1 to -1", id="negative"),
        pytest.param(np.full((3, 2), 5), "expected 0 and 1 for each label", id="table of numbers"),
    ],
)
def test_arrays_that_hold_no_labels(tmp_path: Path, array: Any, message: str) -> None:
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(FormatError, match=message):
        read_labels(tmp_path / "x.npy")


def test_an_array_claiming_more_than_the_file_holds(tmp_path: Path) -> None:
    with (tmp_path / "x.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<i8", "fortran_order": False, "shape": (1 << 50,)})
    with pytest.raises(FormatError, match=r"not a readable \.npy file"):
        read_labels(tmp_path / "x.npy")


@pytest.mark.filterwarnings("ignore:Reading `.npy`")  # numpy's word on headers it had to look at twice
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_damaged_arrays_give_labels_or_our_error(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.npy"
    np.save(path, np.arange(5, dtype=np.uint8))
    raw = bytearray(path.read_bytes())
    for position in data.draw(st.lists(st.integers(0, 79), min_size=1, max_size=4)):
        raw[position] = data.draw(st.integers(0, 255))
    path.write_bytes(raw[: data.draw(st.integers(0, len(raw)))] if data.draw(st.booleans()) else raw)
    with contextlib.suppress(FormatError):
        assert read_labels(path).labels.dtype in (np.int64, np.bool_)


@pytest.mark.parametrize("column", [True, False], ids=["column", "row"])
def test_matlab_vectors(tmp_path: Path, column: bool) -> None:
    values = np.arange(9.0).reshape((-1, 1) if column else (1, -1))
    scipy.io.savemat(tmp_path / "x.mat", {"tst_label": values, "other": np.zeros((3, 3))})
    assert read_labels(tmp_path / "x.mat", count=9).labels.tolist() == list(range(9))


@pytest.mark.parametrize("rows", [True, False], ids=["rows", "columns"])
def test_matlab_tables(tmp_path: Path, rows: bool) -> None:
    table = np.random.RandomState(1).rand(7, 3) > 0.5
    scipy.io.savemat(tmp_path / "x.mat", {"L": table if rows else table.T})
    np.testing.assert_array_equal(read_labels(tmp_path / "x.mat", count=7).labels, table)
    with pytest.raises(FormatError, match="expected one row for each picture"):
        read_labels(tmp_path / "x.mat")


def test_matlab_files_that_are_not_clear(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "x.mat", {"a_label": np.zeros((9, 1)), "b_label": np.eye(4), "c": np.zeros((2, 2))})
    with pytest.raises(UsageError, match=r"option variable .*a_label \(9x1 double\), b_label"):
        read_labels(tmp_path / "x.mat")
    with pytest.raises(UsageError, match="in rows or in columns"):
        read_labels(tmp_path / "x.mat", variable="b_label", count=4)
    with pytest.raises(FormatError, match="no matrix d"):
        read_labels(tmp_path / "x.mat", variable="d")
    with pytest.raises(UsageError, match="for MATLAB files"):
        read_labels(text(tmp_path, "1"), variable="d")


def test_another_number_of_pictures(tmp_path: Path) -> None:
    with pytest.raises(RetrievalError, match=r"2 labels for 1,000 pictures; they do not belong together"):
        read_labels(text(tmp_path, "1\n2"), count=1000)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="cannot be read: No such file"):
        read_labels(tmp_path / "none.txt")


def test_numbered_labels_are_made_equally_wide(tmp_path: Path) -> None:
    first, second = read_labels(text(tmp_path, "1 2\n0")), read_labels(text(tmp_path, "0 4\n1"))
    one, two = align(first, second)
    assert one.astype(int).tolist() == [[0, 1, 1, 0, 0], [1, 0, 0, 0, 0]]
    assert two.astype(int).tolist() == [[1, 0, 0, 0, 1], [0, 1, 0, 0, 0]]


def test_labels_that_cannot_be_compared() -> None:
    single, wide = LabelFile(np.zeros(3, np.int64)), LabelFile(np.zeros((3, 4), np.bool_))
    assert align(single, single)[0] is single.labels
    with pytest.raises(RetrievalError, match="give both alike"):
        align(single, wide)
    with pytest.raises(RetrievalError, match="knows 4 labels, the other 5"):
        align(wide, LabelFile(np.zeros((3, 5), np.bool_), numbered=True))
