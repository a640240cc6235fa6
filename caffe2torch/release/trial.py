"""Finding the cause by trial: some pictures are hashed again under each suspected change until the codes agree."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from caffe2torch.errors import Caffe2TorchError
from caffe2torch.extract.hasher import Hasher
from caffe2torch.extract.model import Model
from caffe2torch.release.causes import Variation, own_setup, variations
from caffe2torch.release.comparing import Difference
from caffe2torch.release.pictures import Pictures
from caffe2torch.release.setup import Setup
from caffe2torch.retrieval.codes import Bits, Floats

BLOCK = 24
"""Pictures after which a change that helps nothing is dropped."""
STEPS = 3
"""Changes that are put together at most."""
NEAR = 1e-4
"""A value this close to the threshold may fall on its other side in another order of the same float32 sums, as a GPU,
another BLAS or another version makes it."""
BETTER = 0.9
"""A further change is taken where it leaves fewer than this share of the bits that differed."""


@dataclass(frozen=True, eq=False)
class Sample:
    """Some pictures: their part and position in the standard order, and the released codes (N, bits)."""

    places: tuple[tuple[str, int], ...]
    theirs: Bits

    def __len__(self) -> int:
        return len(self.places)


@dataclass(frozen=True, eq=False)
class Attempt:
    """A variation and what came of it: ``wrong`` of ``total`` bits differ, ``near`` of them at the threshold.

    ``total`` is smaller than the sample where the attempt was given up early.
    """

    variation: Variation
    wrong: int
    near: int
    total: int
    pictures: int

    @property
    def agrees(self) -> bool:
        """Whether nothing differs but what rounding explains."""
        return self.wrong == self.near

    @property
    def share(self) -> float:
        return self.wrong / self.total if self.total else 0.0


@dataclass
class Findings:
    """``before`` is the run itself on the sample; ``steps`` the changes found, each on top of those before it.

    ``equal`` names changes that agree as well as the last step; ``tried`` counts attempts, ``failed`` are changes that
    could not be tried and why.
    """

    before: Attempt
    steps: list[Attempt] = field(default_factory=list)
    equal: list[Attempt] = field(default_factory=list)
    runners_up: list[Attempt] = field(default_factory=list)
    tried: int = 0
    failed: list[str] = field(default_factory=list)

    @property
    def agrees(self) -> bool:
        """Whether the changes found explain everything."""
        return bool(self.steps) and self.steps[-1].agrees


def choose_sample(
    differences: Sequence[Difference],
    reference: Mapping[str, Bits],
    positions: Mapping[str, npt.NDArray[np.int64]],
    count: int,
) -> Sample:
    """``count`` pictures spread over the lists, two thirds of them (where there are as many) with differing codes.

    The rest are pictures whose codes agree: the right change leaves them alone.
    """
    places, theirs = [], []
    wrong = sum(len(difference.rows) for difference in differences)
    every = sum(difference.pictures for difference in differences)
    least = count / 3
    of_wrong = min(max(count - least, count - (every - wrong)), wrong)
    for difference in differences:
        same = np.setdiff1d(np.arange(difference.pictures), difference.rows)
        for rows, share in (
            (difference.rows, of_wrong / max(wrong, 1)),
            (same, least / max(every - wrong, 1)),
        ):
            some = _spread(rows, int(np.ceil(len(rows) * min(share, 1.0))))
            places += [(difference.part, int(positions[difference.part][row])) for row in some]
            theirs.append(reference[difference.part][some])
    order = np.random.default_rng(0).permutation(len(places))  # the first block is to look like the whole
    return Sample(tuple(places[i] for i in order), np.concatenate(theirs)[order])


def _spread(rows: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(np.int64)] if len(rows) else rows


class Trial:
    """Hashes a sample under one setup after another."""

    def __init__(self, hasher: Hasher, pictures: Pictures, sample: Sample, *, workers: int) -> None:
        self.pictures, self.sample, self.workers = pictures, sample, max(1, workers)
        self._hashers = {hasher.model.name: hasher}
        self._device = str(hasher.device)

    def attempt(self, variation: Variation, *, bound: float = 1.0) -> Attempt:
        """Hash the sample; given up after the first block unless fewer than ``bound`` of its bits differ."""
        wrong = near = done = 0
        for first in range(0, len(self.sample), BLOCK):
            values = self.values(variation.setup, first, first + BLOCK)
            theirs = self.sample.theirs[first : first + BLOCK]
            threshold = np.float32(variation.setup.threshold)
            differ = (values > threshold) != theirs
            wrong += int(np.count_nonzero(differ))
            near += int(np.count_nonzero(np.abs(values[differ] - threshold) < NEAR))
            done += len(values)
            if first == 0 and wrong - near >= bound * differ.size:
                break
        return Attempt(variation, wrong, near, done * self.sample.theirs.shape[1], done)

    def farthest(self, variation: Variation) -> float:
        """How far from the threshold an output lies at most whose bit differs; 0 where none does."""
        most, threshold = 0.0, np.float32(variation.setup.threshold)
        for first in range(0, len(self.sample), BLOCK):
            values = self.values(variation.setup, first, first + BLOCK)
            differ = (values > threshold) != self.sample.theirs[first : first + BLOCK]
            most = max(most, float(np.abs(values[differ] - threshold).max(initial=0.0)))
        return most

    def values(self, setup: Setup, start: int, stop: int) -> Floats:
        """The net's outputs before the threshold for these pictures of the sample, (N, bits)."""
        hasher, prepare = self._hasher(setup), setup.prepare()
        places = self.sample.places[start:stop]
        batch = np.zeros((BLOCK, *hasher.preprocess.shape), np.float32)

        def fill(index: int) -> None:
            prepare(self.pictures.read(*places[index], setup.form), batch[index])

        with ThreadPoolExecutor(self.workers) as pool:
            list(pool.map(fill, range(len(places))))
        values = hasher.run(batch, precision=setup.precision).values[: len(places)]
        return np.nan_to_num(values)

    def _hasher(self, setup: Setup) -> Hasher:
        name = setup.model.name
        if name not in self._hashers:
            self._hashers[name] = Hasher(setup.model, device=self._device)
        return self._hashers[name]


def search(
    trial: Trial,
    setup: Setup,
    *,
    own: Setup | None = None,
    others: Sequence[Model] = (),
    progress: Callable[[str, int, int], object] = lambda stage, done, total: None,
) -> Findings:
    """Try every variation; where the best leaves differences, try every further one on top of it, up to STEPS times."""
    findings = Findings(trial.attempt(Variation("all", setup), bound=2.0))
    best = findings.before
    if not best.wrong:
        return findings
    own = own or own_setup(setup)
    for step in range(STEPS):
        attempts = _round(trial, best, own, others, findings, step, progress)
        if not attempts or attempts[0].wrong >= BETTER * best.wrong:
            findings.runners_up = attempts[:3] if not step else []
            break
        findings.steps.append(attempts[0])
        findings.equal = [attempt for attempt in attempts[1:] if attempt.wrong == attempts[0].wrong]
        findings.runners_up = [attempt for attempt in attempts[1:] if attempt.wrong > attempts[0].wrong][:3]
        best = attempts[0]
        if best.agrees:
            break
    return findings


def _round(
    trial: Trial,
    best: Attempt,
    own: Setup | None,
    others: Sequence[Model],
    findings: Findings,
    step: int,
    progress: Callable[[str, int, int], object],
) -> list[Attempt]:
    """Attempts on the whole sample, the best first."""
    done_topics = {attempt.variation.topic for attempt in findings.steps}
    candidates = [
        variation
        for variation in variations(best.variation.setup, trial.pictures.forms(), own=own, others=others)
        if variation.topic not in done_topics
    ]
    attempts = []
    for number, variation in enumerate(candidates):
        progress(f"trying causes, step {step + 1}", number, len(candidates))
        try:
            attempt = trial.attempt(variation, bound=best.share)
        except Caffe2TorchError as error:
            findings.failed.append(f"{variation.text}: {error}")
            continue
        findings.tried += 1
        if attempt.pictures == len(trial.sample):
            attempts.append(attempt)
    progress(f"trying causes, step {step + 1}", len(candidates), len(candidates))
    return sorted(attempts, key=lambda attempt: attempt.wrong)
