"""The papers' MATLAB evaluation against the naive definition, torch's antialiased resize and the released means."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch

from caffe2torch import preprocess
from caffe2torch.errors import ImageError, UsageError
from caffe2torch.preprocess import Spec, resize
from caffe2torch.preprocess.matcaffe import imresize

from . import naive

# Within 1e-3 grey levels: float32 weights and sums against float64.
GREY_LEVELS = 1e-3


def picture(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Noise: the hardest picture for a resize, every neighbour differs."""
    shape = (height, width, channels) if channels == 3 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((375, 500), (256, 256)),
        ((32, 32), (256, 256)),
        ((100, 300), (256, 256)),
        ((300, 100), (256, 256)),
        ((257, 255), (256, 256)),
        ((256, 400), (256, 256)),
        ((256, 256), (256, 256)),
        ((1, 1), (256, 256)),
        ((1, 777), (64, 64)),
        ((777, 1), (64, 64)),
        ((2, 5000), (40, 40)),
        ((5000, 3), (40, 40)),
        ((48, 64), (32, 32)),
        ((97, 61), (1, 1)),
    ],
    ids=lambda pair: f"{pair[0]}x{pair[1]}",
)
@pytest.mark.parametrize("channels", [1, 3], ids=["grey", "colour"])
def test_imresize_follows_the_definition(shape: tuple[int, int], size: tuple[int, int], channels: int) -> None:
    image = picture(*shape, channels)
    expected = naive.imresize(image, size).reshape(*size, -1).transpose(2, 0, 1)
    assert np.abs(imresize(image, size) - expected).max() < GREY_LEVELS


def test_same_size_changes_no_pixel() -> None:
    image = picture(32, 32)
    assert np.array_equal(imresize(image, (32, 32)), image.transpose(2, 0, 1))


@pytest.mark.parametrize("shape", [(375, 500), (640, 480), (32, 32), (40, 900)], ids=str)
def test_crop_of_256_agrees_with_torch_antialias(shape: tuple[int, int]) -> None:
    """torch cuts the kernel at the picture's edge instead of mirroring, which the crop at 15 does not reach."""
    image = picture(*shape)
    made = preprocess.make(Spec(dialect="matcaffe", resize=(256, 256), crop=(227, 227)))(image)
    planes = torch.from_numpy(image).permute(2, 0, 1)[None].double()
    whole = torch.nn.functional.interpolate(planes, (256, 256), mode="bilinear", antialias=True)[0].numpy()
    assert np.abs(made - whole[:, 15:242, 15:242]).max() < 1e-4


@pytest.mark.parametrize("channels", [1, 3], ids=["grey", "colour"])
@pytest.mark.parametrize("shape", [(50, 70), (20, 11)], ids=["shrink", "enlarge"])
def test_mean_and_crop_follow_the_definition(shape: tuple[int, int], channels: int) -> None:
    image = picture(*shape, channels)
    mean = np.random.default_rng(1).uniform(0, 255, (3, 30, 30)).astype(np.float32)
    made = preprocess.make(Spec(dialect="matcaffe", resize=(30, 30), crop=(23, 23), mean_file="m"), mean)(image)
    expected = naive.matcaffe(image, mean.transpose(1, 2, 0), 30, 23)
    assert made.shape == (3, 23, 23)
    assert np.abs(made - expected).max() < GREY_LEVELS


@pytest.mark.parametrize(("crop", "offset"), [(227, 15), (224, 16), (255, 1), (256, 0)])
def test_matlab_crop_lies_half_a_pixel_further_than_caffes(crop: int, offset: int) -> None:
    image = picture(256, 256)
    made = preprocess.make(Spec(dialect="matcaffe", resize=(256, 256), crop=(crop, crop)))(image)
    expected = image[offset : offset + crop, offset : offset + crop].transpose(2, 0, 1)
    assert np.array_equal(made, expected)


def test_crop_offset_of_the_spec_wins() -> None:
    image = picture(256, 256)
    spec = Spec(dialect="matcaffe", resize=(256, 256), crop=(10, 20), crop_offset=(3, 200))
    assert np.array_equal(preprocess.make(spec)(image), image[3:13, 200:220].transpose(2, 0, 1))


def test_ssdh_subtracts_its_mean_file_as_it_lies(reference: Path) -> None:
    """SSDH's MATLAB code subtracts mean_data, which is [W, H, C], from a picture in [H, W, C]."""
    path = reference / "published/means/ssdh-ilsvrc_2012_mean.mat"
    image = picture(256, 256)
    expected = image.astype(np.float32) - scipy.io.loadmat(path)["mean_data"]
    spec = Spec(dialect="matcaffe", resize=(256, 256), crop=(227, 227), mean_file="m", mean_layout="whc")
    made = preprocess.make(spec, preprocess.load_mean(path))(image)
    assert np.array_equal(made, expected[15:242, 15:242].transpose(2, 0, 1))


def test_ssdh_mean_can_be_subtracted_upright(reference: Path) -> None:
    means = reference / "published/means"
    image = picture(256, 256)
    spec = Spec(dialect="matcaffe", resize=(256, 256), mean_file="m")
    made = preprocess.make(spec, preprocess.load_mean(means / "ssdh-ilsvrc_2012_mean.mat"))(image)
    usual = np.load(means / "ilsvrc_2012_mean.npy")
    assert np.abs(made - (image.transpose(2, 0, 1) - usual)).max() < 1e-4


def test_kevinnet_subtracts_its_mean_upright(reference: Path) -> None:
    path = reference / "published/means/kevinnet-ilsvrc_2012_mean.mat"
    image = picture(256, 256)
    expected = image.astype(np.float32) - scipy.io.loadmat(path)["image_mean"]
    made = preprocess.make(
        Spec(dialect="matcaffe", resize=(256, 256), crop=(227, 227), mean_file="m"), preprocess.load_mean(path)
    )(image)
    assert np.array_equal(made, expected[15:242, 15:242].transpose(2, 0, 1))


def test_small_model_input_is_the_pixel_minus_mean_over_62() -> None:
    image = picture(32, 32)
    spec = Spec(dialect="matcaffe", resize=(32, 32), mean_values=(113.9, 123.0, 125.3), scale=1 / 62)
    expected = (image.astype(np.float64) - np.array([113.9, 123.0, 125.3])) / 62
    assert np.abs(preprocess.make(spec)(image) - expected.transpose(2, 0, 1)).max() < 3e-7


def test_rgb_order_swaps_channels() -> None:
    image = picture(8, 8)
    made = preprocess.make(Spec(dialect="matcaffe", resize=(8, 8), order="rgb", mean_values=(1, 2, 3)))(image)
    assert np.array_equal(made, image[:, :, ::-1].transpose(2, 0, 1) - np.array([[[1]], [[2]], [[3]]]))


def test_result_goes_into_the_slot_of_a_batch() -> None:
    spec = Spec(dialect="matcaffe", resize=(20, 20), crop=(15, 15))
    make = preprocess.make(spec)
    batch = np.full((2, *make.shape), np.nan, np.float32)
    make(picture(33, 17), out=batch[1])
    assert np.isnan(batch[0]).all()
    assert np.array_equal(batch[1], make(picture(33, 17)))


def test_results_do_not_share_memory() -> None:
    make = preprocess.make(Spec(dialect="matcaffe", resize=(20, 20)))
    first = make(picture(33, 17))
    kept = first.copy()
    make(picture(33, 17, seed=1))
    assert first.flags.c_contiguous
    assert np.array_equal(first, kept)


def test_threads_share_one_object() -> None:
    make = preprocess.make(Spec(dialect="matcaffe", resize=(64, 64), crop=(50, 50), mean_values=(104, 117, 123)))
    pictures = [picture(40 + 7 * k, 90 - 5 * k, 3 if k % 3 else 1, seed=k) for k in range(12)]
    expected = [make(image) for image in pictures]
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(make, pictures * 5))
    assert all(np.array_equal(got, expected[k % 12]) for k, got in enumerate(made))


@pytest.mark.parametrize("dialect", ["matcaffe", "pycaffe"])
@pytest.mark.parametrize("channels", [1, 3], ids=["grey", "colour"])
@pytest.mark.parametrize("shape", [(300, 40), (40, 300), (20, 20)], ids=str)
def test_large_pictures_go_in_strips(
    shape: tuple[int, int], channels: int, dialect: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = preprocess.make(Spec(dialect=dialect, resize=(50, 20), crop=(31, 17)))
    image = picture(*shape, channels) // 2 + 60
    whole = make(image)
    monkeypatch.setattr(resize, "_STRIP", 1000)
    assert np.abs(make(image) - whole).max() < 1e-4


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((5, 5, 3), np.float32),
        np.zeros((5, 5, 4), np.uint8),
        np.zeros((0, 5, 3), np.uint8),
        np.zeros((5, 0), np.uint8),
        np.zeros(5, np.uint8),
        [[1, 2], [3, 4]],
    ],
    ids=["float", "four channels", "no rows", "no columns", "one axis", "list"],
)
def test_what_is_not_a_picture_is_refused(image: np.ndarray) -> None:
    with pytest.raises(ImageError, match="picture"):
        preprocess.make(Spec(dialect="matcaffe", resize=(8, 8)))(image)


def test_out_of_another_shape_is_refused() -> None:
    with pytest.raises(ImageError, match="expected float32"):
        preprocess.make(Spec(dialect="matcaffe", resize=(8, 8)))(picture(8, 8), out=np.zeros((3, 9, 8), np.float32))


@pytest.mark.parametrize(
    ("spec", "mean", "message"),
    [
        (Spec(dialect="matcaffe", resize=(8, 8), mean_file="m.mat"), None, "m.mat is needed"),
        (Spec(dialect="matcaffe", resize=(8, 8)), np.zeros((3, 8, 8)), "names no mean_file"),
        (Spec(dialect="matcaffe", resize=(8, 8), mean_file="m"), np.zeros((3, 9, 8)), "9x8"),
        (Spec(dialect="matcaffe", resize=(8, 8), mean_file="m"), np.zeros((1, 8, 8)), "shape"),
        (Spec(dialect="matcaffe", resize=(8, 9), mean_file="m", mean_layout="whc"), np.zeros((3, 8, 9)), "9x8"),
    ],
    ids=["missing", "unasked", "size", "channels", "transposed"],
)
def test_mean_must_belong_to_the_spec(spec: Spec, mean: np.ndarray | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        preprocess.make(spec, mean)
