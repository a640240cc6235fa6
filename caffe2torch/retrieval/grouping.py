"""Equal codes searched once: the distinct codes are ranked, then each is expanded to the codes equal to it.

Hash codes repeat: the released KevinNet gives 5,225 distinct codes for 50,000 images. The result is exactly that of a
search through all codes, because groups are numbered by their first member. Take the k nearest groups in (distance,
number) order, and let D be the distance at which their members become k or more. A group at distance D that is not
among these k stands behind at least as many groups at D as there are places left, each with a member before its own
first one; so none of its members is among the first k.

Random codes are all distinct, and grouping them gains nothing. A sample tells: the mean number of equals that a code
has bounds the gain from above, and pairs of equal codes in a sample estimate it. Only where that leaves hope are all
codes sorted and counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from caffe2torch.cores import cores
from caffe2torch.retrieval.codes import Packed
from caffe2torch.retrieval.engines import Engine, Make
from caffe2torch.retrieval.hamming import (
    Distances,
    Neighbours,
    Positions,
    Words,
    as_words,
    in_order,
)
from caffe2torch.threads import in_threads

SAMPLE = 1 << 16
WORTHWHILE = 1.5
"""Codes per group from which on grouped search is used: expanding has a price of its own."""
RANK_ALL = 4
"""From N / RANK_ALL results on most groups are expanded, and the search through all codes is faster."""
QUERIES_PER_BLOCK = 32
MANY_QUERIES = 128
PAIRS_PER_SORT = 1 << 20


@dataclass(frozen=True, eq=False)
class Groups:
    """A partition into equal codes: group g has ``members[starts[g]:starts[g + 1]]``, ascending, and g ascends with
    the first member."""

    members: Positions
    starts: npt.NDArray[np.int64]

    @property
    def first(self) -> Positions:
        """The position of each group's first member."""
        return self.members[self.starts[:-1]]

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        return np.diff(self.starts)

    def inverse(self) -> npt.NDArray[np.int64]:
        """The group of each code."""
        found = np.empty(len(self.members), np.int64)
        found[self.members] = np.repeat(np.arange(len(self.starts) - 1), self.counts)
        return found


def group_codes(packed: Packed, bits: int) -> Groups:
    """Groups of equal codes of (N, width) packed ones."""
    order, starts = _sorted_runs(as_words(packed, bits))
    by_first = np.argsort(order[starts[:-1]], kind="stable")
    counts = np.diff(starts)[by_first]
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    return Groups(order[_ranges(starts[by_first], counts)], ends)


def expected_size(packed: Packed, bits: int) -> float:
    """About how many codes equal a code, itself included, by a sample; codes per group cannot be more than this."""
    count = len(packed)
    if count > SAMPLE:
        rows = np.random.default_rng(0).integers(0, count, SAMPLE)
        rows = np.unique(rows)
    else:
        rows = np.arange(count)
    _, starts = _sorted_runs(as_words(packed, bits)[rows])
    sizes = np.diff(starts).astype(np.float64)
    pairs = float((sizes * (sizes - 1)).sum())
    return 1 + pairs / max(len(rows) * (len(rows) - 1.0), 1) * max(count - 1, 0)


class GroupedEngine:
    """Search through the distinct codes by another engine, expanded to all of them."""

    def __init__(self, packed: Packed, bits: int, make: Make, *, groups: Groups | None = None) -> None:
        self.bits = bits
        self.groups = group_codes(packed, bits) if groups is None else groups
        self.counts = self.groups.counts
        self.flat = make(packed, bits)
        self.distinct = make(as_bytes(as_words(packed, bits)[self.groups.first]), bits)

    @property
    def name(self) -> str:
        return f"{self.flat.name}, grouped"

    def __len__(self) -> int:
        return len(self.flat)

    def search(self, queries: Packed, k: int) -> tuple[Positions, Distances]:
        """The k nearest of each of (Q, width) queries, as (Q, k) positions and distances; k is at most N."""
        if k * RANK_ALL > len(self):
            return self.flat.search(queries, k)
        positions = np.empty((len(queries), k), np.int64)
        distances = np.empty((len(queries), k), np.int32)
        groups, near = self.distinct.search(queries, min(k, len(self.distinct)))

        def work(start: int, stop: int) -> None:
            rows = slice(start, stop)
            positions[rows], distances[rows] = self._expand(groups[rows], near[rows], k)

        threads = cores() if len(queries) >= MANY_QUERIES else 1  # starting some takes longer
        for _ in in_threads(work, len(queries), threads=threads, block=QUERIES_PER_BLOCK):
            pass
        return positions, distances

    def within(self, queries: Packed, radius: int) -> Neighbours:
        """All codes at a distance of at most ``radius`` of each query."""
        found = self.distinct.within(queries, radius)
        counts = self.counts[found.positions]
        rows = np.repeat(np.arange(len(queries)), np.diff(found.offsets))
        members = self.groups.members[_ranges(self.groups.starts[found.positions], counts)]
        return Neighbours.of(len(queries), (np.repeat(rows, counts), np.repeat(found.distances, counts), members))

    def _expand(self, groups: Positions, near: Distances, k: int) -> tuple[Positions, Distances]:
        """(Q, K) nearest groups in order to the (Q, k) nearest codes."""
        counts = self.counts[groups]
        totals = np.cumsum(counts, axis=1)
        last = np.argmax(totals >= k, axis=1)[:, None]
        cut = np.take_along_axis(near, last, 1)
        nearer = near < cut
        room = k - np.where(nearer, counts, 0).sum(axis=1, keepdims=True)
        taken = np.where(nearer, counts, np.where(near == cut, np.minimum(counts, room), 0))
        positions = np.empty((len(groups), k), np.int64)
        distances = np.empty((len(groups), k), np.int32)
        per_row = taken.sum(axis=1)
        for start, stop in _stretches(per_row):
            _, far, found = self._members(groups[start:stop], near[start:stop], taken[start:stop])
            first = np.cumsum(per_row[start:stop]) - per_row[start:stop]
            best = first[:, None] + np.arange(k)
            positions[start:stop], distances[start:stop] = found[best], far[best]
        return positions, distances

    def _members(self, groups: Positions, near: Distances, taken: npt.NDArray[np.int64]) -> Any:
        """The first ``taken`` members of each group, sorted by (row, distance, position)."""
        rows, columns = np.nonzero(taken)
        counts = taken[rows, columns]
        members = self.groups.members[_ranges(self.groups.starts[groups[rows, columns]], counts)]
        return in_order(np.repeat(rows, counts), np.repeat(near[rows, columns], counts), members)


def as_bytes(words: Words) -> Packed:
    """(N, words) back to (N, stride) bytes."""
    return np.ascontiguousarray(words).view(np.uint8)


def build_engine(packed: Packed, bits: int, make: Make, *, grouped: bool | None) -> Engine:
    """A grouped engine where ``grouped`` is true, or None and grouping pays; otherwise one through all codes."""
    if grouped or (grouped is None and expected_size(packed, bits) >= WORTHWHILE):
        groups = group_codes(packed, bits)
        if grouped or len(groups.members) >= WORTHWHILE * (len(groups.starts) - 1):
            return GroupedEngine(packed, bits, make, groups=groups)
    return make(packed, bits)


def _sorted_runs(words: Words) -> tuple[Positions, npt.NDArray[np.int64]]:
    """An order in which equal codes stand together, by position among themselves, and where each run starts."""
    keys = words[:, 0]
    for column in range(1, words.shape[1]):  # several words: sorted by a mix of them
        keys = (keys ^ (keys >> np.uint64(29))) * np.uint64(0x9E3779B97F4A7C15) ^ words[:, column]
    order = np.argsort(keys, kind="stable")
    sorted_keys, ordered = keys[order], words[order]
    changes = (ordered[1:] != ordered[:-1]).any(axis=1)
    if bool((changes & (sorted_keys[1:] == sorted_keys[:-1])).any()):  # codes that differ, with the same mix
        order = np.lexsort(tuple(words[:, column] for column in range(words.shape[1])))
        ordered = words[order]
        changes = (ordered[1:] != ordered[:-1]).any(axis=1)
    starts = np.flatnonzero(np.concatenate([np.ones(min(len(words), 1), np.bool_), changes]))
    return order, np.append(starts, len(words))


def _ranges(starts: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """starts[0], starts[0] + 1, ... for counts[0] numbers, then the same for the next, and so on."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    places: npt.NDArray[np.int64] = np.repeat(starts - (ends - counts), counts)
    places += np.arange(total)
    return places


def _stretches(sizes: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """Rows in stretches of at most PAIRS_PER_SORT pairs, or of one row."""
    found, start, held = [], 0, 0
    for row, size in enumerate(sizes.tolist()):
        if held and held + size > PAIRS_PER_SORT:
            found.append((start, row))
            start, held = row, 0
        held += size
    return [*found, (start, len(sizes))] if len(sizes) else []
