"""CIFAR-10 as lossless pictures: 120 WebP strips of 500 images, one above the other, and one file of labels."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

import numpy as np

from caffe2torch.data.cifar10.records import BATCHES, RECORD, SIZE, Records, make_records
from caffe2torch.errors import FormatError, ImageError
from caffe2torch.preprocess import decode

STRIP = 500
_EACH = SIZE // STRIP
_COUNT = len(BATCHES) * _EACH
LABELS = "labels.bin"
MEMBERS = (*(f"{number:03d}.webp" for number in range(_COUNT)), LABELS)


def read_strips(read: Callable[[str], bytes], place: str, names: Collection[str]) -> Iterator[tuple[str, Records]]:
    """The batches called ``names``; ``read`` gives the bytes of a member, ``place`` is for messages."""
    data = read(LABELS)
    if len(data) != len(BATCHES) * SIZE:
        raise FormatError(f"{place}: {LABELS} has {len(data):,} bytes, expected a label for each of 60,000 pictures")
    labels = np.frombuffer(data, np.uint8).reshape(len(BATCHES), SIZE)
    for position, name in enumerate(BATCHES):
        if name in names:
            planes = np.empty((SIZE, RECORD - 1), np.uint8)
            for index in range(_EACH):
                member = MEMBERS[position * _EACH + index]
                planes[index * STRIP : (index + 1) * STRIP] = _planes(read(member), f"{place}: {member}")
            yield name, make_records(labels[position], planes, place)


def _planes(data: bytes, place: str) -> Records:
    """A strip as planar pictures (500, 3072)."""
    try:
        strip = decode(data, place, grey=False)
    except ImageError as error:
        raise FormatError(str(error)) from error
    if strip.shape != (STRIP * 32, 32, 3):
        raise FormatError(f"{place}: {strip.shape[1]}x{strip.shape[0]} pixels, a strip of 500 pictures has 32x16000")
    rgb = strip.reshape(STRIP, 32, 32, 3)[..., ::-1]
    return np.ascontiguousarray(rgb.transpose(0, 3, 1, 2)).reshape(STRIP, RECORD - 1)
