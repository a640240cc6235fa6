"""The numeric arrays of a MATLAB v5 file, without scipy: just enough to read a mean image.

Layout (MAT-File Format, version 5): a 128-byte header ending in version and byte-order mark, then elements of an 8-byte
tag (type, length) and data padded to 8 bytes; a tag whose upper half is not zero holds up to 4 bytes of data itself. An
array is element 14 around flags, dimensions, name and values; element 15 is a zlib stream around another element.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from caffe2torch.errors import FormatError

_MATRIX, _COMPRESSED = 14, 15
# Stored types and what numpy calls them: int8, uint8, int16, uint16, int32, uint32, single, double, int64, uint64.
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_NUMERIC_CLASSES = range(6, 16)  # double, single, int8 .. uint64; not cell, struct, object, char or sparse
_COMPLEX = 0x0800
_LARGEST = 1 << 28  # bytes one array may inflate to


def read_arrays(data: bytes, path: str) -> dict[str, NDArray[np.generic]]:
    """Name -> array with MATLAB's own indices; what is not a full real numeric array is passed over.

    Raises FormatError when the file is damaged.
    """
    if len(data) < 128 or data[126:128] not in (b"IM", b"MI"):
        raise FormatError(f"{path}: not a MATLAB v5 file: no byte-order mark at byte 126")
    order = "<" if data[126:128] == b"IM" else ">"
    arrays: dict[str, NDArray[np.generic]] = {}
    for kind, element in _elements(data, 128, order, path):
        if kind == _COMPRESSED:
            inner = _inflate(element, path)
            matrices = [part for sort, part in _elements(inner, 0, order, path) if sort == _MATRIX]
        else:
            matrices = [element] if kind == _MATRIX else []
        for matrix in matrices:
            found = _array(matrix, order, path)
            if found is not None:
                arrays[found[0]] = found[1]
    return arrays


def _elements(data: bytes, position: int, order: str, path: str) -> Iterator[tuple[int, bytes]]:
    """Type and data of each element from ``position`` to the end."""
    while position < len(data):
        if len(data) - position < 8:
            raise FormatError(
                f"{path}: byte {position}: {len(data) - position} bytes left over, expected an 8-byte tag"
            )
        kind, length = struct.unpack_from(order + "II", data, position)
        start, small = position + 8, kind >> 16
        if small:
            kind, length, start = kind & 0xFFFF, small, position + 4
        stop = start + length
        if stop > len(data) or (small and length > 4):
            raise FormatError(
                f"{path}: byte {position}: an element of {length} bytes, but {len(data) - start} are left"
            )
        yield kind, data[start:stop]
        # Compressed elements are not padded; all others end at a multiple of 8 from their tag.
        position = stop if kind == _COMPRESSED else position + 8 if small else start + -(-length // 8) * 8


def _inflate(element: bytes, path: str) -> bytes:
    stream = zlib.decompressobj()
    try:
        inner = stream.decompress(element, _LARGEST)
    except zlib.error as error:
        raise FormatError(f"{path}: a compressed array is damaged ({error})") from error
    if not stream.eof:
        raise FormatError(f"{path}: a compressed array is cut short or larger than {_LARGEST} bytes")
    return inner


def _array(matrix: bytes, order: str, path: str) -> tuple[str, NDArray[np.generic]] | None:
    """Name and values of one array element, None for a class that is not numeric."""
    parts = list(_elements(matrix, 0, order, path))
    if len(parts) < 4 or len(parts[0][1]) < 4 or parts[1][0] != 5:
        return None  # objects and other classes have a layout of their own
    flags = struct.unpack_from(order + "I", parts[0][1])[0]
    if flags & 0xFF not in _NUMERIC_CLASSES or flags & _COMPLEX:
        return None
    name = parts[2][1].decode("latin-1")
    dims = tuple(np.frombuffer(parts[1][1][: len(parts[1][1]) // 4 * 4], order + "i4").tolist())
    kind, values = parts[3]
    if kind not in _STORED:
        raise FormatError(f"{path}: array {name!r} has values of stored type {kind}, expected a numeric type")
    dtype = np.dtype(order + _STORED[kind])
    if any(size < 0 for size in dims) or math.prod(dims) * dtype.itemsize != len(values):
        raise FormatError(f"{path}: array {name!r} of dimensions {dims} has {len(values)} bytes of {dtype.name}")
    return name, np.frombuffer(values, dtype).reshape(dims, order="F")
