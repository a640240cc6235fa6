"""The folder ``OUT.partial`` that makes a run safe to kill: what is to be done, and every row done so far.

::

    job.json      the fingerprint of the job, what was listed, and one record for each time the job was started
    paths.jsonl   the pictures, one JSON array [shown, file, label] on each line, in output order
    rows.bin, features.bin, errors.jsonl    see rows.py
    lock          held by the run that is writing
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

from caffe2torch.errors import OutputError
from caffe2torch.extract.listing import Entry
from caffe2torch.extract.rows import Chunk, Rows
from caffe2torch.files import atomic_path, explain
from caffe2torch.retrieval.codes import Floats, Packed


@dataclass(frozen=True)
class Listed:
    """What listing the pictures found; ``labelled`` when each has a label, ``longest`` is a name's length."""

    count: int
    sha256: str
    labelled: bool
    longest: int


@dataclass(frozen=True)
class Failure:
    """A picture that could not be read: its row among all pictures, its name and why."""

    row: int
    path: str
    message: str


def journal_folder(out: Path) -> Path:
    """Where the journal of the output file ``out`` lies."""
    return out.with_name(out.name + ".partial")


def remove_journal(out: Path) -> None:
    """Delete the journal beside ``out``, if there is one."""
    folder = journal_folder(out)
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        raise OutputError(f"{folder}: cannot be removed: {error.strerror or error}") from error


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two fingerprints, one readable phrase each."""
    keys = list(dict.fromkeys((*before, *now)))
    return [f"{key} was {before.get(key)!r}, is {now.get(key)!r}" for key in keys if before.get(key) != now.get(key)]


class Journal:
    """The journal beside ``out``, made new or reopened, and locked. Use: ``list_pictures``, ``start``, ``append``."""

    def __init__(self, out: Path) -> None:
        self.out, self.folder = out, journal_folder(out)
        self.fingerprint: dict[str, Any] | None = None
        self.listed: Listed | None = None
        self.runs: list[dict[str, Any]] = []
        self._rows: Rows | None = None
        self._lock: IO[bytes] | None = None
        with self._writing("choose another --out"):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._hold()
        self._read_job()

    def _hold(self) -> None:
        """Keep a second run off the same journal, where the system knows file locks. They end with the process."""
        try:
            import fcntl
        except ImportError:  # not a Unix
            return
        self._lock = (self.folder / "lock").open("wb")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise OutputError(f"{self.folder}: another run is writing to it right now") from error

    def _read_job(self) -> None:
        path = self.folder / "job.json"
        if not path.exists():  # new, or killed while the pictures were being listed
            return
        try:
            job = json.loads(path.read_text(encoding="utf-8"))
            self.fingerprint, self.runs, self.listed = job["fingerprint"], job["runs"], Listed(**job["listed"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            self.close()
            raise OutputError(f"{path}: damaged; --force removes this unfinished run and starts again") from error

    @property
    def rows(self) -> Rows:
        """The rows done so far."""
        if self._rows is None:
            raise ValueError("the journal has not been started")
        return self._rows

    @property
    def begun(self) -> bool:
        """Whether there are finished rows."""
        return self._rows is not None and self._rows.done > 0

    def list_pictures(self, entries: Iterable[Entry], report: Callable[[int], None] = lambda count: None) -> Listed:
        """Write the list of pictures and return its sums; in a reopened journal the list is only compared by them."""
        count = labelled = longest = 0
        digest = hashlib.sha256()
        target = self.folder / "paths.new"
        with self._writing():
            with target.open("wb") as file:
                for count, entry in enumerate(entries, start=1):
                    line = json.dumps([entry.shown, entry.file, entry.label]).encode("ascii") + b"\n"
                    digest.update(line)
                    file.write(line)
                    labelled += entry.label is not None
                    longest = max(longest, len(entry.shown))
                    if count % 1024 == 0:
                        report(count)
            listed = Listed(count, digest.hexdigest(), labelled == count, longest)
            if self.listed is None:
                target.replace(self.folder / "paths.jsonl")
                self.listed = listed
            else:
                target.unlink()
        return listed

    def start(
        self, fingerprint: Mapping[str, Any], run: Mapping[str, Any], *, bits: int, feature_size: int, batch: int
    ) -> None:
        """Open for appending: cut back to the last whole batch, and record this run (what it ran on, when)."""
        rows = Rows(self.folder, bits=bits, feature_size=feature_size)
        with self._writing():
            if self.runs and self.listed:
                rows.open(self.listed.count, self.runs[-1]["first_row"], self.runs[-1]["batch_size"])
            else:
                rows.open(0)
            self._rows, self.fingerprint = rows, dict(fingerprint)
            self.runs.append({**run, "first_row": rows.done, "batch_size": batch})
            self._write_job()

    def note(self, **facts: Any) -> None:
        """Add facts to the record of this run."""
        self.runs[-1].update(facts)
        with self._writing():
            self._write_job()

    def _write_job(self) -> None:
        listed = asdict(self.listed) if self.listed else {}
        job = {"fingerprint": self.fingerprint, "listed": listed, "runs": self.runs}
        with atomic_path(self.folder / "job.json") as temporary:
            temporary.write_text(json.dumps(job, indent=1), encoding="utf-8")

    def append(self, packed: Packed, features: Floats | None, errors: Mapping[int, str]) -> None:
        """Add one batch; ``errors`` gives the rows of the batch (from 0) that could not be read, and why."""
        with self._writing():
            self.rows.append(packed, features, errors)

    def entries(self, start: int = 0) -> Iterator[Entry]:
        """The pictures from row ``start`` on."""
        with (self.folder / "paths.jsonl").open("rb") as file:
            for line in islice(file, start, None):
                shown, name, label = json.loads(line)
                yield Entry(shown, name, label)

    def chunks(self, *, keep_failed: bool) -> Iterator[Chunk]:
        """All finished rows in order; failed ones have code 0, or are left out."""
        return self.rows.chunks(self.entries(), keep_failed=keep_failed)

    def failures(self) -> Iterator[Failure]:
        """The pictures that could not be read, in order."""
        numbered = enumerate(self.entries())
        for row, message in self.rows.errors():
            yield Failure(row, next(entry.shown for number, entry in numbered if number == row), message)

    def close(self) -> None:
        """Let go of the files; the journal stays on disk."""
        if self._rows is not None:
            self._rows.close()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def remove(self) -> None:
        """Close and delete the journal: the output holds everything now."""
        self.close()
        remove_journal(self.out)

    @contextmanager
    def _writing(self, advice: str | None = None) -> Iterator[None]:
        """Turn the system's refusal to write into an OutputError that says what to do."""
        try:
            yield
        except OSError as error:
            kept = "the rows so far are kept there: once it can be written, --resume goes on from them"
            advice = advice or (kept if self.begun else "nothing was done yet")
            raise OutputError(f"{self.folder}: cannot be written: {explain(error)}; {advice}") from error
