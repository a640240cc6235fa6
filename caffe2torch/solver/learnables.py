"""The parameters a solver changes, and one update of all of them: ``SGDSolver::ApplyUpdate`` of Caffe 1.0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from caffe2torch.blobs import Array
from caffe2torch.errors import WeightsError
from caffe2torch.graph import ParamSpec
from caffe2torch.net import CaffeNet
from caffe2torch.schema import Message
from caffe2torch.sharing import owned
from caffe2torch.solver.updates import RULES


@dataclass(frozen=True, eq=False)
class Learnable:
    """One blob of Caffe's ``learnable_params``: every parameter once, those that never change as well."""

    name: str
    """``layer:index``"""
    value: Tensor
    lr_mult: float
    decay_mult: float
    overwritten: bool = False
    """Whether Caffe's backward puts its gradient in place of that of the passes before."""


def learnables(net: CaffeNet) -> list[Learnable]:
    """The learnable blobs of a net in Caffe's order; statistics (BatchNorm's) are among them with a rate of 0."""
    found: dict[int, Learnable] = {}
    shapes = net.blob_shapes
    for node, layer in net.built():
        overwritten = layer.overwritten_gradients([shapes[blob] for blob in node.bottoms])
        for index, (name, blob) in enumerate(layer.blob_items()):
            value = owned(layer, name)
            spec = node.params[index] if index < len(node.params) else ParamSpec()
            rate = spec.lr_mult if isinstance(blob, nn.Parameter) or isinstance(value, nn.Parameter) else 0.0
            first = found.setdefault(id(value), Learnable(f"{node.name}:{index}", value, rate, spec.decay_mult))
            if name in overwritten:
                found[id(value)] = replace(first, overwritten=True)
    return list(found.values())


class Updater:
    """Turns the gradients of a net's parameters into their next values, and keeps the solver's history."""

    def __init__(self, net: CaffeNet, parameters: Message) -> None:
        self.parameters = parameters
        self.rule = RULES[parameters.type]
        self.learnables = learnables(net)
        self._histories = [
            tuple(torch.zeros_like(blob.value, requires_grad=False) for _ in range(self.rule.histories))
            for blob in self.learnables
        ]
        self._idle = [self.rule.linear and blob.lr_mult == 0 for blob in self.learnables]
        """Those that neither change nor gather a history."""

    def begin_pass(self) -> None:
        """Forget the gradients of earlier passes that Caffe's next backward overwrites."""
        for blob in self.learnables:
            if blob.overwritten:
                blob.value.grad = None

    @torch.no_grad()
    def apply(self, rate: float, iteration: int) -> float | None:
        """Clip, divide by ``iter_size``, decay and update, in this order; the gradients are used up.

        Returns the norm of all gradients where it was above ``clip_gradients``.
        """
        p = self.parameters
        norm = self._excess()
        scale = 1.0 if norm is None else p.clip_gradients / norm
        for blob, histories, idle in zip(self.learnables, self._histories, self._idle, strict=True):
            if idle:
                blob.value.grad = None  # there is one under force_backward
                continue
            gradient = torch.zeros_like(blob.value) if blob.value.grad is None else blob.value.grad
            if scale != 1.0:
                gradient.mul_(scale)
            if p.iter_size > 1:
                gradient.mul_(1.0 / p.iter_size)
            decay = p.weight_decay * blob.decay_mult
            if decay:
                gradient.add_(blob.value if p.regularization_type == "L2" else blob.value.sign(), alpha=decay)
            blob.value.sub_(self.rule.apply(p, gradient, histories, rate * blob.lr_mult, iteration))
            blob.value.grad = None
        return norm

    def gradients(self) -> list[Tensor]:
        """Those that the last passes gave."""
        return [blob.value.grad for blob in self.learnables if blob.value.grad is not None]

    def _excess(self) -> float | None:
        """The norm of all gradients where it is above ``clip_gradients``."""
        limit, gradients = self.parameters.clip_gradients, self.gradients()
        if limit < 0 or not gradients:
            return None
        norm = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt().item()
        return norm if norm > limit else None

    def history(self) -> tuple[Array, ...]:
        """The history as Caffe stores it: one round over all parameters after the other."""
        rounds = range(self.rule.histories)
        return tuple(histories[k].cpu().float().numpy() for k in rounds for histories in self._histories)

    def restore(self, history: Sequence[Array], where: str) -> None:
        """Take over a stored history. Raises WeightsError when it does not fit these parameters."""
        expected = [tuple(blob.value.shape) for blob in self.learnables] * self.rule.histories
        found = [array.shape for array in history]
        if len(found) != len(expected):
            raise WeightsError(
                f"{where}: its history has {len(found)} blobs, {self.parameters.type} with {len(self.learnables)} "
                f"parameters needs {len(expected)}; it is of another net or another solver"
            )
        count = len(self.learnables)
        for index, (have, want, array) in enumerate(zip(found, expected, history, strict=True)):
            if int(np.prod(have)) != int(np.prod(want)):
                name = self.learnables[index % count].name
                raise WeightsError(f"{where}: history {index} has shape {have}, parameter {name} has {want}")
            target = self._histories[index % count][index // count]
            target.copy_(torch.from_numpy(np.ascontiguousarray(array)).reshape(want))
            if array.any():
                self._idle[index % count] = False  # its momentum runs out, also without a rate
