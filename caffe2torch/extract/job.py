"""One extraction from start to end: what may be overwritten, the journal, the run, the output files."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from caffe2torch import zoo
from caffe2torch.cores import cores
from caffe2torch.errors import OutputError, UsageError
from caffe2torch.extract import writers
from caffe2torch.extract.contents import Contents
from caffe2torch.extract.hasher import Hasher
from caffe2torch.extract.journal import Journal, differences, journal_folder, remove_journal
from caffe2torch.extract.listing import Found, walk
from caffe2torch.extract.model import Model
from caffe2torch.extract.pipeline import Pipeline, Tally
from caffe2torch.extract.provenance import fingerprint, provenance, run_record
from caffe2torch.extract.sheet import draw_sheet
from caffe2torch.extract.summary import Summary, count_codes, first_failures, warnings

BATCH_SIZE = 64
ON_ERROR = ("stop", "skip", "zero")

Progress = Callable[[str, int, int], None]
"""Called with the stage ("list", "extract" or "write"), what is done, and the total (0 while unknown)."""


@dataclass(frozen=True)
class Job:
    """What was asked for, besides the model: the arguments of ``extract``."""

    inputs: tuple[str | Path, ...]
    out: Path
    root: str | Path | None
    batch_size: int
    workers: int
    on_error: str
    resume: bool
    force: bool
    sheet: Path | None
    progress: Progress

    def __post_init__(self) -> None:
        writers.check_suffix(self.out)
        if self.on_error not in ON_ERROR:
            raise UsageError(f"on-error {self.on_error!r}: expected one of {', '.join(ON_ERROR)}")
        for name, value in (("batch size", self.batch_size), ("number of workers", self.workers)):
            if value < 1:
                raise UsageError(f"the {name} must be at least 1, not {value}")
        if self.resume and self.force:
            raise UsageError("--resume keeps the unfinished run, --force discards it: give one of them")
        if self.sheet and self.sheet.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
            raise UsageError(f"--sheet {self.sheet}: a picture is drawn there; give a name that ends in .png or .jpg")


def extract(
    inputs: Sequence[str | Path] | str | Path,
    out: str | Path = "codes.h5",
    *,
    model: Model | str | None = None,
    root: str | Path | None = None,
    device: str = "auto",
    precision: str = "float32",
    batch_size: int = BATCH_SIZE,
    workers: int | None = None,
    on_error: str = "stop",
    resume: bool = False,
    force: bool = False,
    sheet: str | Path | None = None,
    progress: Progress = lambda stage, done, total: None,
) -> Summary:
    """Write the hash codes of pictures to ``out`` (.h5, .mat, .npz or .csv) and say what was done.

    ``inputs`` are folders, pictures and list files (see ``listing.walk``); ``model`` is a zoo name or a ``Model``, the
    bundled one by default. Rows lie in ``OUT.partial`` until the output is complete: however a run ended, the same call
    with ``resume`` finishes it. Existing files are replaced only with ``force``. ``on_error`` says what becomes of an
    unreadable picture: it stops the run, is left out (``skip``), or gets a code of zeros (``zero``).
    """
    items = (inputs,) if isinstance(inputs, (str, Path)) else tuple(inputs)
    workers = cores() if workers is None else workers
    target = Path(sheet) if sheet else None
    job = Job(items, Path(out), root, batch_size, workers, on_error, resume, force, target, progress)
    if not isinstance(model, Model):
        model = Model.from_zoo(model or zoo.default_name())
    _check_free(job, writers.features_path(job.out, model.features) if model.features else None)
    hasher = Hasher(model, device=device, precision=precision)
    if force:
        remove_journal(job.out)
    journal = Journal(job.out)
    fresh = journal.fingerprint is None
    try:
        summary = _run(job, hasher, journal)
    except BaseException:
        if fresh and not journal.begun:
            journal.remove()  # nothing was computed, so there is nothing to resume
        raise
    finally:
        journal.close()
    journal.remove()
    return summary


def _check_free(job: Job, features_out: Path | None) -> None:
    """Refuse to overwrite, or to start beside an unfinished run, unless told how."""
    if job.force:
        return
    folder = journal_folder(job.out)
    if folder.exists():
        if not job.resume:
            raise OutputError(f"{folder}: holds an unfinished run; --resume goes on with it, --force starts again")
        return
    for path in (job.out, features_out, job.sheet):
        if path is not None and path.exists():
            done = "no unfinished run lies beside it, so there is nothing to resume; " if job.resume else ""
            raise OutputError(f"{path}: exists already; {done}--force replaces it, or give another name")


def _run(job: Job, hasher: Hasher, journal: Journal) -> Summary:
    found = Found()
    entries = walk(job.inputs, root=job.root, found=found, skip=[job.sheet] if job.sheet else [])
    listed = journal.list_pictures(entries, lambda count: job.progress("list", count, 0))
    now = fingerprint(hasher, listed)
    changed = differences(journal.fingerprint, now) if journal.fingerprint is not None else []
    if changed:
        raise OutputError(
            f"{journal.folder}: the unfinished run there is another job: {'; '.join(changed)}; --force discards it and "
            "starts again"
        )
    batch = min(job.batch_size, listed.count)
    journal.start(now, run_record(hasher), bits=hasher.bits, feature_size=hasher.feature_size, batch=batch)
    first, total = journal.rows.done, listed.count
    if journal.rows.failed and job.on_error == "stop":
        failure = next(journal.failures())
        raise OutputError(
            f"{failure.path}: could not be read in the unfinished run ({failure.message}); resume it with --on-error "
            "skip or zero"
        )
    job.progress("extract", first, total)
    pipeline = Pipeline(hasher, journal, batch_size=batch, workers=job.workers, stop_on_error=job.on_error == "stop")
    began = time.perf_counter()
    tally = pipeline.run(lambda done: job.progress("extract", done, total))
    seconds = time.perf_counter() - began
    if hasher.precision != "float32":
        journal.note(flipped_bits=tally.flipped, compared_bits=tally.compared)
    job.progress("write", 0, 0)
    return _write(job, hasher, journal, tally, resumed=first, ignored=found.ignored, seconds=seconds)


def _write(
    job: Job, hasher: Hasher, journal: Journal, tally: Tally, *, resumed: int, ignored: int, seconds: float
) -> Summary:
    """The output files, from the finished journal."""
    contents = _contents(job, hasher, journal)
    writers.write(job.out, contents)
    model = hasher.model
    features_out = writers.features_path(job.out, model.features) if model.features else None
    try:
        if features_out is not None:
            writers.write_features(features_out, contents)
        if job.sheet is not None:
            draw_sheet(job.sheet, contents, title=f"{model.name}  {hasher.bits} bits", exif=model.exif)
    except OutputError as error:
        raise OutputError(f"{error} (the codes are complete in {job.out})") from error
    distinct, samples = count_codes(contents)
    assert model.blob is not None
    computed = journal.rows.done - resumed
    return Summary(
        out=str(job.out),
        features_out=str(features_out) if features_out else None,
        sheet=str(job.sheet) if job.sheet else None,
        model=model.name,
        blob=model.blob,
        bits=hasher.bits,
        images=journal.rows.done,
        written=contents.rows,
        failed=journal.rows.failed,
        failures=first_failures(contents),
        ignored_files=ignored,
        resumed_from=resumed,
        distinct=distinct,
        samples=samples,
        device=str(hasher.device),
        precision=hasher.precision,
        flipped=sum(run.get("flipped_bits", 0) for run in journal.runs),
        compared=sum(run.get("compared_bits", 0) for run in journal.runs),
        seconds=seconds,
        rate=computed / seconds if computed and seconds else 0.0,
        warnings=warnings(model.blob, tally, distinct, contents.rows),
    )


def _contents(job: Job, hasher: Hasher, journal: Journal) -> Contents:
    assert journal.listed is not None
    zero = job.on_error == "zero"
    inputs: dict[str, Any] = {
        "inputs": [str(item) for item in job.inputs],
        "root": str(job.root) if job.root else None,
        "folder": str(Path.cwd()),
    }
    return Contents(
        rows=journal.rows.done - (0 if zero else journal.rows.failed),
        bits=hasher.bits,
        feature_size=hasher.feature_size,
        labelled=journal.listed.labelled,
        longest=journal.listed.longest,
        keeps_failed=zero and journal.rows.failed > 0,
        provenance=provenance(hasher, journal, inputs, job.on_error),
        chunks=partial(journal.chunks, keep_failed=zero),
        failures=journal.failures,
    )
