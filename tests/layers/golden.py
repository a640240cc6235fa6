"""Small nets computed by real Caffe, forward and backward: reading a case, running it, comparing."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from caffe2torch import prototxt
from caffe2torch.loading import load
from caffe2torch.net import CaffeNet
from caffe2torch.sharing import owned

Array = NDArray[Any]


@dataclass(frozen=True)
class Case:
    """One folder of ``goldens/layers``."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @cached_property
    def facts(self) -> dict[str, Any]:
        """``case.json``."""
        facts: dict[str, Any] = json.loads((self.folder / "case.json").read_text("utf-8"))
        return facts

    @cached_property
    def blobs(self) -> Mapping[str, Array]:
        return dict(np.load(self.folder / "blobs.npz"))

    @cached_property
    def gradients(self) -> Mapping[str, Array]:
        path = self.folder / "grads.npz"
        return dict(np.load(path)) if path.exists() else {}

    @cached_property
    def force_backward(self) -> bool:
        return bool(prototxt.read_net(self.folder / "net.prototxt").force_backward)

    @property
    def random(self) -> bool:
        """Whether the values depend on a random mask."""
        return bool(self.facts.get("random", False))

    def load(self) -> CaffeNet:
        """The net with its weights; a few cases lack or add layers on purpose."""
        weights = self.folder / "weights.caffemodel"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return load(
                self.folder / "net.prototxt",
                weights if weights.exists() else None,
                phase=self.facts["phase"].lower(),
                level=self.facts.get("level", 0),
                stages=self.facts.get("stages", ()),
                allow_missing=True,
                ignore_extra=True,
            )

    def passes(self, net: CaffeNet) -> Iterator[tuple[dict[str, Tensor], dict[str, Array]]]:
        """Inputs and expected blobs of each forward pass.

        What a data layer reads is an ``out:`` blob there; an input that is not given again stays the same.
        """
        inputs: dict[str, Tensor] = {}
        for number in range(1, self.facts.get("passes", 1) + 1):
            suffix = "" if number == 1 else str(number)
            expected = {k.partition(":")[2]: v for k, v in self.blobs.items() if k.startswith(f"out{suffix}:")}
            for blob in net.inputs:
                if f"in{suffix}:{blob}" in self.blobs:
                    inputs[blob] = torch.from_numpy(self.blobs[f"in{suffix}:{blob}"].copy())
                elif blob in expected and f"in:{blob}" not in self.blobs:
                    inputs[blob] = torch.from_numpy(expected[blob].copy())
            yield dict(inputs), expected


def backward(case: Case, net: CaffeNet) -> dict[str, Array]:
    """Gradients of the last pass under the names of ``grads.npz``; zeros where torch propagates nothing.

    Without ``force_backward`` Caffe's backward pass starts at the losses only.
    """
    for inputs, expected in case.passes(net):
        leaves = {blob: x.requires_grad_() for blob, x in inputs.items()}
        outputs = net.select(*(blob for blob in expected if blob in net.blob_shapes))(leaves)
    total = torch.zeros(())
    for key, value in case.gradients.items():
        kind, _, blob = key.partition(":")
        if kind == "loss_weight" or (kind == "topdiff" and case.force_backward):
            total = total + (outputs[blob] * torch.from_numpy(value)).sum()
    if total.requires_grad:
        total.backward()
    found: dict[str, Array] = {}
    for key, value in case.gradients.items():
        kind, _, name = key.partition(":")
        if kind == "grad_in":
            found[key] = _numbers(leaves[name].grad, value)
        elif kind == "grad_param":
            layer, _, index = name.rpartition(":")
            module = net.layers()[layer]
            gradient = owned(module, module.blob_items()[int(index)][0]).grad
            found[key] = _numbers(gradient if gradient is None else gradient.reshape(value.shape), value)
    for blob, leaf in leaves.items():
        if case.force_backward and leaf.grad is not None:
            found.setdefault(f"grad_in:{blob}", leaf.grad.numpy())
    return found


def _numbers(gradient: Tensor | None, like: Array) -> Array:
    return np.zeros_like(like) if gradient is None else gradient.numpy()


def assert_close(found: Array, expected: Array, what: str, *, relative: float = 1e-4, absolute: float = 0.0) -> None:
    """Equal to ``relative`` of the largest finite magnitude, and NaN and infinite in the same places."""
    assert found.shape == expected.shape, what
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(found[~finite], expected[~finite], what)
    scale = np.abs(expected[finite]).max(initial=0.0)
    error = np.abs(found[finite].astype(np.float64) - expected[finite]).max(initial=0.0)
    assert error <= relative * scale + absolute, f"{what}: off by {error:g}, the largest value is {scale:g}"
