"""``.caffemodel.h5``: blob I of layer L is the dataset ``data/L/I``; a layer without parameters is an empty group.

A file is only data: links that lead elsewhere, virtual datasets, datasets stored in other files and sizes that the
file cannot hold are refused. A layer name with a "/" makes nested groups.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from caffe2torch.blobs import (
    MAX_BLOBS,
    MAX_LAYERS,
    Array,
    Blob,
    LayerWeights,
    WeightsFile,
    check_shape,
    float_arrays,
    stored_dtype,
)
from caffe2torch.errors import FormatError, WeightsError
from caffe2torch.files import atomic_path
from caffe2torch.hdf5_output import hdf5_output

# What h5py raises for damaged files, found by fuzzing.
_H5_ERRORS = (
    OSError,
    RuntimeError,
    KeyError,
    ValueError,
    TypeError,
    OverflowError,
    NotImplementedError,
    AttributeError,
)
_DEPTH = 32
# Filters inside HDF5 and h5py: deflate, shuffle, fletcher32, szip, nbit, scale-offset, lzf. For any other number HDF5
# would load a plugin, and a file shall not choose what code runs.
_FILTERS = {1, 2, 3, 4, 5, 6, 32000}
_COMPRESSION = 64  # a compressed dataset larger than this times the file is refused; trained weights hardly shrink


@dataclass
class _Walk:
    """What is gathered on the way through the groups."""

    file_size: int
    lock: threading.Lock
    layers: list[LayerWeights] = field(default_factory=list)
    groups: int = 0
    blobs: int = 0


@dataclass(frozen=True, slots=True)
class H5Source:
    """A dataset of numbers."""

    path: Path
    dataset: Any
    lock: threading.Lock

    @property
    def dtype(self) -> np.dtype[Any]:
        """The stored type."""
        dtype: np.dtype[Any] = self.dataset.dtype
        return dtype

    def fill(self, out: Array) -> None:
        """Read the values into ``out``; HDF5 converts them."""
        with self.lock, _reading(self.path, self.dataset.name):
            self.dataset.read_direct(out.reshape(self.dataset.shape))


def open_hdf5(path: str | os.PathLike[str]) -> WeightsFile:
    """Open a ``.caffemodel.h5``; layers come in the order of HDF5, which is by name."""
    path = Path(path)
    with _reading(path, "/"):
        file = h5py.File(path, "r")
    try:
        with _reading(path, "/"):
            walk = _Walk(path.stat().st_size, threading.Lock())
            _walk(path, _data_group(path, file), "", walk, 0)
    except BaseException:
        file.close()
        raise
    return WeightsFile(path, net_name="", syntax="HDF5", layers=tuple(walk.layers), close=file.close)


def write_hdf5(path: str | os.PathLike[str], net: Any, weights: Mapping[str, Sequence[Array]]) -> None:
    """Write ``weights`` (layer name -> arrays) as Caffe's HDF5 snapshot of ``net``, a NetParameter in V2 form.

    One group per layer, contiguous; parameters shared by name are stored once, under their first layer.
    Raises WeightsError for weights of a layer the net lacks, OutputError where the file cannot be written. Caffe itself
    fails on layer names with a "/"; we write them as nested groups and read them back.
    """
    arrays = float_arrays(net.layer, weights)
    owners: set[str] = set()
    for layer in net.layer:
        if not layer.name or {"", "."} & set(layer.name.split("/")):
            raise WeightsError(f"{path}: HDF5 cannot hold a layer named {layer.name!r}; write a .caffemodel instead")
    with atomic_path(path) as temporary:
        try:
            with hdf5_output(temporary) as (file, check):
                data = file.create_group("data")
                for layer in net.layer:
                    check()
                    _write_layer(data.require_group(layer.name), layer, arrays.get(layer.name, ()), owners)
        except (ValueError, TypeError) as error:
            raise WeightsError(f"{path}: layer names that HDF5 cannot tell apart: {error}") from error


def _write_layer(group: Any, layer: Any, arrays: Sequence[Array], owners: set[str]) -> None:
    for index, array in enumerate(arrays):
        shared = layer.param[index].name if index < len(layer.param) else ""
        if shared in owners or str(index) in group:  # the same layer may stand there for each phase
            continue
        if shared:
            owners.add(shared)
        group.create_dataset(str(index), data=array, dtype=stored_dtype(array))


def _data_group(path: Path, file: Any) -> Any:
    if "data" not in file and {"iter", "history"} <= set(file):
        raise FormatError(f"{path}: is a solver state, which holds no weights; give the .caffemodel.h5 saved beside it")
    group = _member(path, file, "data") if "data" in file else None
    if not isinstance(group, h5py.Group):
        raise FormatError(f"{path}: has no group 'data', so it is not a Caffe weights file; it has {sorted(file)[:8]}")
    return group


def _member(path: Path, group: Any, name: str) -> Any:
    """A member that lies in this file; other links could make us read anything."""
    link = group.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink):
        raise FormatError(f"{path}: {group.name}/{name} is a link to elsewhere, which is never followed")
    return group[name]


def _walk(path: Path, group: Any, name: str, walk: _Walk, depth: int) -> None:
    walk.groups += 1
    if depth > _DEPTH or walk.groups > MAX_LAYERS:
        raise FormatError(
            f"{path}: more than {_DEPTH} nested groups or {MAX_LAYERS} groups in all; the file is damaged"
        )
    blobs: dict[int, Blob] = {}
    inside: list[tuple[str, Any]] = []
    for key in group:
        member = _member(path, group, key)
        if isinstance(member, h5py.Group):
            inside.append((key, member))
        elif name and key.isdecimal() and key.isascii() and str(int(key)) == key:
            walk.blobs += 1
            blobs[int(key)] = _blob(path, member, walk)
        else:
            raise FormatError(f"{path}: {member.name} is unexpected; expected data/LAYER/0, data/LAYER/1, ...")
    if walk.blobs > MAX_BLOBS:
        raise FormatError(f"{path}: more than {MAX_BLOBS} blobs")
    if name and (blobs or not inside):
        order = tuple(sorted(blobs))
        walk.layers.append(LayerWeights(name, None, tuple(blobs[index] for index in order), order))
    for key, member in inside:
        _walk(path, member, f"{name}/{key}" if name else key, walk, depth + 1)


def _blob(path: Path, dataset: Any, walk: _Walk) -> Blob:
    """Check a dataset against what the file can hold."""
    where = f"{path}: {dataset.name}"
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "fiu" or dataset.shape is None:
        raise FormatError(f"{where} is not an array of numbers, expected float32")
    if dataset.external or dataset.is_virtual:
        raise FormatError(f"{where} keeps its values in another file, which is never followed")
    try:
        check_shape(dataset.shape)
    except FormatError as error:
        raise FormatError(f"{where}: {error}") from error
    settings = dataset.id.get_create_plist()
    filters = {settings.get_filter(index)[0] for index in range(settings.get_nfilters())}
    if filters - _FILTERS:
        raise FormatError(f"{where} uses the HDF5 filters {sorted(filters - _FILTERS)}, which are not built in")
    size = math.prod(dataset.shape) * dataset.dtype.itemsize
    stored = dataset.id.get_storage_size()
    if size > (walk.file_size * _COMPRESSION if filters and stored else stored):
        raise FormatError(f"{where} claims {size} bytes of values, but the file holds {stored} for it; it is damaged")
    return Blob(tuple(dataset.shape), False, H5Source(path, dataset, walk.lock))


@contextmanager
def _reading(path: Path, where: str) -> Iterator[None]:
    try:
        yield
    except _H5_ERRORS as error:
        raise FormatError(f"{path}: {where}: not a sound HDF5 file: {error}") from error
