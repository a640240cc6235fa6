"""Codes of one part of the pictures, in the release's order, kept in a file; after an interruption it goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caffe2torch.errors import FormatError, WeightsError
from caffe2torch.extract import writers
from caffe2torch.extract.contents import Contents
from caffe2torch.extract.hasher import Hasher
from caffe2torch.extract.journal import Journal, journal_folder, remove_journal
from caffe2torch.extract.listing import Entry
from caffe2torch.extract.provenance import fingerprint, run_record
from caffe2torch.files import make_folder
from caffe2torch.release.pictures import FromFolder, Pictures, Rows, file_name
from caffe2torch.retrieval.codes import Bits, pack, threshold
from caffe2torch.retrieval.readers import read_codes

BATCH = 64

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and the total."""


@dataclass(frozen=True, eq=False)
class Hashed:
    """Codes (N, bits); ``done_before`` of them were there from an earlier run."""

    bits: Bits
    done_before: int


def hash_part(
    hasher: Hasher,
    pictures: Pictures,
    part: str,
    positions: Rows,
    out: Path,
    *,
    workers: int,
    force: bool = False,
    progress: Progress = lambda stage, done, total: None,
    say: Callable[[str], object] = lambda message: None,
) -> Hashed:
    """The codes of the pictures at ``positions``, in ``out`` (.h5) and in memory.

    Finished codes in ``out`` are taken where they were made in the very same way; an unfinished run beside it goes on,
    and what was made otherwise is made anew, with ``force`` everything. Raises ImageError for a picture that is missing
    or cannot be read.
    """
    make_folder(out.parent)
    if force:
        remove_journal(out)
    if isinstance(pictures, FromFolder):
        pictures.check(part, positions)
    extra = {"pictures_from": pictures.place, "form": vars(pictures.own)}
    journal = Journal(out)
    try:
        entries = [Entry(file_name(part, int(position)), "", None) for position in positions]
        listed = journal.list_pictures(entries)
        wanted = _plain({**fingerprint(hasher, listed), **extra})
        if not force and (finished := _finished(out, wanted)) is not None:
            journal.remove()
            return Hashed(finished, len(positions))
        if journal.fingerprint is not None and journal.fingerprint != wanted:
            say(f"{journal.folder}: codes made in another way lie there; they are made anew")
            journal.remove()
            journal = Journal(out)
            listed = journal.list_pictures(entries)
        journal.start(wanted, run_record(hasher), bits=hasher.bits, feature_size=0, batch=BATCH)
        before = journal.rows.done
        _run(hasher, pictures, part, positions, journal, workers, progress)
        bits = _write(out, journal, hasher, wanted)
    except BaseException:
        journal.close()
        if not journal.begun and journal_folder(out).exists():
            remove_journal(out)
        raise
    journal.remove()
    return Hashed(bits, before)


def _finished(out: Path, wanted: Mapping[str, Any]) -> Bits | None:
    """The codes in ``out`` if they were made as ``wanted`` says."""
    if not out.exists():
        return None
    try:
        codes = read_codes(out)
    except FormatError:  # cut off or another file: it is made anew
        return None
    made = codes.provenance.get("release")
    return codes.unpacked() if made == wanted else None


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON gives it back."""
    return dict(json.loads(json.dumps(values)))


def _run(
    hasher: Hasher,
    pictures: Pictures,
    part: str,
    positions: Rows,
    journal: Journal,
    workers: int,
    progress: Progress,
) -> None:
    """Append every row that the journal lacks, pictures made ahead in threads while the net runs."""
    total = len(positions)
    progress(part, journal.rows.done, total)

    def prepared(first: int) -> NDArray[np.float32]:
        some = positions[first : first + BATCH]
        batch = np.zeros((BATCH, *hasher.preprocess.shape), np.float32)  # always full, so that sums do not vary
        for slot, position in zip(batch, some, strict=False):
            hasher.preprocess(pictures.read(part, int(position), pictures.own), slot)
        return batch

    starts = range(journal.rows.done, total, BATCH)
    with ThreadPoolExecutor(max(1, workers)) as pool:
        ahead = [pool.submit(prepared, first) for first in starts[: 2 * workers]]
        try:
            for index, first in enumerate(starts):
                batch = ahead.pop(0).result()
                if index + 2 * workers < len(starts):
                    ahead.append(pool.submit(prepared, starts[index + 2 * workers]))
                values = hasher.run(batch).values[: min(BATCH, total - first)]
                if not np.isfinite(values).all():
                    raise WeightsError(
                        f"{hasher.model.weights}: the code of {file_name(part, int(positions[first]))} or one of the "
                        f"next {BATCH} is NaN or infinite: the weights are damaged or do not belong to this net"
                    )
                journal.append(pack(threshold(values)), None, {})
                progress(part, journal.rows.done, total)
        finally:
            pool.shutdown(cancel_futures=True)


def _write(out: Path, journal: Journal, hasher: Hasher, made: Mapping[str, Any]) -> Bits:
    assert journal.listed is not None
    contents = Contents(
        rows=journal.rows.done,
        bits=hasher.bits,
        feature_size=0,
        labelled=False,
        longest=journal.listed.longest,
        keeps_failed=False,
        provenance={**hasher.identity, "bits": hasher.bits, "precision": hasher.precision, "release": dict(made)},
        chunks=lambda: journal.chunks(keep_failed=False),
        failures=journal.failures,
    )
    writers.write(out, contents)
    return read_codes(out).unpacked()
