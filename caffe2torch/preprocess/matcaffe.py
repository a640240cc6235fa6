"""The MATLAB evaluation code of both papers: float picture, antialiased bilinear resize, mean image, crop at 15.

In order: ``single(imread(f))``, ``imresize(im, [256 256], 'bilinear')``, grey repeated to three channels, RGB to BGR,
minus the mean image, rows and columns 16..242 (from 1). The C++ side of Caffe does none of the first two this way.
"""

from __future__ import annotations

import numpy as np

from caffe2torch.preprocess.mean import mean_planes
from caffe2torch.preprocess.pixels import Image, Planes, checked, destination, finish
from caffe2torch.preprocess.resize import Axis, resize_picture, triangle_taps
from caffe2torch.preprocess.spec import Spec, crop_place


def imresize(image: Image, size: tuple[int, int]) -> Planes:
    """``imresize(single(image), size, 'bilinear')``: (H, W[, 3]) -> (C, height, width) float32, in file order."""
    return _resize(checked(image), "bgr", size, (0, 0, *size)).copy()


class Matcaffe:
    """A picture to the net's input as the papers' MATLAB code makes it; thread-safe."""

    def __init__(self, spec: Spec, mean: np.ndarray | None) -> None:
        assert spec.resize is not None  # Spec sees to it
        self.spec = spec
        self._size = spec.resize
        self._place = top, left, height, width = crop_place(spec, spec.resize)
        self.shape = (spec.channels, height, width)
        whole = mean_planes(spec, mean, spec.resize)
        if whole is not None and whole.shape[1:] != (1, 1):
            whole = np.ascontiguousarray(whole[:, top : top + height, left : left + width])
        self._mean = whole

    def __call__(self, image: Image, out: Planes | None = None) -> Planes:
        """(H, W, 3) BGR or (H, W) grey, uint8 -> (3, height, width) float32 in the net's channel order.

        ``out`` takes the result when given (a slot of a batch). ImageError for anything but such a picture.
        """
        values = _resize(checked(image), self.spec.order, self._size, self._place)
        return finish(values, self._mean, self.spec.scale, destination(out, self.shape))


def _resize(image: Image, order: str, size: tuple[int, int], place: tuple[int, int, int, int]) -> Planes:
    """The pixels ``place`` (top, left, height, width) of the picture resized to ``size``, as planes."""
    top, left, height, width = place
    rows = Axis(triangle_taps, image.shape[0], size[0], top, height)
    columns = Axis(triangle_taps, image.shape[1], size[1], left, width)
    return resize_picture(image, order, rows, columns)
