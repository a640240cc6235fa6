"""Proof of an import: the files are written, loaded again, and compared with the module."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from caffe2torch.blobs import Array
from caffe2torch.errors import LayerError
from caffe2torch.loading import load
from caffe2torch.net import CaffeNet
from caffe2torch.saving import prototxt_text, write_weights
from caffe2torch.schema import Message


@dataclass(frozen=True)
class Check:
    """How far one output of the net is from the module's, on one input."""

    given: str
    """"example" or "random"."""
    blob: str
    largest: float
    """Largest absolute difference."""
    magnitude: float
    """Largest absolute value of the module's output."""

    @property
    def relative(self) -> float:
        """The difference as a share of the largest value; of 1 where that is smaller than a millionth."""
        return self.largest / self.magnitude if self.magnitude > 1e-6 else self.largest


def reload(message: Message, weights: Mapping[str, Sequence[Array]], outputs: Sequence[str]) -> CaffeNet:
    """The net as its own files give it back, with these blobs as its outputs."""
    with tempfile.TemporaryDirectory(prefix="caffe2torch-") as folder:
        prototxt, caffemodel = Path(folder) / "net.prototxt", Path(folder) / "net.caffemodel"
        prototxt.write_text(prototxt_text(message), "utf-8")
        if not weights:
            return load(prototxt).select(*outputs)
        write_weights(caffemodel, message, weights)
        return load(prototxt, caffemodel).select(*outputs)


def random_like(examples: Mapping[str, Tensor], rows: Mapping[str, int]) -> dict[str, Tensor]:
    """Other inputs of the same form: within the range of the examples, whole numbers below ``rows``."""
    generator = torch.Generator().manual_seed(6)
    made = {}
    for name, example in examples.items():
        low, high = float(example.min()), float(example.max())
        if not example.dtype.is_floating_point:
            most = rows.get(name, int(high) + 1)
            values = torch.randint(0, max(most, 1), example.shape, generator=generator)
        elif high > low:
            values = torch.rand(example.shape, generator=generator) * (high - low) + low
        else:
            values = torch.randn(example.shape, generator=generator)
        made[name] = values.to(example.device, example.dtype)
    return made


def compare(
    net: CaffeNet, given: str, inputs: Mapping[str, Tensor], expected: Mapping[str, Tensor], tolerance: float
) -> list[Check]:
    """One Check an output; raises LayerError where one is further off than ``tolerance``, relative to the largest."""
    with torch.no_grad():
        found = net({name: value.cpu().float() for name, value in inputs.items() if name in net.inputs})
    checks = []
    for blob, wanted in expected.items():
        ours, theirs = found[blob].double(), wanted.cpu().double()
        if ours.shape != theirs.shape:
            raise LayerError(f"blob {blob!r} is {tuple(ours.shape)} in Caffe, {tuple(theirs.shape)} in torch")
        same = (ours == theirs) | (ours.isnan() & theirs.isnan())
        difference = torch.where(same, torch.zeros_like(ours), (ours - theirs).abs())
        finite = theirs[theirs.isfinite()]
        checks.append(Check(given, blob, _largest(difference), _largest(finite.abs())))
    far = [check for check in checks if not check.relative <= tolerance]
    if far:
        listed = "".join(
            f"\n  {c.blob!r}: {c.largest:.3g} of values up to {c.magnitude:.3g}, on {given} input" for c in far
        )
        raise LayerError(
            f"the Caffe net differs from the module by more than {tolerance:g} of the largest value:{listed}"
            "\nThe module may be random, keep a state, or let values decide what it does where no trace can see it"
        )
    return checks


def _largest(values: Tensor) -> float:
    if not values.numel():
        return 0.0
    return float("nan") if bool(values.isnan().any()) else float(values.max())
