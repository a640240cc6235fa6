"""Caffe's C++ DataTransformer, and the resize that ImageData layers and convert_imageset do before it.

``(pixel - mean) * scale`` in float32. Crops lie at floor((size - crop) / 2) in the test phase and anywhere in training;
a mean image has the size of the uncropped picture and is cropped at the same place.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from caffe2torch.errors import ImageError, UsageError
from caffe2torch.preprocess.mean import mean_planes
from caffe2torch.preprocess.pixels import Image, Planes, checked, destination, finish, planes
from caffe2torch.preprocess.spec import Spec, crop_place


class Transformer:
    """Pictures or (C, H, W) records to the net's input as Caffe's data layers make them; thread-safe.

    A call is the test phase and never flips. (Caffe flips at random in the test phase too when ``mirror`` is set;
    `transform` with a generator and ``phase="test"`` does that.)
    """

    def __init__(self, spec: Spec, mean: NDArray[np.floating] | None) -> None:
        self.spec = spec
        self._mean = mean_planes(spec, mean, spec.resize)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the result; UsageError when nothing but the pictures decides it."""
        size = self.spec.crop or self.spec.resize
        if size is None and self._mean is not None and self._mean.shape[1:] != (1, 1):
            size = (self._mean.shape[1], self._mean.shape[2])
        if size is None:
            raise UsageError("preprocessing: without resize or crop the result has the size of each picture")
        return (self.spec.channels, *size)

    def __call__(self, image: Image, out: Planes | None = None) -> Planes:
        """(H, W, 3) BGR or (H, W) grey, uint8 -> (C, height, width) float32, the test phase.

        Resizes on bytes without antialias when the Spec says so, and turns grey into colour or colour into grey as the
        net's channels ask (OpenCV's luma). ImageError when the crop or the mean does not fit the picture.
        """
        return self.transform(self._record(checked(image)), out=out)

    def train(self, image: Image, rng: np.random.Generator, out: Planes | None = None) -> Planes:
        """As a call, with a random crop and, when the Spec says mirror, a random flip."""
        return self.transform(self._record(checked(image)), rng=rng, phase="train", out=out)

    def transform(
        self,
        record: NDArray[np.generic],
        *,
        rng: np.random.Generator | None = None,
        phase: str = "test",
        out: Planes | None = None,
    ) -> Planes:
        """A (C, H, W) record of bytes or floats -> (C, height, width) float32: crop, mean, scale, flip.

        Caffe's random numbers are not reproduced, only their distribution. Raises ImageError when the crop or the mean
        does not fit the record, UsageError for training without a generator.
        """
        size = (record.shape[1], record.shape[2])
        crop = self.spec.crop or size
        if crop[0] > size[0] or crop[1] > size[1]:
            raise ImageError(
                f"picture: {size[0]}x{size[1]} (height x width) is smaller than the crop {crop[0]}x{crop[1]}"
            )
        mean = self._mean
        if mean is not None and mean.shape[1:] not in ((1, 1), size):
            raise ImageError(
                f"picture: {size[0]}x{size[1]} (height x width), but the mean image is {mean.shape[1]}x{mean.shape[2]};"
                " resize pictures to the mean's size"
            )
        if mean is not None and mean.shape[0] != record.shape[0]:
            raise ImageError(f"picture: {record.shape[0]} channels, but the mean has {mean.shape[0]}")
        top, left, height, width = self._place(size, rng if phase == "train" else None, phase)
        window = (slice(None), slice(top, top + height), slice(left, left + width))
        if mean is not None and mean.shape[1:] != (1, 1):
            mean = mean[window]
        result = destination(out, (record.shape[0], height, width))
        finish(record[window], mean, self.spec.scale, result)
        if self.spec.mirror and rng is not None and rng.integers(2):
            result[...] = result[:, :, ::-1].copy()
        return result

    def _place(self, size: tuple[int, int], rng: np.random.Generator | None, phase: str) -> tuple[int, int, int, int]:
        top, left, height, width = crop_place(self.spec, size)
        if top + height > size[0] or left + width > size[1]:
            raise ImageError(
                f"picture: {size[0]}x{size[1]} (height x width) holds no crop {height}x{width} at ({top}, {left})"
            )
        if phase == "test" or self.spec.crop is None:
            return top, left, height, width
        if rng is None:
            raise UsageError("preprocessing: training draws its crops and needs a random generator")
        return int(rng.integers(size[0] - height + 1)), int(rng.integers(size[1] - width + 1)), height, width

    def _record(self, image: Image) -> Planes:
        """The picture as planes with the net's channels, resized on bytes as cv::resize does."""
        if self.spec.channels == 1 and image.ndim == 3:
            image = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), np.uint8)
        if self.spec.resize is not None and image.shape[:2] != self.spec.resize:
            height, width = self.spec.resize
            image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
        values = planes(image, self.spec.order)
        return np.broadcast_to(values, (self.spec.channels, *values.shape[1:]))
