"""Search by products of vectors of plus and minus one, for a GPU: distance = (bits - product) / 2.

Everything is exact: the products are whole numbers, and the type of the product holds each of them (float16 up to
2,048 bits, else float32). Distance and position make one integer key, so that top-k has no ties to break.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from caffe2torch.retrieval.codes import Packed, packed_width
from caffe2torch.retrieval.hamming import Distances, Neighbours, Pairs, Positions, join, pad

QUERIES_PER_BLOCK = 256
ROWS_PER_BLOCK = 1 << 15
PRODUCTS_ON_GPU = 1 << 26
HALF_BITS = 1 << 11


class TorchEngine:
    """Exhaustive search over (N, width) packed codes kept on ``device``: a GPU where there is one, by default."""

    name = "torch"

    def __init__(self, packed: Packed, bits: int, *, device: str | torch.device | None = None) -> None:
        self.bits = bits
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.codes = self._carry(packed)
        on_gpu = self.device.type != "cpu"
        self.dtype = torch.float16 if on_gpu and bits <= HALF_BITS else torch.float32
        self.rows = PRODUCTS_ON_GPU // QUERIES_PER_BLOCK if on_gpu else ROWS_PER_BLOCK

    def __len__(self) -> int:
        return len(self.codes)

    @torch.inference_mode()
    def search(self, queries: Packed, k: int) -> tuple[Positions, Distances]:
        """The k nearest of each of (Q, width) queries, as (Q, k) positions and distances; k is at most N."""
        found = [self._search_block(block, k) for block in torch.split(self._carry(queries), QUERIES_PER_BLOCK)]
        positions = np.concatenate([np.zeros((0, k), np.int64), *(part[0].cpu().numpy() for part in found)])
        distances = np.concatenate([np.zeros((0, k), np.int32), *(part[1].int().cpu().numpy() for part in found)])
        return positions, distances

    @torch.inference_mode()
    def within(self, queries: Packed, radius: int) -> Neighbours:
        """All codes at a distance of at most ``radius`` of each query."""
        parts: list[Pairs] = []
        radius = min(radius, self.bits)  # a larger number may not fit a tensor
        for first in range(0, len(queries), QUERIES_PER_BLOCK):
            signs = self._signs(self._carry(queries[first : first + QUERIES_PER_BLOCK]))
            for start in range(0, len(self), self.rows):
                distances = self._distances(signs, start)
                rows, columns = torch.nonzero(distances <= radius, as_tuple=True)
                near = distances[rows, columns]
                parts.append(((rows + first).cpu().numpy(), near.cpu().numpy(), (columns + start).cpu().numpy()))
        return Neighbours.of(len(queries), join(parts))

    def _search_block(self, queries: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows are read in stretches; the best so far stand before the new ones, so a stable sort keeps the order."""
        signs = self._signs(queries)
        positions = torch.zeros((len(queries), 0), dtype=torch.int64, device=self.device)
        distances = positions
        for start in range(0, len(self), self.rows):
            near = self._distances(signs, start)
            rows = near.shape[1]
            key_type = torch.int32 if (self.bits + 1) * rows < 1 << 31 else torch.int64
            keys = near.to(key_type) * rows + torch.arange(rows, dtype=key_type, device=self.device)
            keys = torch.topk(keys, min(k, rows), dim=1, largest=False, sorted=True).values.long()
            positions = torch.cat([positions, keys % rows + start], dim=1)
            distances = torch.cat([distances, keys // rows], dim=1)
            if start:
                distances, order = torch.sort(distances, dim=1, stable=True)
                distances, positions = distances[:, :k], positions.gather(1, order[:, :k])
        return positions, distances

    def _distances(self, signs: torch.Tensor, start: int) -> torch.Tensor:
        """(Q, bits) signs of queries to (Q, rows) distances to the rows from ``start`` on."""
        products = signs @ self._signs(self.codes[start : start + self.rows]).T
        return (self.bits - products.int()) // 2

    def _signs(self, packed: torch.Tensor) -> torch.Tensor:
        shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=self.device)
        bits = (packed.unsqueeze(2) >> shifts) & 1
        return bits.flatten(1)[:, : self.bits].to(self.dtype) * 2 - 1

    def _carry(self, packed: Packed) -> torch.Tensor:
        width = packed_width(self.bits)
        plain: Any = np.ascontiguousarray(pad(packed, self.bits)[:, :width])
        return torch.from_numpy(plain if plain.flags.writeable else plain.copy()).to(self.device)
