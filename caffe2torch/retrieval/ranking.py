"""Rankings for evaluation: the nearest items of one query in order, up to the end of a group of equal distance.

A search returns exactly K items. An evaluation also wants to know what else is as far away as the last of them (for
ties), and how much lies within a radius; and it drops the positions as soon as the labels are gathered, so that
nothing of the size queries x K is ever held. Both want the one order of ``hamming``: (distance, database position).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from caffe2torch.retrieval.hamming import Scanner, Words


@dataclass(frozen=True, eq=False)
class Prefix:
    """The start of one ranking: whole groups of equal distance with at least K items and all within the radius."""

    positions: npt.NDArray[np.intp]
    near: int
    """The first ``near`` of the positions lie within the radius."""
    sizes: npt.NDArray[np.intp] | None
    """(bits + 1,) how many of the positions lie at each distance, where that was asked for."""


class Ranker:
    """Ranks a database, (N, words), for one query at a time, in memory that is used again."""

    def __init__(self, words: Words, bits: int) -> None:
        self.bits = bits
        self.scanner = Scanner(words, bits, len(words))
        self._limit = bits // 4

    def prefix(self, query: Words, k: int, radius: int, *, groups: bool, leave_out: int | None = None) -> Prefix:
        """The ranking of ``query`` (words,). ``leave_out`` is the query's own place in the database, if it is there."""
        total = len(self.scanner.words)
        wanted = k if leave_out is None else k + 1
        distances = self.scanner.distances(query, 0, total)
        limit = self.bits if wanted == total else max(self._kth_smallest(distances, wanted), radius)
        if limit >= self.bits:
            ranked = distances
            positions = np.argsort(distances, kind="stable")
        else:
            chosen = np.flatnonzero(distances <= limit)
            ranked = distances[chosen]
            positions = chosen[np.argsort(ranked, kind="stable")]
        sizes = np.bincount(ranked, minlength=self.bits + 1) if groups else None
        near = int(np.count_nonzero(ranked <= min(radius, self.bits)))
        if leave_out is not None:
            # Its distance is 0: it stands in the first group, within every radius.
            positions = np.delete(positions, np.searchsorted(positions[: np.count_nonzero(ranked == 0)], leave_out))
            near -= 1
            if sizes is not None:
                sizes[0] -= 1
        return Prefix(positions, near, sizes)

    def _kth_smallest(self, distances: npt.NDArray[Any], k: int) -> int:
        """The k-th smallest distance, by bisection: counting what is nearer than a bound is a vector instruction.

        It begins where the last query ended, for that is often the place or the next one.
        """
        low, high, middle = 0, self.bits, self._limit
        first = True
        while low < high:
            if np.count_nonzero(distances <= middle) >= k:
                high = middle
                middle = max(low, middle - 1) if first else (low + high) // 2
            else:
                low = middle + 1
                middle = min(high, low) if first else (low + high) // 2
            first = False
        self._limit = min(low, self.bits - 1)
        return low
