"""Data layers: what becomes of records."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from caffe2torch.binaryproto import write_mean
from caffe2torch.errors import Caffe2TorchError, FormatError, GraphError, ImageError

from .sources import datum, feed, images, png, write_lmdb


def layer(settings: str = "", *, batch: int = 2, more: str = "") -> str:
    return (
        f'layer {{ name: "d" type: "Data" top: "x" top: "l" transform_param {{ {settings} }} '
        f'data_param {{ source: "db" batch_size: {batch} backend: LMDB {more} }} }}'
    )


def database(folder: Path, *records: bytes) -> Path:
    write_lmdb(folder / "db", {f"{index:04}": record for index, record in enumerate(records)})
    return folder


def test_batches_wrap_around_within_a_batch(tmp_path: Path) -> None:
    pictures = images(3)
    source = feed(layer(), database(tmp_path, *(datum(data=p, label=i) for i, p in enumerate(pictures))))
    labels = []
    for start in (0, 2, 1):
        batch = next(source)
        np.testing.assert_array_equal(batch["x"], np.stack([pictures[(start + i) % 3] for i in range(2)]))
        labels.extend(batch["l"])
    assert labels == [0, 1, 2, 0, 1, 2]
    assert batch["x"].dtype == batch["l"].dtype == np.float32


def test_rand_skip_is_ignored(tmp_path: Path) -> None:
    folder = database(tmp_path, *(datum(data=p, label=i) for i, p in enumerate(images(5))))
    assert next(feed(layer(more="rand_skip: 4"), folder))["l"].tolist() == [0, 1]


def test_shuffle_of_nvcaffe_draws_every_record_once_a_round(tmp_path: Path) -> None:
    folder = database(tmp_path, *(datum(data=p, label=i) for i, p in enumerate(images(6))))
    source = feed(layer(batch=6, more="shuffle: true"), folder)
    rounds = [next(source)["l"].tolist() for _ in range(2)]
    assert [sorted(r) for r in rounds] == [[0, 1, 2, 3, 4, 5]] * 2
    assert rounds[0] != rounds[1]


def test_records_of_any_number_of_channels(tmp_path: Path) -> None:
    records = images(2, (5, 4, 4))
    write_mean(tmp_path / "m", np.stack(records).mean(0).astype(np.float32))
    folder = database(tmp_path, *(datum(data=r) for r in records))
    values = next(
        feed(layer("mean_value: 1 mean_value: 2 mean_value: 3 mean_value: 4 mean_value: 5 scale: 0.5"), folder)
    )
    expected = (np.stack(records).astype(np.float32) - np.arange(1, 6, dtype=np.float32)[:, None, None]) * 0.5
    np.testing.assert_array_equal(values["x"], expected)
    whole = np.stack(records).astype(np.float32) - np.stack(records).mean(0).astype(np.float32)
    np.testing.assert_array_equal(next(feed(layer('mean_file: "m"'), folder))["x"], whole)
    np.testing.assert_array_equal(next(feed(layer('mean_file: "m" crop_size: 3'), folder))["x"], whole[..., :3, :3])


@pytest.mark.parametrize("settings, grey", [("force_gray: true", True), ("force_color: true", False)])
def test_forced_channels_of_encoded_pictures(settings: str, grey: bool, tmp_path: Path) -> None:
    bgr, single = images(1, (6, 5, 3))[0], images(1, (6, 5))[0]
    folder = database(tmp_path, *(datum(encoded=True, data=png(image)) for image in (bgr, single)))
    got = next(feed(layer(settings), folder))["x"]
    if grey:
        np.testing.assert_allclose(got[0, 0], cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY), atol=1)
        np.testing.assert_array_equal(got[1, 0], single)
    else:
        np.testing.assert_array_equal(got[0], bgr.transpose(2, 0, 1))
        np.testing.assert_array_equal(got[1], np.stack([single] * 3))


def test_native_decoding_keeps_alpha(tmp_path: Path) -> None:
    bgra = images(1, (6, 5, 4))[0]
    folder = database(tmp_path, datum(encoded=True, data=png(bgra)))
    np.testing.assert_array_equal(next(feed(layer(batch=1), folder))["x"][0], bgra.transpose(2, 0, 1))


def test_raw_records_are_not_forced(tmp_path: Path) -> None:
    folder = database(tmp_path, datum(data=images(1)[0]))
    assert next(feed(layer("force_gray: true", batch=1), folder))["x"].shape == (1, 3, 5, 4)


def test_pictures_one_at_a_time_may_differ_in_size(tmp_path: Path) -> None:
    folder = database(tmp_path, datum(data=images(1, (3, 5, 4))[0]), datum(data=images(1, (3, 6, 7))[0]))
    source = feed(layer(batch=1), folder)
    assert [next(source)["x"].shape for _ in range(3)] == [(1, 3, 5, 4), (1, 3, 6, 7), (1, 3, 5, 4)]


def test_crop_brings_all_to_one_size(tmp_path: Path) -> None:
    first, second = images(1, (3, 5, 4))[0], images(1, (3, 6, 7))[0]
    got = next(feed(layer("crop_size: 3"), database(tmp_path, datum(data=first), datum(data=second))))["x"]
    np.testing.assert_array_equal(got, np.stack([first[:, 1:4, 0:3], second[:, 1:4, 2:5]]))


def test_training_crops_and_flips_at_random(tmp_path: Path) -> None:
    picture = np.arange(12, dtype=np.uint8).reshape(1, 3, 4)
    source = feed(layer("crop_size: 2 mirror: true", batch=400), database(tmp_path, datum(data=picture)), phase="train")
    found = {tuple(x.ravel()) for x in next(source)["x"]}
    crops = [picture[0, y : y + 2, x : x + 2] for y in range(2) for x in range(3)]
    assert found == {tuple(map(float, c.ravel())) for crop in crops for c in (crop, crop[:, ::-1])}


def test_one_seed_gives_one_row_of_batches(tmp_path: Path) -> None:
    folder = database(tmp_path, *(datum(data=p) for p in images(3)))
    first, second, other = (
        next(feed(layer("crop_size: 2", batch=30), folder, phase="train", seed=seed))["x"] for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


def test_mirror_flips_in_the_test_phase_too(tmp_path: Path) -> None:
    picture = images(1)[0]
    got = next(feed(layer("mirror: true", batch=40), database(tmp_path, datum(data=picture))))["x"]
    flipped = [np.array_equal(x, picture[:, :, ::-1]) for x in got]
    assert 5 < sum(flipped) < 35
    assert all(np.array_equal(x, picture) for x, f in zip(got, flipped, strict=True) if not f)


BAD = [
    (b"\xff\xff", "record '0001': 2 bytes that are not a Datum"),
    (datum(data=images(1)[0])[:-5], "record '0001': 6.* bytes that are not a Datum"),
    (datum(data=images(1)[0], width=5), "a Datum of 3x5x5 with 60 bytes of data, expected 75"),
    (datum(channels=1, height=2, width=2, float_data=[1, 2, 3]), "1x2x2 with 3 floats of data, expected 4"),
    (datum(channels=3, height=5, width=4), "with 0 floats of data, expected 60"),
    (datum(data=b"abc"), "a Datum of 0x0x0"),
    (datum(data=b"abc", channels=-1, height=-3, width=1), "a Datum of -1x-3x1"),
    (datum(encoded=True, data=b"abc"), "record '0001': not a picture"),
    (datum(encoded=True, data=png(images(1, (5, 4, 3))[0])[:-20]), "record '0001': the PNG is cut short"),
    (datum(encoded=True), "record '0001': the file is empty"),
    (datum(data=images(1, (3, 6, 4))[0]), "record '0001': 3x6x4 .* but .*'0000', the first of its batch, is 3x5x4"),
    (datum(data=images(1, (1, 5, 4))[0]), "record '0001': 1x5x4"),
]


@pytest.mark.parametrize("record, message", BAD, ids=[str(index) for index in range(len(BAD))])
def test_bad_records_are_named(record: bytes, message: str, tmp_path: Path) -> None:
    source = feed(layer(), database(tmp_path, datum(data=images(1)[0]), record))
    with pytest.raises((FormatError, ImageError), match=message):
        next(source)


@pytest.mark.parametrize(
    "settings, message",
    [
        ("crop_size: 6", "record '0000': 5x4 .* is smaller than the crop 6x6"),
        ("mean_value: 1 mean_value: 2", "record '0000': 3 channels, but layer 'd' .* has 2 mean_value"),
        ('mean_value: 1 mean_file: "m"', "both mean_file and mean_value"),
        ('mean_file: "m"', "record '0000': 5x4 .* but the mean image is 4x4"),
        ('mean_file: "m1"', "record '0000': 3 channels, but the mean .*m1 has 1"),
        ('mean_file: "gone"', "gone"),
        ("force_color: true force_gray: true", "both force_color and force_gray"),
        ("resize_param { height: 3 width: 3 }", "has resize_param, which Caffe 1.0 does not have"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: str, message: str, tmp_path: Path) -> None:
    write_mean(tmp_path / "m", np.zeros((3, 4, 4), np.float32))
    write_mean(tmp_path / "m1", np.zeros((1, 5, 4), np.float32))
    folder = database(tmp_path, datum(data=images(1)[0]))
    with pytest.raises(Caffe2TorchError, match=message):
        next(feed(layer(settings), folder))


@pytest.mark.parametrize(
    "text, message",
    [
        ('top: "x" data_param { source: "db" backend: LMDB }', "has no batch_size"),
        ('top: "x" data_param { batch_size: 2 }', "has no source"),
        ('data_param { source: "db" batch_size: 2 }', "names 0 tops"),
    ],
)
def test_layers_that_say_too_little_are_refused(text: str, message: str, tmp_path: Path) -> None:
    folder = database(tmp_path, datum(data=images(1)[0]))
    with pytest.raises(GraphError, match=message):
        feed(f'layer {{ name: "d" type: "Data" {text} }}', folder)
