"""From a picture file to a net's input, in the arithmetic that the net was trained or evaluated with.

``read_image`` gives bytes, ``make(spec, mean)`` a callable that turns them into float planes, ``load_mean`` the mean
image. One module a dialect: matcaffe (the papers' MATLAB evaluation), transformer (Caffe's C++), pycaffe.

All of it may run in many threads at once: decoding, resizing and the arithmetic release the interpreter lock. OpenCV's
own threads then only get in the way; a program with workers of its own should call ``cv2.setNumThreads(1)``, which is
for the whole process and therefore not done here.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from caffe2torch.preprocess.image import decode, read_image
from caffe2torch.preprocess.matcaffe import Matcaffe
from caffe2torch.preprocess.mean import load_mean
from caffe2torch.preprocess.pycaffe import Pycaffe
from caffe2torch.preprocess.spec import DIALECTS, Spec
from caffe2torch.preprocess.transformer import Transformer

__all__ = ["DIALECTS", "Preprocess", "Spec", "decode", "load_mean", "make", "read_image"]


class Preprocess(Protocol):
    """A picture to the net's input; one object may be called from many threads at once."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every result."""

    def __call__(self, image: NDArray[np.uint8], out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """(H, W, 3) BGR or (H, W) grey, uint8 -> (C, H, W) float32, C-contiguous, into ``out`` when given."""


def make(spec: Spec, mean: NDArray[np.floating] | None = None) -> Preprocess:
    """The preprocessing that ``spec`` describes; ``mean`` is what `load_mean` gives for ``spec.mean_file``.

    Raises UsageError when the mean is missing, not asked for, or of another size than the Spec's.
    """
    if spec.dialect == "matcaffe":
        return Matcaffe(spec, mean)
    if spec.dialect == "pycaffe":
        return Pycaffe(spec, mean)
    return Transformer(spec, mean)
