"""Noticing the collapse that users of SSDH met: every bit saturated, every class as likely as another."""

from __future__ import annotations

import math
from collections import deque

from torch import Tensor

from caffe2torch.errors import TrainingError
from caffe2torch.net import CaffeNet
from caffe2torch.solver.events import Events
from caffe2torch.solver.solver import Solver

_EVERY = 10
"""Passes between two looks."""
_LOOKS = 50
"""Looks in a row that make a collapse: 500 passes. The loss counts by their mean, since that of a batch scatters."""
_SATURATED = -0.1249
"""K1_EuclideanLoss with every bit at 0 or 1 is -0.125."""
_CHANCE = 0.98
"""Share of log(classes), the loss of guessing among classes of one size, from which on nothing is learned."""


class CollapseWatch(Events):
    """Raises TrainingError once a net has been collapsed for 500 passes; nets without SSDH's losses are not watched."""

    def __init__(self, net: CaffeNet) -> None:
        self._binary: list[str] = []
        self._classes: dict[str, int] = {}
        for node, layer in net.built():
            if node.type == "K1_EuclideanLoss":
                self._binary.append(node.tops[0])
            elif node.type == "SoftmaxWithLoss":
                self._classes[node.tops[0]] = net.blob_shapes[node.bottoms[0]][getattr(layer, "axis", 1)]
        self._passes = 0
        self._shares: deque[float] = deque(maxlen=_LOOKS)
        """The loss of each look as a share of that of guessing, while all bits are saturated."""

    def passed(self, solver: Solver, outputs: dict[str, Tensor]) -> None:
        self._passes += 1
        if not self._binary or not self._classes or self._passes % _EVERY:
            return
        saturated = all(outputs[blob].item() <= _SATURATED for blob in self._binary)
        if not saturated:
            self._shares.clear()
            return
        self._shares.append(min(outputs[blob].item() / math.log(n) for blob, n in self._classes.items()))
        if len(self._shares) == _LOOKS and math.fsum(self._shares) / _LOOKS >= _CHANCE:
            last = f"; the last snapshot is {solver.last_snapshot}" if solver.last_snapshot else ""
            raise TrainingError(
                f"iteration {solver.iteration}: the codes have collapsed: {', '.join(self._binary)} stands at -0.125 "
                f"(all bits saturated) and {', '.join(self._classes)} at that of guessing. Start from ImageNet weights "
                "(--weights), check the mean and the labels, lower base_lr or the loss_weight of K1_EuclideanLoss"
                + last
            )
