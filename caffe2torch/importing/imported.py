"""What an import gives: the net, its weights, and how near it is to the module."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from caffe2torch.blobs import Array
from caffe2torch.importing.check import Check, reload
from caffe2torch.net import CaffeNet
from caffe2torch.prototxt import to_text
from caffe2torch.saving import check_absent, prototxt_text, text_file, write_weights
from caffe2torch.schema import Message

_BEYOND = {
    "Clip": "BVLC Caffe of 2018 and later",
    "Swish": "BVLC Caffe of 2018 and later",
    "Permute": "SSD's Caffe",
    "ReLU6": "forks for mobile nets",
    "HSwish": "forks for mobile nets",
    "HSigmoid": "forks for mobile nets",
    "ShuffleChannel": "forks for mobile nets",
}
"""Layer types that BVLC Caffe 1.0 lacks, and what has them."""


@dataclass(frozen=True)
class Imported:
    """A Caffe net made of a module, and how far it is from it."""

    message: Message = field(repr=False)
    """The NetParameter (V2)."""
    weights: Mapping[str, Sequence[Array]] = field(repr=False)
    """Layer name -> arrays."""
    inputs: tuple[str, ...]
    """Blobs, in the order in which the module takes them."""
    outputs: tuple[str, ...]
    """Blobs, in the order in which the module gives them."""
    checks: tuple[Check, ...]
    notes: tuple[str, ...]
    """What the user has to know: what was left out, and which layers not every Caffe has."""

    @property
    def difference(self) -> float:
        """The largest difference found, as a share of the largest value of its output."""
        return max(check.relative for check in self.checks)

    @property
    def prototxt(self) -> str:
        """The net as text."""
        return to_text(self.message)

    def net(self) -> CaffeNet:
        """The Caffe net as a module, with the module's outputs."""
        return reload(self.message, self.weights, self.outputs)

    def save(
        self,
        prototxt: str | os.PathLike[str],
        weights: str | os.PathLike[str] | None = None,
        *,
        syntax: str = "V2",
        force: bool = False,
    ) -> None:
        """Write the prototxt and the weights (HDF5 for a name ending in ``.h5``).

        Raises OutputError for files that are there already (``force`` replaces them), and WeightsError for a layer that
        the old syntax ("V1") cannot say.
        """
        targets = [Path(path) for path in (prototxt, weights) if path is not None]
        check_absent(targets, force=force)
        with text_file(targets[0], prototxt_text(self.message, syntax)):
            if weights is not None:
                write_weights(targets[1], self.message, self.weights, syntax=syntax)


def beyond(message: Message) -> list[str]:
    """A note for each kind of layer that BVLC Caffe 1.0 lacks."""
    notes = []
    for kind, where in _BEYOND.items():
        layers = [layer.name for layer in message.layer if layer.type == kind]
        if layers:
            notes.append(f"{kind} is a layer of {where}: {', '.join(layers)}")
    floor = [layer.name for layer in message.layer if layer.pooling_param.round_mode == layer.pooling_param.FLOOR]
    if floor:
        notes.append(f"round_mode FLOOR is a setting of BVLC Caffe of 2018 and later: {', '.join(floor)}")
    return notes
