"""MATLAB v7.3 files as the papers' scripts read and write them: ``binary48.mat`` and ``feat4096.mat``.

Such a file is HDF5 behind a 512-byte block with a MAT header; arrays are stored transposed, so ``binary_codes``, which
is (bits, N) in MATLAB, is (N, bits) in HDF5. A cell array of strings is a dataset of references to char arrays that
live in the group ``#refs#``. Names, types and attributes are those of the authors' own files.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from caffe2torch.extract.contents import Contents
from caffe2torch.hdf5_output import hdf5_output

USERBLOCK = 512
ROWS = 1024  # rows in one compressed piece


def write_codes_mat(path: Path, contents: Contents) -> None:
    """``binary_codes`` (bits x N logical), ``list_im`` (N x 1 cell) and ``provenance`` (JSON as char)."""
    with hdf5_output(path, userblock_size=USERBLOCK) as (file, check):
        codes = _matrix(file, "binary_codes", contents.rows, contents.bits, np.uint8)
        _describe(codes, "logical", 1)
        names = _Cell(file, "list_im", contents.rows)
        row = 0
        for chunk in contents.chunks():
            check()
            codes[row : row + len(chunk.packed)] = np.unpackbits(chunk.packed, axis=1, count=contents.bits)
            names.put(row, [entry.shown for entry in chunk.entries])
            row += len(chunk.packed)
        _describe(file.create_dataset("provenance", data=_utf16(json.dumps(contents.provenance))), "char", 2)
    _write_header(path)


def write_features_mat(path: Path, contents: Contents) -> None:
    """``feat_test`` (D x N single, the papers' name whatever the blob) and ``list_im``."""
    with hdf5_output(path, userblock_size=USERBLOCK) as (file, check):
        features = _matrix(file, "feat_test", contents.rows, contents.feature_size, np.float32)
        _describe(features, "single")
        names = _Cell(file, "list_im", contents.rows)
        row = 0
        for chunk in contents.chunks():
            check()
            features[row : row + len(chunk.packed)] = chunk.features
            names.put(row, [entry.shown for entry in chunk.entries])
            row += len(chunk.packed)
    _write_header(path)


def _matrix(file: Any, name: str, rows: int, width: int, dtype: Any) -> Any:
    if not rows:
        return file.create_dataset(name, shape=(rows, width), dtype=dtype)
    chunk = (min(rows, ROWS), min(width, ROWS))
    return file.create_dataset(name, shape=(rows, width), dtype=dtype, chunks=chunk, compression=3)


def _describe(dataset: Any, matlab_class: str, int_decode: int | None = None) -> None:
    dataset.attrs["MATLAB_class"] = np.bytes_(matlab_class)
    if int_decode is not None:
        dataset.attrs["MATLAB_int_decode"] = np.int32(int_decode)


def _utf16(text: str) -> Any:
    """A MATLAB char row: UTF-16 code units, (length, 1) in HDF5."""
    return np.frombuffer(text.encode("utf-16-le", errors="surrogatepass"), "<u2").reshape(-1, 1)


class _Cell:
    """An N x 1 cell array of char rows, filled piece by piece; (1, N) references in HDF5.

    Every row is a dataset of its own. They are made through h5py's low-level calls, several times faster.
    """

    def __init__(self, file: Any, name: str, rows: int) -> None:
        self.refs = file.create_group("#refs#")
        self.refs.attrs["H5PATH"] = np.bytes_("/#refs#")
        empty = self.refs.create_dataset("a", data=np.zeros(2, np.uint64))
        _describe(empty, "canonical empty")
        empty.attrs["MATLAB_empty"] = np.uint8(1)
        self.cell = file.create_dataset(name, shape=(1, rows), dtype=h5py.ref_dtype)
        _describe(self.cell, "cell")
        self.scalar = h5py.h5s.create(h5py.h5s.SCALAR)

    def put(self, row: int, texts: Sequence[str]) -> None:
        references = np.empty(len(texts), dtype=h5py.ref_dtype)
        for index, text in enumerate(texts):
            references[index] = self._char(_reference_name(row + index), _utf16(text))
        self.cell[0, row : row + len(texts)] = references

    def _char(self, name: str, text: Any) -> Any:
        """The dataset ``#refs#/name`` with a char row, as ``_describe`` would mark it; returns the reference to it."""
        path = name.encode("ascii")
        dataset = h5py.h5d.create(self.refs.id, path, h5py.h5t.STD_U16LE, h5py.h5s.create_simple(text.shape))
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, text)
        for key, value in ((b"H5PATH", b"/#refs#/" + path), (b"MATLAB_class", b"char")):
            self._attribute(dataset, key, np.array(value, dtype=f"S{len(value)}"))
        self._attribute(dataset, b"MATLAB_int_decode", np.array(2, np.int32))
        return h5py.h5r.create(self.refs.id, path, h5py.h5r.OBJECT)

    def _attribute(self, dataset: Any, key: bytes, value: Any) -> None:
        h5py.h5a.create(dataset, key, h5py.h5t.py_create(value.dtype), self.scalar).write(value)


def _reference_name(row: int) -> str:
    """b, c, ... z, then two letters and so on, as MATLAB counts; "a" is the canonical empty array."""
    name, number = "", row + 2
    while number:
        number, digit = divmod(number - 1, 26)
        name = chr(ord("a") + digit) + name
    return name


def _write_header(path: Path) -> None:
    """The MAT header in the user block: 116 bytes of text, no subsystem data, version 2.0, byte order mark."""
    now = datetime.now(timezone.utc).strftime("%a %b %d %H:%M:%S %Y")
    text = f"MATLAB 7.3 MAT-file, Platform: caffe2torch, Created on: {now} HDF5 schema 1.00 ."
    with path.open("r+b") as file:
        file.write(text.encode("ascii").ljust(116) + bytes(8) + b"\x00\x02IM")
