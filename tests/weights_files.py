"""Weights files for the tests, built with protobuf or by hand, and what protobuf and Caffe's rules read from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from caffe2torch import schema, wire

Message = Any


def field(number: int, payload: bytes) -> bytes:
    """A length-delimited field."""
    return wire.length_prefix(number, len(payload)) + payload


def shape(*dims: int) -> bytes:
    """The ``shape`` field of a BlobProto."""
    return field(7, field(1, b"".join(map(wire.varint, dims))))


def floats(*values: float) -> bytes:
    """The packed ``data`` field of a BlobProto."""
    return field(5, np.array(values, "<f4").tobytes())


def unpacked(*values: float) -> bytes:
    """The ``data`` field of a BlobProto, one tag for each value."""
    return b"".join(b"\x2d" + np.float32(value).astype("<f4").tobytes() for value in values)


def doubles(*values: float) -> bytes:
    """The packed ``double_data`` field of a BlobProto."""
    return field(8, np.array(values, "<f8").tobytes())


def raw(kind: int, dtype: str, *values: float) -> bytes:
    """NVIDIA's ``raw_data_type`` and ``raw_data`` fields of a BlobProto."""
    return b"\x50" + wire.varint(kind) + field(12, np.array(values, dtype).tobytes())


def net_of(*blobs: bytes) -> bytes:
    """A V2 net of one InnerProduct layer ``f`` with these blobs."""
    return field(1, b"net") + field(
        100, field(1, b"f") + field(2, b"InnerProduct") + b"".join(field(7, b) for b in blobs)
    )


def parsed(data: bytes) -> Message:
    """What protobuf makes of a caffemodel."""
    net = schema.new("NetParameter")
    net.ParseFromString(data)
    return net


def layers_of(net: Message) -> list[tuple[str, list[np.ndarray]]]:
    """Names and blobs by the rules of Caffe's Blob::FromProto, from protobuf's own parse."""
    result = []
    for layer in net.layer or net.layers:
        inner = layer.layer if not net.layer and layer.HasField("layer") else layer
        result.append((inner.name, [_values(blob) for blob in inner.blobs]))
    return result


def _values(blob: Message) -> np.ndarray:
    legacy = any(blob.HasField(name) for name in ("num", "channels", "height", "width"))
    dims = (blob.num, blob.channels, blob.height, blob.width) if legacy else tuple(blob.shape.dim)
    if blob.double_data:
        values = np.array(blob.double_data, np.float64)
    elif blob.data or not blob.raw_data:
        values = np.array(blob.data, np.float32)
    else:
        values = np.frombuffer(blob.raw_data, {0: "<f8", 1: "<f4", 2: "<f2"}[blob.raw_data_type])
    with np.errstate(over="ignore"):
        return values.astype(np.float32).reshape(dims)


def golden_files(reference: Path, suffix: str = ".caffemodel") -> list[Path]:
    """Every weights file in the reference material."""
    files = [*(reference / "goldens").glob(f"*/*/*{suffix}"), *(reference / "models").glob(f"**/*{suffix}")]
    return sorted(files)
