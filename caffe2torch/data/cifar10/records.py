"""The one form every source of CIFAR-10 is brought into, and the proof that it is the published one.

A record is a label byte and 3072 bytes of picture: 32x32 red, then green, then blue. The official "binary version"
stores its batches as just these bytes, so the published sha256 of its six files proves the contents of every form.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from caffe2torch.errors import FormatError

Records = NDArray[np.uint8]
"""(N, 3073)."""

BATCHES = ("batch1", "batch2", "batch3", "batch4", "batch5", "test")
SIZE = 10_000
RECORD = 1 + 3 * 32 * 32

_SHA256 = {  # of data_batch_1.bin to data_batch_5.bin and test_batch.bin in cifar-10-binary.tar.gz
    "batch1": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "batch2": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "batch3": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "batch4": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "batch5": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    "test": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
}


def file_stem(name: str) -> str:
    """What the official archives call a batch: data_batch_1 for batch1, test_batch for test."""
    return "test_batch" if name == "test" else f"data_batch_{name.removeprefix('batch')}"


def make_records(labels: NDArray[np.uint8], planes: NDArray[np.uint8], place: str) -> Records:
    """Put labels (N,) and planar pictures (N, 3072) together; FormatError for counts or labels that cannot be."""
    if labels.shape != (SIZE,) or planes.shape != (SIZE, RECORD - 1):
        raise FormatError(
            f"{place}: {len(labels)} labels and pictures of shape {planes.shape}, a batch of CIFAR-10 has "
            f"{SIZE} and ({SIZE}, {RECORD - 1})"
        )
    if labels.max() > 9:
        raise FormatError(f"{place}: a label is {labels.max()}, those of CIFAR-10 go from 0 to 9")
    records = np.empty((SIZE, RECORD), np.uint8)
    records[:, 0], records[:, 1:] = labels, planes
    return records


def prove(records: Records, name: str, source: Path) -> None:
    """Raise FormatError unless these are the published pictures and labels of batch ``name``."""
    found = hashlib.sha256(records.tobytes()).hexdigest()
    if found != _SHA256[name]:
        raise FormatError(
            f"{source}: the pictures and labels of {file_stem(name)} are not those of CIFAR-10 (sha256 of its records "
            f"{found}, published {_SHA256[name]}); the file is damaged or changed: get the official archive again"
        )
