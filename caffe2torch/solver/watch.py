"""Noticing the collapse that users of SSDH met: every bit saturated, every class as likely as another."""

from __future__ import annotations

import math

from torch import Tensor

from caffe2torch.errors import TrainingError
from caffe2torch.net import CaffeNet
from caffe2torch.solver.events import Events
from caffe2torch.solver.solver import Solver

_EVERY = 10
"""Passes between two looks."""
_LOOKS = 50
"""Looks in a row that make a collapse: 500 passes."""
_SATURATED = -0.1249
"""K1_EuclideanLoss with every bit at 0 or 1 is -0.125."""
_CHANCE = 0.98
"""Share of log(classes), the loss of guessing, from which on nothing is learned."""


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
        self._passes = self._looks = 0

    def passed(self, solver: Solver, outputs: dict[str, Tensor]) -> None:
        self._passes += 1
        if not self._binary or not self._classes or self._passes % _EVERY:
            return
        saturated = all(outputs[blob].item() <= _SATURATED for blob in self._binary)
        guessing = all(outputs[blob].item() >= _CHANCE * math.log(n) for blob, n in self._classes.items())
        self._looks = self._looks + 1 if saturated and guessing else 0
        if self._looks == _LOOKS:
            last = f"; the last snapshot is {solver.last_snapshot}" if solver.last_snapshot else ""
            raise TrainingError(
                f"iteration {solver.iteration}: the codes have collapsed: {', '.join(self._binary)} stands at -0.125 "
                f"(all bits saturated) and {', '.join(self._classes)} at that of guessing. Start from ImageNet weights "
                "(--weights), check the mean and the labels, lower base_lr or the loss_weight of K1_EuclideanLoss"
                + last
            )
