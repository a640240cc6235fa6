"""Caffe's C++ preprocessing against what real Caffe's data layers gave, and against the naive definition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from caffe2torch import preprocess
from caffe2torch.errors import ImageError, UsageError
from caffe2torch.preprocess import Spec
from caffe2torch.preprocess.transformer import Transformer

from . import naive

PNG = b"\x89PNG\r\n\x1a\n"


def passes(case: Path) -> np.ndarray:
    """The ``data`` blob of all of the case's passes, one after the other."""
    blobs = np.load(case / "blobs.npz")
    names = [name for name in ("out:data", "out2:data", "out3:data", "out4:data") if name in blobs]
    return np.concatenate([blobs[name] for name in names])


def listed(case: Path) -> list[np.ndarray]:
    lines = (case / "list.txt").read_text(encoding="utf-8").splitlines()
    return [preprocess.read_image(case / "pics" / line.rsplit(" ", 1)[0]) for line in lines if line]


def stored_pngs(case: Path) -> list[np.ndarray]:
    """The encoded records of a small database, cut out by signature and end chunk."""
    parts = (case / "db/data.mdb").read_bytes().split(PNG)[1:]
    return [preprocess.decode(PNG + part[: part.index(b"IEND") + 8], "record") for part in parts]


def stored_raw(case: Path, shape: tuple[int, int, int]) -> list[np.ndarray]:
    """The raw records of a small database: Datum.data is field 4, a length and that many bytes."""
    size = int(np.prod(shape))
    mark = bytes([0x22, size & 0x7F | 0x80, size >> 7])
    parts = (case / "db/data.mdb").read_bytes().split(mark)[1:]
    return [np.frombuffer(part[:size], np.uint8).reshape(shape) for part in parts if len(part) >= size]


def assert_some_record_gives_each(made: list[np.ndarray], golden: np.ndarray) -> None:
    """The database's order is not known here: each of Caffe's outputs must be the bits of one of ours."""
    assert made
    for output in golden:
        assert any(output.shape == ours.shape and np.array_equal(output, ours) for ours in made)


def test_image_data_gives_caffes_pixels(reference: Path) -> None:
    case = reference / "goldens/data/image_data"
    pictures = listed(case)
    golden = passes(case)
    for k, output in enumerate(golden):
        spec = Spec(dialect="transformer", resize=output.shape[1:])
        assert np.array_equal(preprocess.make(spec)(pictures[k % len(pictures)]), output)


def test_image_data_grey_gives_caffes_pixels_within_one_level(reference: Path) -> None:
    """Caffe let OpenCV 4.6 convert while decoding PNG; later versions round the luma differently."""
    case = reference / "goldens/data/image_data_gray"
    for image, output in zip(listed(case), passes(case), strict=True):
        spec = Spec(dialect="transformer", channels=1, resize=output.shape[1:])
        assert np.abs(preprocess.make(spec)(image) - output).max() <= 1


def test_image_data_resize_gives_caffes_pixels_within_one_level(reference: Path) -> None:
    """8-bit bilinear differs by one level between OpenCV versions."""
    case = reference / "goldens/data/image_data_resize"
    make = preprocess.make(Spec(dialect="transformer", resize=(9, 16)))
    for image, output in zip(listed(case), passes(case), strict=True):
        assert np.abs(make(image) - output).max() <= 1


def test_crop_mean_values_and_scale_give_caffes_bits(reference: Path) -> None:
    case = reference / "goldens/data/lmdb_png_crop_mean"
    spec = Spec(dialect="transformer", crop=(6, 6), mean_values=(104.0, 117.0, 123.0), scale=0.1)
    make = preprocess.make(spec)
    assert_some_record_gives_each([make(image) for image in stored_pngs(case)], passes(case))


def test_force_color_gives_caffes_bits(reference: Path) -> None:
    case = reference / "goldens/data/lmdb_png_force_color"
    pictures = stored_pngs(case)
    assert all(image.ndim == 2 for image in pictures)
    make = preprocess.make(Spec(dialect="transformer", resize=pictures[0].shape[:2]))
    assert_some_record_gives_each([make(image) for image in pictures], passes(case))


@pytest.mark.parametrize(
    ("name", "settings", "with_mean"),
    [
        ("lmdb_raw_crop", {"crop": (7, 7)}, False),
        ("lmdb_raw_mean_file", {"crop": (9, 9), "scale": 0.5, "mean_file": "m"}, True),
        ("lmdb_v1_old_fields", {"crop": (7, 7), "scale": 0.25, "mean_file": "m"}, True),
        ("lmdb_raw_scale_mean1", {"scale": 0.00390625, "mean_values": (127.5,)}, False),
    ],
)
def test_raw_records_give_caffes_bits(reference: Path, name: str, settings: dict[str, object], with_mean: bool) -> None:
    case = reference / "goldens/data" / name
    mean = preprocess.load_mean(case / "mean.binaryproto") if with_mean else None
    transformer = Transformer(Spec(dialect="transformer", **settings), mean)  # type: ignore[arg-type]
    made = [transformer.transform(record) for record in stored_raw(case, (3, 12, 10))]
    assert_some_record_gives_each(made, passes(case))


@pytest.mark.parametrize("crop", [0, 1, 4, 7], ids=lambda crop: f"crop{crop}")
def test_test_phase_follows_the_definition(crop: int) -> None:
    rng = np.random.default_rng(crop)
    record, mean = rng.integers(0, 256, (3, 8, 11), dtype=np.uint8), rng.uniform(0, 255, (3, 8, 11)).astype(np.float32)
    spec = Spec(dialect="transformer", crop=(crop, crop) if crop else None, scale=0.017, mean_file="m")
    made = Transformer(spec, mean).transform(record)
    assert np.abs(made - naive.data_transformer(record, crop, mean, 0.017)).max() < 1e-5


def test_float_records_are_taken() -> None:
    record = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    spec = Spec(dialect="transformer", scale=2.0)
    assert np.array_equal(Transformer(spec, None).transform(record), record * 2)


def test_training_crops_cover_every_place_and_flip_half_of_them() -> None:
    record = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
    image = record.transpose(1, 2, 0)
    mean = np.random.default_rng(1).uniform(size=(3, 4, 5)).astype(np.float32)
    transformer = Transformer(Spec(dialect="transformer", crop=(3, 3), mirror=True, mean_file="m"), mean)
    wanted = {}
    for top in range(2):
        for left in range(3):
            cut = (record - mean)[:, top : top + 3, left : left + 3]
            wanted[cut.tobytes()] = (top, left, False)
            wanted[cut[:, :, ::-1].tobytes()] = (top, left, True)
    rng = np.random.default_rng(0)
    seen = [wanted[transformer.train(image, rng).tobytes()] for _ in range(400)]
    assert len(set(seen)) == 12
    assert 150 < sum(flipped for _, _, flipped in seen) < 250


def test_test_phase_flips_only_with_a_generator() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    transformer = Transformer(Spec(dialect="transformer", channels=1, resize=(3, 4), mirror=True), None)
    rng = np.random.default_rng(0)
    seen = {transformer.transform(image[None], rng=rng).tobytes() for _ in range(20)}
    assert seen == {transformer(image).tobytes(), transformer(image)[:, :, ::-1].tobytes()}


def test_training_without_generator_is_refused() -> None:
    with pytest.raises(UsageError, match="random generator"):
        Transformer(Spec(dialect="transformer", crop=(2, 2)), None).transform(np.zeros((3, 4, 4)), phase="train")


@pytest.mark.parametrize(
    ("settings", "mean", "message"),
    [
        ({"crop": (9, 3)}, None, "smaller than the crop"),
        ({"crop": (3, 3), "crop_offset": (6, 6)}, None, "holds no crop"),
        ({"mean_file": "m"}, np.zeros((3, 9, 9), np.float32), "mean image is 9x9"),
    ],
    ids=["crop", "offset", "mean"],
)
def test_pictures_that_do_not_fit_are_refused(settings: dict[str, object], mean: np.ndarray, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        preprocess.make(Spec(dialect="transformer", **settings), mean)(np.zeros((8, 8, 3), np.uint8))  # type: ignore[arg-type]


def test_shape_is_the_means_where_nothing_else_says() -> None:
    spec = Spec(dialect="transformer", mean_file="m")
    assert preprocess.make(spec, np.zeros((3, 9, 7), np.float32)).shape == (3, 9, 7)


def test_shape_is_refused_where_every_picture_decides() -> None:
    with pytest.raises(UsageError, match="size of each picture"):
        _ = preprocess.make(Spec(dialect="transformer")).shape
