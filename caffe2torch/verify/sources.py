"""What a golden net's input blobs hold in each pass: the arrays given to Caffe, or what its data layers read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from caffe2torch.graph import Node
from caffe2torch.net import CaffeNet
from caffe2torch.verify.case import Case

GREY_LEVELS = 4.0
"""By how many grey levels JPEG decoders may differ."""
RESIZED = 1.0
"""By how many grey levels bilinear resizing of 8-bit images may."""
EXACT = 1e-6
"""Share of the largest magnitude by which mean subtraction and scaling may round differently."""


class Feed:
    """Gives the inputs of each pass, by number from 1. What is not given again stays the same."""

    def __init__(self, case: Case, folder: Path, net: CaffeNet) -> None:
        self.case, self.net = case, net
        self._last: dict[str, Tensor] = {}

    def __enter__(self) -> Feed:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def __call__(self, number: int) -> dict[str, Tensor]:
        suffix = "" if number == 1 else str(number)
        blobs = self.case.blobs
        for blob in self.net.inputs:
            if f"in{suffix}:{blob}" in blobs:
                self._last[blob] = torch.from_numpy(blobs[f"in{suffix}:{blob}"].copy())
            elif f"out{suffix}:{blob}" in blobs and f"in:{blob}" not in blobs:
                self._last[blob] = torch.from_numpy(blobs[f"out{suffix}:{blob}"].copy())
        return {blob: value.detach().clone() for blob, value in self._last.items()}


def closeness(folder: Path, sources: Sequence[Node]) -> dict[str, float]:
    return {}
