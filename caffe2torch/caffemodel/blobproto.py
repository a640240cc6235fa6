"""The BlobProto message: finding the numbers of a blob in a mapped file, and copying them out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from caffe2torch import wire
from caffe2torch.blobs import MAX_AXES, Array, Blob, check_shape
from caffe2torch.caffemodel.mapped import MappedFile
from caffe2torch.errors import FormatError

# Field numbers of BlobProto; raw_data is NVIDIA's.
LEGACY_AXES = (1, 2, 3, 4)  # num, channels, height, width
DATA, SHAPE, DOUBLE_DATA, RAW_TYPE, RAW_DATA = 5, 7, 8, 10, 12
_RAW_TYPES = {0: "<f8", 1: "<f4", 2: "<f2"}  # DOUBLE, FLOAT, FLOAT16; INT = 3 and UINT = 4 hold no weights
_NAMES = {DATA: "data", DOUBLE_DATA: "double_data", RAW_DATA: "raw_data"}
_CHUNK = 1 << 20  # bytes converted at once, so that reading needs no second copy of the blob


@dataclass
class _Values:
    """How many bytes of values a field holds, and where: in one piece almost always."""

    size: int = 0
    pieces: int = 0
    start: int = 0
    stop: int = 0


@dataclass
class _Header:
    """What one pass over the fields of a BlobProto tells."""

    legacy: list[int] | None = None
    dims: list[int] = field(default_factory=list)
    raw_type: int = 0
    values: dict[int, _Values] = field(default_factory=lambda: {number: _Values() for number in _NAMES})


@dataclass(frozen=True, slots=True)
class ProtoSource:
    """The numbers of a BlobProto: one packed piece (``start`` to ``stop``), or pieces found again by walking."""

    file: MappedFile
    start: int
    stop: int
    number: int
    dtype: np.dtype[Any]
    whole: bool

    def fill(self, out: Array) -> None:
        """Copy the values into ``out``, converting to its type."""
        pieces = iter([(self.start, self.stop, 0)]) if self.whole else self._pieces()
        done = 0
        for start, stop, stride in pieces:
            count = (stop - start) // (stride or self.dtype.itemsize)
            self._copy(start, stride, out[done : done + count])
            done += count

    def _pieces(self) -> Iterator[tuple[int, int, int]]:
        """Start and stop of each piece, and the distance of its values (0: side by side)."""
        wanted = wire.FIXED64 if self.number == DOUBLE_DATA else wire.FIXED32
        for item in wire.fields(self.file.view, self.start, self.stop):
            if item.number == self.number and item.wire == wire.LENGTH:
                yield item.start, item.stop, 0
            elif item.number == self.number and item.wire == wanted:
                yield item.start, item.start + item.repeats * item.stride, item.stride

    def _copy(self, start: int, stride: int, out: Array) -> None:
        if not stride and out.dtype == self.dtype:
            self.file.read_into(start, out)
            return
        step = stride or self.dtype.itemsize
        size = max(1, _CHUNK // step)
        for first in range(0, out.size, size):
            part = out[first : first + size]
            # The tag that precedes the next value pads this one; the last value has none after it.
            raw = np.empty((part.size, step), np.uint8)
            self.file.read_into(start + first * step, raw.reshape(-1)[: part.size * step - step + self.dtype.itemsize])
            values = np.ascontiguousarray(raw[:, : self.dtype.itemsize]).view(self.dtype)
            with np.errstate(over="ignore"):  # a double beyond float32 becomes infinite, as Caffe's cast does
                part[:] = values.reshape(-1)


def find_blob(file: MappedFile, start: int, stop: int) -> Blob:
    """Read the header of the BlobProto in ``[start, stop)``; its numbers stay in the file.

    As Caffe's Blob::FromProto: any of num, channels, height, width makes a legacy shape and wins over ``shape``;
    ``double_data`` wins over ``data``; ``diff`` is ignored. ``raw_data`` counts when there is neither.
    """
    header = _scan(file, start, stop)
    shape = tuple(header.dims if header.legacy is None else header.legacy)
    check_shape(shape)
    number, dtype = _choose(header)
    values = header.values[number]
    if values.size != math.prod(shape) * dtype.itemsize:
        found, expected = values.size // dtype.itemsize, math.prod(shape)
        raise FormatError(f"{found} values in {_NAMES[number]}, expected {expected} for the shape {shape}")
    whole = values.pieces == 1
    span = (values.start, values.stop) if whole else (start, stop)
    return Blob(shape, header.legacy is not None, ProtoSource(file, *span, number, dtype, whole))


def _choose(header: _Header) -> tuple[int, np.dtype[Any]]:
    """The field that holds the numbers, and their type."""
    if header.values[DOUBLE_DATA].size:
        return DOUBLE_DATA, np.dtype("<f8")
    raw = header.values[RAW_DATA].size
    if header.values[DATA].size or not raw:
        return DATA, np.dtype("<f4")
    if header.raw_type not in _RAW_TYPES:
        raise FormatError(f"raw_data_type {header.raw_type}, expected 0 (double), 1 (float) or 2 (float16)")
    dtype = np.dtype(_RAW_TYPES[header.raw_type])
    if raw % dtype.itemsize:
        raise FormatError(f"{raw} bytes of raw_data, not a multiple of {dtype.itemsize} ({dtype})")
    return RAW_DATA, dtype


def _scan(file: MappedFile, start: int, stop: int) -> _Header:
    header = _Header()
    for item in wire.fields(file.view, start, stop):
        if item.number in LEGACY_AXES and item.wire == wire.VARINT:
            header.legacy = header.legacy or [0, 0, 0, 0]
            header.legacy[item.number - 1] = wire.signed(item.value, 32)
        elif item.number == SHAPE and item.wire == wire.LENGTH:
            _scan_shape(file, item, header.dims)
        elif item.number == RAW_TYPE and item.wire == wire.VARINT:
            header.raw_type = item.value
        elif item.number in _NAMES:
            _scan_values(item, header)
    return header


def _scan_shape(file: MappedFile, shape: wire.Field, dims: list[int]) -> None:
    for item in wire.fields(file.view, shape.start, shape.stop):
        if item.number != 1 or item.wire not in (wire.VARINT, wire.LENGTH):
            continue
        packed = item.wire == wire.LENGTH
        for value in wire.varints(file.view, item.start, item.stop) if packed else (item.value,):
            dims.append(wire.signed(value))
            if len(dims) > MAX_AXES:
                raise FormatError(f"a shape of more than {MAX_AXES} axes; the file is damaged")


def _scan_values(item: wire.Field, header: _Header) -> None:
    """Count the bytes of values; a field of another wire type than ours is an unknown field and ignored."""
    width = {DATA: 4, DOUBLE_DATA: 8, RAW_DATA: 1}[item.number]
    values = header.values[item.number]
    size = item.stop - item.start
    if item.wire == wire.LENGTH and item.number == RAW_DATA:  # not repeated: the last one counts
        header.values[RAW_DATA] = _Values(size, 1, item.start, item.stop)
    elif item.wire == wire.LENGTH and size:
        if size % width:
            raise FormatError(f"byte {item.begin}: {size} bytes of {_NAMES[item.number]}, not a multiple of {width}")
        header.values[item.number] = _Values(values.size + size, values.pieces + 1, item.start, item.stop)
    elif item.number != RAW_DATA and item.wire == (wire.FIXED64 if width == 8 else wire.FIXED32):
        values.size += width * item.repeats
        values.pieces += 2  # tags lie between the values: never one piece
