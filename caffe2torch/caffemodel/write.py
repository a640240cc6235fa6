"""Writing ``.caffemodel`` files that Caffe reads: streaming, one blob at a time, and all or nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from caffe2torch import schema, wire
from caffe2torch.blobs import Array, float_arrays, stored_dtype
from caffe2torch.caffemodel.blobproto import DATA, DOUBLE_DATA, SHAPE
from caffe2torch.caffemodel.downgrade import downgrade_net
from caffe2torch.errors import OutputError, WeightsError
from caffe2torch.files import atomic_path

_PROTOBUF_LIMIT = (1 << 31) - 1  # bytes protobuf reads at most: of a file, and of any message in it
_NET_LAYER = {"V1": 2, "V2": 100}  # field numbers in NetParameter
_LAYER_BLOBS = {"V1": 6, "V2": 7}  # and in the layer messages


@dataclass(frozen=True)
class _Layer:
    """An encoded layer: settings before and after the blobs, and for each blob its encoding around the numbers."""

    before: bytes
    blobs: tuple[tuple[bytes, Array, bytes], ...]
    after: bytes

    @property
    def size(self) -> int:
        blobs = sum(len(head) + x.size * stored_dtype(x).itemsize + len(tail) for head, x, tail in self.blobs)
        return len(self.before) + blobs + len(self.after)


def write_caffemodel(
    path: str | os.PathLike[str],
    net: schema.Message,
    weights: Mapping[str, Sequence[Array]],
    *,
    syntax: Literal["V1", "V2"] = "V2",
    allow_large: bool = False,
) -> None:
    """Write the layers of ``net``, a NetParameter in V2 form, each with its arrays from ``weights`` (name -> arrays).

    Fields come in the order in which Caffe writes them, so a file of Caffe's, read and written again with its own
    settings, is the same to the byte. float64 arrays become ``double_data``. ``syntax="V1"`` writes the old ``layers``
    with four-axis blob headers; ``net`` may be in V1 form then as well. Layers of one name each get the same arrays.

    Raises WeightsError for weights of a layer the net lacks or that the syntax cannot hold, and OutputError where the
    file cannot be written or would pass 2 GB, which Caffe cannot read (``allow_large`` permits such a file).
    """
    if syntax not in _NET_LAYER:
        raise ValueError(f"syntax {syntax!r}, expected 'V1' or 'V2'")
    if syntax == "V1":
        net = downgrade_net(net)
    elif net.layers:
        raise WeightsError(f"{path}: the net is in the old `layers` syntax; upgrade it first, or write syntax V1")
    layers = net.layers if syntax == "V1" else net.layer
    arrays = float_arrays(layers, weights)
    encoded = [_encode_layer(layer, arrays.get(layer.name, []), syntax) for layer in layers]
    before, after = _split(_settings(net, syntax), _NET_LAYER[syntax])
    total = len(before) + len(after) + sum(10 + layer.size for layer in encoded)
    if total > _PROTOBUF_LIMIT and not allow_large:
        raise OutputError(f"{path}: would have {total} bytes; Caffe reads at most 2 GB, use .caffemodel.h5")
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(before)
        for layer in encoded:
            file.write(wire.length_prefix(_NET_LAYER[syntax], layer.size) + layer.before)
            for head, array, tail in layer.blobs:
                file.write(head)
                file.write(_bytes(array))
                file.write(tail)
            file.write(layer.after)
        file.write(after)


def _settings(net: schema.Message, syntax: str) -> bytes:
    """The net without its layers."""
    rest = type(net)()  # its class may be of a schema with a fork's additions
    rest.CopyFrom(net)
    rest.ClearField("layers" if syntax == "V1" else "layer")
    encoded: bytes = rest.SerializeToString(deterministic=True)
    return encoded


def _split(message: bytes, number: int) -> tuple[bytes, bytes]:
    """The fields below and above ``number``, each in ascending order, as protobuf's C++ serializer writes them."""
    items = sorted(wire.fields(message), key=lambda item: item.number)
    parts = [b"".join(message[item.begin : item.stop] for item in items if item.number < number)]
    parts.append(b"".join(message[item.begin : item.stop] for item in items if item.number > number))
    return parts[0], parts[1]


def _encode_layer(layer: schema.Message, arrays: Sequence[Array], syntax: str) -> _Layer:
    settings = type(layer)()
    settings.CopyFrom(layer)
    settings.ClearField("blobs")
    number = _LAYER_BLOBS[syntax]
    before, after = _split(settings.SerializeToString(deterministic=True), number)
    blobs = tuple(_encode_blob(layer.name, index, array, syntax) for index, array in enumerate(arrays))
    encoded = _Layer(before, tuple((wire.length_prefix(number, n) + a, x, b) for a, x, b, n in blobs), after)
    if encoded.size > _PROTOBUF_LIMIT:
        raise WeightsError(f"layer {layer.name!r}: {encoded.size} bytes in one message, protobuf's limit is 2 GB")
    return encoded


def _encode_blob(layer: str, index: int, array: Array, syntax: str) -> tuple[bytes, Array, bytes, int]:
    """A BlobProto: what precedes the numbers, the numbers, what follows them, and its length."""
    shape = b""
    if syntax == "V1":
        if array.ndim > 4:
            raise WeightsError(f"layer {layer!r}, blob {index} has {array.ndim} axes, the V1 syntax holds at most 4")
        header = (1,) * (4 - array.ndim) + array.shape
        shape = b"".join(wire.tag(1 + axis, wire.VARINT) + wire.varint(size) for axis, size in enumerate(header))
    elif array.ndim:
        dims = b"".join(map(wire.varint, array.shape))
        dims = wire.length_prefix(1, len(dims)) + dims
        shape = wire.length_prefix(SHAPE, len(dims)) + dims
    dtype = stored_dtype(array)
    number = DOUBLE_DATA if dtype.itemsize == 8 else DATA
    size = array.size * dtype.itemsize
    data = wire.length_prefix(number, size) if size else b""
    head, tail = (shape + data, b"") if number == DOUBLE_DATA or syntax == "V1" else (data, shape)
    return head, array, tail, len(head) + size + len(tail)


def encode_blob(array: Array, *, legacy: bool) -> Iterator[bytes | memoryview]:
    """The pieces of a lone BlobProto, such as a mean image, in order."""
    head, data, tail, _ = _encode_blob("", 0, array, "V1" if legacy else "V2")
    yield head
    yield _bytes(data)
    yield tail


def _bytes(array: Array) -> memoryview:
    """The numbers as they are stored: little-endian, C order; a copy is made only where they are not so already."""
    return np.ascontiguousarray(array, stored_dtype(array)).reshape(-1).view(np.uint8).data
