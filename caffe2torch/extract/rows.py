"""The rows of an unfinished run on disk: packed codes, features and errors, appended a batch at a time.

``rows.bin`` has one fixed-size record for each picture done (a status byte, then the packed code), ``features.bin``
float32 rows beside it, ``errors.jsonl`` a line ``[row, message]`` for each picture that could not be read. ``rows.bin``
is written last, so a row counts only when everything that belongs to it is there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from caffe2torch.errors import OutputError
from caffe2torch.extract.listing import Entry
from caffe2torch.retrieval.codes import Floats, Packed, packed_width

OK, FAILED = 1, 2  # status bytes; 0 is what a hole in a file reads as, so it means "not written"
CHUNK = 4096
FILES = ("features.bin", "errors.jsonl", "rows.bin")


@dataclass(frozen=True, eq=False)
class Chunk:
    """Consecutive finished rows: pictures, packed codes (n, bytes), features (n, D) or None, and which rows failed."""

    entries: list[Entry]
    packed: Packed
    features: Floats | None
    failed: npt.NDArray[np.bool_]


class Rows:
    """The three files in ``folder``. ``done`` counts the finished rows, ``failed`` those of them without a code."""

    def __init__(self, folder: Path, *, bits: int, feature_size: int) -> None:
        self.folder, self.bits, self.feature_size = folder, bits, feature_size
        self.record_size = 1 + packed_width(bits)
        self.done = self.failed = 0
        self._files: dict[str, IO[bytes]] = {}

    def open(self, total: int, first: int = 0, batch: int = 1) -> None:
        """Open for appending after cutting every file back to the rows that are whole.

        ``total`` is how many rows there may be (0 for a new run). While they are not all there, the rows after
        ``first`` are cut to a multiple of ``batch``: a resumed run then makes the very batches of the first one.
        """
        done = self._size("rows.bin") // self.record_size
        if self.feature_size:
            done = min(done, self._size("features.bin") // (4 * self.feature_size))
        done = min(done, total)
        if done < total:
            done -= max(0, done - first) % batch
        self.failed = self._count_failed(done)
        for name in FILES:
            self._files[name] = (self.folder / name).open("ab", buffering=0)
        self._files["rows.bin"].truncate(done * self.record_size)
        self._files["features.bin"].truncate(done * 4 * self.feature_size)
        self._files["errors.jsonl"].truncate(self._errors_size(done))
        self.done = done

    def _size(self, name: str) -> int:
        path = self.folder / name
        return path.stat().st_size if path.exists() else 0

    def _count_failed(self, done: int) -> int:
        if not done:
            return 0
        status = np.memmap(self.folder / "rows.bin", np.uint8, "r", shape=(done, self.record_size))[:, 0]
        whole = (status == OK) | (status == FAILED)
        if not whole.all():
            raise OutputError(
                f"{self.folder / 'rows.bin'}: row {int(whole.argmin())} is damaged; --force starts again from nothing"
            )
        return int(np.count_nonzero(status == FAILED))

    def _errors_size(self, done: int) -> int:
        """Bytes of errors.jsonl that belong to the first ``done`` rows."""
        size = 0
        with (self.folder / "errors.jsonl").open("rb") as file:
            for line in file:
                if not line.endswith(b"\n") or json.loads(line)[0] >= done:
                    break
                size += len(line)
        return size

    def append(self, packed: Packed, features: Floats | None, errors: Mapping[int, str]) -> None:
        """Add one batch; ``errors`` gives the rows of the batch (from 0) that could not be read, and why."""
        records = np.empty((len(packed), self.record_size), dtype=np.uint8)
        records[:, 0], records[:, 1:] = OK, packed
        for row in errors:
            records[row, 0], records[row, 1:] = FAILED, 0
        if features is not None:
            features = np.array(features, dtype="<f4", order="C")
            features[list(errors)] = 0
            _write_all(self._files["features.bin"], features)
        for row, message in sorted(errors.items()):
            _write_all(self._files["errors.jsonl"], (json.dumps([self.done + row, message]) + "\n").encode("ascii"))
        _write_all(self._files["rows.bin"], records)
        self.done += len(packed)
        self.failed += len(errors)

    def close(self) -> None:
        """Let go of the files."""
        for file in self._files.values():
            file.close()
        self._files = {}

    def errors(self) -> Iterator[tuple[int, str]]:
        """(row, message) of every picture that could not be read, in order."""
        with (self.folder / "errors.jsonl").open("rb") as file:
            for line in file:
                row, message = json.loads(line)
                yield row, message

    def chunks(self, entries: Iterable[Entry], *, keep_failed: bool, size: int = CHUNK) -> Iterator[Chunk]:
        """All finished rows beside their pictures, ``size`` at a time; failed ones have code 0, or are left out."""
        entries = iter(entries)
        with (self.folder / "rows.bin").open("rb") as rows, (self.folder / "features.bin").open("rb") as features:
            for first in range(0, self.done, size):
                count = min(size, self.done - first)
                records = np.frombuffer(rows.read(count * self.record_size), np.uint8).reshape(count, -1)
                failed = records[:, 0] == FAILED
                keep = np.ones(count, np.bool_) if keep_failed else ~failed
                values = None
                if self.feature_size:
                    raw = features.read(count * 4 * self.feature_size)
                    values = np.frombuffer(raw, "<f4").reshape(count, -1)[keep].astype(np.float32)
                named = [entry for entry, kept in zip(islice(entries, count), keep, strict=True) if kept]
                yield Chunk(named, records[keep, 1:], values, failed[keep])


def _write_all(file: IO[bytes], data: Any) -> None:
    """A raw write may take only part of the data (a nearly full disk); the rest is tried until it fails."""
    view = memoryview(data).cast("B")
    while len(view):
        view = view[file.write(view) :]
