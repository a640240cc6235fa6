"""Solver states: ``.solverstate`` and ``.solverstate.h5``, which real Caffe reads and writes.

Two numbers of ours go along in a place where Caffe does not look: the seed that everything random is drawn from, and
how many batches each net has taken from its data. With them training goes on exactly as if it had not been interrupted;
a state of Caffe's own lacks them, and its data start from the beginning, as they do in Caffe.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from caffe2torch import wire
from caffe2torch.blobs import MAX_BLOBS, Array
from caffe2torch.caffemodel.blobproto import find_blob
from caffe2torch.caffemodel.mapped import MappedFile
from caffe2torch.caffemodel.recognise import is_hdf5, what_it_is
from caffe2torch.caffemodel.write import encode_blob
from caffe2torch.errors import FormatError, OutputError
from caffe2torch.files import atomic_path
from caffe2torch.hdf5_output import hdf5_output

# Field numbers of SolverState; the last two are ours, and unknown to Caffe.
_ITER, _LEARNED_NET, _HISTORY, _CURRENT_STEP = 1, 2, 3, 4
_SEED, _BATCHES = 20151, 20152
_LIMIT = (1 << 31) - 1
_H5_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, AttributeError)


@dataclass(frozen=True, eq=False)
class SolverState:
    """What a solver remembers besides the weights, which ``learned_net`` names."""

    iteration: int
    current_step: int
    learned_net: str
    history: tuple[Array, ...]
    """float32 arrays shaped like the parameters, in the order of the net; two rounds of them for Adam and AdaDelta."""
    seed: int | None = None
    batches: tuple[int, ...] = ()
    """Batches taken so far by the training net and by each test net."""


def read_state(path: str | Path) -> SolverState:
    """Read a solver state, binary or HDF5 by its content; FormatError names what is wrong with the file."""
    path = Path(path)
    file = MappedFile(path)
    try:
        if not is_hdf5(file.view):
            return _read_binary(file)
    except FormatError as error:
        other = what_it_is(file.view, "solver state")
        raise FormatError(f"{path}: {other or f'{error}; the file is damaged or not a solver state'}") from error
    finally:
        file.close()
    return _read_hdf5(path)


def write_state(path: str | Path, state: SolverState, *, hdf5: bool) -> None:
    """Write ``state`` as Caffe does; the file is complete or not there. Raises OutputError."""
    path = Path(path)
    with atomic_path(path) as temporary:
        if hdf5:
            _write_hdf5(temporary, state)
        else:
            _write_binary(path, temporary, state)


def _read_binary(file: MappedFile) -> SolverState:
    numbers = {_ITER: 0, _CURRENT_STEP: 0}
    seed: int | None = None
    learned_net = ""
    batches: list[int] = []
    history: list[Array] = []
    for item in wire.fields(file.view):
        if item.number in numbers and item.wire == wire.VARINT:
            numbers[item.number] = wire.signed(item.value, 32)
        elif item.number == _LEARNED_NET and item.wire == wire.LENGTH:
            learned_net = file.view[item.start : item.stop].decode("utf-8", "surrogateescape")
        elif item.number == _HISTORY and item.wire == wire.LENGTH:
            if len(history) == MAX_BLOBS:
                raise FormatError(f"more than {MAX_BLOBS} history blobs")
            history.append(find_blob(file, item.start, item.stop).read())
        elif item.number == _SEED and item.wire == wire.VARINT:
            seed = item.value
        elif item.number == _BATCHES and item.wire == wire.VARINT:
            batches.append(item.value)
    if not history and not numbers[_ITER]:
        raise FormatError("has neither an iteration nor a history")
    return SolverState(numbers[_ITER], numbers[_CURRENT_STEP], learned_net, tuple(history), seed, tuple(batches))


def _write_binary(path: Path, temporary: Path, state: SolverState) -> None:
    name = state.learned_net.encode("utf-8", "surrogateescape")
    blobs = [list(encode_blob(array, legacy=False)) for array in state.history]
    size = sum(len(part) for blob in blobs for part in blob)
    if size > _LIMIT:
        raise OutputError(f"{path}: would have {size} bytes; Caffe reads at most 2 GB, set snapshot_format: HDF5")
    with temporary.open("wb") as file:
        file.write(_number(_ITER, state.iteration))
        file.write(wire.length_prefix(_LEARNED_NET, len(name)) + name)
        for blob in blobs:
            file.write(wire.length_prefix(_HISTORY, sum(map(len, blob))))
            for part in blob:
                file.write(part)
        file.write(_number(_CURRENT_STEP, state.current_step))
        if state.seed is not None:
            file.write(_number(_SEED, state.seed))
        for count in state.batches:
            file.write(_number(_BATCHES, count))


def _number(field: int, value: int) -> bytes:
    return wire.tag(field, wire.VARINT) + wire.varint(value)


def _read_hdf5(path: Path) -> SolverState:
    try:
        with h5py.File(path, "r") as file:
            group = file["history"]
            history = tuple(_blob(path, group, str(index)) for index in range(len(group)))
            return SolverState(
                _int(file["iter"]),
                _int(file["current_step"]),
                _text(file["learned_net"]) if "learned_net" in file else "",
                history,
                _int(file["seed"]) if "seed" in file else None,
                tuple(int(x) for x in file["batches"][()]) if "batches" in file else (),
            )
    except _H5_ERRORS as error:
        raise FormatError(f"{path}: is not a sound solver state: {error}") from error


def _blob(path: Path, group: Any, name: str) -> Array:
    dataset = group[name] if isinstance(group.get(name, getlink=True), h5py.HardLink) else None
    if not isinstance(dataset, h5py.Dataset) or dataset.external or dataset.is_virtual or dataset.dtype.kind != "f":
        raise FormatError(f"{path}: history/{name} is missing or no array of floats of its own")
    if dataset.id.get_storage_size() < dataset.size * dataset.dtype.itemsize and dataset.chunks is None:
        raise FormatError(f"{path}: history/{name} claims shape {dataset.shape} that the file does not hold")
    values: Array = dataset[()]
    return np.ascontiguousarray(values, np.float32)


def _int(dataset: Any) -> int:
    return int(np.asarray(dataset[()]).reshape(()))


def _text(dataset: Any) -> str:
    value = dataset[()]
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def _write_hdf5(path: Path, state: SolverState) -> None:
    with hdf5_output(path) as (file, check):
        file["iter"] = np.array([state.iteration], np.int32)
        name = state.learned_net.encode("utf-8", "surrogateescape") + b"\0"
        file["learned_net"] = np.array(name, dtype=f"S{len(name)}")
        file["current_step"] = np.array([state.current_step], np.int32)
        history = file.create_group("history")
        for index, array in enumerate(state.history):
            check()
            history.create_dataset(str(index), data=array, dtype=np.float32)
        if state.seed is not None:
            file["seed"] = np.array(state.seed, np.int64)
        if state.batches:
            file["batches"] = np.array(state.batches, np.int64)
