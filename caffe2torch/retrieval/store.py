"""An index on disk: a folder of columns that only grow, and one small file that says how far they are valid.

::

    photos.index/
      index.json          what the index is and how many bytes of each column count; replaced as a whole
      codes.1.bin         (rows, stride) bytes: each packed code padded with zeros to whole words
      ids.1.bin           int64 per row
      removed.1.bin       int64 per removed row: its number
      labels.1.bin        int64 per row, or a byte 0 or 1 per row and label; only where there are labels
      paths.1.bin         UTF-8; only where there are paths
      path_ends.1.bin     int64 per row: where its path ends
      lock                held by a process that writes

All numbers are little-endian. Why a folder: each column must be one stretch of bytes to be mapped into memory and
searched where it lies, and each must be able to grow at its end; one file could give only one of them that place.

**Growing.** New rows are written behind the bytes that count, then ``index.json`` takes the place of the old one by a
rename. A write that fails takes its bytes back. A process that dies before the rename leaves the old state, which
ignores what stands behind; the next append writes over it. Whoever has the index open goes on seeing the state it
opened. Removed rows stay and are listed. Writing an index anew, which also drops removed rows, makes files of the next
generation (the number in their names).

**Checking.** ``index.json`` carries its own CRC-32 and that of each column, which go on from append to append. A
newer version is refused by its number before anything else is read.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from caffe2torch.errors import FormatError, OutputError
from caffe2torch.files import explain, make_folder
from caffe2torch.retrieval.codes import packed_width
from caffe2torch.retrieval.rows import Rows, Texts
from caffe2torch.retrieval.store_head import HEAD, Column, Head, read_head, write_head
from caffe2torch.retrieval.store_lock import locked, removed_in_vain, writing

CHUNK = 1 << 24
OWN_NAMES = re.compile(r"(?:codes|ids|removed|labels|paths|path_ends)\.(\d+)\.bin|lock|\..*\.part\.json")


@dataclass(frozen=True, eq=False)
class Store:
    """A saved index as it was when opened: ``rows`` (mapped, removed ones included) and the numbers of the removed."""

    path: Path
    head: Head
    rows: Rows
    removed: npt.NDArray[np.int64]

    @staticmethod
    def open(path: Path, *, verify: bool = True) -> Store:
        """Map the columns after their sizes were compared with the file; ``verify`` compares checksums, too.

        Raises FormatError where the index is damaged, cut off or of a newer version.
        """
        head = read_head(path)
        columns = {name: _map(path, head, name, verify=verify) for name in head.columns}
        rows = head.rows
        stored = Rows(
            codes=columns["codes"].reshape(rows, head.stride),
            ids=columns["ids"].view("<i8"),
            paths=Texts(columns["paths"], columns["path_ends"].view("<i8")) if "paths" in columns else None,
            labels=_labels(columns["labels"], head) if "labels" in columns else None,
        )
        store = Store(path, head, stored, np.array(columns["removed"].view("<i8"), np.int64))
        store._check_removed()
        if verify:
            store._check_values()
        return store

    @staticmethod
    def create(
        path: Path, rows: Rows, *, bits: int, next_id: int, provenance: Mapping[str, Any], force: bool = False
    ) -> Store:
        """Write a new index; with ``force`` in the place of another one."""
        fresh = not path.exists()
        generation = _prepare(path, force=force)
        with removed_in_vain(path, fresh=fresh), locked(path), writing(path):
            head = Head(
                bits=bits,
                stride=rows.codes.shape[1],
                rows=0,
                next_id=next_id,
                generation=generation,
                serial=0,
                label_width=_label_width(rows),
                provenance=dict(provenance),
                columns={name: Column(0, 0) for name in _contents(rows, np.zeros(0, np.int64), 0)},
            )
            _append(path, head, rows, np.zeros(0, np.int64), next_id)
            _remove_others(path, generation)
        return Store.open(path, verify=False)

    def is_at(self, path: Path) -> bool:
        """Whether ``path`` is where this index lies."""
        return path.exists() and path.samefile(self.path)

    def append(self, rows: Rows | None, removed: npt.NDArray[np.int64], *, next_id: int) -> Store:
        """The index with ``rows`` added and those with the numbers ``removed`` taken out; no byte in use is rewritten.

        Raises OutputError where the index on disk is no longer the one that was opened.
        """
        if rows is None and not len(removed):
            return self
        with locked(self.path), writing(self.path):
            now = read_head(self.path)
            if (now.generation, now.serial) != (self.head.generation, self.head.serial):
                raise OutputError(f"{self.path}: was changed by another process since it was opened; open it again")
            nothing = Rows(
                self.rows.codes[:0], self.rows.ids[:0], self.rows.paths and Texts.of([]), _no_labels(self.rows)
            )
            _append(self.path, self.head, rows or nothing, removed, next_id)
        return Store.open(self.path, verify=False)

    def _check_removed(self) -> None:
        rows = self.removed
        if len(rows) and (int(rows.min()) < 0 or int(rows.max()) >= self.head.rows or len(np.unique(rows)) < len(rows)):
            raise FormatError(f"{self.path}: the list of removed rows names rows twice, or that are not there")

    def _check_values(self) -> None:
        """What right checksums cannot promise."""
        rows, head = self.rows, self.head
        width = packed_width(head.bits)
        beyond = rows.codes[:, width:].any() or (
            head.bits % 8 and (rows.codes[:, width - 1] & ((1 << (-head.bits % 8)) - 1)).any()
        )
        if bool(beyond):
            raise FormatError(f"{self.path}: bits beyond the first {head.bits} are set in its codes")
        live = np.delete(rows.ids, self.removed)
        if not bool((live[1:] > live[:-1]).all()) and len(np.unique(live)) < len(live):
            raise FormatError(f"{self.path}: two codes have the same id")
        if len(rows) and (int(rows.ids.min()) < 0 or int(rows.ids.max()) >= head.next_id):
            raise FormatError(
                f"{self.path}: ids reach from {rows.ids.min()} to {rows.ids.max()}, not below {head.next_id}"
            )
        if rows.paths is not None:
            ends = rows.paths.ends
            if len(ends) and (
                int(ends[0]) < 0 or bool((ends[1:] < ends[:-1]).any()) or ends[-1] != len(rows.paths.blob)
            ):
                raise FormatError(f"{self.path}: the ends of its paths do not fit the paths")


def _map(path: Path, head: Head, name: str, *, verify: bool) -> npt.NDArray[np.uint8]:
    file, column = path / f"{name}.{head.generation}.bin", head.columns[name]
    try:
        size = file.stat().st_size
        if size < column.size:
            raise FormatError(f"{file}: cut off: {size} bytes, the index needs {column.size}")
        if not column.size:
            return np.zeros(0, np.uint8)
        found: npt.NDArray[np.uint8] = np.asarray(np.memmap(file, np.uint8, "r", shape=(column.size,)))
    except (OSError, ValueError) as error:
        raise FormatError(f"{file}: cannot be mapped: {error}") from error
    if verify and _crc(found, 0) != column.crc32:
        raise FormatError(f"{file}: damaged: its checksum is not the one the index was saved with")
    return found


def _labels(column: npt.NDArray[np.uint8], head: Head) -> Any:
    if head.label_width == 0:
        return column.view("<i8")
    return column.reshape(head.rows, head.label_width) != 0


def _label_width(rows: Rows) -> int:
    return 0 if rows.labels is None or rows.labels.ndim == 1 else int(rows.labels.shape[1])


def _no_labels(rows: Rows) -> Any:
    return None if rows.labels is None else rows.labels[:0]


def _contents(rows: Rows, removed: npt.NDArray[np.int64], before: int) -> dict[str, npt.NDArray[Any]]:
    """The bytes of each column, paths going on after ``before`` bytes."""
    found: dict[str, npt.NDArray[Any]] = {"codes": rows.codes, "ids": rows.ids, "removed": removed}
    if rows.labels is not None:
        found["labels"] = rows.labels
    if rows.paths is not None:
        found["paths"], found["path_ends"] = rows.paths.blob, rows.paths.ends + before
    kinds = {"codes": np.uint8, "paths": np.uint8, "labels": np.uint8 if _label_width(rows) else "<i8"}
    return {name: np.ascontiguousarray(column, kinds.get(name, "<i8")) for name, column in found.items()}


def _append(path: Path, head: Head, rows: Rows, removed: npt.NDArray[np.int64], next_id: int) -> None:
    """Write behind the bytes that count, see them on the disk, and only then say that they count.

    What fails on the way, as on a full disk, leaves no bytes behind.
    """
    try:
        _write_behind(path, head, rows, removed, next_id)
    except BaseException:
        _take_back(path, head)
        raise


def _write_behind(path: Path, head: Head, rows: Rows, removed: npt.NDArray[np.int64], next_id: int) -> None:
    before = head.columns["paths"].size if "paths" in head.columns else 0
    columns = {}
    for name, content in _contents(rows, removed, before).items():
        column, flat = head.columns[name], content.reshape(-1).view(np.uint8)
        with (path / f"{name}.{head.generation}.bin").open("r+b" if head.serial else "w+b") as file:
            file.truncate(column.size)
            file.seek(column.size)
            for start in range(0, len(flat), CHUNK):
                file.write(flat[start : start + CHUNK].data)
            file.flush()
            os.fsync(file.fileno())
        columns[name] = Column(column.size + len(flat), _crc(flat, column.crc32))
    grown = replace(head, rows=head.rows + len(rows), next_id=next_id, serial=head.serial + 1, columns=columns)
    write_head(path, grown)


def _take_back(path: Path, head: Head) -> None:
    """Cut the columns to what counted before, unless what was written counts by now."""
    with suppress(FormatError):  # there is no head yet, or a damaged one was to be replaced
        now = read_head(path)
        if now.generation == head.generation and now.serial > head.serial:
            return
    for name, column in head.columns.items():
        file = path / f"{name}.{head.generation}.bin"
        with suppress(OSError):  # mapped, on systems that forbid cutting such files
            if head.serial:
                os.truncate(file, column.size)
            else:
                file.unlink(missing_ok=True)


def _crc(flat: npt.NDArray[np.uint8], start: int) -> int:
    for place in range(0, len(flat), CHUNK):
        start = zlib.crc32(flat[place : place + CHUNK].data, start)
    return start


def _prepare(path: Path, *, force: bool) -> int:
    """Make the folder, or see that what lies there may be replaced; returns the generation to write."""
    if path.exists() and not path.is_dir():
        raise OutputError(f"{path}: is a file; an index is saved as a folder")
    make_folder(path)
    try:
        names = sorted(entry.name for entry in path.iterdir())
    except OSError as error:
        raise OutputError(f"{path}: cannot be read: {explain(error)}") from error
    others = [name for name in names if name != HEAD and not OWN_NAMES.fullmatch(name)]
    if others:
        raise OutputError(f"{path}: is a folder with other things in it ({others[0]}, ...); choose another place")
    if HEAD in names and not force:
        raise OutputError(f"{path}: an index lies there already; replace it with force, or choose another place")
    return 1 + max((int(found[1]) for name in names if (found := OWN_NAMES.fullmatch(name)) and found[1]), default=0)


def _remove_others(path: Path, generation: int) -> None:
    for entry in path.iterdir():
        found = OWN_NAMES.fullmatch(entry.name)
        if found and found[1] and int(found[1]) != generation:
            with suppress(OSError):  # still open somewhere, on systems that forbid removing such files
                entry.unlink()
