"""The mean of a database, against the definition and real Caffe's file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from caffe2torch.binaryproto import read_mean
from caffe2torch.data.database import open_database
from caffe2torch.data.mean_image import channel_means, mean_image
from caffe2torch.errors import FormatError, ImageError

from .sources import datum, images, png, write_lmdb


def mean_of(folder: Path, *values: bytes) -> np.ndarray:
    write_lmdb(folder / "db", {f"{index:04}": value for index, value in enumerate(values)})
    return mean_image(open_database(folder / "db", "LMDB"), workers=2)[0]


def test_mean_equals_real_caffes(reference: Path) -> None:
    case = reference / "goldens" / "data" / "lmdb_raw_mean_file"
    mean, count = mean_image(open_database(case / "db", "LMDB"))
    assert count > 1
    np.testing.assert_array_equal(mean, read_mean(case / "mean.binaryproto"))


def test_sums_are_float32_in_the_order_of_the_keys(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = (rng.random((50, 2, 3, 4)) * 1e6).astype(np.float32)
    got = mean_of(tmp_path, *(datum(channels=2, height=3, width=4, float_data=value) for value in values))
    for place in np.ndindex(2, 3, 4):
        total = np.float32(0)
        for value in values[(slice(None), *place)]:
            total = np.float32(total + value)
        assert got[place] == np.float32(total / np.float32(50))


def test_raw_and_encoded_records(tmp_path: Path) -> None:
    pictures = images(40, (6, 5, 3))
    values = [
        datum(encoded=True, data=png(p)) if index % 2 else datum(data=p.transpose(2, 0, 1))
        for index, p in enumerate(pictures)
    ]
    expected = np.stack(pictures).sum(0, dtype=np.float32) / np.float32(40)
    np.testing.assert_array_equal(mean_of(tmp_path, *values), expected.transpose(2, 0, 1))


def test_means_of_channels_are_added_one_by_one() -> None:
    mean = (np.random.default_rng(0).random((3, 40, 30)) * 255).astype(np.float32)
    for got, plane in zip(channel_means(mean), mean, strict=True):
        total = np.float32(0)
        for value in plane.ravel():
            total = np.float32(total + value)
        assert got == total / np.float32(1200)


@pytest.mark.parametrize(
    "values, error, message",
    [
        ([], FormatError, "the database holds no records"),
        ([datum(data=images(1)[0]), datum(data=images(1, (3, 4, 5))[0])], FormatError, "'0001': 3x4x5 .* is 3x5x4"),
        ([datum(data=images(1)[0]), b"\xff"], FormatError, "record '0001': 1 bytes that are not a Datum"),
        ([datum(encoded=True, data=b"abc")], ImageError, "record '0000': not a picture"),
    ],
)
def test_bad_databases(values: list[bytes], error: type[Exception], message: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=message):
        mean_of(tmp_path, *values)
