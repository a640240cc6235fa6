"""HDF5Data layers."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from caffe2torch.errors import FormatError, GraphError
from caffe2torch.loading import load

from .sources import feed


def layer(settings: str = "", *, batch: int = 3, more: str = "") -> str:
    return (
        f'layer {{ name: "d" type: "HDF5Data" top: "x" top: "l" {more} '
        f'hdf5_data_param {{ source: "list.txt" batch_size: {batch} {settings} }} }}'
    )


def files(folder: Path, *rows: int) -> Path:
    """Files f0, f1, ... with so many rows, numbered through; ``x`` (rows, 2) is ten times the label."""
    first = 0
    for index, count in enumerate(rows):
        with h5py.File(folder / f"f{index}", "w") as file:
            labels = np.arange(first, first + count)
            file["l"] = labels.astype(np.int64)
            file["x"] = (labels[:, None] * [10.0, -10.0]).astype(np.float64)
        first += count
    (folder / "list.txt").write_text("".join(f"f{index}\n" for index in range(len(rows))))
    return folder


@pytest.mark.parametrize("rows, batch", [((5,), 3), ((2, 5, 1), 3), ((2, 3), 12), ((4,), 4)])
def test_rows_follow_each_other_across_files_and_wrap(rows: tuple[int, ...], batch: int, tmp_path: Path) -> None:
    source = feed(layer(batch=batch), files(tmp_path, *rows))
    total = sum(rows)
    for number in range(4):
        expected = (number * batch + np.arange(batch)) % total
        got = next(source)
        np.testing.assert_array_equal(got["l"], expected)
        np.testing.assert_array_equal(got["x"], expected[:, None] * [10, -10])
        assert got["x"].dtype == got["l"].dtype == np.float32


@pytest.mark.parametrize("rows", [(9,), (3, 3, 3)])
def test_shuffle_draws_every_row_once_a_round(rows: tuple[int, ...], tmp_path: Path) -> None:
    source = feed(layer("shuffle: true", batch=9), files(tmp_path, *rows))
    rounds = [next(source) for _ in range(3)]
    for batch in rounds:
        assert sorted(batch["l"]) == list(range(9))
        np.testing.assert_array_equal(batch["x"][:, 0], batch["l"] * 10)
        if len(rows) == 3:  # files stay together
            assert all(len({int(label) // 3 for label in part}) == 1 for part in np.split(batch["l"], 3))
    assert len({tuple(batch["l"]) for batch in rounds}) == 3


def test_list_is_parted_by_any_space(tmp_path: Path) -> None:
    files(tmp_path, 1, 1)
    (tmp_path / "list.txt").write_text("f1 f0\r\n")
    assert next(feed(layer(batch=2), tmp_path))["l"].tolist() == [1, 0]
    (tmp_path / "net.prototxt").write_text(layer())
    assert load(tmp_path / "net.prototxt").input_shapes == {"x": (3, 2), "l": (3,)}


def test_values_that_float32_cannot_hold_become_infinite(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f0", "w") as file:
        file["x"], file["l"] = np.array([1e300]), np.array([2**24 + 1])
    (tmp_path / "list.txt").write_text("f0")
    batch = next(feed(layer(batch=1), tmp_path))
    assert (batch["x"][0], batch["l"][0]) == (np.inf, 2**24)


def broken(folder: Path, name: str) -> None:
    """Makes the first file wrong in the way that ``name`` says."""
    path = folder / "f0"
    if name == "cut":
        path.write_bytes(path.read_bytes()[:-500])
        return
    if name == "gone":
        path.unlink()
        return
    if name == "text":
        path.write_text("hello")
        return
    with h5py.File(path, "a") as file:
        del file["x"]
        if name == "string":
            file["x"] = ["a"] * 4
        elif name == "scalar":
            file["x"] = 1.0
        elif name == "enum":
            file["x"] = np.zeros(4, bool)
        elif name == "rows":
            file["x"] = np.zeros((3, 2))
        elif name == "empty":
            file["x"] = np.zeros((0, 2))
        elif name == "huge":
            file.create_dataset("x", (4, 1 << 40), "f4", chunks=(1, 1 << 10))
        elif name == "hollow":
            file.create_dataset("x", (4, 1 << 28), "f4", chunks=(1, 1 << 10))
        elif name == "link":
            file["x"] = h5py.ExternalLink("f1", "x")
        elif name == "group":
            file.create_group("x")


@pytest.mark.parametrize(
    "name, message",
    [
        ("missing", "f0: no dataset 'x'; it has 'l'"),
        ("group", "f0: no dataset 'x'"),
        ("cut", "f0: not a sound HDF5 file"),
        ("gone", "f0: no such file"),
        ("text", "f0: not a sound HDF5 file"),
        ("string", "f0: 'x' is object"),
        ("enum", "f0: 'x' is bool"),
        ("scalar", r"f0: 'x' is float64 \(\)"),
        ("rows", "f0: 'x' has 3, 'l' has 4 rows"),
        ("empty", "f0: 'x' has 0, 'l' has 4 rows"),
        ("huge", "f0: 'x' has shape .*Caffe's limit"),
        ("hollow", "f0: 'x' claims 4294967296 bytes of values, the file holds 0"),
        ("link", "f0: 'x' is a link to another file"),
    ],
)
def test_bad_files_are_named(name: str, message: str, tmp_path: Path) -> None:
    broken(files(tmp_path, 4, 2), name)
    with pytest.raises(FormatError, match=message):
        feed(layer(), tmp_path)


def test_rows_of_another_shape_in_a_later_file_are_refused(tmp_path: Path) -> None:
    files(tmp_path, 2, 2)
    with h5py.File(tmp_path / "f1", "a") as file:
        del file["x"]
        file["x"] = np.zeros((2, 5))
    with pytest.raises(FormatError, match=r"f1: rows of 'x' have shape \(5,\), those of the first file \(2,\)"):
        next(feed(layer(), tmp_path))


def test_transform_param_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="transforms nothing"):
        feed(layer(more="transform_param { scale: 2 }"), files(tmp_path, 2))


@pytest.mark.parametrize("text", ["", " \n"])
def test_empty_list_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(FormatError, match=r"list\.txt: the list is empty"):
        feed(layer(), tmp_path)
