"""Hamming distances between packed codes, and the one order every engine keeps.

**Order.** A result is sorted by (distance, database position): codes at equal distance stand in the order of the
database, as a stable sort of the distances leaves them. Ties are the rule for hash codes, so this is part of every
answer, also where the k-th place falls within a tie.

**Words.** Distances are taken on whole machine words: packed codes of 1, 2 or up to 4 bytes become one word of 8, 16 or
32 bits, longer ones rows of 64-bit words. The bytes added are zero in queries and database alike, so no distance
changes. Byte order within a word is that of memory; XOR and popcount do not depend on it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from caffe2torch.errors import RetrievalError
from caffe2torch.retrieval.codes import MAX_BITS, Packed, packed_width

Words = npt.NDArray[Any]
Positions = npt.NDArray[np.int64]
Distances = npt.NDArray[np.int32]
Pairs = tuple[Positions, npt.NDArray[Any], Positions]
"""Rows of queries, distances, positions in the database; one entry per pair."""

_WORD_TYPES: dict[int, Any] = {1: np.uint8, 2: np.uint16, 4: np.uint32}
_TABLE_TYPES: dict[int, Any] = {1: np.uint8, 2: np.uint16}


@dataclass(frozen=True, eq=False)
class Neighbours:
    """What lies within a radius: query i has ``positions[offsets[i]:offsets[i + 1]]``, nearest first."""

    offsets: npt.NDArray[np.int64]
    positions: Positions
    distances: Distances

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, query: int) -> tuple[Positions, Distances]:
        row = slice(self.offsets[query], self.offsets[query + 1])
        return self.positions[row], self.distances[row]

    @staticmethod
    def of(queries: int, found: Pairs) -> Neighbours:
        """From pairs in any order."""
        rows, distances, positions = in_order(*found)
        offsets = np.zeros(queries + 1, np.int64)
        np.cumsum(np.bincount(rows, minlength=queries), out=offsets[1:])
        return Neighbours(offsets, positions, distances.astype(np.int32))


def join(parts: Sequence[Pairs]) -> Pairs:
    """The pairs of all parts, one after the other."""
    empty = np.zeros(0, np.int64)
    rows, distances, positions = ([part[column] for part in parts] for column in range(3))
    return np.concatenate([empty, *rows]), np.concatenate([empty, *distances]), np.concatenate([empty, *positions])


def in_order(rows: Positions, distances: npt.NDArray[Any], positions: Positions) -> Pairs:
    """The same triples sorted by (row, distance, position), by one sort of one integer each where that has room."""
    if not len(rows):
        return rows, distances, positions
    reach, places = int(distances.max()) + 1, int(positions.max()).bit_length()
    if ((int(rows.max()) + 1) * reach).bit_length() + places > 62:
        order = np.lexsort((positions, distances, rows))
        return rows[order], distances[order], positions[order]
    keys = rows * reach
    keys += distances
    keys <<= places
    keys |= positions
    keys.sort(kind="stable")  # timsort: the runs that already ascend, as members of one group do, are merged
    found = keys & ((1 << places) - 1)
    keys >>= places
    rows, distances = np.divmod(keys, reach)
    return rows, distances, found


def stride(bits: int) -> int:
    """Bytes one code takes as whole words: 1, 2, 4 or a multiple of 8."""
    width = packed_width(bits)
    return width if width in _WORD_TYPES else 4 if width == 3 else -(-width // 8) * 8


def pad(packed: Packed, bits: int) -> Packed:
    """(N, width) bytes to contiguous, word-aligned (N, stride) bytes; what is so already is not copied."""
    wanted, width = stride(bits), packed_width(bits)
    if packed.shape[1:] not in {(wanted,), (width,)}:
        raise RetrievalError(f"{bits}-bit codes are (N, {width}) bytes, got shape {packed.shape}")
    if packed.shape[1] == wanted and packed.flags.c_contiguous and packed.ctypes.data % min(wanted, 8) == 0:
        return packed
    padded = np.zeros((len(packed), wanted), np.uint8)
    padded[:, : packed.shape[1]] = packed
    return padded


def as_words(packed: Packed, bits: int) -> Words:
    """(N, width) packed bytes, or already padded ones, as (N, words) unsigned integers."""
    padded = pad(packed, bits)
    words: Words = padded.view(_WORD_TYPES.get(padded.shape[1], np.uint64))
    return words


def check_codes(packed: npt.NDArray[Any], bits: int, *, what: str = "codes") -> Packed:
    """The same array when it holds codes of ``bits`` bits, otherwise RetrievalError saying why not."""
    if not 1 <= bits <= MAX_BITS:
        raise RetrievalError(f"codes of {bits} bits are not possible, only 1 to {MAX_BITS}")
    packed = np.asarray(packed)
    width = packed_width(bits)
    if packed.dtype != np.uint8 or packed.ndim != 2:
        raise RetrievalError(f"{what} are {packed.dtype} {packed.shape}; packed codes are uint8 (N, {width})")
    if packed.shape[1] != width:
        raise RetrievalError(
            f"{what} have {packed.shape[1]} bytes each, codes of {bits} bits have {width}; are they of the same model?"
        )
    if bits % 8 and len(packed) and bool((packed[:, -1] & ((1 << (-bits % 8)) - 1)).any()):
        raise RetrievalError(f"{what} have bits set beyond the first {bits}: not packed as numpy.packbits does it")
    return packed


def distance_type(bits: int) -> Any:
    """The smallest unsigned integer type that holds 0 to ``bits`` + 1; short types sort fastest."""
    return np.uint8 if bits < (1 << 8) - 1 else np.uint16 if bits < (1 << 16) - 1 else np.uint32


def _count_by_table(words: Words, out: npt.NDArray[np.uint8]) -> None:
    """Set bits of each word, for numpy before 2.0: a table of 16-bit pieces."""
    piece = _TABLE_TYPES.get(words.itemsize, np.uint16)
    counts = _TABLE[np.ascontiguousarray(words).view(piece)]
    counts.reshape(*words.shape, words.itemsize // piece().itemsize).sum(axis=-1, dtype=np.uint8, out=out)


_TABLE = np.unpackbits(np.arange(1 << 16, dtype="<u2").view(np.uint8).reshape(-1, 2), axis=1).sum(1, dtype=np.uint8)


def count_bits(words: Words, out: npt.NDArray[np.uint8]) -> None:
    """Write the number of set bits of each word to ``out``."""
    if hasattr(np, "bitwise_count"):
        np.bitwise_count(words, out=out)
    else:
        _count_by_table(words, out)


class Popcount:
    """Distances of a few queries to a stretch of codes, in memory that is used again and again: one per thread."""

    def __init__(self, words: Words, bits: int, pairs: int) -> None:
        """For codes like ``words``; ``pairs`` is queries times codes of the largest matrix."""
        self._mixed = np.empty(pairs, words.dtype)
        self._counts = np.empty(pairs, np.uint8)
        self._sums = np.empty(pairs, distance_type(bits)) if words.shape[1] > 1 else None

    def distances(self, queries: Words, codes: Words) -> npt.NDArray[Any]:
        """Of one query, (words,), or several, (Q, words), to (N, words) codes: contiguous (N,) or (Q, N), which holds
        until the next call."""
        shape = (*queries.shape[:-1], len(codes))
        size = math.prod(shape)
        mixed, counts = self._mixed[:size].reshape(shape), self._counts[:size].reshape(shape)
        if self._sums is None:
            np.bitwise_xor(codes[:, 0], queries[..., 0, None], out=mixed)
            count_bits(mixed, counts)
            return counts
        sums = self._sums[:size].reshape(shape)
        sums.fill(0)
        for column in range(codes.shape[1]):
            np.bitwise_xor(codes[:, column], queries[..., column, None], out=mixed)
            count_bits(mixed, counts)
            np.add(sums, counts, out=sums)
        return sums


class Scanner:
    """Distances of one query at a time to stretches of a database."""

    def __init__(self, words: Words, bits: int, rows: int) -> None:
        """``words`` is the database, (N, words); no stretch is longer than ``rows``."""
        self.words = words
        self._popcount = Popcount(words, bits, rows)

    def distances(self, query: Words, start: int, stop: int) -> npt.NDArray[Any]:
        """Distances of a query, (words,), to rows ``start`` to ``stop``; they hold until the next call."""
        return self._popcount.distances(query, self.words[start:stop])
