"""pycaffe's ``caffe.io``: load_image, resize_image and Transformer.preprocess, with Classifier's centre crop.

In order: RGB floats 0..1, resize (see `linear_taps`), centre crop, channels first, channel swap, ``raw_scale``, minus
mean, ``input_scale`` (our ``scale``). The resize is Caffe 1.0's with the scikit-image of its time: two neighbours and
no antialias; it works on values stretched to 0..1 between the picture's own extremes, and what lies beyond an edge
counts as 0 there, so borders of enlarged pictures darken towards the picture's minimum.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from caffe2torch.errors import UsageError
from caffe2torch.preprocess.mean import mean_planes
from caffe2torch.preprocess.pixels import Image, Planes, checked, destination, finish
from caffe2torch.preprocess.resize import Axis, linear_taps, resize_picture, resize_planes
from caffe2torch.preprocess.spec import Spec, crop_place

# scikit-image's rgb2gray, which load_image(color=False) uses; in B, G, R order.
_LUMA = np.array([0.0721, 0.7154, 0.2125], np.float32)


class Pycaffe:
    """A picture to the net's input as ``caffe.io.Transformer`` makes it; thread-safe."""

    def __init__(self, spec: Spec, mean: NDArray[np.floating] | None) -> None:
        assert spec.resize is not None  # Spec sees to it
        self.spec = spec
        self._size = spec.resize
        self._place = crop_place(spec, spec.resize)
        self.shape = (spec.channels, self._place[2], self._place[3])
        self._mean = mean_planes(spec, mean, None)
        if self._mean is not None and self._mean.shape[1:] not in ((1, 1), self.shape[1:]):
            raise UsageError(
                f"preprocessing: pycaffe subtracts the mean after cropping, so it must be {self.shape}, found "
                f"{self._mean.shape}; crop it, or use its mean_values"
            )

    def __call__(self, image: Image, out: Planes | None = None) -> Planes:
        """(H, W, 3) BGR or (H, W) grey, uint8 -> (C, height, width) float32 in the net's channel order."""
        image = checked(image)
        if self.spec.channels == 1 and image.ndim == 3:
            values = self._resized_luma(image)
        else:
            values = self._resized(image)
        raw_scale = 1.0 if self.spec.raw_scale is None else self.spec.raw_scale
        if raw_scale != 255.0:
            values = values * np.float32(raw_scale / 255)
        return finish(values, self._mean, self.spec.scale, destination(out, self.shape))

    def _axes(self, image: Image) -> tuple[Axis, Axis]:
        top, left, height, width = self._place
        rows = Axis(linear_taps, image.shape[0], self._size[0], top, height)
        return rows, Axis(linear_taps, image.shape[1], self._size[1], left, width)

    def _resized(self, image: Image) -> Planes:
        """resize_image and the crop, on grey levels 0..255; what lies beyond an edge counts as the darkest of all."""
        rows, columns = self._axes(image)
        if rows.identity and columns.identity:
            return resize_picture(image, self.spec.order, rows, columns)
        darkest = float(image.min())
        resized = resize_picture(image, self.spec.order, rows, columns, floor=darkest)
        resized += np.float32(darkest)
        return resized

    def _resized_luma(self, image: Image) -> Planes:
        """The same for a colour picture and a grey net, which pycaffe turns to grey before resizing."""
        rows, columns = self._axes(image)
        luma = np.asarray(image @ _LUMA, np.float32)[None]
        darkest = luma.min()
        needed = luma[:, rows.start : rows.stop, columns.start : columns.stop] - darkest
        resized = resize_planes(needed, rows, columns)
        resized += darkest
        return resized
