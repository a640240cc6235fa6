"""The training loop: ``Solver::Step`` and ``Solver::Solve`` of Caffe 1.0."""

from __future__ import annotations

import math
import secrets
import warnings
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from caffe2torch.errors import GraphError, OutputError, TrainingError
from caffe2torch.loading import copy_weights
from caffe2torch.net import CaffeNet, LoadReport
from caffe2torch.solver.events import Events, Score
from caffe2torch.solver.learnables import Updater
from caffe2torch.solver.nets import BadBatch, Fed, Place, open_net, share
from caffe2torch.solver.policy import LearningRate
from caffe2torch.solver.settings import Settings
from caffe2torch.solver.smoothing import SmoothedLoss
from caffe2torch.solver.snapshot import check_place, restore_weights, write_snapshot
from caffe2torch.solver.state import SolverState, read_state


class Wish(Enum):
    """``SolverAction`` of Caffe."""

    NONE = "none"
    SNAPSHOT = "snapshot"
    STOP = "stop"


class Solver:
    """One training: the nets of a solver file, their weights and data, and the solver's history.

    ``solve`` trains to the end as ``caffe train`` does; ``step`` goes some iterations on; both say whether ``wish``
    asked to stop. Of a group of processes the first tests, tells and writes. ``events`` hears of all that
    happens. Everything random is drawn from ``seed`` and the iteration, so a training that goes on from a snapshot
    gives bit for bit (on a CPU) what it would have given without the interruption.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        place: Place | None = None,
        weights: Sequence[str | Path] = (),
        seed: int | None = None,
        events: Events | None = None,
    ) -> None:
        self.settings, self.parameters = settings, settings.parameters
        self.place, self.events = place or Place(torch.device("cpu")), events or Events()
        self.group = self.place.group
        self.iteration = 0
        self.last_snapshot: Path | None = None
        self._unsaved = False
        """Whether the last snapshot on the way could not be written."""
        self._begun: tuple[int, ...] | None = None
        """Batches taken when the iteration began that is not done yet, which is where a snapshot goes on."""
        self.wish: Callable[[], Wish] = lambda: Wish.NONE
        """Asked after every iteration and every batch of a test: what a signal from outside wants."""
        given = self.parameters.random_seed
        self.seed = self.group.seed(given if given >= 0 else secrets.randbelow(1 << 31) if seed is None else seed)
        torch.manual_seed(self.seed)
        self.train = open_net(settings.train, settings.root, self.place, self.seed, 0)
        if not self.train.net.loss_weights:
            raise GraphError(f"{settings.train.path}: the training net has no loss, so there is nothing to learn from")
        own = [name.strip() for names in self.parameters.weights for name in names.split(",")]
        files = [*own, *weights]
        self.reports = [(str(file), self.load(file)) for file in files]
        self.tests = [
            open_net(choice, settings.root, self.place, self.seed, index)
            for index, choice in enumerate(settings.tests, 1)
        ]
        for test in self.tests:
            share(self.train.net, test.net, files, settings.root)
        self.updater = Updater(self.train.net, self.parameters)
        self.rate = LearningRate(self.parameters)

    def load(self, weights: str | Path) -> LoadReport:
        """Copy weights by layer name, as Caffe's ``-weights`` does; layers the file lacks keep what they have."""
        report = copy_weights(self.train.net, self.settings.root / weights)
        if not report.loaded:
            warnings.warn(f"{weights}: no layer has the name of one of the net's, so nothing was copied", stacklevel=3)
        return report

    def solve(self) -> bool:
        """Train up to ``max_iter``, with the tests and snapshots of the solver file; True when it was stopped.

        Raises TrainingError, and before that, where data are damaged, saves what was learned.
        """
        p = self.parameters
        if self.group.first and (p.snapshot or p.snapshot_after_train):
            check_place(self.settings)
        if not p.HasField("max_iter"):
            warnings.warn(f"{self.settings.path}: has no max_iter: nothing is trained", stacklevel=2)
        self.events.started(self)
        try:
            stopped = self.step(p.max_iter - self.iteration)
        except BadBatch as error:
            raise TrainingError(f"{error}{self._rescued()}") from error
        if not self.group.first:
            return stopped
        due = p.snapshot and self.iteration % p.snapshot == 0
        if self._unsaved or (p.snapshot_after_train and not due):
            self.snapshot()
        if stopped:
            self.events.ended(self, stopped=True)
            return True
        if p.display and self.iteration % p.display == 0:
            with torch.no_grad():
                _, loss = self._forward(self.train)
            self.events.displayed(self, self._smoothed.add(self.iteration, loss.item()), None)
        if p.test_interval and self.iteration % p.test_interval == 0:
            self.test_all()
        self.events.ended(self, stopped=False)
        return False

    def step(self, iterations: int) -> bool:
        """Go on for some iterations; True when it was stopped before."""
        p = self.parameters
        self._smoothed = SmoothedLoss(p.average_loss, self.iteration)
        for _ in range(iterations):
            self._begun = self._batches()
            tested = p.test_interval and self.iteration % p.test_interval == 0
            if tested and (self.iteration > 0 or p.test_initialization):
                stopped = self.group.first and self.test_all() is None
                if self.group.total([stopped])[0]:
                    return True
            torch.manual_seed(_mixed(self.seed, self.iteration, self.group.rank))
            total = 0.0
            for _ in range(p.iter_size):
                outputs, loss = self._forward(self.train)
                self._backward(loss)
                total += loss.item()
                self.events.passed(self, outputs)
            total, stop, save = self._agree(total / p.iter_size)
            smoothed = self._smoothed.add(self.iteration, total)
            if p.display and self.iteration % p.display == 0:
                self.events.displayed(self, smoothed, self.scores(self.train.net, outputs))
            if not math.isfinite(total):
                bad = [blob for blob, value in outputs.items() if not bool(torch.isfinite(value).all())]
                raise self._diverged(f"the loss is {total} ({', '.join(bad) or 'its sum'} is not finite)")
            self._update(total)
            self.iteration += 1
            self._begun = None
            if self.group.first and (save or (p.snapshot and self.iteration % p.snapshot == 0)):
                self._try_snapshot()
            if stop:
                return True
        return False

    def _update(self, loss: float) -> None:
        step = self.rate.step
        rate = self.rate.at(self.iteration)
        if self.parameters.lr_policy == "multistep" and self.rate.step != step:
            text = f"MultiStep Status: Iteration {self.iteration}, step = {self.rate.step}"
            self.events.noted(self, "sgd_solver.cpp:50", text)
        self.group.average(self.updater.gradients())
        norm, limit = self.updater.apply(rate, self.iteration), self.parameters.clip_gradients
        self.events.updated(self, loss, rate)
        if norm is not None:
            text = f"scaling down gradients (L2 norm {norm:g} > {limit:g}) by scale factor {limit / norm:g}"
            self.events.noted(self, "sgd_solver.cpp:95", f"Gradient clipping: {text}")

    def _agree(self, loss: float) -> tuple[float, bool, bool]:
        """The mean loss over the processes, and whether one of them is asked to stop or to write a snapshot."""
        wish = self.wish()
        total, stop, save = self.group.total([loss, wish is Wish.STOP, wish is Wish.SNAPSHOT])
        return total / self.group.size, bool(stop), bool(save)

    def _try_snapshot(self) -> None:
        """A snapshot on the way; if the disk is full, training goes on, and the last one is still there."""
        try:
            self.snapshot()
        except OutputError as error:
            self._unsaved = True
            self.events.troubled(self, f"no snapshot at iteration {self.iteration}, training goes on: {error}")

    def _rescued(self) -> str:
        """Save what was learned so far; says where it is."""
        if not self.group.first or self.iteration == self._smoothed.start:
            return ""
        try:
            return f"; what {self.iteration} iterations have learned is in {self.snapshot()[1]}: go on with --snapshot"
        except OutputError as error:
            return f"; a snapshot could not be written either: {error}"

    def _forward(self, fed: Fed) -> tuple[dict[str, Tensor], Tensor]:
        with self.place.precision():
            outputs = fed.forward()
            return outputs, fed.net.loss(outputs)

    def _backward(self, loss: Tensor) -> None:
        self.updater.begin_pass()
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
        else:
            warnings.warn(
                f"{self.settings.train.path}: no parameter gets a gradient, so nothing is learned, as in Caffe: "
                "look for lr_mult: 0, propagate_down: false, and a loss without loss_weight that another layer reads",
                stacklevel=4,
            )

    def _diverged(self, found: str) -> TrainingError:
        last = f"; the last snapshot is {self.last_snapshot}" if self.last_snapshot else ""
        return TrainingError(
            f"iteration {self.iteration}: {found}: the training has diverged. Lower base_lr (now "
            f"{self.parameters.base_lr:g}), set clip_gradients, or look for input values or labels that are wrong{last}"
        )

    def _batches(self) -> tuple[int, ...]:
        return tuple(fed.feed.batches if fed.feed else 0 for fed in (self.train, *self.tests))

    @staticmethod
    def scores(net: CaffeNet, outputs: dict[str, Tensor]) -> list[Score]:
        """Every value of every output blob, blobs by name, as Caffe lists them."""
        weights = net.loss_weights
        return [
            Score(blob, value, weights.get(blob, 0.0))
            for blob in sorted(outputs)
            for value in outputs[blob].detach().float().reshape(-1).tolist()
        ]

    def test_all(self) -> list[list[Score]] | None:
        """Test every test net on its next ``test_iter`` batches; None when it was stopped."""
        found = []
        for index in range(len(self.tests)):
            scores = self.test(index)
            if scores is None:
                return None
            found.append(scores)
        return found

    def test(self, index: int) -> list[Score] | None:
        """The mean outputs of a test net over its next ``test_iter`` batches; None when it was stopped."""
        p, fed = self.parameters, self.tests[index]
        count = p.test_iter[index]
        self.events.testing(self, index)
        passes: list[list[Score]] = []
        for number in range(count):
            wish = self.wish()
            if wish is Wish.SNAPSHOT:
                self._try_snapshot()
            elif wish is Wish.STOP:
                self.events.noted(self, "solver.cpp:390", "Test interrupted.")
                return None
            with torch.no_grad(), self.place.precision():
                outputs = fed.forward()
            passes.append(self.scores(fed.net, outputs))
            self.events.test_passed(self, index, number, outputs)
        means = [
            Score(same[0].blob, math.fsum(score.value for score in same) / count, same[0].loss_weight)
            for same in zip(*passes, strict=True)
        ]
        loss = math.fsum(score.value * score.loss_weight for score in means)
        self.events.tested(self, index, means, loss if p.test_compute_loss else None)
        return means

    def snapshot(self) -> tuple[Path, Path]:
        """Write weights and state; returns their paths. The files of an earlier snapshot stay.

        Raises OutputError, and TrainingError for weights that are not finite, which nobody could go on from.
        """
        bad = [blob.name for blob in self.updater.learnables if not bool(torch.isfinite(blob.value).all())]
        if bad:
            raise self._diverged(f"parameter {bad[0]} is not finite")
        state = SolverState(
            self.iteration,
            self.rate.step,
            "",
            self.updater.history(),
            self.seed,
            self._batches() if self._begun is None else self._begun,
        )
        paths = write_snapshot(self.settings, self.train.net, state, self.events)
        self.last_snapshot, self._unsaved = paths[1], False
        return paths

    def restore(self, path: str | Path) -> None:
        """Go on from a solver state, ours or Caffe's, with the weights it names."""
        path = Path(path)
        state = read_state(path)
        restore_weights(self.train.net, path, state, self.settings.root)
        self.updater.restore(state.history, str(path))
        self.iteration, self.rate.step = state.iteration, state.current_step
        if state.seed is not None:
            self.seed = state.seed
        for number, (fed, batches) in enumerate(zip((self.train, *self.tests), state.batches, strict=False)):
            if fed.feed:
                fed.feed.seek(batches, seed=(self.seed, number))


def _mixed(*numbers: int) -> int:
    """A seed of its own for each combination."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]) >> 1
