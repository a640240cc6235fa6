"""MAP and precision of our codes beside the figures published for the release."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from caffe2torch.evaluation.published import Curve, Figure
from caffe2torch.release.comparing import codes_of
from caffe2torch.release.facts import Release
from caffe2torch.release.pictures import row_order
from caffe2torch.retrieval.codes import Bits
from caffe2torch.retrieval.protocol import Scores, evaluate

ROUNDING = 1e-5
"""What a few bits at the threshold can change of a MAP."""


@dataclass(frozen=True)
class Measured:
    """A figure of ours, the published one and where that stands; ``note`` says what is special about it."""

    name: str
    ours: float
    published: str
    source: str
    difference: float
    agrees: bool
    origin: str = "stated"
    note: str = ""


def measure(
    release: Release,
    codes: Mapping[str, Bits],
    positions: Mapping[str, npt.NDArray[np.int64]],
    labels: Mapping[str, npt.NDArray[np.int64]],
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> list[Measured]:
    """Every figure published for the release; codes are those of all pictures, labels in the standard order.

    The papers' order decides among equal distances, whatever the order of the codes.
    """
    figures, curve = release.figures(), release.precision()
    sides = {}
    for part in codes:
        standard = np.empty_like(codes[part])
        standard[positions[part]] = codes[part]
        papers = row_order(part, "papers")
        sides[part] = (codes_of(standard[papers]), labels[part][papers])
    found, scores = [], {}
    lengths = {figure.k or 1000 for figure in figures} | ({max(curve.k)} if curve else set())
    for k in sorted(lengths):
        scores[k] = evaluate(*sides["test"], *sides["train"], k=k, progress=partial(progress, f"MAP@{k}"))
    for figure in figures:
        found.append(_map(figure, scores[figure.k or 1000]))
    if curve is not None:
        found.append(_precision(curve, scores[max(curve.k)]))
    return found


def _map(figure: Figure, scores: Scores) -> Measured:
    return Measured(
        f"MAP@{figure.k:,}",
        scores.map,
        figure.text,
        figure.source.title,
        scores.map - figure.value,
        figure.equals(scores.map),
        figure.origin,
        figure.note,
    )


def _precision(curve: Curve, scores: Scores) -> Measured:
    """All points of a curve at once, by the one that is farthest off."""
    ours = np.array([scores.precision[k - 1] for k in curve.k])
    apart = ours - np.array(curve.precision)
    worst = int(np.abs(apart).argmax())
    return Measured(
        f"precision@{curve.k[0]} to @{curve.k[-1]} ({len(curve.k)} values)",
        float(ours[worst]),
        f"{curve.precision[worst]:.8f}",
        f"{curve.source.title}; shown at {curve.k[worst]}",
        float(apart[worst]),
        bool(np.abs(apart).max() <= 0.5e-8 + 1e-12),
        "computed",
    )
