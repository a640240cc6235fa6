"""The whole verification: codes of all pictures, compared bit by bit, figures, and the cause of a difference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from caffe2torch.errors import UsageError
from caffe2torch.extract.hasher import Hasher
from caffe2torch.extract.model import Model
from caffe2torch.release.causes import Variation, other_models
from caffe2torch.release.comparing import Difference, MixUp, compare, first_names, mix_ups, read_reference
from caffe2torch.release.facts import PARTS, Known, Release
from caffe2torch.release.figures import Measured, measure
from caffe2torch.release.hashing import Progress, hash_part
from caffe2torch.release.pictures import Pictures, row_order
from caffe2torch.release.setup import starting
from caffe2torch.release.trial import NEAR, Findings, Sample, Trial, choose_sample, search
from caffe2torch.retrieval.codes import Bits

NAMED = 5
SUSPECTED_ROUNDING = 1000
"""Of more differing pictures than this nobody supposes rounding alone."""

Positions = Mapping[str, npt.NDArray[np.int64]]


@dataclass(frozen=True, eq=False)
class Job:
    """What is verified: a model on pictures, the release, and the files of its codes (none: only figures).

    ``limit`` takes the first pictures of each list only, ``trial`` is how many are hashed again to find a cause (0:
    none), ``others`` are codes known for comparison, ``force`` makes codes anew that are in ``out`` already.
    """

    model: Model
    release: Release
    pictures: Pictures
    codes: Mapping[str, str]
    out: Path
    others: tuple[Known, ...] = ()
    parts: tuple[str, ...] = PARTS
    limit: int | None = None
    force: bool = False
    trial: int = 300
    device: str = "auto"
    precision: str = "float32"
    workers: int = 2
    progress: Progress = lambda stage, done, total: None
    say: Callable[[str], object] = lambda message: None


@dataclass(frozen=True, eq=False)
class Part:
    """One part's outcome. ``difference`` is None where no codes are public.

    ``rounding`` says that every bit that differs lies within NEAR of the threshold, by ``farthest`` at most. ``unread``
    counts pictures whose released code is that of an input of zeros; ``constant`` those with the commonest released
    code among the pictures that differ.
    """

    name: str
    pictures: int
    bits: int
    done_before: int
    difference: Difference | None = None
    first: tuple[str, ...] = ()
    rounding: bool = False
    farthest: float = 0.0
    mix_up: MixUp | None = None
    unread: int = 0
    constant: int = 0
    others: tuple[tuple[str, int], ...] = ()
    """Names of other known codes, with the bits by which ours differ from them."""

    @property
    def status(self) -> str:
        """agrees, rounding, differs, or not public."""
        if self.difference is None:
            return "not public"
        return "agrees" if not self.difference.count else "rounding" if self.rounding else "differs"


@dataclass
class Result:
    """Everything that was found; ``report`` puts it into words."""

    job: Job
    device: str
    parts: list[Part] = field(default_factory=list)
    figures: list[Measured] = field(default_factory=list)
    no_figures: str = ""
    """Why there are none."""
    findings: Findings | None = None

    @property
    def only_rounding(self) -> bool:
        return any(part.status == "rounding" for part in self.parts) and not self.codes_differ

    @property
    def codes_differ(self) -> bool:
        return any(part.status == "differs" for part in self.parts)

    def agrees(self, *, exact: bool = False) -> bool:
        """Whether all codes and figures are the released ones; ``exact`` lets no bit pass, not even for rounding."""
        if self.codes_differ or (exact and self.only_rounding):
            return False
        return all(self.excused(figure) for figure in self.figures)

    def excused(self, figure: Measured) -> bool:
        """Whether a figure agrees, or misses by no more than the bits at the threshold make."""
        from caffe2torch.release.figures import ROUNDING

        return figure.agrees or (self.only_rounding and abs(figure.difference) <= ROUNDING)


def verify(job: Job) -> Result:
    """Hash, compare, measure, and where codes differ look for the cause.

    Raises what reading pictures, weights and codes raises: nothing that is missing is passed over.
    """
    if job.limit is not None and job.limit < 1:
        raise UsageError(f"--limit {job.limit}: give at least 1")
    hasher = Hasher(job.model, device=job.device, precision=job.precision)
    positions = {part: row_order(part, job.release.order)[: job.limit] for part in job.parts}
    # Before the long work: are the codes to compare with there, and are they of this length?
    theirs = {
        part: read_reference(job.codes[part], part, hasher.bits, limit=job.limit)
        for part in job.parts
        if part in job.codes
    }
    result, ours, done = Result(job, str(hasher.device)), {}, {}
    for part in job.parts:
        name = f"{part}.h5" if job.limit is None else f"{part}-first-{job.limit}.h5"
        hashed = hash_part(
            hasher,
            job.pictures,
            part,
            positions[part],
            job.out / name,
            workers=job.workers,
            force=job.force,
            progress=job.progress,
            say=job.say,
        )
        ours[part], done[part] = hashed.bits, hashed.done_before
    for part in job.parts:
        result.parts.append(_part(job, hasher, part, ours[part], theirs.get(part), positions[part], done[part]))
    _measure(job, result, ours, positions)
    if result.codes_differ and job.trial:
        result.findings = _find(job, hasher, result, theirs, positions)
    return result


def _part(
    job: Job,
    hasher: Hasher,
    name: str,
    ours: Bits,
    theirs: Bits | None,
    positions: npt.NDArray[np.int64],
    done: int,
) -> Part:
    if theirs is None:
        return Part(name, len(ours), hasher.bits, done)
    difference = compare(name, ours, theirs)
    if not difference.count:
        return Part(name, len(ours), hasher.bits, done, difference)
    farthest = _farthest(job, hasher, difference, theirs, positions)
    wrong = theirs[difference.rows]
    zeros = hasher.run(np.zeros((1, *hasher.preprocess.shape), np.float32)).values[0] > np.float32(0.5)
    _, counts = np.unique(np.packbits(wrong, axis=1), axis=0, return_counts=True)
    return Part(
        name,
        len(ours),
        hasher.bits,
        done,
        difference,
        tuple(first_names(difference, positions, NAMED)),
        rounding=farthest < NEAR,
        farthest=farthest,
        mix_up=mix_ups(name, ours, theirs, positions, whole=job.limit is None) if farthest >= NEAR else None,
        unread=int(np.count_nonzero((wrong == zeros).all(axis=1))),
        constant=int(counts.max()),
        others=_others(job, name, ours),
    )


def _farthest(
    job: Job, hasher: Hasher, difference: Difference, theirs: Bits, positions: npt.NDArray[np.int64]
) -> float:
    """How far from the threshold the outputs behind the differing bits lie, at most; infinite where there are many."""
    if len(difference.rows) > SUSPECTED_ROUNDING:
        return float("inf")
    places = tuple((difference.part, int(positions[row])) for row in difference.rows)
    trial = Trial(hasher, job.pictures, Sample(places, theirs[difference.rows]), workers=job.workers)
    return trial.farthest(Variation("all", starting(hasher.model, job.pictures.own, precision=job.precision)))


def _others(job: Job, part: str, ours: Bits) -> tuple[tuple[str, int], ...]:
    found = []
    for known in job.others:
        if part in known.files and Path(known.files[part].partition("#")[0]).exists():
            codes = read_reference(known.files[part], part, ours.shape[1])[: len(ours)]
            found.append((known.name, int(np.count_nonzero(codes != ours))))
    return tuple(found)


def _measure(job: Job, result: Result, ours: Mapping[str, Bits], positions: Positions) -> None:
    if job.limit is not None or set(job.parts) != set(PARTS):
        result.no_figures = "MAP needs the codes of all 60,000 pictures"
    elif not job.release.figures():
        result.no_figures = f"no MAP is published for {job.release.model}"
    else:
        labels = {part: job.pictures.labels(part) for part in PARTS}
        known = {part: some for part, some in labels.items() if some is not None}
        if len(known) < len(PARTS):
            place = job.pictures.place
            result.no_figures = (
                f"MAP needs labels: {place} has no test-label.txt and train-label.txt (--cifar10 has them)"
            )
            return
        result.figures = measure(job.release, ours, positions, known, job.progress)


def _find(
    job: Job, hasher: Hasher, result: Result, theirs: Mapping[str, Bits], positions: Positions
) -> Findings | None:
    if any(part.mix_up is not None and not part.mix_up.left for part in result.parts):
        return None  # explained already
    differences = [part.difference for part in result.parts if part.difference is not None]
    sample = choose_sample(differences, theirs, positions, job.trial)
    trial = Trial(hasher, job.pictures, sample, workers=job.workers)
    setup = starting(hasher.model, job.pictures.own, precision=job.precision)
    return search(trial, setup, others=other_models(job.model, hasher.bits), progress=job.progress)
