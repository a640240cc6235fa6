"""pycaffe's Transformer against the naive definition of its scikit-image resize."""

from __future__ import annotations

import numpy as np
import pytest

from caffe2torch import preprocess
from caffe2torch.errors import UsageError
from caffe2torch.preprocess import Spec

from . import naive


def picture(height: int, width: int, channels: int = 3) -> np.ndarray:
    shape = (height, width, channels) if channels == 3 else (height, width)
    return np.random.default_rng(height * width).integers(30, 220, shape, dtype=np.uint8)


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((40, 60), (20, 20)),
        ((9, 7), (20, 20)),
        ((50, 6), (20, 20)),
        ((1, 1), (5, 5)),
        ((1, 30), (8, 8)),
        ((20, 20), (20, 20)),
    ],
    ids=str,
)
@pytest.mark.parametrize("channels", [1, 3], ids=["grey", "colour"])
def test_resize_follows_the_definition(shape: tuple[int, int], size: tuple[int, int], channels: int) -> None:
    image = picture(*shape, channels)
    made = preprocess.make(Spec(dialect="pycaffe", resize=size, raw_scale=255.0))(image)
    expected = naive.skimage_resize(image.reshape(*shape, -1), size).transpose(2, 0, 1)
    assert np.abs(made - expected).max() < 1e-3


def test_values_stay_in_0_to_1_without_raw_scale() -> None:
    image = picture(6, 5)
    made = preprocess.make(Spec(dialect="pycaffe", resize=(6, 5)))(image)
    assert np.abs(made - image.transpose(2, 0, 1) / 255).max() < 1e-7


def test_mean_comes_after_raw_scale_and_scale_after_mean() -> None:
    image = picture(6, 5)
    spec = Spec(dialect="pycaffe", resize=(6, 5), raw_scale=255.0, mean_values=(104, 117, 123), scale=0.017)
    expected = (image - np.array([104.0, 117.0, 123.0])) * 0.017
    assert np.abs(preprocess.make(spec)(image) - expected.transpose(2, 0, 1)).max() < 1e-6


def test_centre_crop_lies_where_classifier_puts_it() -> None:
    image = picture(256, 256)
    made = preprocess.make(Spec(dialect="pycaffe", resize=(256, 256), crop=(227, 227), raw_scale=255.0))(image)
    assert np.array_equal(made, image[14:241, 14:241].transpose(2, 0, 1))


def test_cropping_first_changes_nothing() -> None:
    image = picture(31, 90)
    whole = preprocess.make(Spec(dialect="pycaffe", resize=(64, 64), raw_scale=255.0))(image)
    cropped = preprocess.make(Spec(dialect="pycaffe", resize=(64, 64), crop=(50, 41), raw_scale=255.0))(image)
    assert np.abs(cropped - whole[:, 7:57, 11:52]).max() < 1e-4


def test_grey_net_gets_scikit_images_luma() -> None:
    image = picture(6, 5)
    made = preprocess.make(Spec(dialect="pycaffe", channels=1, resize=(6, 5)))(image)
    blue, green, red = image.transpose(2, 0, 1) / 255
    assert np.abs(made[0] - (0.2125 * red + 0.7154 * green + 0.0721 * blue)).max() < 1e-6


@pytest.mark.parametrize("shape", [(40, 60), (9, 7)], ids=["shrink", "enlarge"])
def test_grey_net_resizes_the_luma(shape: tuple[int, int]) -> None:
    image = picture(*shape)
    made = preprocess.make(Spec(dialect="pycaffe", channels=1, resize=(20, 20), raw_scale=255.0))(image)
    luma = image @ np.array([0.0721, 0.7154, 0.2125])
    assert np.abs(made[0] - naive.skimage_resize(luma, (20, 20))).max() < 1e-3


def test_rgb_order() -> None:
    image = picture(6, 5)
    made = preprocess.make(Spec(dialect="pycaffe", resize=(6, 5), order="rgb", raw_scale=255.0))(image)
    assert np.array_equal(made, image[:, :, ::-1].transpose(2, 0, 1))


def test_mean_image_must_have_the_nets_size() -> None:
    spec = Spec(dialect="pycaffe", resize=(8, 8), crop=(6, 6), mean_file="m")
    with pytest.raises(UsageError, match="after cropping"):
        preprocess.make(spec, np.zeros((3, 8, 8), np.float32))
    assert preprocess.make(spec, np.zeros((3, 6, 6), np.float32)).shape == (3, 6, 6)
