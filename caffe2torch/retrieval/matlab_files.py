"""What lies in a MATLAB file: its matrices of numbers by name, read when asked for, sizes checked against the file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from caffe2torch.errors import FormatError
from caffe2torch.matlab_v5 import read_variables
from caffe2torch.retrieval.checked import h5_array, plausible
from caffe2torch.retrieval.checked import provenance as parse_provenance

NUMBERS = ("double", "single", "logical", *(f"{sign}int{width}" for sign in ("", "u") for width in (8, 16, 32, 64)))
NAMES = "list_im"
"""The papers' scripts keep the pictures' names beside the codes in a cell array of this name."""
DAMAGED_HDF5 = (OSError, RuntimeError, KeyError, ValueError, TypeError)


@dataclass(frozen=True)
class Matrix:
    """A real matrix of numbers; ``shape`` is MATLAB's (rows, columns), and so is that of what ``read`` returns."""

    name: str
    shape: tuple[int, int]
    kind: str
    read: Callable[[], npt.NDArray[Any]]

    @property
    def text(self) -> str:
        """As MATLAB's ``whos`` says it."""
        return f"{self.shape[0]}x{self.shape[1]} {self.kind}"


@dataclass
class MatFile:
    """The variables of a file: matrices of numbers, and the kinds of all ``others``, each by name.

    ``names`` gives the pictures' names, None where the file has none; ``provenance`` is there in files of ours.
    """

    matrices: dict[str, Matrix] = field(default_factory=dict)
    others: dict[str, str] = field(default_factory=dict)
    names: Callable[[], tuple[str, ...] | None] = lambda: None
    provenance: dict[str, Any] | None = None
    close: Callable[[], object] = lambda: None

    def __enter__(self) -> MatFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_v73(path: Path, size: int) -> MatFile:
    """Version 7.3: HDF5 in which arrays lie transposed; cells are references to arrays in the group ``#refs#``."""

    def damaged(error: Exception) -> FormatError:
        return FormatError(f"{path}: not a readable MATLAB v7.3 file: {error}")

    try:
        file = h5py.File(path, "r")
    except DAMAGED_HDF5 as error:
        raise damaged(error) from error

    def read(name: str) -> npt.NDArray[Any]:
        try:
            array: npt.NDArray[Any] = h5_array(path, file, name, size).T
        except DAMAGED_HDF5 as error:
            raise damaged(error) from error
        return array

    def names() -> tuple[str, ...] | None:
        if NAMES not in file:
            return None
        try:
            cells = h5_array(path, file, NAMES, size).ravel()
            return tuple(_char(path, file[cell], size) for cell in cells)
        except DAMAGED_HDF5 as error:
            raise damaged(error) from error

    found = MatFile(names=names, close=file.close)
    try:
        for name in file:
            if name.startswith("#"):
                continue
            item = file.get(name)
            kind = _matlab_class(item)
            if isinstance(item, h5py.Dataset) and kind in NUMBERS and item.ndim == 2:
                if item.attrs.get("MATLAB_empty"):
                    found.others[name] = f"empty {kind}"
                    continue
                shape = (int(item.shape[1]), int(item.shape[0]))
                found.matrices[name] = Matrix(name, shape, kind, partial(read, name))
            else:
                found.others[name] = kind
        if "provenance" in file:
            found.provenance = parse_provenance(path, _char(path, file["provenance"], size))
    except DAMAGED_HDF5 as error:
        file.close()
        raise damaged(error) from error
    except FormatError:
        file.close()
        raise
    return found


def _matlab_class(item: Any) -> str:
    """MATLAB's name for the class of a variable; other programs do not write it down, so the stored type tells."""
    named = getattr(item, "attrs", {}).get("MATLAB_class", b"")
    if isinstance(named, bytes) and named:
        return named.decode("ascii", errors="replace")
    if isinstance(item, h5py.Dataset) and item.dtype.kind in "fiub":
        return {"float64": "double", "float32": "single", "bool": "logical"}.get(item.dtype.name, str(item.dtype.name))
    return "variable of another kind"


def _char(path: Path, dataset: Any, size: int) -> str:
    """A MATLAB char array: UTF-16 code units, one row."""
    text = isinstance(dataset, h5py.Dataset) and dataset.dtype == np.uint16
    if not text or not plausible((dataset.size or 0) * 2, size):
        raise FormatError(f"{path}: {getattr(dataset, 'name', '?')} is not a MATLAB char array")
    return bytes(dataset[()].astype("<u2").tobytes()).decode("utf-16-le", errors="surrogatepass")


def open_v5(path: Path, size: int) -> MatFile:
    """Version 5: the arrays one after the other, each perhaps compressed; see ``matlab_v5``."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror or error}") from error
    found = MatFile()
    for variable in read_variables(path, data):
        name, dims = variable.name, variable.dims
        if name in found.matrices or name in found.others:
            raise FormatError(f"{path}: holds two variables of the name {name!r}")
        if not variable.is_numbers or len(dims) != 2 or 0 in dims:
            found.others[name] = variable.kind
        elif not plausible(dims[0] * dims[1], size):  # a double may lie as one byte in the file
            raise FormatError(f"{path}: {name} claims {dims[0]} x {dims[1]} numbers in a file of {size} bytes")
        else:
            found.matrices[name] = Matrix(name, (dims[0], dims[1]), variable.kind, variable.numbers)
        if name == NAMES and variable.kind == "cell":
            found.names = variable.texts
    return found
