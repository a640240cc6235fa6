"""The other rules of resizing, each against another hand's."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from caffe2torch.release.resizing import RULES
from preprocess import naive

SIZES = [((32, 32), (256, 256)), ((48, 64), (32, 40)), ((20, 20), (20, 20))]


def picture(shape: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)


def by_torch(image: np.ndarray, size: tuple[int, int], **options: object) -> np.ndarray:
    tensor = torch.from_numpy(image.transpose(2, 0, 1)[None].astype(np.float64))
    return torch.nn.functional.interpolate(tensor, size, **options)[0].numpy()  # type: ignore[arg-type]


@pytest.mark.parametrize(("shape", "size"), SIZES, ids=["larger", "smaller", "same"])
def test_rules_equal_another_implementation(shape: tuple[int, int], size: tuple[int, int]) -> None:
    image = picture(shape)
    expected = {
        "matlab": naive.imresize(image, size).transpose(2, 0, 1),
        "plain": by_torch(image, size, mode="bilinear", align_corners=False),
        "corners": by_torch(image, size, mode="bilinear", align_corners=True),
        "rounded": np.floor(naive.imresize(image, size).transpose(2, 0, 1) + 0.5),
        "pycaffe": naive.skimage_resize(image, size).transpose(2, 0, 1),
        "bytes": cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR).transpose(2, 0, 1),
    }
    for name, values in expected.items():
        found = RULES[name].resize(image, "bgr", size)
        assert found.dtype == np.float32
        off = np.abs(found - values)
        if name == "rounded":  # values that lie at one half to seven digits
            assert np.mean(off > 0) < 1e-2
            assert off.max() <= 1
        else:
            assert off.max() < 2e-3, name


def test_matlabs_bicubic_where_it_shrinks_is_antialiased() -> None:
    image = picture((64, 64))
    found = RULES["matlab cubic"].resize(image, "bgr", (16, 16))
    # torch's antialiased bicubic has the same kernel (a = -0.5); edges are treated otherwise
    expected = by_torch(image, (16, 16), mode="bicubic", antialias=True)
    np.testing.assert_allclose(found[:, 2:-2, 2:-2], expected[:, 2:-2, 2:-2], atol=2e-3)


def test_channels_come_in_the_order_asked_for() -> None:
    image = picture((8, 8))
    for rule in RULES.values():
        there, back = (rule.resize(image, order, (12, 12)) for order in ("bgr", "rgb"))
        np.testing.assert_array_equal(there[::-1], back)
