"""A batch depends on its number: feeds go on exactly where others stood."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from caffe2torch.data import Feed
from caffe2torch.errors import FormatError, ImageError, UsageError

from .sources import datum, feed, images, png, write_lmdb

TRANSFORM = "transform_param { crop_size: 3 mirror: true }"
COUNT = 7


def lmdb(folder: Path, more: str = "") -> str:
    write_lmdb(folder / "db", {f"{i:04}": datum(data=p, label=i) for i, p in enumerate(images(COUNT))})
    return (
        f'layer {{ name: "d" type: "Data" top: "x" top: "l" {TRANSFORM} '
        f'data_param {{ source: "db" batch_size: 3 backend: LMDB {more} }} }}'
    )


def shuffled_lmdb(folder: Path) -> str:
    return lmdb(folder, "shuffle: true")


def leveldb(folder: Path) -> str:
    plyvel = pytest.importorskip("plyvel", reason="plyvel, which writes LevelDB, has no wheel for this Python")
    with plyvel.DB(str(folder / "db"), create_if_missing=True) as database:
        for index, picture in enumerate(images(COUNT)):
            database.put(b"%04d" % index, datum(data=picture, label=index))
    return (
        f'layer {{ name: "d" type: "Data" top: "x" top: "l" {TRANSFORM} '
        'data_param { source: "db" batch_size: 3 backend: LEVELDB } }'
    )


def image_list(folder: Path) -> str:
    for index, picture in enumerate(images(COUNT, (6, 5, 3))):
        (folder / f"{index}.png").write_bytes(png(picture))
    (folder / "list.txt").write_text("".join(f"{i}.png {i}\n" for i in range(COUNT)))
    return (
        f'layer {{ name: "d" type: "ImageData" top: "x" top: "l" {TRANSFORM} '
        'image_data_param { source: "list.txt" batch_size: 3 shuffle: true rand_skip: 5 } }'
    )


def hdf5(folder: Path, more: str = "") -> str:
    rng = np.random.default_rng(0)
    for index, rows in enumerate((2, 4, 1)):
        with h5py.File(folder / f"f{index}", "w") as file:
            file["x"], file["l"] = rng.random((rows, 2)), rng.random(rows)
    (folder / "files.txt").write_text("f0\nf1\nf2\n")
    return (
        'layer { name: "d" type: "HDF5Data" top: "x" top: "l" '
        f'hdf5_data_param {{ source: "files.txt" batch_size: 3 {more} }} }}'
    )


def shuffled_hdf5(folder: Path) -> str:
    return hdf5(folder, "shuffle: true")


def windows(folder: Path) -> str:
    (folder / "p.png").write_bytes(png(images(1, (30, 36, 3))[0]))
    boxes = "".join(f"{n % 2} {n % 2} {n} {n} {n + 9} {n + 12}\n" for n in range(8))
    (folder / "w.txt").write_text(f"# 0\np.png\n3\n30\n36\n8\n{boxes}")
    return (
        'layer { name: "d" type: "WindowData" top: "x" top: "l" transform_param { crop_size: 5 mirror: true } '
        'window_data_param { source: "w.txt" batch_size: 4 fg_fraction: 0.5 } }'
    )


KINDS = [lmdb, shuffled_lmdb, leveldb, image_list, hdf5, shuffled_hdf5, windows]


def same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    return first.keys() == second.keys() and all(np.array_equal(first[blob], second[blob]) for blob in first)


@pytest.mark.parametrize("kind", KINDS)
def test_any_batch_is_found_by_its_number(kind: Callable[[Path], str], tmp_path: Path) -> None:
    text = kind(tmp_path)
    source = feed(text, tmp_path, phase="train")
    batches = [next(source) for _ in range(20)]
    numbers = [*random.Random(0).sample(range(20), 20), 3, 3, 19, 0]
    other = feed(text, tmp_path, phase="train")
    for number in numbers:
        for place in (source, other):
            place.seek(number)
            assert same(next(place), batches[number])
            assert place.batches == number + 1


@pytest.mark.parametrize("kind", KINDS)
def test_sought_feed_goes_on(kind: Callable[[Path], str], tmp_path: Path) -> None:
    text = kind(tmp_path)
    source, other = (feed(text, tmp_path, phase="train") for _ in range(2))
    batches = [next(source) for _ in range(15)]
    other.seek(6)
    assert all(same(next(other), batch) for batch in batches[6:])


@pytest.mark.parametrize("kind", [lmdb, shuffled_lmdb, image_list, shuffled_hdf5, windows])
def test_seed_can_be_changed(kind: Callable[[Path], str], tmp_path: Path) -> None:
    text = kind(tmp_path)
    source, other = feed(text, tmp_path, phase="train", seed=3), feed(text, tmp_path, phase="train", seed=4)
    batches = [next(source) for _ in range(6)]
    assert not all(same(next(other), batch) for batch in batches)
    other.seek(2, seed=3)
    assert all(same(next(other), batch) for batch in batches[2:])


def test_layers_and_batches_draw_different_numbers(tmp_path: Path) -> None:
    text = lmdb(tmp_path).replace("batch_size: 3", "batch_size: 70")  # ten times the seven records
    second = text.replace('"d"', '"e"').replace('"x"', '"y"').replace('"l"', '"m"')
    source: Feed = feed(text + second, tmp_path, phase="train")
    first, later = next(source), next(source)
    assert not np.array_equal(first["x"], first["y"])
    assert not np.array_equal(first["x"], later["x"])
    assert not np.array_equal(first["x"][:7], first["x"][7:14])


def test_what_is_passed_over_is_not_decoded(tmp_path: Path) -> None:
    good = datum(data=images(1)[0], label=5)
    write_lmdb(tmp_path / "db", {"0": good, "1": b"\xff", "2": b"\xff", "3": good})
    text = 'layer { name: "d" type: "Data" top: "x" top: "l" data_param { source: "db" batch_size: 1 backend: LMDB } }'
    source = feed(text, tmp_path)
    source.seek(4 * 10**12 + 3)
    assert next(source)["l"].tolist() == [5]


def test_after_an_error_the_same_batch_comes_again(tmp_path: Path) -> None:
    text = image_list(tmp_path).replace("shuffle: true rand_skip: 5", "")
    whole = (tmp_path / "4.png").read_bytes()
    expected = feed(text, tmp_path)
    batches = [next(expected) for _ in range(3)]
    source = feed(text, tmp_path)
    next(source)
    (tmp_path / "4.png").write_bytes(whole[:60])
    for _ in range(2):
        with pytest.raises(ImageError, match=r"4\.png"):
            next(source)
    assert source.batches == 1
    (tmp_path / "4.png").write_bytes(whole)
    assert same(next(source), batches[1])
    assert same(next(source), batches[2])


def test_numbers_below_0_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no batch has the number -1"):
        feed(hdf5(tmp_path), tmp_path).seek(-1)


def test_files_that_change_their_length_are_refused(tmp_path: Path) -> None:
    source = feed(hdf5(tmp_path), tmp_path)
    with h5py.File(tmp_path / "f2", "w") as file:
        file["x"], file["l"] = np.zeros((5, 2)), np.zeros(5)
    next(source)
    next(source)
    with pytest.raises(FormatError, match="f2: has 5 rows, but 1 when training began"):
        next(source)
