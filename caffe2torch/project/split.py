"""Dividing pictures into those to train with and those to test with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from caffe2torch.errors import UsageError
from caffe2torch.project.collect import Labels

Rows = NDArray[np.int64]


def strata(labels: Labels) -> Rows:
    """The group each picture is divided with: its class, or the rarest of its several labels (-1 without any)."""
    if labels.ndim == 1:
        return labels
    has = labels > 0
    counts = has.sum(axis=0)
    rarest = np.where(has, counts, len(labels) + 1).argmin(axis=1)
    return np.where(has.any(axis=1), rarest, -1)


def split(labels: Labels, share: float, seed: int) -> tuple[Rows, Rows]:
    """Rows to train and to test with, each rising; the same for the same seed.

    Of each group ``share``, rounded, is tested, but at least one picture and never all; a single one is trained with.
    """
    if not 0 < share < 1:
        raise UsageError(f"--test-share {share:g}: expected a number between 0 and 1, such as 0.1")
    groups = strata(labels)
    tested = np.zeros(len(labels), bool)
    for group in np.unique(groups).tolist():
        rows = np.flatnonzero(groups == group)
        count = min(max(1, round(len(rows) * share)), len(rows) - 1)
        rng = np.random.default_rng((seed, group + 1))
        tested[rng.permutation(rows)[:count]] = True
    return np.flatnonzero(~tested), np.flatnonzero(tested)


def trim(train: Rows, test: Rows, labels: Labels, fits: Callable[[int], bool]) -> tuple[Rows, Rows]:
    """Move a few test pictures of the largest groups to training until the count of the rest ``fits``."""
    groups = strata(labels)
    kept = test
    for count in range(len(test), max(len(test) - 20, 0), -1):
        if fits(count):
            return np.sort(np.setdiff1d(np.concatenate([train, test]), kept)), kept
        _, which, sizes = np.unique(groups[kept], return_inverse=True, return_counts=True)
        largest = np.flatnonzero(which == sizes.argmax())
        kept = np.delete(kept, largest[-1])
    return train, test
