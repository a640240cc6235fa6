"""A query, its results, and the two together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from caffe2torch.browse.pictures import Thumbnail
from caffe2torch.retrieval.codes import Codes, Packed, unpack

Labels = tuple[int, ...] | None
"""The labels of a picture, mostly one; None where they are not known."""


@dataclass(frozen=True, eq=False)
class Query:
    """What is searched with. ``origin`` says where its code is from: "hashed", "database" or "codes file".

    ``packed`` is (ceil(bits / 8),) bytes and ``features`` (D,), where they are needed; ``id`` is its number in the
    database, if it is part of it; ``note`` is said beside the results.
    """

    name: str
    packed: Packed
    origin: str
    labels: Labels = None
    id: int | None = None
    features: npt.NDArray[np.floating] | None = None
    thumbnail: Thumbnail | None = None
    note: str = ""


@dataclass(frozen=True)
class Hit:
    """One result. ``rank`` counts from 1, ``id`` is its number in the database.

    ``distance`` is in bits and ``differing`` says which; ``feature_distance`` is set where features decided the order.
    ``relevant`` is whether it shares a label with the query, None where the labels of one of them are not known.
    """

    rank: int
    id: int
    name: str
    distance: int
    feature_distance: float | None
    labels: Labels
    relevant: bool | None
    code: tuple[bool, ...]
    differing: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Answer:
    """A query and what was found for it, nearest first."""

    query: Query
    hits: tuple[Hit, ...]

    @property
    def relevant(self) -> int | None:
        """How many results share a label with the query; None where that is not known."""
        if not self.hits or any(hit.relevant is None for hit in self.hits):
            return None
        return sum(bool(hit.relevant) for hit in self.hits)


@dataclass(frozen=True)
class Found:
    """Number in the database, Hamming distance and, after re-ranking, distance of the features."""

    id: int
    distance: int
    feature_distance: float | None = None


def make_answer(query: Query, found: Sequence[Found], codes: Codes) -> Answer:
    """The answer with all that is shown of each result; row i of ``codes`` is ``found[i]``."""
    own = unpack(query.packed[None], codes.bits)[0]
    hits = []
    for place, (item, code) in enumerate(zip(found, codes.unpacked(), strict=True)):
        labels = labels_of(codes, place)
        hits.append(
            Hit(
                rank=place + 1,
                id=item.id,
                name=name_of(codes, place, item.id),
                distance=item.distance,
                feature_distance=item.feature_distance,
                labels=labels,
                relevant=None if labels is None or query.labels is None else bool({*labels} & {*query.labels}),
                code=tuple(code.tolist()),
                differing=tuple(np.flatnonzero(code != own).tolist()),
            )
        )
    return Answer(query, tuple(hits))


def labels_of(codes: Codes, row: int) -> Labels:
    """A single number, or the places of the truth values that are set."""
    if codes.labels is None:
        return None
    label = codes.labels[row]
    return (int(label),) if label.ndim == 0 else tuple(np.flatnonzero(label).tolist())


def name_of(codes: Codes, row: int, number: int) -> str:
    """The path, or the number where there is none (MATLAB's own files may lack them)."""
    return codes.paths[row] if codes.paths else f"picture {number}"
