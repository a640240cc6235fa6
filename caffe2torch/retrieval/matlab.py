"""Codes from MATLAB's own files, v7.3 (HDF5) and v5, in either direction; also sigmoid outputs that are no codes yet.

The papers' scripts keep one code per column, ``binary_test`` being 48 x 10,000; others keep one per row. Which it is
follows from the file or from the caller and is never guessed where both are possible.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from caffe2torch.errors import FormatError, UsageError
from caffe2torch.retrieval.checked import bit_count
from caffe2torch.retrieval.codes import Bits, Codes, pack, threshold
from caffe2torch.retrieval.matlab_files import MatFile, Matrix, open_v5, open_v73

LAYOUTS = ("columns", "rows")
VALUES = ("codes", "sigmoid")
PREFIX = {"codes": "binary", "sigmoid": "feat"}
"""How the papers' scripts begin the names of their variables."""
MUCH_LONGER = 8
"""A side this many times the other is the pictures' when nothing else tells; 64 codes of 48 bits need a word more."""


@dataclass(frozen=True)
class MatlabChoice:
    """What the caller knows of a MATLAB file; everything is optional.

    ``bits`` in a code; ``variable`` the array's name; ``layout`` "columns" (one code per column, as in the papers) or
    "rows"; ``values`` "codes" (0 and 1) or "sigmoid" (thresholded by > 0.5 in float32).
    """

    bits: int | None = None
    variable: str | None = None
    layout: str | None = None
    values: str = "codes"

    def __post_init__(self) -> None:
        if self.layout not in (None, *LAYOUTS):
            raise UsageError(f"layout is {self.layout!r}, expected one of {', '.join(LAYOUTS)}")
        if self.values not in VALUES:
            raise UsageError(f"values is {self.values!r}, expected one of {', '.join(VALUES)}")


def read_mat(path: Path, size: int, choice: MatlabChoice) -> tuple[Codes, str]:
    """The codes of a MATLAB file, and one sentence on how it was understood; ``paths`` is empty without ``list_im``.

    Raises FormatError for a damaged file or one without codes, UsageError where an option must decide.
    """
    with open_mat(path, size) as file:
        matrix = _chosen(path, file.matrices, file.others, choice)
        names = file.names()
        bits = _as_bits(path, matrix.name, matrix.read(), choice.values)
        count = None if names is None else len(names)
        columns, why = _direction(path, matrix, choice, count, ours=file.provenance is not None)
        codes = np.ascontiguousarray(bits.T if columns else bits)
        if count is not None and len(codes) != count:
            raise FormatError(f"{path}: {len(codes)} codes but {count} paths in list_im")
        if choice.bits is not None and codes.shape[1] != choice.bits:
            raise FormatError(f"{path}: {matrix.name} holds {codes.shape[1]}-bit codes, expected {choice.bits} bits")
        found = Codes(
            packed=pack(codes),
            bits=bit_count(path, codes.shape[1]),
            paths=names or (),
            provenance=file.provenance or {},
        )
    per = "column" if columns else "row"
    understood = f"{path}: {matrix.name}, {len(codes):,} codes of {found.bits} bits, one per {per} ({why})"
    return found, understood + ("; a bit is set where the value is > 0.5" if choice.values == "sigmoid" else "")


def open_mat(path: Path, size: int) -> MatFile:
    """The file's matrices by name, whichever of the two formats it is in; to be used in a ``with`` statement."""
    try:
        with path.open("rb") as file:
            header = file.read(128)
        modern = h5py.is_hdf5(path)
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror or error}") from error
    if modern:
        return open_v73(path, size)
    if header[126:128] in (b"IM", b"MI"):
        return open_v5(path, size)
    raise FormatError(f"{path}: is no MATLAB file of version 7.3 (HDF5) or 5")


def _chosen(path: Path, matrices: Mapping[str, Matrix], others: Mapping[str, str], choice: MatlabChoice) -> Matrix:
    """The matrix to read: the one that was named, else the only one of the papers' names, else the only one at all."""
    listed = ", ".join(f"{name} ({matrix.text})" for name, matrix in matrices.items())
    if choice.variable is not None:
        if choice.variable in matrices:
            return matrices[choice.variable]
        kind = others.get(choice.variable)
        found = f"{choice.variable} is a {kind}" if kind else f"there is no {choice.variable}"
        raise FormatError(f"{path}: {found}; expected the name of a matrix of numbers: {listed or 'there is none'}")
    named = [name for name in matrices if name.lower().startswith(PREFIX[choice.values])]
    candidates = named or list(matrices)
    if not candidates:
        held = ", ".join(f"{name} ({kind})" for name, kind in others.items()) or "nothing"
        raise FormatError(f"{path}: holds no matrix of numbers, so no codes; it holds {held}")
    if len(candidates) > 1:
        raise UsageError(f"{path}: holds several matrices; say with the option variable which has the codes: {listed}")
    return matrices[candidates[0]]


def _direction(path: Path, matrix: Matrix, choice: MatlabChoice, count: int | None, *, ours: bool) -> tuple[bool, str]:
    """Whether one code is one column, and what says so."""
    rows, columns = matrix.shape
    if choice.layout is not None:
        return choice.layout == "columns", "as asked for"
    if ours:
        return True, "as caffe2torch writes it"
    possible = {True: (rows, columns), False: (columns, rows)}  # whether columns -> (bits, pictures)
    reasons = []
    if choice.bits is not None:
        possible = {key: sides for key, sides in possible.items() if sides[0] == choice.bits}
        reasons.append(f"a code has {choice.bits} bits")
    if count is not None:
        possible = {key: sides for key, sides in possible.items() if sides[1] == count}
        reasons.append(f"list_im names {count} pictures")
    if not possible:
        raise FormatError(f"{path}: {matrix.name} is {matrix.text}, but {' and '.join(reasons)}")
    if len(possible) == 2 and max(rows, columns) >= MUCH_LONGER * min(rows, columns):
        possible = {columns >= rows: (0, 0)}
        reasons.append("the long side is the pictures'")
    if len(possible) == 2:
        raise UsageError(
            f"{path}: {matrix.name} is {matrix.text}: one code per column or one per row? Say so with the option "
            f"layout ({' or '.join(LAYOUTS)})" + ("" if rows == columns else " or with the option bits")
        )
    return next(iter(possible)), " and ".join(reasons)


def _as_bits(path: Path, name: str, values: npt.NDArray[Any], kind: str) -> Bits:
    """The matrix as booleans; what is neither 0 and 1 nor, where asked for, between them is refused."""
    if not values.size:
        return values.astype(np.bool_)
    low, high = values.min(), values.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise FormatError(f"{path}: {name} has values that are not finite numbers")
    between = low >= 0 and high <= 1
    if kind == "sigmoid":
        if not between:
            raise FormatError(
                f"{path}: {name} has values from {low:g} to {high:g}; the outputs of a sigmoid lie between 0 and 1"
            )
        return threshold(values)
    bits = values.astype(np.bool_)
    if between and bool((bits == values).all()):
        return bits
    if between:
        raise UsageError(
            f"{path}: {name} has numbers between 0 and 1 that are no bits; to set a bit where the number is > 0.5, "
            "choose the values 'sigmoid'"
        )
    hint = ""
    if values.dtype == np.uint8:
        hint = "; codes packed into bytes do not say their order of bits: unpack them in MATLAB"
    elif low == -1 and high == 1:
        hint = "; for signs, save (x > 0)"
    raise FormatError(f"{path}: {name} has values from {low:g} to {high:g}, expected 0 and 1 only{hint}")
