"""Codes back from the four kinds of file ``extract`` writes and from MATLAB's own, every length checked first."""

from __future__ import annotations

import csv
import tokenize
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from caffe2torch.errors import FormatError, UsageError
from caffe2torch.retrieval.checked import as_str, bit_count, consistent, file_size, h5_array, known_format, plausible
from caffe2torch.retrieval.checked import provenance as parse_provenance
from caffe2torch.retrieval.codes import Codes
from caffe2torch.retrieval.matlab import MatlabChoice, read_mat


def read_codes(
    path: str | Path,
    *,
    bits: int | None = None,
    variable: str | None = None,
    layout: str | None = None,
    values: str = "codes",
    features: bool = True,
    say: Callable[[str], object] = lambda message: None,
) -> Codes:
    """Read a codes file: .h5, .mat, .npz or .csv as ``extract`` writes them, or a .mat of MATLAB's own.

    ``bits`` is what a code must have. The other options are for MATLAB files, see ``matlab.MatlabChoice``: ``variable``
    names the array, ``layout`` is "columns" or "rows", and ``values`` is "codes" or, for sigmoid outputs that are still
    to be thresholded, "sigmoid". Without ``features``, those of the file are left out. ``say`` hears how a MATLAB file
    was understood. Only such a file may lack the pictures' names: ``paths`` is empty then.

    Raises FormatError when the file is damaged, is no codes file, or contradicts itself, UsageError when it can be
    understood in more than one way.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise FormatError(f"{path}: codes are kept in {', '.join(READERS)} files, not {path.suffix!r}")
    size = file_size(path)
    if suffix == ".mat":
        choice = MatlabChoice(bits=bits, variable=variable, layout=layout, values=values)
        codes, understood = read_mat(path, size, choice)
        say(understood)
        return consistent(path, codes, named=False)
    if variable is not None or layout is not None or values != "codes":
        raise UsageError(f"{path}: the options variable, layout and values are for MATLAB files")
    codes = consistent(path, READERS[suffix](path, size, features))
    if bits is not None and codes.bits != bits:
        raise FormatError(f"{path}: holds {codes.bits}-bit codes, expected {bits} bits")
    return codes


def read_h5(path: Path, size: int, features: bool) -> Codes:
    """``codes``, ``paths``, perhaps ``features`` and ``labels``; ``bits`` and ``provenance`` are attributes."""
    try:
        with h5py.File(path, "r") as file:
            known_format(path, file.attrs.get("format"))
            bits = bit_count(path, file.attrs.get("bits"))
            raw = h5_array(path, file, "paths", size)
            return Codes(
                packed=h5_array(path, file, "codes", size),
                bits=bits,
                paths=tuple(as_str(path, name) for name in raw.ravel()),
                provenance=parse_provenance(path, file.attrs.get("provenance", "{}")),
                features=h5_array(path, file, "features", size) if features and "features" in file else None,
                labels=h5_array(path, file, "labels", size).astype(np.int64) if "labels" in file else None,
            )
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise FormatError(f"{path}: not a readable HDF5 codes file: {error}") from error


def read_npz(path: Path, size: int, features: bool) -> Codes:
    """Arrays ``codes``, ``bits``, ``paths``, ``provenance`` and, where they are there, ``features`` and ``labels``."""
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if not plausible(member.file_size, size):
                    raise FormatError(f"{path}: {member.filename} claims {member.file_size} bytes, the file has {size}")
            names = {member.filename for member in archive.infolist()}

            def array(name: str) -> Any:
                with archive.open(f"{name}.npy") as stream:
                    return np.lib.format.read_array(stream, allow_pickle=False)

            known_format(path, array("format")[()] if "format.npy" in names else None)
            return Codes(
                packed=array("codes"),
                bits=bit_count(path, array("bits")[()]),
                paths=tuple(str(name) for name in array("paths")),
                provenance=parse_provenance(path, str(array("provenance")[()])),
                features=array("features") if features and "features.npy" in names else None,
                labels=array("labels").astype(np.int64) if "labels.npy" in names else None,
            )
    except (OSError, KeyError, ValueError, TypeError, EOFError, MemoryError, NotImplementedError) as error:
        raise FormatError(f"{path}: not a readable .npz codes file: {error}") from error
    except (zipfile.BadZipFile, zlib.error, SyntaxError, tokenize.TokenError) as error:  # the last two: numpy's header
        raise FormatError(f"{path}: not a readable .npz codes file: {error}") from error


def read_csv(path: Path, size: int, _: bool) -> Codes:
    """Columns ``path`` and ``code`` (a string of 0 and 1, bit 0 first) and, where it is there, ``label``."""
    paths, labels, rows = [], [], []
    bits = 0
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            table = csv.DictReader(file, strict=True)
            if not {"path", "code"} <= set(table.fieldnames or ()):
                raise FormatError(f"{path}:1: expected the columns path and code, found {table.fieldnames}")
            labelled = "label" in (table.fieldnames or ())
            for row in table:
                code = row["code"] or ""
                bits = bits or len(code)
                if not code or len(code) != bits or code.strip("01"):
                    raise FormatError(f"{path}:{table.line_num}: {code[:80]!r} is no code of {bits} characters 0 or 1")
                paths.append(row["path"])
                rows.append(np.packbits(np.frombuffer(code.encode("ascii"), dtype=np.uint8) - ord("0")))
                if labelled:
                    labels.append(int(row["label"]))
    except (OSError, csv.Error, ValueError, TypeError) as error:
        raise FormatError(f"{path}: not a readable codes table: {error}") from error
    if not rows:
        raise FormatError(f"{path}: holds no codes")
    return Codes(
        packed=np.stack(rows),
        bits=bit_count(path, bits),
        paths=tuple(paths),
        labels=np.array(labels, dtype=np.int64) if labelled else None,
    )


READERS: dict[str, Callable[[Path, int, bool], Codes]] = {
    ".h5": read_h5,
    ".mat": lambda path, size, _: read_mat(path, size, MatlabChoice())[0],
    ".npz": read_npz,
    ".csv": read_csv,
}
