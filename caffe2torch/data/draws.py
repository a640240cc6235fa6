"""Random numbers that depend on what they are for, never on how many were drawn before.

So batch 1000 is the same whether the 999 before it were made here, in another thread, or before an interruption.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Seed: TypeAlias = "int | Sequence[int]"
"""A whole number, or several: a training's seed and the number of its net."""


@dataclass(frozen=True)
class Draws:
    """The random numbers of one data layer."""

    seed: tuple[int, ...]
    layer: str

    def batch(self, number: int) -> np.random.Generator:
        """What crops, flips and windows of a batch are drawn from."""
        return self._generator("batch", number)

    def order(self, count: int, epoch: int, file: int = -1) -> NDArray[np.int64]:
        """The order of ``count`` things in an epoch; the rows of a file have one of their own."""
        return self._generator("order", epoch, file).permutation(count)

    def below(self, limit: int) -> int:
        """A number from 0 to ``limit`` - 1, the same for ever: how many rand_skip passes over."""
        return int(self._generator("skip").integers(limit))

    def _generator(self, *key: str | int) -> np.random.Generator:
        text = ascii((self.seed, self.layer, *key))
        return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest(), "big"))


class Orders:
    """The orders that ``count`` things have, epoch for epoch; the last one is kept."""

    def __init__(self, count: int, *, shuffle: bool) -> None:
        self.count, self._shuffle = count, shuffle
        self._key: tuple[Draws, int, int] | None = None
        self._order = np.arange(count)

    def order(self, draws: Draws, epoch: int, file: int = -1) -> NDArray[np.int64]:
        """Indices, as they come in this epoch."""
        if self._shuffle and self._key != (draws, epoch, file):
            self._key, self._order = (draws, epoch, file), draws.order(self.count, epoch, file)
        return self._order


def draws(seed: Seed | None, layer: str) -> Draws:
    """The draws of a layer; without a seed, others in every run."""
    if seed is None:
        seed = secrets.randbits(63)
    return Draws((int(seed),) if isinstance(seed, (int, np.integer)) else tuple(map(int, seed)), layer)
