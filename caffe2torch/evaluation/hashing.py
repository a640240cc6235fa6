"""Codes of the pictures of an evaluation: made once, kept beside its results, and used again where they still hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from caffe2torch.errors import OutputError, WeightsError
from caffe2torch.evaluation.pictures import CifarPart, Files, Pictures
from caffe2torch.extract import Hasher, Model, extract, writers
from caffe2torch.extract.contents import Contents
from caffe2torch.extract.journal import Journal, differences, journal_folder, remove_journal
from caffe2torch.extract.pipeline import Tally
from caffe2torch.extract.provenance import fingerprint, provenance, run_record
from caffe2torch.extract.summary import count_codes, warnings
from caffe2torch.retrieval.codes import pack, threshold
from caffe2torch.retrieval.readers import read_codes

NOT_DECISIVE = ("net", "weights", "mean", "model")
"""Of a model's identity: where its files lie and what they are called; their hashes tell."""

Progress = Callable[[str, int, int], None]
"""Called with the stage, what is done and the total, as by ``extract``."""


@dataclass(frozen=True)
class How:
    """How pictures are hashed; ``device`` and below as in ``extract``.

    ``force`` discards an unfinished run and codes that were made otherwise, ``resume`` goes on with an unfinished run,
    ``again`` hashes even where the codes are there.
    """

    model: Model
    device: str = "auto"
    precision: str = "float32"
    batch_size: int = 64
    workers: int | None = None
    on_error: str = "stop"
    resume: bool = False
    force: bool = False
    again: bool = False


def hash_pictures(
    pictures: Pictures,
    out: Path,
    how: How,
    *,
    progress: Progress = lambda stage, done, total: None,
    say: Callable[[str], object] = lambda message: None,
) -> Path:
    """Write the codes of ``pictures`` to ``out`` unless they are there; ``say`` hears warnings and of codes used again.

    Codes that are there hold when model, preprocessing, precision and the list of pictures are the same. Raises
    OutputError where they do not, and where an unfinished run is met, unless ``how`` says what to do.
    """
    if out.exists() and not journal_folder(out).exists() and not how.again:
        changed = _changes(out, pictures, how)
        if not changed:
            say(f"{out}: codes of the same pictures by the same model, used again (--again makes them anew)")
            return out
        if not how.force:
            raise OutputError(
                f"{out}: holds codes that were made otherwise: {'; '.join(changed)}; --force replaces them, or give "
                "another --out"
            )
    force, resume = how.force or how.again, how.resume and journal_folder(out).exists()
    if isinstance(pictures, CifarPart):
        found = _hash_in_memory(pictures, out, how, progress, force=force, resume=resume)
    else:
        assert isinstance(pictures, Files)
        found = _hash_files(pictures, out, how, progress, force=force and not resume, resume=resume)
    for warning in found:
        say(warning)
    return out


def _hash_files(files: Files, out: Path, how: How, progress: Progress, *, force: bool, resume: bool) -> tuple[str, ...]:
    """The codes of pictures on disk, by ``extract``; returns its warnings."""
    return extract(
        files.inputs,
        out,
        model=how.model,
        root=files.root,
        device=how.device,
        precision=how.precision,
        batch_size=how.batch_size,
        workers=how.workers,
        on_error=how.on_error,
        resume=resume,
        force=force,
        progress=progress,
    ).warnings


def _changes(out: Path, pictures: Pictures, how: How) -> list[str]:
    """What differs between how the codes in ``out`` were made and how they would be made now."""
    then = read_codes(out).provenance
    now: dict[str, Any] = {
        **{key: value for key, value in how.model.identity().items() if key not in NOT_DECISIVE},
        "precision": how.precision,
        "list_sha256": pictures.listing.sha256,
    }
    if now["blob"] is None:  # the net's only output; the hash of the net says which
        del now["blob"]
    if then.get("failed"):  # how pictures that cannot be read are treated matters where there are any
        now["on_error"] = how.on_error
    return differences({key: then.get(key) for key in now}, now)


def _hash_in_memory(
    part: CifarPart, out: Path, how: How, progress: Progress, *, force: bool, resume: bool
) -> tuple[str, ...]:
    """The codes of pictures that are no files, with extract's journal and file; returns warnings."""
    folder = journal_folder(out)
    if folder.exists() and not resume:
        if not force:
            raise OutputError(f"{folder}: holds an unfinished run; --resume goes on with it, --force starts again")
        remove_journal(out)
    hasher = Hasher(how.model, device=how.device, precision=how.precision)
    journal = Journal(out)
    fresh = journal.fingerprint is None
    try:
        tally = _run(part, hasher, journal, how, progress)
        contents = _contents(part, hasher, journal)
        writers.write(out, contents)
        distinct, _ = count_codes(contents)
    except BaseException:
        if fresh and not journal.begun:
            journal.remove()  # nothing was computed, so there is nothing to resume
        raise
    finally:
        journal.close()
    journal.remove()
    assert hasher.model.blob is not None
    return warnings(hasher.model.blob, tally, distinct, contents.rows)


def _run(part: CifarPart, hasher: Hasher, journal: Journal, how: How, progress: Progress) -> Tally:
    """Append every row that the journal still lacks."""
    listed = journal.list_pictures(part.entries())
    now = {**fingerprint(hasher, listed), "pictures_as": part.form}
    if journal.fingerprint is not None and (changed := differences(journal.fingerprint, now)):
        raise OutputError(
            f"{journal.folder}: the unfinished run there is another job: {'; '.join(changed)}; --force discards it"
        )
    batch = min(how.batch_size, listed.count)
    journal.start(now, run_record(hasher), bits=hasher.bits, feature_size=hasher.feature_size, batch=batch)
    tally = Tally()
    for first, rows, buffer in _batches(part, hasher, journal.rows.done, batch):
        progress("extract", first, listed.count)
        output = hasher.run(buffer)
        values = output.values[:rows]
        features = None if output.features is None else output.features[:rows]
        for array in (values, features):
            if array is not None and not np.isfinite(array).all():
                raise WeightsError(
                    f"{how.model.weights}: the net gives NaN or infinite values: the weights are damaged, do not "
                    f"belong to this net and its preprocessing, or {hasher.precision} is too narrow for them"
                )
        tally.lowest, tally.highest = min(tally.lowest, values.min()), max(tally.highest, values.max())
        journal.append(pack(threshold(values)), features, {})
        progress("extract", first + rows, listed.count)
    return tally


def _batches(part: CifarPart, hasher: Hasher, start: int, batch: int) -> Iterator[tuple[int, int, Any]]:
    """(first row, rows, input of full size) for every batch from ``start``; each is prepared while the net runs on one.

    The last one is filled up with zeros, so the net does the same arithmetic for every picture.
    """
    count = part.listing.count
    buffers = [hasher.buffer(batch), hasher.buffer(batch)]

    def fill(number: int, first: int) -> Any:
        slots = buffers[number % 2].numpy()
        for slot, row in enumerate(range(first, min(first + batch, count))):
            hasher.preprocess(part.image(row), slots[slot])
        slots[count - first :] = 0
        return buffers[number % 2]

    starts = range(start, count, batch)
    with ThreadPoolExecutor(1, thread_name_prefix="prepare") as pool:
        waiting = [pool.submit(fill, 0, starts[0])] if starts else []
        for number, first in enumerate(starts):
            buffer = waiting.pop().result()
            if number + 1 < len(starts):
                waiting.append(pool.submit(fill, number + 1, starts[number + 1]))
            yield first, min(batch, count - first), buffer


def _contents(part: CifarPart, hasher: Hasher, journal: Journal) -> Contents:
    assert journal.listed is not None
    inputs = {"inputs": [str(part.cifar.path)], "root": None, "folder": str(Path.cwd()), "pictures_as": part.form}
    return Contents(
        rows=journal.rows.done,
        bits=hasher.bits,
        feature_size=hasher.feature_size,
        labelled=journal.listed.labelled,
        longest=journal.listed.longest,
        keeps_failed=False,
        provenance=provenance(hasher, journal, inputs, "stop"),
        chunks=partial(journal.chunks, keep_failed=False),
        failures=journal.failures,
    )
