"""HDF5 files written with too little room: an OSError at every size, and never a crash of the process."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from caffe2torch.hdf5_output import hdf5_output


def fill(file: Any, rows: int) -> None:
    """Some of everything: attributes, chunks, strings, groups with many small datasets."""
    file.attrs["about"] = "x" * 500
    numbers = file.create_dataset("numbers", (rows, 50), np.float32, chunks=(10, 50))
    names = file.create_dataset("names", (rows,), h5py.string_dtype(), chunks=(10,))
    small = file.create_group("small")
    for row in range(0, rows, 10):
        numbers[row : row + 10] = row
        names[row : row + 10] = np.array([b"a name"] * 10, dtype=object)
        for index in range(row, row + 10):
            small.create_dataset(f"d{index}", data=np.arange(5)).attrs["of"] = index


def write(path: Path, rows: int) -> None:
    with hdf5_output(path) as (file, check):
        fill(file, rows)
        check()


def test_the_file_is_what_h5py_writes(tmp_path: Path) -> None:
    write(tmp_path / "ours.h5", 100)
    with h5py.File(tmp_path / "plain.h5", "w") as file:
        fill(file, 100)
    with h5py.File(tmp_path / "ours.h5") as ours, h5py.File(tmp_path / "plain.h5") as plain:
        names: list[str] = []
        plain.visit(names.append)
        assert len(names) == 103
        for name in names:
            assert dict(ours[name].attrs) == dict(plain[name].attrs)
            if name != "small":
                np.testing.assert_array_equal(ours[name][()], plain[name][()])


def test_a_user_block_is_left_free(tmp_path: Path) -> None:
    with hdf5_output(tmp_path / "x.mat", userblock_size=512) as (file, _):
        file.create_dataset("x", data=[1, 2])
    assert (tmp_path / "x.mat").read_bytes()[512:520] == b"\x89HDF\r\n\x1a\n"
    with h5py.File(tmp_path / "x.mat") as file:
        assert file["x"][()].tolist() == [1, 2]


def test_no_folder_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write(tmp_path / "none" / "x.h5", 10)


def limits(path: Path, rows: int) -> None:
    """Write with less and less room until all but nothing is left, and say how it went; run in a process of its own."""
    write(path, rows)
    size, failed = path.stat().st_size, 0
    most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    for share in range(60):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(size * share / 60), most))
        try:
            write(path, rows)
        except OSError as error:
            failed += "too large" in str(error)
    print("failed", failed)


@pytest.mark.parametrize("rows", [10, 300])
def test_too_little_room_is_an_os_error_at_every_size(rows: int, tmp_path: Path) -> None:
    command = [sys.executable, __file__, str(tmp_path / "x.h5"), str(rows)]
    folder = Path(__file__).resolve().parent.parent
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (0, "failed 60\n", "")


if __name__ == "__main__":
    limits(Path(sys.argv[1]), int(sys.argv[2]))
