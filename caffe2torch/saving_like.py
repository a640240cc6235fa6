"""Writing a weights file in the form of another: a copy of it with other numbers at their places."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from caffe2torch import wire
from caffe2torch.blobs import Array, Blob, LayerWeights, WeightsFile
from caffe2torch.caffemodel import open_weights
from caffe2torch.caffemodel.blobproto import DOUBLE_DATA, ProtoSource
from caffe2torch.errors import WeightsError
from caffe2torch.files import atomic_path
from caffe2torch.graph import near
from caffe2torch.matching import fits


def write_like(
    like: Path,
    target: Path,
    weights: Mapping[str, Sequence[Array]],
    *,
    aliases: Mapping[str, str] | None = None,
    allow_missing: bool = False,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Write ``weights`` (layer name -> arrays) in the form of the file ``like``: all its bytes but the numbers.

    Returns the layers that got numbers, and those of the file for which there were none and which stay. A value equal
    to the file's at its own precision keeps the file's bits. Raises WeightsError, naming all of them, for layers the
    file lacks (unless ``allow_missing``), for other counts or shapes of blobs, and for values its types cannot hold.
    """
    with atomic_path(target) as temporary, open_weights(like) as file:
        shutil.copyfile(like, temporary)
        pairs, kept = _pair(file, weights, aliases or {}, allow_missing=allow_missing)
        changes = (  # one at a time, since the net may take half the memory
            (source, index, blob, new)
            for source, arrays in pairs
            for index, blob in zip(source.indices, source.blobs, strict=True)
            if (new := _changed(file.path, source.name, index, blob, arrays[index])) is not None
        )
        if file.syntax == "HDF5":
            _write_hdf5(temporary, changes)
        else:
            with temporary.open("r+b") as out:
                for _, _, blob, new in changes:
                    assert isinstance(blob.source, ProtoSource)
                    _write_blob(out, blob.source, new)
    return tuple(source.name for source, _ in pairs), kept


def _pair(
    file: WeightsFile, weights: Mapping[str, Sequence[Array]], aliases: Mapping[str, str], *, allow_missing: bool
) -> tuple[list[tuple[LayerWeights, Sequence[Array]]], tuple[str, ...]]:
    """Each layer of the file with its arrays; of layers with one name the last, which is the one that loading takes."""
    last = {layer.name: layer for layer in file.layers if layer.blobs}
    names = {theirs: mine for mine, theirs in aliases.items() if mine in weights and mine not in last}
    pairs: list[tuple[LayerWeights, Sequence[Array]]] = []
    problems: list[str] = []
    taken = set()
    for name, source in last.items():
        own = names.get(name, name)
        if own not in weights:
            continue
        taken.add(own)
        problems += _misfits(source, weights[own], partial=file.syntax == "HDF5")
        pairs.append((source, weights[own]))
    missing = [name for name, arrays in weights.items() if len(arrays) and name not in taken]
    if missing and not allow_missing and not _shared_only(file, missing, last):
        problems += [f"no place for the weights of layer {name!r}{near(name, last)}" for name in missing]
    if problems:
        listed = "".join(f"\n  {problem}" for problem in problems)
        raise WeightsError(f"{file.path} has another form than the net's weights:{listed}\n(save without like)")
    return pairs, tuple(name for name in last if name not in {source.name for source, _ in pairs})


def _shared_only(file: WeightsFile, missing: Sequence[str], last: Mapping[str, LayerWeights]) -> bool:
    """HDF5 stores shared parameters once: a layer that shares all of its own stands there as an empty group."""
    present = {layer.name for layer in file.layers}
    return file.syntax == "HDF5" and all(name in present and name not in last for name in missing)


def _misfits(source: LayerWeights, arrays: Sequence[Array], *, partial: bool) -> list[str]:
    if max(source.indices) >= len(arrays) or (len(source.blobs) != len(arrays) and not partial):
        return [f"layer {source.name!r} has {len(source.blobs)} blobs there, {len(arrays)} in the net"]
    return [
        f"layer {source.name!r}, blob {index} is {blob.shape} there, {arrays[index].shape} in the net"
        for index, blob in zip(source.indices, source.blobs, strict=True)
        if not fits(blob, arrays[index].shape)
    ]


def _changed(path: Path, layer: str, index: int, blob: Blob, array: Array) -> Array | None:
    """The values to store, in the stored type; None where they are the file's own."""
    own = blob.read(np.float64 if array.dtype == np.float64 else np.float32).reshape(array.shape)
    same = own.view(f"u{own.itemsize}") == np.ascontiguousarray(array, own.dtype).view(f"u{own.itemsize}")
    if bool(same.all()):
        return None
    wide = blob.read(np.float64).reshape(array.shape) if blob.dtype.itemsize == 8 else own
    stored: Array = np.where(same, wide, array.astype(wide.dtype, copy=False))
    with np.errstate(over="ignore"):
        result: Array = stored.astype(blob.dtype)
    lost = (result.astype(stored.dtype) != stored) & ~np.isnan(stored)
    if bool(lost.any()):
        raise WeightsError(
            f"{path}: layer {layer!r}, blob {index} is stored as {blob.dtype}, which cannot hold {int(lost.sum())} of "
            "the new values exactly; save without like"
        )
    return result.reshape(-1)


def _write_blob(out: BinaryIO, source: ProtoSource, values: Array) -> None:
    """Put the values where the source found them: in one piece, in several, or one by one behind their tags."""
    done = 0
    width = source.dtype.itemsize
    for start, stop, stride in _pieces(source):
        count = (stop - start) // (stride or width)
        part = np.ascontiguousarray(values[done : done + count], source.dtype)
        if stride:
            raw = np.zeros((count, stride), np.uint8)
            flat = raw.reshape(-1)[: count * stride - stride + width]
            flat[:] = np.frombuffer(source.file.view[start : start + flat.size], np.uint8)
            raw[:, :width] = part.view(np.uint8).reshape(count, width)
            part = flat
        out.seek(start)
        out.write(part.view(np.uint8).data)
        done += count


def _pieces(source: ProtoSource) -> Iterator[tuple[int, int, int]]:
    """Start and stop of each piece, and the distance of its values (0: side by side)."""
    if source.whole:
        yield source.start, source.stop, 0
        return
    wanted = wire.FIXED64 if source.number == DOUBLE_DATA else wire.FIXED32
    for item in wire.fields(source.file.view, source.start, source.stop):
        if item.number == source.number and item.wire == wire.LENGTH:
            yield item.start, item.stop, 0
        elif item.number == source.number and item.wire == wanted:
            yield item.start, item.start + item.repeats * item.stride, item.stride


def _write_hdf5(path: Path, changes: Iterable[tuple[LayerWeights, int, Blob, Array]]) -> None:
    from caffe2torch.hdf5_output import hdf5_output  # h5py takes a tenth of a second to import

    with hdf5_output(path, append=True) as (file, check):
        for source, index, _, values in changes:
            check()
            dataset: Any = file[f"data/{source.name}/{index}"]
            dataset[...] = values.reshape(dataset.shape)
