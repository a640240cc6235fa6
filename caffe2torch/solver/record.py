"""A training's figures for programs: one JSON object a line."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from caffe2torch.solver.events import Events, Score
from caffe2torch.solver.solver import Solver


class JsonLines(Events):
    """Gives ``write`` lines ``{"event": "train" | "test" | "snapshot" | ..., "iteration": ..., "time": ...}``.

    ``train`` lines come where the solver displays, with ``loss`` (smoothed), ``lr`` and ``outputs``; ``test`` lines
    have ``net`` and ``outputs``. Outputs are lists, since a blob may have several values.
    """

    def __init__(self, write: Callable[[str], object]) -> None:
        self._line = write
        self._solver: Solver | None = None
        self._shown: dict[str, Any] | None = None

    def _write(self, event: str, solver: Solver, **more: Any) -> None:
        line = {"event": event, "iteration": solver.iteration, "time": round(time.time(), 3), **more}
        self._line(json.dumps(line))

    def started(self, solver: Solver) -> None:
        self._solver = solver
        self._write(
            "start", solver, seed=solver.seed, max_iter=solver.parameters.max_iter, device=str(solver.place.device)
        )

    def displayed(self, solver: Solver, loss: float, scores: list[Score] | None) -> None:
        if scores is None:
            self._write("train", solver, loss=loss)
        else:
            self._shown = {"loss": loss, "outputs": _outputs(scores)}

    def updated(self, solver: Solver, loss: float, rate: float) -> None:
        if self._shown is not None:
            self._write("train", solver, lr=rate, **self._shown)
            self._shown = None

    def tested(self, solver: Solver, net: int, scores: list[Score], loss: float | None) -> None:
        self._write("test", solver, net=net, outputs=_outputs(scores), **({} if loss is None else {"loss": loss}))

    def snapshotting(self, path: Path, *, state: bool, hdf5: bool) -> None:
        if state and self._solver is not None:
            self._write("snapshot", self._solver, path=str(path))

    def troubled(self, solver: Solver, problem: str) -> None:
        self._write("trouble", solver, problem=problem)

    def ended(self, solver: Solver, *, stopped: bool) -> None:
        self._write("end", solver, stopped=stopped)


def _outputs(scores: list[Score]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for score in scores:
        found.setdefault(score.blob, []).append(score.value)
    return found
