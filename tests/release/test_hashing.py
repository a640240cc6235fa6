"""Codes of many pictures: interrupted and gone on with, kept, and made anew where something changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from caffe2torch.errors import ImageError, OutputError
from caffe2torch.extract import Hasher, Model
from caffe2torch.release.hashing import BATCH, hash_part
from caffe2torch.release.pictures import Form, Pictures

COUNT = 3 * BATCH + 10
POSITIONS = np.arange(COUNT)


class Drawn(Pictures):
    """Noise, a picture for each position; some cannot be read."""

    def __init__(self) -> None:
        self.place, self.own = "drawn", Form(mirrored=False, jpeg=0)
        self.broken: set[int] = set()
        self.read_ones: list[int] = []

    def read(self, part: str, position: int, form: Form) -> np.ndarray:
        if position in self.broken:
            raise ImageError(f"picture {position} cannot be read")
        self.read_ones.append(position)
        return np.random.default_rng(position).integers(0, 256, (32, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def hasher() -> Hasher:
    return Hasher(Model.from_zoo("ssdh48_small"), device="cpu")


def test_an_interrupted_run_goes_on_and_ends_with_the_same_codes(hasher: Hasher, tmp_path: Path) -> None:
    pictures = Drawn()
    whole = hash_part(hasher, pictures, "test", POSITIONS, tmp_path / "whole.h5", workers=2)
    assert (len(whole.bits), whole.done_before) == (COUNT, 0)
    pictures.broken = {2 * BATCH + 5}
    with pytest.raises(ImageError, match="picture 133 cannot be read"):
        hash_part(hasher, pictures, "test", POSITIONS, tmp_path / "cut.h5", workers=1)
    assert (tmp_path / "cut.h5.partial").is_dir()
    pictures.broken, pictures.read_ones = set(), []
    rest = hash_part(hasher, pictures, "test", POSITIONS, tmp_path / "cut.h5", workers=1)
    assert rest.done_before == 2 * BATCH
    assert min(pictures.read_ones) == 2 * BATCH
    np.testing.assert_array_equal(rest.bits, whole.bits)
    assert not (tmp_path / "cut.h5.partial").exists()


def test_finished_codes_are_taken_and_others_made_anew(hasher: Hasher, tmp_path: Path) -> None:
    pictures, out = Drawn(), tmp_path / "x.h5"
    some = POSITIONS[:70]
    first = hash_part(hasher, pictures, "test", some, out, workers=1)
    pictures.read_ones = []
    again = hash_part(hasher, pictures, "test", some, out, workers=1)
    assert (again.done_before, pictures.read_ones) == (70, [])
    np.testing.assert_array_equal(again.bits, first.bits)
    pictures.own = replace(pictures.own, mirrored=True)
    assert hash_part(hasher, pictures, "test", some, out, workers=1).done_before == 0
    assert hash_part(hasher, pictures, "test", some, out, workers=1, force=True).done_before == 0
    out.write_bytes(out.read_bytes()[:1000])
    assert hash_part(hasher, pictures, "test", some, out, workers=1).done_before == 0


def test_an_unfinished_run_with_other_settings_is_made_anew_and_said(hasher: Hasher, tmp_path: Path) -> None:
    pictures, said = Drawn(), []
    pictures.broken = {BATCH + 1}
    with pytest.raises(ImageError):
        hash_part(hasher, pictures, "test", POSITIONS, tmp_path / "x.h5", workers=1)
    pictures.broken, pictures.own = set(), Form(mirrored=True, jpeg=0)
    found = hash_part(hasher, pictures, "test", POSITIONS, tmp_path / "x.h5", workers=1, say=said.append)
    assert found.done_before == 0
    assert "made in another way" in said[0]


def test_nothing_is_left_behind_where_nothing_was_done(hasher: Hasher, tmp_path: Path) -> None:
    pictures = Drawn()
    pictures.broken = {0}
    with pytest.raises(ImageError):
        hash_part(hasher, pictures, "test", POSITIONS, tmp_path / "x.h5", workers=1)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_journal_is_an_error_and_force_removes_it(hasher: Hasher, tmp_path: Path) -> None:
    pictures, journal = Drawn(), tmp_path / "x.h5.partial"
    journal.mkdir()
    (journal / "job.json").write_text("no JSON", "utf-8")
    with pytest.raises(OutputError, match="damaged; --force removes this unfinished run"):
        hash_part(hasher, pictures, "test", POSITIONS[:5], tmp_path / "x.h5", workers=1)
    assert len(hash_part(hasher, pictures, "test", POSITIONS[:5], tmp_path / "x.h5", workers=1, force=True).bits) == 5
