"""Datum, the record of Caffe's databases: raw bytes, an encoded picture, or floats, and a label."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from caffe2torch import schema
from caffe2torch.errors import FormatError
from caffe2torch.preprocess import decode

Record = NDArray[Any]
"""(C, H, W), uint8 or float32; pictures in B, G, R order."""


def read_datum(value: bytes, where: str, *, grey: bool | None = None) -> tuple[Record, int]:
    """The record and its label.

    ``grey`` False decodes pictures to three channels and True to one (force_color, force_gray); None keeps the
    picture's own, alpha included, as Caffe's native decoding does. Raises FormatError for what is no Datum or has
    another size than it says, ImageError for a picture that cannot be decoded; both begin with ``where``.
    """
    datum = schema.new("Datum")
    try:
        datum.ParseFromString(value)
    except DecodeError as error:
        raise FormatError(f"{where}: {len(value)} bytes that are not a Datum; cut short or of another kind") from error
    label = int(datum.label)
    if datum.encoded:
        return to_record(_decode(datum.data, where, grey)), label
    shape = (datum.channels, datum.height, datum.width)
    size = "x".join(map(str, shape))
    if min(shape) < 1:
        raise FormatError(f"{where}: a Datum of {size} (channels x height x width), expected at least 1 of each")
    count = shape[0] * shape[1] * shape[2]
    found = len(datum.data) or len(datum.float_data)
    if found != count:
        kind = "bytes" if datum.data else "floats"
        raise FormatError(f"{where}: a Datum of {size} with {found} {kind} of data, expected {count}")
    if datum.data:
        return np.frombuffer(datum.data, np.uint8).reshape(shape), label
    return np.array(datum.float_data, np.float32).reshape(shape), label


def to_record(image: NDArray[np.uint8]) -> Record:
    """(H, W, C) or (H, W) -> (C, H, W), C-contiguous."""
    if image.ndim == 2:
        return image[None]
    record = np.empty((image.shape[2], *image.shape[:2]), np.uint8)
    cv2.split(image, list(record))  # several times faster than a transposing copy
    return record


def _decode(data: bytes, where: str, grey: bool | None) -> NDArray[np.uint8]:
    image = decode(data, where, grey=grey)
    if grey is None and data.startswith(b"\x89PNG") and data[25] & 4:  # colour type with alpha
        image = np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED), np.uint8)
    return image
