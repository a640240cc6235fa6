"""CRC-32C, the checksum in LevelDB's files, fast enough for whole databases.

A checksum is linear in its bytes, so the text is cut into lanes of equal width whose checksums numpy computes side by
side; neighbours are then joined by pairs. Polynomial 0x1EDC6F41, reflected, as in RFC 3720.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_Words = NDArray[np.uint32]

_LANES = 2048
_POLYNOMIAL = 0x82F63B78


def _byte_table() -> _Words:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1).astype(np.uint32)
    return table


def _pair_table() -> _Words:
    numbers = np.arange(1 << 16, dtype=np.uint32)
    first = _TABLE[numbers & 255] ^ numbers >> 8
    pairs: _Words = _TABLE[first & 255] ^ first >> 8
    return pairs


_TABLE = _byte_table()
_PAIRS = _pair_table()
"""What two bytes make of a state, in one step."""
_NUMBERS = _TABLE.tolist()


def crc32c(data: bytes) -> int:
    """The checksum of ``data``."""
    return (_lanes(data) if len(data) >= _LANES else _one_by_one(data)) ^ 0xFFFFFFFF


def masked(data: bytes) -> int:
    """The checksum as LevelDB stores it: turned and moved, since a checksum of checksums would tell little."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _one_by_one(data: bytes) -> int:
    state = 0xFFFFFFFF
    for byte in data:
        state = _NUMBERS[(state ^ byte) & 255] ^ state >> 8
    return state


def _lanes(data: bytes) -> int:
    width = -(-len(data) // (2 * _LANES)) * 2
    lanes = np.zeros(width * _LANES, np.uint8)  # zeros in front change nothing: the state there is 0
    lanes[-len(data) :] = np.frombuffer(data, np.uint8)
    start = lanes.size - len(data)
    lanes[start : start + 4] ^= 255  # as good as beginning with all bits set
    state = np.zeros(_LANES, np.uint32)
    for column in np.ascontiguousarray(lanes.view("<u2").reshape(_LANES, width // 2).T):
        state = _PAIRS.take((state ^ column) & 0xFFFF) ^ state >> 16
    while state.size > 1:
        state = _moved(state[::2], width) ^ state[1::2]
        width *= 2
    return int(state[0])


def _moved(state: _Words, width: int) -> _Words:
    """The states after ``width`` more bytes of zeros."""
    first, second, third, fourth = _zeros(width)
    moved: _Words = first[state & 255] ^ second[state >> 8 & 255] ^ third[state >> 16 & 255] ^ fourth[state >> 24]
    return moved


@lru_cache(maxsize=1024)
def _zeros(width: int) -> _Words:
    """(4, 256): what ``width`` bytes of zeros make of a state with one byte that is not zero."""
    if width > 1:
        return _moved(_zeros(width // 2), width - width // 2)
    state = np.arange(256, dtype=np.uint32) << np.array([[0], [8], [16], [24]], np.uint32)
    table: _Words = _TABLE[state & 255] ^ state >> 8
    return table
