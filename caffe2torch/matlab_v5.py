"""The variables of a MATLAB v5 file: matrices of numbers and cells of text, without scipy, which damaged files crash.

Layout (MAT-File Format, version 5): a 128-byte header ending in version and byte-order mark, then elements of an 8-byte
tag (type, length) and data padded to 8 bytes; a tag whose upper half is not zero holds up to 4 bytes of data itself. An
array is element 14 around flags, dimensions, name and values; element 15 is a zlib stream around another element.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from caffe2torch.errors import FormatError

_MATRIX, _COMPRESSED = 14, 15
_CELL, _CHAR = 1, 4
_LOGICAL, _COMPLEX = 0x0200, 0x0800
_HEAD = 4096  # bytes in which an array's flags, dimensions and name lie
_MOST_DIMENSIONS = 32

# Stored types and what numpy calls them: int8, uint8, int16, uint16, int32, uint32, single, double, int64, uint64.
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXT = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_NAMES = {1: "cell", 2: "struct", 3: "object", 4: "char", 5: "sparse matrix", 16: "function handle", 17: "object"}
_NUMBERS = {6: ("double", "f8"), 7: ("single", "f4"), 8: ("int8", "i1"), 9: ("uint8", "u1"), 10: ("int16", "i2")} | {
    11: ("uint16", "u2"),
    12: ("int32", "i4"),
    13: ("uint32", "u4"),
    14: ("int64", "i8"),
    15: ("uint64", "u8"),
}


@dataclass(frozen=True)
class Variable:
    """One array of the file: its name, class and MATLAB's dimensions; the values are read when asked for."""

    path: Path
    order: str
    name: str
    code: int
    flags: int
    dims: tuple[int, ...]
    body: Callable[[], memoryview]

    @property
    def kind(self) -> str:
        """MATLAB's name of the class."""
        if self.code not in _NUMBERS:
            return _NAMES.get(self.code, f"variable of class {self.code}")
        if self.flags & _COMPLEX:
            return f"complex {_NUMBERS[self.code][0]}"
        return "logical" if self.flags & _LOGICAL else _NUMBERS[self.code][0]

    @property
    def is_numbers(self) -> bool:
        """Whether ``numbers`` can be asked for: a full real array of numbers or truth values."""
        return self.code in _NUMBERS and not self.flags & _COMPLEX

    def numbers(self) -> npt.NDArray[Any]:
        """The values in MATLAB's own indices. Raises FormatError when they do not fill the dimensions exactly."""
        kind, values = self._fourth()
        if kind not in _STORED:
            raise FormatError(f"{self.path}: {self.name} has values of stored type {kind}, expected a numeric type")
        stored = np.dtype(self.order + _STORED[kind])
        if math.prod(self.dims) * stored.itemsize != len(values):
            raise FormatError(f"{self.path}: {self.name} of dimensions {self.dims} has {len(values)} bytes of values")
        with np.errstate(invalid="ignore"):
            return np.frombuffer(values, stored).reshape(self.dims, order="F").astype(_NUMBERS[self.code][1], order="K")

    def texts(self) -> tuple[str, ...]:
        """The strings of a cell array of char rows. Raises FormatError when it is none."""
        cells = []
        for kind, element in islice(_elements(self.body(), self.order, self.path), 3, None):
            cell = _variable(self.path, self.order, element, partial(_itself, element)) if kind == _MATRIX else None
            if cell is None or cell.code != _CHAR:
                raise FormatError(f"{self.path}: {self.name} has an entry that is no text")
            cells.append(cell._text())
        if self.code != _CELL or len(cells) != math.prod(self.dims):
            raise FormatError(
                f"{self.path}: {self.name} is a {self.kind} of {len(cells)} entries, expected {self.dims}"
            )
        return tuple(cells)

    def _text(self) -> str:
        if not math.prod(self.dims):
            return ""
        kind, raw = self._fourth()
        if kind not in _TEXT:
            raise FormatError(f"{self.path}: text of stored type {kind}")
        coding = _TEXT[kind]
        if coding in ("utf-16", "utf-32"):
            coding += "-le" if self.order == "<" else "-be"
        return bytes(raw).decode(coding, errors="replace")

    def _fourth(self) -> tuple[int, memoryview]:
        for found in islice(_elements(self.body(), self.order, self.path), 3, 4):
            return found
        raise FormatError(f"{self.path}: {self.name} has no values")


def read_variables(path: Path, data: bytes) -> Iterator[Variable]:
    """The arrays of a file in its order; raises FormatError where it is damaged."""
    if len(data) < 128 or data[126:128] not in (b"IM", b"MI"):
        raise FormatError(f"{path}: not a MATLAB v5 file: no byte-order mark at byte 126")
    order = "<" if data[126:128] == b"IM" else ">"
    for kind, element in _elements(memoryview(data)[128:], order, path):
        if kind == _COMPRESSED:
            head = _inflate(path, order, element, _HEAD)
            found = _variable(path, order, head, partial(_inflate, path, order, element))
        elif kind == _MATRIX:
            found = _variable(path, order, element, partial(_itself, element))
        else:
            continue
        if found is not None and found.name:  # MATLAB keeps data of its own under an empty name
            yield found


def _variable(path: Path, order: str, head: memoryview, body: Callable[[], memoryview]) -> Variable | None:
    """What the start of an array element says of it; None for an empty element, which stands for ``[]``."""
    if not len(head):
        return None
    parts = [part for _, part in islice(_elements(head, order, path), 3)]
    if len(parts) < 3 or len(parts[0]) < 4 or len(parts[1]) % 4 or len(parts[1]) > 4 * _MOST_DIMENSIONS:
        raise FormatError(f"{path}: an array has no flags, dimensions and name")
    (flags,) = struct.unpack_from(order + "I", parts[0])
    dims = struct.unpack(f"{order}{len(parts[1]) // 4}i", parts[1])
    if any(side < 0 for side in dims):
        raise FormatError(f"{path}: an array has dimensions {dims}")
    name = bytes(parts[2]).decode("latin-1")
    return Variable(path, order, name, flags & 0xFF, flags, dims, body)


def _itself(element: memoryview) -> memoryview:
    return element


def _elements(data: memoryview, order: str, path: Path) -> Iterator[tuple[int, memoryview]]:
    """Type and data of each element; an element that is cut short is an error only when it is reached."""
    position = 0
    while position < len(data):
        if len(data) - position < 8:
            raise FormatError(f"{path}: {len(data) - position} bytes are left over, expected the 8 of a tag")
        kind, length = struct.unpack_from(order + "II", data, position)
        start, small = position + 8, kind >> 16
        if small:
            kind, length, start = kind & 0xFFFF, small, position + 4
        stop = start + length
        if stop > len(data) or (small and length > 4):
            raise FormatError(f"{path}: an element claims {length} bytes, but {len(data) - start} are left")
        yield kind, data[start:stop]
        # Compressed elements are not padded; all others end at a multiple of 8 from their tag.
        position = stop if kind == _COMPRESSED else position + 8 if small else start + -(-length // 8) * 8


def _inflate(path: Path, order: str, element: memoryview, limit: int | None = None) -> memoryview:
    """The array in a zlib stream, or the first ``limit`` bytes of it; never more than the array itself claims."""
    stream = zlib.decompressobj()
    try:
        start = stream.decompress(element, 8)
        if len(start) < 8:
            raise FormatError(f"{path}: a compressed array is cut short")
        kind, length = struct.unpack(order + "II", start)
        if kind != _MATRIX:
            raise FormatError(f"{path}: a compressed element of type {kind}, expected an array")
        wanted = length if limit is None else min(length, limit)
        inner = stream.decompress(stream.unconsumed_tail, wanted) if wanted else b""
    except zlib.error as error:
        raise FormatError(f"{path}: a compressed array is damaged ({error})") from error
    if len(inner) < wanted:
        raise FormatError(f"{path}: a compressed array is cut short")
    return memoryview(inner)
