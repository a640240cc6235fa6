"""What a codes file is to hold, given to its writer as a stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from caffe2torch.extract.journal import Failure
from caffe2torch.extract.rows import Chunk


@dataclass(frozen=True)
class Contents:
    """Sums known beforehand, and functions that start the stream of rows (and of failures) anew."""

    rows: int
    bits: int
    feature_size: int
    """Values per row of the feature blob, 0 when none was asked for."""
    labelled: bool
    longest: int
    """Characters in the longest name."""
    keeps_failed: bool
    """Whether there are rows of zeros for pictures that could not be read."""
    provenance: Mapping[str, Any]
    chunks: Callable[[], Iterator[Chunk]]
    failures: Callable[[], Iterator[Failure]]
