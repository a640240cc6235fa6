"""How each solver turns a gradient into an update: ``ComputeUpdateValue`` of Caffe 1.0's six solvers.

Each rule changes its history in place, uses up the gradient, and returns what is subtracted from the weights. The
learning rate stands inside the momentum, unlike in torch.optim. Clipping, the division by ``iter_size`` and decay come
before (caffe2torch/solver/learnables.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from caffe2torch.schema import Message


@dataclass(frozen=True)
class Rule:
    """``apply(settings, gradient, histories, rate, iteration)``; ``histories`` tensors like the gradient.

    A snapshot holds the first history of all parameters, then the second of all.
    """

    histories: int
    """How many of them: one or two."""
    apply: Callable[[Message, Tensor, tuple[Tensor, ...], float, int], Tensor]
    momentum: bool
    """Whether the solver has a momentum; Caffe refuses it elsewhere."""
    linear: bool = False
    """Whether the history of a blob whose rate is always 0 stays 0, so that there is nothing to do for it."""


def _sgd(p: Message, gradient: Tensor, histories: tuple[Tensor, ...], rate: float, iteration: int) -> Tensor:
    (history,) = histories
    history.mul_(p.momentum).add_(gradient, alpha=rate)
    return history


def _nesterov(p: Message, gradient: Tensor, histories: tuple[Tensor, ...], rate: float, iteration: int) -> Tensor:
    (history,) = histories
    before = history * p.momentum
    history.mul_(p.momentum).add_(gradient, alpha=rate)
    return gradient.copy_(history).mul_(1 + p.momentum).sub_(before)


def _adagrad(p: Message, gradient: Tensor, histories: tuple[Tensor, ...], rate: float, iteration: int) -> Tensor:
    (history,) = histories
    history.addcmul_(gradient, gradient)
    return gradient.div_(history.sqrt().add_(p.delta)).mul_(rate)


def _rmsprop(p: Message, gradient: Tensor, histories: tuple[Tensor, ...], rate: float, iteration: int) -> Tensor:
    (history,) = histories
    history.mul_(p.rms_decay).addcmul_(gradient, gradient, value=1 - p.rms_decay)
    return gradient.div_(history.sqrt().add_(p.delta)).mul_(rate)


def _adadelta(p: Message, gradient: Tensor, histories: tuple[Tensor, ...], rate: float, iteration: int) -> Tensor:
    squares, updates = histories
    squares.mul_(p.momentum).addcmul_(gradient, gradient, value=1 - p.momentum)
    gradient.mul_(updates.add(p.delta).div_(squares.add(p.delta)).sqrt_())
    updates.mul_(p.momentum).addcmul_(gradient, gradient, value=1 - p.momentum)
    return gradient.mul_(rate)


def _adam(p: Message, gradient: Tensor, histories: tuple[Tensor, ...], rate: float, iteration: int) -> Tensor:
    first, second = histories
    time = iteration + 1
    first.mul_(p.momentum).add_(gradient, alpha=1 - p.momentum)
    second.mul_(p.momentum2).addcmul_(gradient, gradient, value=1 - p.momentum2)
    correction = math.sqrt(1.0 - p.momentum2**time) / (1.0 - p.momentum**time)
    return gradient.copy_(first).div_(second.sqrt().add_(p.delta)).mul_(rate * correction)


RULES: Mapping[str, Rule] = {
    "SGD": Rule(1, _sgd, momentum=True, linear=True),
    "Nesterov": Rule(1, _nesterov, momentum=True, linear=True),
    "AdaGrad": Rule(1, _adagrad, momentum=False),
    "RMSProp": Rule(1, _rmsprop, momentum=False),
    "AdaDelta": Rule(2, _adadelta, momentum=True),
    "Adam": Rule(2, _adam, momentum=True),
}
"""``type`` of a solver -> its rule."""
