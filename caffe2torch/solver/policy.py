"""Learning-rate policies: ``SGDSolver::GetLearningRate`` of Caffe 1.0."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from caffe2torch.schema import Message


class LearningRate:
    """The rate of each iteration. ``step`` is Caffe's ``current_step``, which snapshots carry.

    ``multistep`` counts it up by at most one at each call, so the rate of every iteration has to be asked for in turn.
    """

    def __init__(self, parameters: Message, step: int = 0) -> None:
        self._parameters, self.step = parameters, step

    def at(self, iteration: int) -> float:
        """The rate of ``iteration``, rounded to float32 as Caffe keeps it."""
        p = self._parameters
        if p.lr_policy == "step":
            self.step = iteration // p.stepsize
        elif p.lr_policy == "multistep" and self.step < len(p.stepvalue) and iteration >= p.stepvalue[self.step]:
            self.step += 1
        return float(np.float32(p.base_lr * POLICIES[p.lr_policy](p, iteration, self.step)))


def _power(base: float, exponent: float) -> float:
    """``base ** exponent`` as C's pow has it: infinite or NaN instead of an exception or a complex number."""
    with np.errstate(all="ignore"):
        return float(np.power(np.float64(base), np.float64(exponent)))


def _sigmoid(p: Message, iteration: int, step: int) -> float:
    exponent = -p.gamma * (iteration - p.stepsize)
    return 1.0 / (1.0 + math.exp(exponent)) if exponent < 700 else 0.0


POLICIES: dict[str, Callable[[Message, int, int], float]] = {
    "fixed": lambda p, iteration, step: 1.0,
    "step": lambda p, iteration, step: _power(p.gamma, step),
    "exp": lambda p, iteration, step: _power(p.gamma, iteration),
    "inv": lambda p, iteration, step: _power(1.0 + p.gamma * iteration, -p.power),
    "multistep": lambda p, iteration, step: _power(p.gamma, step),
    "poly": lambda p, iteration, step: _power(1.0 - iteration / p.max_iter, p.power),
    "sigmoid": _sigmoid,
}
"""``lr_policy`` -> the factor of ``base_lr``."""
