"""What a solver tells of its work. Subclass Events and override what is wanted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

    from caffe2torch.solver.solver import Solver


class Score(NamedTuple):
    """One value of an output blob; ``loss_weight`` is 0 for a blob that is no loss."""

    blob: str
    value: float
    loss_weight: float


class Events:
    """Hears everything and does nothing."""

    def started(self, solver: Solver) -> None:
        """Training begins or goes on at ``solver.iteration``."""

    def passed(self, solver: Solver, outputs: dict[str, Tensor]) -> None:
        """One forward and backward pass is done; there are ``iter_size`` of them in an iteration."""

    def displayed(self, solver: Solver, loss: float, scores: list[Score] | None) -> None:
        """An iteration that ``display`` selects: the smoothed loss, and the outputs except after the last iteration."""

    def updated(self, solver: Solver, loss: float, rate: float) -> None:
        """The weights have changed; ``solver.iteration`` is still the iteration that did it."""

    def testing(self, solver: Solver, net: int) -> None:
        """A test begins."""

    def test_passed(self, solver: Solver, net: int, number: int, outputs: dict[str, Tensor]) -> None:
        """One batch of a test is done."""

    def tested(self, solver: Solver, net: int, scores: list[Score], loss: float | None) -> None:
        """A test is done; ``loss`` is there with ``test_compute_loss``."""

    def snapshotting(self, path: Path, *, state: bool, hdf5: bool) -> None:
        """Weights, or then the ``state``, are about to be written."""

    def noted(self, solver: Solver, place: str, text: str) -> None:
        """Something else that Caffe says in its log, at ``place`` in its source."""

    def troubled(self, solver: Solver, problem: str) -> None:
        """Something went wrong that training goes on after: a snapshot could not be written."""

    def ended(self, solver: Solver, *, stopped: bool) -> None:
        """Training has reached ``max_iter``, or was ``stopped`` before."""


class All(Events):
    """Passes everything on to several."""

    def __init__(self, *events: Events) -> None:
        self._events = events

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("_"):
            return super().__getattribute__(name)
        hearers = [getattr(events, name) for events in self._events]

        def tell(*args: Any, **kwargs: Any) -> None:
            for hear in hearers:
                hear(*args, **kwargs)

        return tell
