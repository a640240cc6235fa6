"""The databases that the bundled model is trained from: what is in them, beside a naive look at every record."""

from __future__ import annotations

from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest

from caffe2torch import schema
from caffe2torch.data.cifar10 import Batch, Cifar10
from caffe2torch.data.cifar10.databases import COPIES, ERASED, HOLE, TEST, TRAIN, write_databases
from caffe2torch.errors import OutputError

TRAINING, TESTED = 100, 7


class Few(Cifar10):
    """A CIFAR-10 of few pictures of noise, neither dark nor bright; a picture's label is its number."""

    def __init__(self) -> None:
        draws = np.random.default_rng(3)
        self.train, self.test = (
            Batch(name, draws.integers(90, 160, (count, 32, 32, 3), np.uint8), np.arange(count, dtype=np.uint8))
            for name, count in (("train", TRAINING), ("test", TESTED))
        )


def records(path: Path) -> list[tuple[bytes, np.ndarray, int]]:
    """Key, picture (H, W, 3) in B, G, R and label of each record, read without this package's reader."""
    found = []
    with lmdb.open(str(path), readonly=True, lock=False) as database, database.begin() as transaction:
        for key, value in transaction.cursor():
            datum = schema.new("Datum")
            datum.ParseFromString(value)
            planes = np.frombuffer(datum.data, np.uint8).reshape(datum.channels, datum.height, datum.width)
            found.append((key, planes.transpose(1, 2, 0), datum.label))
    return found


@pytest.fixture(scope="module")
def few() -> Few:
    return Few()


@pytest.fixture(scope="module")
def folder(few: Few, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("databases")
    seen: list[tuple[int, int]] = []
    write_databases(few, folder, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, COPIES * TRAINING + TESTED) for done in range(1, COPIES * TRAINING + TESTED + 1)]
    return folder


def test_test_pictures_are_written_as_they_are_and_in_order(few: Few, folder: Path) -> None:
    written = records(folder / TEST)
    assert [key for key, _, _ in written] == [b"%08d" % number for number in range(TESTED)]
    assert [label for _, _, label in written] == list(range(TESTED))
    for (_, picture, _), image in zip(written, few.test.images, strict=True):
        np.testing.assert_array_equal(picture, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))


def test_each_copy_holds_every_training_picture_in_an_order_of_its_own(folder: Path) -> None:
    labels = np.array([label for _, _, label in records(folder / TRAIN)]).reshape(COPIES, TRAINING)
    assert all(sorted(copy) == list(range(TRAINING)) for copy in labels)
    assert len({tuple(copy) for copy in labels}) == COPIES


@pytest.fixture(scope="module")
def pictures(few: Few, folder: Path) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Of each training record the picture, that of CIFAR-10 (B, G, R) mirrored on at the border, and what is erased."""
    found = []
    for _, picture, label in records(folder / TRAIN):
        image = cv2.cvtColor(few.train.images[label], cv2.COLOR_RGB2BGR)
        whole = cv2.copyMakeBorder(image, 4, 4, 4, 4, cv2.BORDER_REFLECT_101)
        erased = (picture == ERASED).all(2)
        kernel = np.ones((5, 5), np.uint8)  # single pixels of that colour go; of a square at a corner 6 x 6 are left
        opened = cv2.morphologyEx(erased.astype(np.uint8), cv2.MORPH_OPEN, kernel, borderType=cv2.BORDER_REFLECT_101)
        found.append((picture.astype(np.float64), whole.astype(np.float64), opened > 0))
    return found


def test_each_training_picture_lacks_one_square(pictures: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> None:
    places = []
    for picture, _, erased in pictures:
        assert picture.shape == (40, 40, 3)
        rows, columns = np.nonzero(erased)
        top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
        assert erased[top:bottom, left:right].all()
        for first, end in ((top, bottom), (left, right)):
            assert end - first == HOLE or (HOLE / 2 <= end - first < HOLE and (first == 0 or end == 40))
        places.append((top, left))
    assert len(set(places)) > 0.7 * len(places)


def test_colours_change_as_they_are_said_to(pictures: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> None:
    """Each channel is a sum of a constant, the channel and the grey of the original, up to rounding."""
    grey, same = 0, 0
    for picture, whole, erased in pictures:
        found, original = picture[~erased], whole[~erased]
        luma = original @ [0.114, 0.587, 0.299]
        same += bool((found == original).all())
        assert 0.8 * 0.91 < found.mean() / original.mean() < 1.2 * 1.09
        if (found == found[:, :1]).all():
            grey += 1
            columns, channels = [luma], [0]
        else:
            columns, channels = [luma, original], [0, 1, 2]
        for c in channels:
            terms = np.stack([np.ones(len(luma)), luma, *(o[:, c] for o in columns[1:])], 1)
            shares, *_ = np.linalg.lstsq(terms, found[:, c], rcond=None)
            assert np.abs(terms @ shares - found[:, c]).max() < 0.8  # rounded by 0.5, and so is the fit
            contrast = shares[1:].sum()
            if len(shares) == 2:
                assert 0.74 < contrast < 1.26
            else:
                assert 0.74 * 0.91 < contrast < 1.26 * 1.09
                assert 0.59 < shares[2] / contrast < 1.41
    count = len(pictures)
    assert 0.09 < grey / count < 0.21
    assert 0.15 < same / count < 0.28  # 0.85 / 2 / 2


def test_the_same_pictures_make_the_same_records(few: Few, folder: Path, tmp_path: Path) -> None:
    write_databases(few, tmp_path)
    for (key, picture, label), (same_key, same, same_label) in zip(
        records(folder / TRAIN), records(tmp_path / TRAIN), strict=True
    ):
        assert (key, label) == (same_key, same_label)
        np.testing.assert_array_equal(picture, same)


def test_a_database_that_is_there_is_not_overwritten(few: Few, folder: Path) -> None:
    with pytest.raises(OutputError, match="is there already"):
        write_databases(few, folder)
