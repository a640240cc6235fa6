"""Data layers from prototxt text, and the databases they read, written with the packages that own the formats."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from caffe2torch import prototxt, schema
from caffe2torch.data import Feed, open_feed
from caffe2torch.graph import build_graph

Image = NDArray[np.uint8]


def feed(text: str, folder: Path, *, phase: str = "test", seed: int = 0, arrays: Any = None) -> Feed:
    """The feed of a net in prototxt text."""
    net = prototxt.parse(text)
    return open_feed(build_graph(net, phase=phase), folder, arrays=arrays, seed=seed)


def datum(**fields: Any) -> bytes:
    """A serialised Datum; ``data`` may be an array (C, H, W) of bytes, which also gives the sizes."""
    message = schema.new("Datum")
    array = fields.get("data")
    if isinstance(array, np.ndarray):
        sizes = dict(zip(("channels", "height", "width"), map(int, array.shape), strict=True))
        fields = {**sizes, **fields, "data": array.astype(np.uint8).tobytes()}
    for name, value in fields.items():
        if name == "float_data":
            message.float_data.extend(np.asarray(value).ravel().tolist())
        else:
            setattr(message, name, value)
    return message.SerializeToString()


def png(image: Image) -> bytes:
    """A picture, encoded without loss."""
    return cv2.imencode(".png", image)[1].tobytes()


def write_lmdb(folder: Path, records: Mapping[str, bytes]) -> Path:
    """An LMDB database as Caffe's tools lay it out."""
    lmdb = pytest.importorskip("lmdb")
    with lmdb.open(str(folder), map_size=1 << 26) as environment, environment.begin(write=True) as transaction:
        for key, value in records.items():
            transaction.put(key.encode(), value)
    return folder


def images(count: int, shape: tuple[int, ...] = (3, 5, 4), seed: int = 0) -> list[Image]:
    """Random pictures (C, H, W)."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, shape).astype(np.uint8) for _ in range(count)]
