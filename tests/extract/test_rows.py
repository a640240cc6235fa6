"""The rows on disk: what is cut back, what is given back, what happens when writing fails."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest

from caffe2torch.errors import OutputError
from caffe2torch.extract import rows as rows_module
from caffe2torch.extract.journal import Journal
from caffe2torch.extract.listing import Entry
from caffe2torch.extract.rows import Rows

ENTRIES = [Entry(f"p{n}", f"/p{n}") for n in range(10)]
CODES = np.arange(20, dtype=np.uint8).reshape(10, 2)
FEATURES = np.arange(30, dtype=np.float32).reshape(10, 3)


def opened(folder: Path, total: int = 0, **options: int) -> Rows:
    rows = Rows(folder, bits=12, feature_size=3)
    rows.open(total, **options)
    return rows


def filled(folder: Path, count: int = 10, batch: int = 4) -> Rows:
    rows = opened(folder)
    for first in range(0, count, batch):
        part = slice(first, min(first + batch, count))
        rows.append(CODES[part], FEATURES[part], {1: "bad"} if first == 4 else {})
    return rows


def test_rows_come_back_in_order_with_failures_as_zeros(tmp_path: Path) -> None:
    rows = filled(tmp_path)
    chunks = list(rows.chunks(ENTRIES, keep_failed=True, size=3))
    assert [len(chunk.entries) for chunk in chunks] == [3, 3, 3, 1]
    expected = CODES.copy()
    expected[5] = 0
    np.testing.assert_array_equal(np.concatenate([chunk.packed for chunk in chunks]), expected)
    assert np.flatnonzero(np.concatenate([chunk.failed for chunk in chunks])).tolist() == [5]
    assert list(rows.errors()) == [(5, "bad")]


def test_failures_can_be_left_out(tmp_path: Path) -> None:
    chunks = list(filled(tmp_path).chunks(ENTRIES, keep_failed=False, size=4))
    assert [e.shown for chunk in chunks for e in chunk.entries] == [f"p{n}" for n in range(10) if n != 5]
    features = np.concatenate([chunk.features for chunk in chunks if chunk.features is not None])
    np.testing.assert_array_equal(features, np.delete(FEATURES, 5, axis=0))


@pytest.mark.parametrize(
    "file, cut, left",
    [("rows.bin", 1, 8), ("rows.bin", 6, 8), ("rows.bin", 7, 4), ("features.bin", 1, 8), ("features.bin", 25, 4)],
)
def test_reopening_cuts_back_to_whole_batches(tmp_path: Path, file: str, cut: int, left: int) -> None:
    filled(tmp_path).close()
    with (tmp_path / file).open("r+b") as raw:
        raw.truncate((tmp_path / file).stat().st_size - cut)
    rows = opened(tmp_path, 10, first=0, batch=4)
    assert rows.done == left
    assert (tmp_path / "rows.bin").stat().st_size == left * 3
    assert (tmp_path / "features.bin").stat().st_size == left * 12
    assert rows.failed == len(list(rows.errors())) == (left > 5)


def test_all_rows_done_are_all_kept(tmp_path: Path) -> None:
    filled(tmp_path).close()
    assert opened(tmp_path, 10, first=0, batch=4).done == 10


def test_half_an_error_line_belongs_to_no_row(tmp_path: Path) -> None:
    filled(tmp_path, count=4).close()
    (tmp_path / "errors.jsonl").write_bytes(b'[4, "half')
    rows = opened(tmp_path, 10, first=0, batch=4)
    assert rows.done == 4
    assert list(rows.errors()) == []


def test_a_new_run_forgets_what_lies_there(tmp_path: Path) -> None:
    filled(tmp_path).close()
    assert opened(tmp_path, 0).done == 0
    assert (tmp_path / "rows.bin").stat().st_size == 0


def test_a_hole_left_by_a_crash_is_found(tmp_path: Path) -> None:
    filled(tmp_path).close()
    with (tmp_path / "rows.bin").open("r+b") as raw:
        raw.seek(6)
        raw.write(bytes(3))
    with pytest.raises(OutputError, match="row 2 is damaged; --force"):
        opened(tmp_path, 10)


def test_a_short_write_is_completed(tmp_path: Path) -> None:
    class Short:
        def __init__(self) -> None:
            self.data = b""

        def write(self, view: memoryview) -> int:
            self.data += bytes(view[:5])
            return min(5, len(view))

    target = Short()
    rows_module._write_all(target, CODES)  # type: ignore[arg-type]
    assert target.data == CODES.tobytes()


def test_full_disk_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "codes.h5")
    journal.list_pictures(ENTRIES)
    journal.start({}, {}, bits=12, feature_size=0, batch=4)

    def full(file: object, data: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(rows_module, "_write_all", full)
    with pytest.raises(OutputError, match=r"partial: cannot be written: the disk is full.*nothing was done yet"):
        journal.append(CODES[:4], None, {})
    journal.close()


def test_two_runs_cannot_share_a_journal(tmp_path: Path) -> None:
    pytest.importorskip("fcntl", reason="file locks are a Unix matter")
    first = Journal(tmp_path / "codes.h5")
    with pytest.raises(OutputError, match="another run is writing"):
        Journal(tmp_path / "codes.h5")
    first.close()
    Journal(tmp_path / "codes.h5").close()


def test_a_damaged_job_file_is_an_error(tmp_path: Path) -> None:
    Journal(tmp_path / "codes.h5").close()
    (tmp_path / "codes.h5.partial" / "job.json").write_text('{"fingerprint": {}}')
    with pytest.raises(OutputError, match=r"job\.json: damaged; --force"):
        Journal(tmp_path / "codes.h5")
