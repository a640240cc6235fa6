"""The look at all pictures: against Caffe's own way to a mean, a database and compute_image_mean."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from caffe2torch.data.conversion import Conversion, convert
from caffe2torch.data.database import open_database
from caffe2torch.data.mean_image import mean_image
from caffe2torch.project.collect import collect
from caffe2torch.project.examine import SAMPLE, examine, sample

from .pictures import folders


def test_the_mean_is_that_of_a_database_of_the_training_pictures(tmp_path: Path) -> None:
    pytest.importorskip("lmdb", reason="databases of Data layers need lmdb")
    pictures = collect(folders(tmp_path / "in", {"a": 5, "b": 4}))
    train = np.array([True, True, False, True, True, False, True, True, True])
    lines = [(pictures.names[row], 0) for row in np.flatnonzero(train)]
    convert(lines, f"{pictures.root}/", tmp_path / "db", Conversion(size=(36, 36)))
    expected, count = mean_image(open_database(tmp_path / "db", "LMDB"))
    assert count == 7
    found = examine(pictures, train, 36, workers=2)
    assert found.mean is not None
    np.testing.assert_array_equal(found.mean, expected)


def test_bad_pictures_are_told_by_row_and_do_not_count(tmp_path: Path) -> None:
    folders(tmp_path, {"a": 4})
    good = examine(collect(tmp_path), np.array([True, True, False, False]), 8).mean
    (tmp_path / "a/002.png").write_bytes(b"no picture")
    (tmp_path / "a/003.png").write_bytes((tmp_path / "a/000.png").read_bytes()[:60])
    found = examine(collect(tmp_path), np.ones(4, bool), 8)
    assert list(found.bad) == [2, 3]
    assert str(tmp_path / "a/002.png") in found.bad[2]
    np.testing.assert_array_equal(found.mean, good)


def test_copies_are_found_by_their_bytes(tmp_path: Path) -> None:
    folders(tmp_path, {"a": 3, "b": 2})
    shutil.copy(tmp_path / "a/001.png", tmp_path / "b/009.png")
    pictures = collect(tmp_path)
    assert examine(pictures, np.ones(6, bool), 8).copies == [(pictures.names.index("b/009.png"), 1)]


def test_only_some_rows_and_progress(tmp_path: Path) -> None:
    pictures = collect(folders(tmp_path, {"a": 5}))
    (tmp_path / "a/004.png").unlink()
    seen: list[int] = []
    found = examine(pictures, np.ones(5, bool), 8, rows=np.array([1, 3]), progress=seen.append)
    assert (found.bad, seen) == ({}, [1, 2])


@pytest.mark.parametrize("count", [1, SAMPLE - 1, SAMPLE, SAMPLE + 1, 5 * SAMPLE + 3])
def test_a_sample_is_small_and_from_all_over(count: int) -> None:
    rows = sample(np.arange(count))
    assert min(count, SAMPLE // 2) <= len(rows) <= SAMPLE
    assert len(set(np.diff(rows).tolist())) <= 1
    assert count - rows[-1] <= -(-count // SAMPLE)
