"""What a search in an index gives back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from caffe2torch.retrieval.hamming import Distances
from caffe2torch.retrieval.ids import Ids


class Hits(NamedTuple):
    """The nearest codes of each query, (Q, k): ``ids`` as the index knows them and Hamming ``distances`` in bits."""

    ids: Ids
    distances: Distances


@dataclass(frozen=True, eq=False)
class Surroundings:
    """What lies within a radius: query i has ``ids[offsets[i]:offsets[i + 1]]`` and their distances, nearest first."""

    offsets: npt.NDArray[np.int64]
    ids: Ids
    distances: Distances

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, query: int) -> Hits:
        row = slice(self.offsets[query], self.offsets[query + 1])
        return Hits(self.ids[row], self.distances[row])
