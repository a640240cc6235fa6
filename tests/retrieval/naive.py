"""Ranking written out from its definition: every bit compared, then a stable sort."""

from __future__ import annotations

import numpy as np


def naive_distances(queries: np.ndarray, codes: np.ndarray, bits: int) -> np.ndarray:
    """(Q, N) counts of differing bits, from unpacked codes."""
    first = np.unpackbits(queries, axis=1, count=bits).astype(np.int64)
    second = np.unpackbits(codes, axis=1, count=bits).astype(np.int64)
    return first @ (1 - second).T + (1 - first) @ second.T


def naive_search(queries: np.ndarray, codes: np.ndarray, bits: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    distances = naive_distances(queries, codes, bits)
    order = np.array([sorted(range(len(codes)), key=row.__getitem__)[:k] for row in distances.tolist()], np.int64)
    order = order.reshape(len(queries), k)
    return order, np.take_along_axis(distances, order, 1)


def naive_within(queries: np.ndarray, codes: np.ndarray, bits: int, radius: int) -> list[list[tuple[int, int]]]:
    rows = naive_distances(queries, codes, bits).tolist()
    return [sorted((far, place) for place, far in enumerate(row) if far <= radius) for row in rows]


def draw_codes(count: int, bits: int, *, distinct: int, seed: int = 0) -> np.ndarray:
    """Codes that repeat: ``distinct`` different ones at most, the first of them much more often than the last."""
    rng = np.random.RandomState(seed)
    pool = rng.rand(distinct, bits) > 0.5
    return np.packbits(pool[(rng.rand(count) ** 3 * distinct).astype(int)], axis=1)
