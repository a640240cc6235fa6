"""Parts of codes files, checked as they are read: a file's claims are held against its size before anything else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from caffe2torch.errors import FormatError
from caffe2torch.retrieval.codes import MAX_BITS, Codes, packed_width

# Deflate cannot shrink data by more than 1032:1, so a larger claim is a damaged or hostile header.
MAX_RATIO = 1100
SLACK = 1 << 20

FORMAT, VERSION = "caffe2torch codes ", 1
"""The mark of an .h5 codes file: this text and the version."""


def plausible(claimed: int, size: int) -> bool:
    """Whether a file of ``size`` bytes may hold an array of ``claimed`` bytes."""
    return claimed <= MAX_RATIO * size + SLACK


def file_size(path: Path) -> int:
    """Bytes of a file that can be opened; raises FormatError when it cannot."""
    try:
        with path.open("rb") as file:
            return file.seek(0, 2)
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror}") from error


def h5_array(path: Path, file: Any, name: str, size: int) -> Any:
    """The dataset ``name``, refused before anything is allocated when it claims more than the file could hold."""
    dataset = file.get(name)
    if not isinstance(dataset, h5py.Dataset):
        raise FormatError(f"{path}: holds no dataset {name!r}; is it a file that extract wrote?")
    if dataset.size is None or not plausible(dataset.size * dataset.dtype.itemsize, size):
        raise FormatError(f"{path}: {name} claims shape {dataset.shape} in a file of {size} bytes")
    return dataset[()]


def bit_count(path: Path, value: Any) -> int:
    """The number of bits in a code as an int, refused when no code can have that many."""
    if not isinstance(value, (int, np.integer)) or not 1 <= value <= MAX_BITS:
        raise FormatError(f"{path}: the number of bits is {value!r}, expected 1 to {MAX_BITS}")
    return int(value)


def known_format(path: Path, value: Any) -> None:
    """Raise FormatError for the codes of a newer program, or of another; files without the mark are taken."""
    if value is None:
        return
    text = str(value)
    name, _, version = text.rpartition(" ")
    if f"{name} " != FORMAT or not version.isdecimal():
        raise FormatError(f"{path}: its format is {text[:80]!r}, expected '{FORMAT}{VERSION}'")
    if int(version[:9]) > VERSION:
        raise FormatError(
            f"{path}: version {version[:9]} of the codes file, this program reads up to {VERSION}; update caffe2torch"
        )


def as_str(path: Path, value: Any) -> str:
    """Text as it lies in the file; a name that is not UTF-8 keeps its bytes as surrogates."""
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="surrogateescape")
    if isinstance(value, str):
        return value
    raise FormatError(f"{path}: a path is {type(value).__name__}, expected text")


def provenance(path: Path, value: Any) -> dict[str, Any]:
    """How the codes were made, from its JSON."""
    try:
        parsed = json.loads(as_str(path, value))
    except (json.JSONDecodeError, RecursionError) as error:
        raise FormatError(f"{path}: its provenance is not JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise FormatError(f"{path}: its provenance is {type(parsed).__name__}, expected a JSON object")
    return parsed


def consistent(path: Path, codes: Codes, *, named: bool = True) -> Codes:
    """The same codes when their parts agree, otherwise FormatError; ``named`` demands a path for each code."""
    packed, bits = codes.packed, codes.bits
    if not 1 <= bits <= MAX_BITS:
        raise FormatError(f"{path}: says its codes have {bits} bits; 1 to {MAX_BITS} are possible")
    if packed.dtype != np.uint8 or packed.ndim != 2 or packed.shape[1] != packed_width(bits):
        raise FormatError(
            f"{path}: codes are {packed.dtype} {packed.shape}; {bits} bits need uint8 (N, {packed_width(bits)})"
        )
    if bits % 8 and bool((packed[:, -1] & ((1 << (-bits % 8)) - 1)).any()):
        raise FormatError(f"{path}: bits beyond the first {bits} are set: the codes are damaged or packed otherwise")
    rows = {"paths": len(codes.paths)} if named or codes.paths else {}
    if codes.features is not None:
        rows["features"] = len(codes.features)
    if codes.labels is not None:
        rows["labels"] = len(codes.labels)
    for name, count in rows.items():
        if count != len(packed):
            raise FormatError(f"{path}: {len(packed)} codes but {count} {name}")
    return codes
