"""The log of a training in the words of Caffe 1.0, so that programs that read Caffe's logs read ours.

Each line has glog's prefix: severity and date, time, process, and the place in Caffe's source that says this.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from caffe2torch.build import is_automatic
from caffe2torch.solver.events import Events, Score
from caffe2torch.solver.solver import Solver


class CaffeLog(Events):
    """Gives every line, without its line end, to ``write``."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._since = (time.monotonic(), 0)

    def say(self, place: str, text: str) -> None:
        """One line; ``place`` is a file and line of Caffe's."""
        now = datetime.now()
        self._write(f"I{now:%m%d %H:%M:%S.%f} {os.getpid():5d} {place}] {text}")

    def started(self, solver: Solver) -> None:
        self.say("solver.cpp:279", f"Solving {solver.train.net.structure.graph.name}")
        self.say("solver.cpp:280", f"Learning Rate Policy: {solver.parameters.lr_policy}")
        self._since = (time.monotonic(), solver.iteration)

    def displayed(self, solver: Solver, loss: float, scores: list[Score] | None) -> None:
        if scores is None:
            self.say("solver.cpp:317", f"Iteration {solver.iteration}, loss = {loss:g}")
            return
        now, (before, first) = time.monotonic(), self._since
        done, seconds = solver.iteration - first, now - before
        rate = done / seconds if seconds > 0 else 0.0
        speed = f"({rate:g} iter/s, {seconds:g}s/{solver.parameters.display} iters)"
        self.say("solver.cpp:239", f"Iteration {solver.iteration} {speed}, loss = {loss:g}")
        self._scores("solver.cpp:258", "Train", scores)
        self._since = (now, solver.iteration)

    def updated(self, solver: Solver, loss: float, rate: float) -> None:
        p = solver.parameters
        if p.display and solver.iteration % p.display == 0:
            self.say("sgd_solver.cpp:112", f"Iteration {solver.iteration}, lr = {rate:g}")

    def testing(self, solver: Solver, net: int) -> None:
        self.say("solver.cpp:347", f"Iteration {solver.iteration}, Testing net (#{net})")

    def tested(self, solver: Solver, net: int, scores: list[Score], loss: float | None) -> None:
        if loss is not None:
            self.say("solver.cpp:395", f"Test loss: {loss:g}")
        self._scores("solver.cpp:414", "Test", scores)

    def snapshotting(self, path: Path, *, state: bool, hdf5: bool) -> None:
        what = "Snapshotting solver state to" if state else "Snapshotting to"
        form = "HDF5 file" if hdf5 else "binary proto file"
        self.say("sgd_solver.cpp:273" if state else "solver.cpp:464", f"{what} {form} {path}")

    def noted(self, solver: Solver, place: str, text: str) -> None:
        self.say(place, text)

    def ended(self, solver: Solver, *, stopped: bool) -> None:
        self.say("solver.cpp:332", "Optimization stopped early." if stopped else "Optimization Done.")

    def _scores(self, place: str, kind: str, scores: list[Score]) -> None:
        named = [score for score in scores if not is_automatic(score.blob)]  # Caffe does not list the others
        for index, (blob, value, weight) in enumerate(named):
            share = f" (* {weight:g} = {weight * value:g} loss)" if weight else ""
            self.say(place, f"    {kind} net output #{index}: {blob} = {value:g}{share}")
