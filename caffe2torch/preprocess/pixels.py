"""What every dialect asks of a picture, and the way from interleaved bytes to float planes."""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from caffe2torch.errors import ImageError
from caffe2torch.preprocess.scratch import scratch

Image = NDArray[np.uint8]
"""(H, W, 3) in B, G, R order, or (H, W) grey."""
Planes = NDArray[np.float32]
"""(C, H, W), C-contiguous."""


def checked(image: Image) -> Image:
    """The picture, C-contiguous; ImageError when it is not uint8 of shape (H, W) or (H, W, 3), or has no pixels."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        found = image.dtype if isinstance(image, np.ndarray) else type(image).__name__
        raise ImageError(f"picture: found {found}, expected a uint8 array")
    if image.ndim != 2 and (image.ndim != 3 or image.shape[2] != 3):
        raise ImageError(f"picture: found shape {image.shape}, expected (H, W, 3) in BGR order or (H, W) for grey")
    if image.size == 0:
        raise ImageError(f"picture: shape {image.shape} has no pixels")
    return np.ascontiguousarray(image)


def planes(image: Image, order: str = "bgr") -> Planes:
    """(H, W, 3) -> (3, H, W) in the order asked for, (H, W) -> (1, H, W); values stay 0..255.

    The result is scratch memory of this thread.
    """
    size = image.shape[:2]
    out = cast(Planes, scratch("planes", (3 if image.ndim == 3 else 1, *size)))
    if image.ndim == 2:
        out[0] = image
        return out
    # cv2.split is several times faster than a transposing copy.
    channels = list(scratch("channels", (3, *size), np.uint8))
    cv2.split(image, channels)
    for plane, channel in zip(out if order == "bgr" else out[::-1], channels, strict=True):
        plane[...] = channel
    return out


def destination(out: Planes | None, shape: tuple[int, int, int]) -> Planes:
    """``out`` after checking that it can take the result, or a new array."""
    if out is None:
        return np.empty(shape, np.float32)
    if out.shape != shape or out.dtype != np.float32:
        raise ImageError(f"picture: out is {out.dtype} {out.shape}, expected float32 {shape}")
    return out


def finish(values: NDArray[np.generic], mean: Planes | None, scale: float, out: Planes) -> Planes:
    """out = (values - mean) * scale in float32, as Caffe computes it; one channel spreads to all of ``out``."""
    if mean is None:
        out[...] = values
    else:
        np.subtract(values, mean, out=out)
    if scale != 1.0:
        np.multiply(out, np.float32(scale), out=out)
    return out
