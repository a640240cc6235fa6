"""Caffe's ``.binaryproto`` form: a lone BlobProto, such as a mean image, (1, channels, height, width) and BGR."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from caffe2torch.blobs import Array, check_shape
from caffe2torch.caffemodel.blobproto import find_blob
from caffe2torch.caffemodel.mapped import MappedFile
from caffe2torch.caffemodel.recognise import what_it_is
from caffe2torch.caffemodel.write import encode_blob
from caffe2torch.errors import FormatError, WeightsError
from caffe2torch.files import atomic_path


def read_mean(path: str | os.PathLike[str]) -> Array:
    """The mean image as float32 (C, H, W), from a num/channels/height/width or a ``shape`` header.

    Raises FormatError for a file that is damaged or holds something else than one image.
    """
    values = read_blob(path, "mean image")
    shape = values.shape[1:] if values.ndim == 4 and values.shape[0] == 1 else values.shape
    if len(shape) != 3 or not values.size:
        raise FormatError(f"{path}: holds a blob of shape {values.shape}, expected one image (1, C, H, W)")
    return values.reshape(shape)


def read_blob(path: str | os.PathLike[str], what: str = "blob") -> Array:
    """The blob as float32, of whatever shape; ``what`` names it in the FormatError for a damaged file."""
    file = MappedFile(Path(path))
    try:
        return find_blob(file, 0, file.size).read()
    except FormatError as error:
        other = what_it_is(file.view, what)
        raise FormatError(f"{path}: {other or f'{error}; the file is damaged or not a {what}'}") from error
    finally:
        file.close()


def write_mean(path: str | os.PathLike[str], mean: Array, *, legacy: bool = True) -> None:
    """Write a (C, H, W) image as float32, with the header Caffe's compute_image_mean writes (``legacy``) or ``shape``.

    Raises OutputError where the file cannot be written.
    """
    array = np.asarray(mean)
    if array.ndim != 3 or not array.size or array.dtype.kind not in "fiu":
        raise WeightsError(f"{path}: a mean image of {array.dtype} {array.shape}, expected numbers of shape (C, H, W)")
    check_shape(array.shape)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        for part in encode_blob(array.astype("<f4", order="C")[None], legacy=legacy):
            file.write(part)
