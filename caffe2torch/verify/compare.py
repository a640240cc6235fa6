"""Comparing one array with Caffe's, and how close it has to be."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from caffe2torch.graph import Graph

Array = NDArray[Any]
Status = Literal["passed", "failed", "skipped"]

LOOSE = 1e-4
"""Share of a blob's largest magnitude by which float32 sums over many values may differ with their order."""
TIGHT = 1e-5
"""The same where no long sum is involved."""

LONG_SUMS = frozenset(
    {
        "BatchNorm",
        "Convolution",
        "ConvolutionDepthwise",
        "Deconvolution",
        "InnerProduct",
        "LRN",
        "LSTM",
        "LSTMUnit",
        "Lstm",
        "MVN",
        "Normalize",
        "Python",
        "RNN",
        "Reduction",
    }
)
"""Layer types whose values are sums over many products or squares."""


@dataclass(frozen=True)
class Check:
    """One array compared with Caffe's. ``error`` and ``tolerance`` are shares of its largest magnitude."""

    name: str
    """``out:BLOB``, ``grad_param:LAYER:I`` and the like, as the goldens name it."""
    error: float
    tolerance: float
    detail: str = ""
    """Why it cannot be compared at all (another shape, NaN elsewhere); empty when it can."""
    layer: str = ""
    """Type of the layer that wrote it."""

    @property
    def passed(self) -> bool:
        return not self.detail and self.error <= self.tolerance


@dataclass(frozen=True)
class Result:
    """What became of one case."""

    case: str
    status: Status
    checks: tuple[Check, ...] = ()
    reason: str = ""
    """Why it was skipped, or what stopped it."""
    seconds: float = 0.0

    @property
    def failures(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if not check.passed)

    @property
    def largest(self) -> float:
        """The largest error among its checks."""
        return max((check.error for check in self.checks), default=0.0)


def compare(
    name: str, found: Array, expected: Array, tolerance: float, *, floor: float = 0.0, layer: str = ""
) -> Check:
    """How far ``found`` is from Caffe's ``expected``, as a share of the largest finite magnitude of the latter.

    NaN and infinities must stand in the same places. ``floor`` is the least magnitude to measure by: values below it
    are what is left where larger ones cancelled.
    """

    def impossible(detail: str) -> Check:
        return Check(name, math.inf, tolerance, detail, layer)

    if found.shape != expected.shape:
        return impossible(f"has shape {_dims(found.shape)}, Caffe's has {_dims(expected.shape)}")
    finite = np.isfinite(expected)
    if not np.array_equal(found[~finite], expected[~finite], equal_nan=True):
        return impossible("is not NaN or infinite where Caffe's is")
    if not np.isfinite(found[finite]).all():
        return impossible("is NaN or infinite where Caffe's is not")
    scale = max(float(np.abs(expected[finite]).max(initial=0.0)), floor)
    error = float(np.abs(found[finite].astype(np.float64) - expected[finite]).max(initial=0.0))
    relative = 0.0 if error == 0 else error / scale if scale else math.inf
    return Check(name, relative, tolerance, layer=layer)


def claim(name: str, *, holds: bool, detail: str, layer: str = "") -> Check:
    """A check of a property: it passes when it ``holds``; otherwise ``detail`` says what was found."""
    return Check(name, 0.0 if holds else math.inf, 0.0, "" if holds else detail, layer)


def _dims(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def tolerances(graph: Graph, sources: dict[str, float] | None = None) -> dict[str, float]:
    """Tolerance for every blob's final value: TIGHT, but LOOSE from the first long sum on.

    ``sources`` are input blobs that are themselves only so close (decoded pictures); what comes from them is no closer.
    """
    found = dict.fromkeys(graph.inputs, 0.0) | (sources or {})
    for node in graph.nodes:
        own = LOOSE if node.type in LONG_SUMS else TIGHT
        value = max([own, *(found[blob] for blob in node.bottoms)])
        for blob in node.writes:
            found[blob] = max(found.get(blob, 0.0), value)
    return found
