"""Pictures as ImageData and WindowData layers read them from files: decoded as asked, then resized on bytes."""

from __future__ import annotations

import stat
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from caffe2torch.errors import ImageError
from caffe2torch.preprocess import decode
from caffe2torch.preprocess.image import MAX_BYTES

Image = NDArray[np.uint8]
"""(H, W, 3) in B, G, R order, or (H, W) grey."""


def read_bytes(path: Path) -> bytes:
    """The whole of a picture file; ImageError when it is none or cannot be read."""
    try:
        status = path.stat()  # before opening, which would wait for ever at a pipe
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(f"{path}: not an ordinary file, expected a picture")
        if status.st_size > MAX_BYTES:
            raise ImageError(f"{path}: {status.st_size} bytes, more than the {MAX_BYTES} a picture may have")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise ImageError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def read_picture(path: Path, *, grey: bool = False, size: tuple[int, int] | None = None) -> Image:
    """The picture in colour or ``grey``, whatever the file holds, resized to ``size`` (height, width).

    EXIF orientation is not applied, as in the OpenCV of Caffe's time.
    """
    image = decode(read_bytes(path), str(path), grey=grey)
    return image if size is None else resize(image, size)


def resize(image: Image, size: tuple[int, int]) -> Image:
    """Bilinear, on bytes, without antialias."""
    return np.asarray(cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_LINEAR), np.uint8)
