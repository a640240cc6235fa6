"""Reading ``.caffemodel`` files: one walk finds every layer and blob, the numbers stay in the file until asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from caffe2torch import wire
from caffe2torch.blobs import MAX_BLOBS, MAX_LAYERS, Blob, LayerWeights, WeightsFile
from caffe2torch.caffemodel.blobproto import find_blob
from caffe2torch.caffemodel.mapped import MappedFile
from caffe2torch.caffemodel.recognise import is_hdf5, what_it_is
from caffe2torch.caffemodel.settings import read_settings
from caffe2torch.caffemodel.types import V0_TYPES, V1_TYPES
from caffe2torch.errors import FormatError

# Field numbers.
NET_NAME, NET_LAYERS, NET_LAYER = 1, 2, 100  # NetParameter; `layers` are V1, `layer` are V2
_V1_V0 = 1  # V1LayerParameter.layer: the V0 message inside


@dataclass(frozen=True)
class LayerFields:
    """Where a layer message keeps its name, type and blobs."""

    name: int
    type: int
    blobs: int


V0, V1, V2 = LayerFields(1, 2, 50), LayerFields(4, 5, 6), LayerFields(1, 2, 7)


@dataclass
class _Layer:
    """What a walk over one layer message found."""

    syntax: str
    name: str = ""
    type: str | None = None
    blobs: list[tuple[int, int]] = field(default_factory=list)


def open_weights(path: str | os.PathLike[str]) -> WeightsFile:
    """Open a ``.caffemodel`` or ``.caffemodel.h5``, told apart by content; close it or use it in a ``with`` statement.

    Raises FormatError, naming file, layer and blob, for anything that is not an undamaged weights file.
    """
    path = Path(path)
    file = MappedFile(path)
    try:
        if is_hdf5(file.view):
            file.close()
            from caffe2torch import hdf5  # h5py takes a tenth of a second to import

            return hdf5.open_hdf5(path)
        with _place(f"{path}"):
            return _open(file)
    except BaseException:
        file.close()
        raise


def _open(file: MappedFile) -> WeightsFile:
    try:
        name, found = _walk_net(file)
    except FormatError as error:
        other = what_it_is(file.view)
        raise FormatError(other or f"{error}; the file is damaged, cut off or not a caffemodel") from error
    if not found:
        raise FormatError(what_it_is(file.view) or "holds no layers; it is not a caffemodel")
    syntaxes = {layer.syntax for layer in found}
    if "V2" in syntaxes and len(syntaxes) > 1:
        raise FormatError("has layers of the old and the new kind (`layers` and `layer`), expected one of them")
    return WeightsFile(
        file.path,
        net_name=name,
        syntax=min(syntaxes),
        layers=tuple(_find_blobs(file, layer, position) for position, layer in enumerate(found)),
        close=file.close,
        net_message=partial(read_settings, file),
    )


def _walk_net(file: MappedFile) -> tuple[str, list[_Layer]]:
    name = ""
    layers: list[_Layer] = []
    blobs = 0
    for item in wire.fields(file.view):
        if item.wire != wire.LENGTH or item.number not in (NET_NAME, NET_LAYERS, NET_LAYER):
            continue
        if item.number == NET_NAME:
            name = _text(file, item)
            continue
        with _place(f"layer {len(layers)}"):
            layer = _Layer("V2" if item.number == NET_LAYER else "V1")
            _walk_layer(file, item, layer, V2 if item.number == NET_LAYER else V1)
        layers.append(layer)
        blobs += len(layer.blobs)
        if len(layers) > MAX_LAYERS or blobs > MAX_BLOBS:
            raise FormatError(f"more than {MAX_LAYERS} layers or {MAX_BLOBS} blobs")
    return name, layers


def _walk_layer(file: MappedFile, message: wire.Field, layer: _Layer, numbers: LayerFields) -> None:
    for item in wire.fields(file.view, message.start, message.stop):
        if numbers is V1 and item.number == _V1_V0 and item.wire == wire.LENGTH:
            if layer.syntax == "V1":  # what a V0 layer says stands in the message inside alone
                layer.syntax, layer.name, layer.type, layer.blobs = "V0", "", None, []
            _walk_layer(file, item, layer, V0)
        elif numbers is V1 and layer.syntax == "V0":
            continue
        elif item.number == numbers.name and item.wire == wire.LENGTH:
            layer.name = _text(file, item)
        elif item.number == numbers.type and item.wire == wire.LENGTH and numbers is not V1:
            text = _text(file, item)
            layer.type = V0_TYPES.get(text) if numbers is V0 else text
        elif item.number == numbers.type and item.wire == wire.VARINT and numbers is V1:
            layer.type = V1_TYPES.get(item.value)
        elif item.number == numbers.blobs and item.wire == wire.LENGTH:
            layer.blobs.append((item.start, item.stop))
            if len(layer.blobs) > MAX_BLOBS:
                raise FormatError(f"more than {MAX_BLOBS} blobs")


def _find_blobs(file: MappedFile, layer: _Layer, position: int) -> LayerWeights:
    blobs: list[Blob] = []
    for index, (start, stop) in enumerate(layer.blobs):
        with _place(f"layer {position} ({layer.name!r}), blob {index}"):
            blobs.append(find_blob(file, start, stop))
    return LayerWeights(layer.name, layer.type, tuple(blobs))


def _text(file: MappedFile, item: wire.Field) -> str:
    raw = file.view[item.start : item.stop]
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise FormatError(f"byte {item.start}: the name {raw[:40]!r} is not UTF-8 text") from error


@contextmanager
def _place(where: str) -> Iterator[None]:
    """Say where in the file an error was found."""
    try:
        yield
    except FormatError as error:
        raise FormatError(f"{where}: {error}") from error
