"""Writing a codes file: .h5, .mat, .npz or .csv by the suffix, in bounded memory, complete or not at all."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from caffe2torch.errors import OutputError, UsageError
from caffe2torch.extract.contents import Contents
from caffe2torch.extract.matfile import write_codes_mat, write_features_mat
from caffe2torch.files import atomic_path
from caffe2torch.hdf5_output import hdf5_output
from caffe2torch.retrieval.checked import FORMAT, VERSION
from caffe2torch.retrieval.codes import BIT_ORDER, THRESHOLD, as_text, packed_width

ROWS = 1024  # rows in one compressed piece of an .h5 dataset


def check_suffix(out: Path) -> None:
    """Raise UsageError unless the suffix of ``out`` names a format."""
    if out.suffix.lower() not in WRITERS:
        raise UsageError(f"--out {out}: the suffix decides the format; give one of {' '.join(WRITERS)}")


def features_path(out: Path, blob: str) -> Path | None:
    """The second file features go to (.mat and .csv), None where they lie beside the codes in one file."""
    if out.suffix.lower() not in FEATURE_WRITERS:
        return None
    name = "".join(c if c.isalnum() or c in "-_" else "_" for c in blob)
    return out.with_name(f"{out.stem}.{name}{out.suffix}")


def write(out: Path, contents: Contents) -> None:
    """Write the codes file (and features, where the format holds both)."""
    _write(out, WRITERS[out.suffix.lower()], contents)


def write_features(path: Path, contents: Contents) -> None:
    """Write the second file, as ``features_path`` names it."""
    _write(path, FEATURE_WRITERS[path.suffix.lower()], contents)


def _write(out: Path, writer: Callable[[Path, Contents], None], contents: Contents) -> None:
    with atomic_path(out) as temporary:
        try:
            writer(temporary, contents)
        except RuntimeError as error:  # h5py's word for a write that failed while the file was being closed
            raise OutputError(f"{out}: cannot be written: {error}") from error


def write_h5(path: Path, contents: Contents) -> None:
    """Datasets ``codes``, ``paths``, and ``features``, ``labels``, ``errors`` where there are any."""
    rows, text = contents.rows, h5py.string_dtype("utf-8")
    with hdf5_output(path) as (file, check):
        file.attrs["format"] = f"{FORMAT}{VERSION}"
        file.attrs["bits"] = contents.bits
        file.attrs["bit_order"] = BIT_ORDER
        file.attrs["threshold"] = THRESHOLD
        file.attrs["provenance"] = json.dumps(contents.provenance)
        targets = {
            "codes": _dataset(file, "codes", (rows, packed_width(contents.bits)), np.uint8),
            "paths": _dataset(file, "paths", (rows,), text),
        }
        if contents.feature_size:
            # in one piece, not chunked like the others: retrieval.Features then maps it where it lies
            targets["features"] = file.create_dataset("features", (rows, contents.feature_size), np.float32)
        if contents.labelled:
            targets["labels"] = _dataset(file, "labels", (rows,), np.int64)
        row = 0
        for chunk in contents.chunks():
            check()
            end = row + len(chunk.packed)
            columns = {
                "codes": chunk.packed,
                "paths": np.array([_utf8(entry.shown) for entry in chunk.entries], dtype=object),
                "features": chunk.features,
                "labels": [entry.label for entry in chunk.entries],
            }
            for name, dataset in targets.items():
                dataset[row:end] = columns[name]
            row = end
        _write_h5_errors(file, contents, text)


def _write_h5_errors(file: Any, contents: Contents, text: Any) -> None:
    """Group ``errors``: row among all listed pictures, path and message of each one that could not be read."""
    failures = [(f.row, _utf8(f.path), _utf8(f.message)) for f in contents.failures()]
    if failures:
        group = file.create_group("errors")
        group["rows"] = np.array([f[0] for f in failures], np.int64)
        group.create_dataset("paths", data=np.array([f[1] for f in failures], dtype=object), dtype=text)
        group.create_dataset("messages", data=np.array([f[2] for f in failures], dtype=object), dtype=text)


def _dataset(file: Any, name: str, shape: tuple[int, ...], dtype: Any) -> Any:
    if not shape[0]:
        return file.create_dataset(name, shape=shape, dtype=dtype)
    return file.create_dataset(name, shape=shape, dtype=dtype, chunks=(min(shape[0], ROWS), *shape[1:]))


def _utf8(text: str) -> bytes:
    """File names that are no UTF-8 keep their own bytes."""
    return text.encode("utf-8", errors="surrogateescape")


def write_npz(path: Path, contents: Contents) -> None:
    """Arrays ``format``, ``codes``, ``bits``, ``paths``, ``provenance``; also ``features``, ``labels``, ``errors``."""
    failures = [(str(f.row), f.path, f.message) for f in contents.failures()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=3) as archive:
        _small(archive, "format", np.str_(f"{FORMAT}{VERSION}"))
        _small(archive, "bits", np.int64(contents.bits))
        _small(archive, "provenance", np.str_(json.dumps(contents.provenance)))
        width = packed_width(contents.bits)
        _stream(archive, "codes", "|u1", (contents.rows, width), (c.packed for c in contents.chunks()))
        name = np.dtype(f"<U{max(1, contents.longest)}")
        names = (np.array([e.shown for e in c.entries], name) for c in contents.chunks())
        _stream(archive, "paths", name.str, (contents.rows,), names)
        if contents.feature_size:
            values = (c.features for c in contents.chunks())
            shape = (contents.rows, contents.feature_size)
            _stream(archive, "features", "<f4", shape, values, compressed=False)
        if contents.labelled:
            labels = (np.array([e.label for e in c.entries], "<i8") for c in contents.chunks())
            _stream(archive, "labels", "<i8", (contents.rows,), labels)
        if failures:
            _small(archive, "errors", np.array(failures))


def _small(archive: zipfile.ZipFile, name: str, value: Any) -> None:
    with archive.open(f"{name}.npy", "w") as stream:
        np.lib.format.write_array(stream, np.asanyarray(value), allow_pickle=False)


def _stream(
    archive: zipfile.ZipFile,
    name: str,
    descr: str,
    shape: tuple[int, ...],
    pieces: Iterator[Any],
    *,
    compressed: bool = True,
) -> None:
    """An .npy member written piece by piece, so that the whole array is never in memory.

    What is not compressed, as features are, can be mapped from where it lies by retrieval.Features.
    """
    member = f"{name}.npy" if compressed else zipfile.ZipInfo(f"{name}.npy")  # a ZipInfo is stored by default
    with archive.open(member, "w", force_zip64=True) as stream:
        np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
        for piece in pieces:
            stream.write(np.ascontiguousarray(piece, dtype=descr).tobytes())


def write_csv(path: Path, contents: Contents) -> None:
    """Columns ``path``, ``code`` (a string of 0 and 1, bit 0 first), ``label`` and ``status`` where there are any.

    ``status`` is "ok", or "unreadable" for a picture whose code is zero because it could not be read.
    """
    labels = ("label",) if contents.labelled else ()
    statuses = ("status",) if contents.keeps_failed else ()

    def rows() -> Iterator[Sequence[Any]]:
        for chunk in contents.chunks():
            codes = as_text(chunk.packed, contents.bits)
            for entry, code, failed in zip(chunk.entries, codes, chunk.failed, strict=True):
                label = (entry.label,) if labels else ()
                yield (entry.shown, code, *label, *(("unreadable" if failed else "ok",) if statuses else ()))

    _table(path, ("path", "code", *labels, *statuses), rows())


def write_features_csv(path: Path, contents: Contents) -> None:
    """Columns ``path`` and one for each value, with the nine digits that give a float32 back exactly."""

    def rows() -> Iterator[Sequence[Any]]:
        for chunk in contents.chunks():
            assert chunk.features is not None
            for entry, values in zip(chunk.entries, chunk.features, strict=True):
                yield (entry.shown, *(f"{value:.9g}" for value in values))

    _table(path, ("path", *map(str, range(contents.feature_size))), rows())


def _table(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        table = csv.writer(file)
        table.writerow(header)
        table.writerows(rows)


WRITERS: dict[str, Callable[[Path, Contents], None]] = {
    ".h5": write_h5,
    ".mat": write_codes_mat,
    ".npz": write_npz,
    ".csv": write_csv,
}
FEATURE_WRITERS: dict[str, Callable[[Path, Contents], None]] = {
    ".mat": write_features_mat,
    ".csv": write_features_csv,
}
