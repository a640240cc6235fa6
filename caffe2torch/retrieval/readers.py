"""Codes back from the four kinds of file ``extract`` writes, every length checked against the file first."""

from __future__ import annotations

import csv
import json
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from caffe2torch.errors import FormatError
from caffe2torch.retrieval.codes import MAX_BITS, Codes, packed_width

# Deflate cannot shrink data by more than 1032:1, so a larger claim is a damaged or hostile header.
MAX_RATIO = 1100
SLACK = 1 << 20


def read_codes(path: str | Path) -> Codes:
    """Read a codes file written by ``extract``: .h5, .mat, .npz or .csv, told apart by the suffix.

    Raises FormatError when the file is damaged, is no codes file, or contradicts itself.
    """
    path = Path(path)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise FormatError(f"{path}: codes are kept in {', '.join(READERS)} files, not {path.suffix!r}")
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror}") from error
    return _checked(path, reader(path, size))


def read_h5(path: Path, size: int) -> Codes:
    """``codes``, ``paths``, perhaps ``features`` and ``labels``; ``bits`` and ``provenance`` are attributes."""
    try:
        with h5py.File(path, "r") as file:
            bits = _bits(path, file.attrs.get("bits"))
            raw = _h5_array(path, file, "paths", size)
            return Codes(
                packed=_h5_array(path, file, "codes", size),
                bits=bits,
                paths=tuple(_text(path, name) for name in raw.ravel()),
                provenance=_provenance(path, file.attrs.get("provenance", "{}")),
                features=_h5_array(path, file, "features", size) if "features" in file else None,
                labels=_h5_array(path, file, "labels", size).astype(np.int64) if "labels" in file else None,
            )
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise FormatError(f"{path}: not a readable HDF5 codes file: {error}") from error


def read_mat(path: Path, size: int) -> Codes:
    """A v7.3 ``binary_codes`` (bits x N logical) with its ``list_im``; other tools' files of this form are read too."""
    try:
        with h5py.File(path, "r") as file:
            bits = _h5_array(path, file, "binary_codes", size)
            if bits.ndim != 2 or bits.dtype != np.uint8 or bool((bits > 1).any()):
                raise FormatError(f"{path}: binary_codes is {bits.dtype} {bits.shape}, expected a 2-D logical")
            cells = _h5_array(path, file, "list_im", size).ravel() if "list_im" in file else np.zeros(0, object)
            text = _mat_text(path, file["provenance"], size) if "provenance" in file else "{}"
            return Codes(
                packed=np.packbits(bits, axis=1),
                bits=_bits(path, bits.shape[1]),
                paths=tuple(_mat_text(path, file[cell], size) for cell in cells),
                provenance=_provenance(path, text),
            )
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise FormatError(f"{path}: not a readable MATLAB v7.3 codes file: {error}") from error


def read_npz(path: Path, size: int) -> Codes:
    """Arrays ``codes``, ``bits``, ``paths``, ``provenance`` and, where they are there, ``features`` and ``labels``."""
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.file_size > MAX_RATIO * size + SLACK:
                    raise FormatError(f"{path}: {member.filename} claims {member.file_size} bytes, the file has {size}")
            names = {member.filename for member in archive.infolist()}

            def array(name: str) -> Any:
                with archive.open(f"{name}.npy") as stream:
                    return np.lib.format.read_array(stream, allow_pickle=False)

            return Codes(
                packed=array("codes"),
                bits=_bits(path, array("bits")[()]),
                paths=tuple(str(name) for name in array("paths")),
                provenance=_provenance(path, str(array("provenance")[()])),
                features=array("features") if "features.npy" in names else None,
                labels=array("labels").astype(np.int64) if "labels.npy" in names else None,
            )
    except (OSError, KeyError, ValueError, TypeError, EOFError, MemoryError, NotImplementedError) as error:
        raise FormatError(f"{path}: not a readable .npz codes file: {error}") from error
    except (zipfile.BadZipFile, zlib.error) as error:
        raise FormatError(f"{path}: not a readable .npz codes file: {error}") from error


def read_csv(path: Path, size: int) -> Codes:
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
        bits=_bits(path, bits),
        paths=tuple(paths),
        labels=np.array(labels, dtype=np.int64) if labelled else None,
    )


READERS: dict[str, Callable[[Path, int], Codes]] = {
    ".h5": read_h5,
    ".mat": read_mat,
    ".npz": read_npz,
    ".csv": read_csv,
}


def _h5_array(path: Path, file: Any, name: str, size: int) -> Any:
    """The dataset ``name``, refused before anything is allocated when it claims more than the file could hold."""
    dataset = file.get(name)
    if not isinstance(dataset, h5py.Dataset):
        raise FormatError(f"{path}: holds no dataset {name!r}; is it a file that extract wrote?")
    if dataset.size is None or dataset.size * dataset.dtype.itemsize > MAX_RATIO * size + SLACK:
        raise FormatError(f"{path}: {name} claims shape {dataset.shape} in a file of {size} bytes")
    return dataset[()]


def _mat_text(path: Path, dataset: Any, size: int) -> str:
    """A MATLAB char array: UTF-16 code units, one row."""
    text = isinstance(dataset, h5py.Dataset) and dataset.dtype == np.uint16
    if not text or (dataset.size or 0) * 2 > MAX_RATIO * size:
        raise FormatError(f"{path}: {getattr(dataset, 'name', '?')} is not a MATLAB char array")
    return bytes(dataset[()].astype("<u2").tobytes()).decode("utf-16-le", errors="surrogatepass")


def _bits(path: Path, value: Any) -> int:
    if not isinstance(value, (int, np.integer)) or not 1 <= value <= MAX_BITS:
        raise FormatError(f"{path}: the number of bits is {value!r}, expected 1 to {MAX_BITS}")
    return int(value)


def _text(path: Path, value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="surrogateescape")
    if isinstance(value, str):
        return value
    raise FormatError(f"{path}: a path is {type(value).__name__}, expected text")


def _provenance(path: Path, value: Any) -> dict[str, Any]:
    try:
        parsed = json.loads(_text(path, value))
    except json.JSONDecodeError as error:
        raise FormatError(f"{path}: its provenance is not JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise FormatError(f"{path}: its provenance is {type(parsed).__name__}, expected a JSON object")
    return parsed


def _checked(path: Path, codes: Codes) -> Codes:
    """The same codes when their parts agree, otherwise FormatError."""
    packed, bits = codes.packed, codes.bits
    if not 1 <= bits <= MAX_BITS:
        raise FormatError(f"{path}: says its codes have {bits} bits; 1 to {MAX_BITS} are possible")
    if packed.dtype != np.uint8 or packed.ndim != 2 or packed.shape[1] != packed_width(bits):
        raise FormatError(
            f"{path}: codes are {packed.dtype} {packed.shape}; {bits} bits need uint8 (N, {packed_width(bits)})"
        )
    if bits % 8 and bool((packed[:, -1] & ((1 << (-bits % 8)) - 1)).any()):
        raise FormatError(f"{path}: bits beyond the first {bits} are set: the codes are damaged or packed otherwise")
    rows = {"paths": len(codes.paths)}
    if codes.features is not None:
        rows["features"] = len(codes.features)
    if codes.labels is not None:
        rows["labels"] = len(codes.labels)
    for name, count in rows.items():
        if count != len(packed):
            raise FormatError(f"{path}: {len(packed)} codes but {count} {name}")
    return codes
