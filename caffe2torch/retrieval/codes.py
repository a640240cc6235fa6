"""Hash codes: from sigmoid values to bits, from bits to packed bytes and back.

A bit is ``value > 0.5`` in float32, as both papers compute it. Packed codes follow numpy.packbits' default ("big")
order: bit 0 is the most significant bit of byte 0; the unused low bits of the last byte are zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

THRESHOLD = 0.5
BIT_ORDER = "numpy.packbits default: bit 0 is the most significant bit of byte 0"
MAX_BITS = 1 << 16

Bits = npt.NDArray[np.bool_]
Packed = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Codes:
    """The codes of a set of images: ``packed`` is (N, ceil(bits / 8)), row i belongs to ``paths[i]``; ``paths``
    is empty where nothing names the images, as in most MATLAB files.

    ``features`` is (N, D) where a feature blob was saved beside the codes; ``labels`` is (N,) where the images came
    from a list with labels; ``provenance`` says how the codes were made (empty for .csv, which has no place for it).
    """

    packed: Packed
    bits: int
    paths: tuple[str, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    features: Floats | None = None
    labels: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.packed)

    def unpacked(self) -> Bits:
        """The codes as booleans, (N, bits)."""
        return unpack(self.packed, self.bits)


def packed_width(bits: int) -> int:
    """Bytes one packed code takes."""
    return (bits + 7) // 8


def threshold(values: npt.NDArray[Any]) -> Bits:
    """The papers' rule: a bit is set where the float32 value is strictly above 0.5."""
    return np.asarray(values, dtype=np.float32) > np.float32(THRESHOLD)


def pack(bits: Bits) -> Packed:
    """(N, bits) booleans to (N, ceil(bits / 8)) bytes."""
    if bits.ndim != 2:
        raise ValueError(f"pack wants (N, bits), got shape {bits.shape}")
    return np.packbits(bits, axis=1)


def unpack(packed: Packed, bits: int) -> Bits:
    """(N, ceil(bits / 8)) bytes to (N, bits) booleans."""
    if packed.ndim != 2 or packed.shape[1] != packed_width(bits):
        raise ValueError(f"{bits}-bit codes are (N, {packed_width(bits)}) bytes, got shape {packed.shape}")
    return np.unpackbits(packed, axis=1, count=bits).astype(np.bool_)


def as_text(packed: Packed, bits: int) -> list[str]:
    """Each code as a string of 0 and 1, bit 0 first."""
    digits = np.unpackbits(packed, axis=1, count=bits) + np.uint8(ord("0"))
    return [row.tobytes().decode("ascii") for row in digits]
