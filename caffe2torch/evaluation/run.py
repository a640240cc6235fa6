"""One evaluation: two sets of codes with their labels in, figures for each length of ranking out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from caffe2torch.errors import RetrievalError, UsageError
from caffe2torch.evaluation.labels import folder_labels, labels_of
from caffe2torch.extract.model import file_sha256
from caffe2torch.retrieval.codes import Codes
from caffe2torch.retrieval.comparable import check_comparable, differences
from caffe2torch.retrieval.labels import Labels, align
from caffe2torch.retrieval.metrics import Divisor
from caffe2torch.retrieval.protocol import Scores, evaluate
from caffe2torch.retrieval.readers import read_codes

DEFAULT_K = 1000
ALSO_DECISIVE = {"precision": "the precision", "pictures_as": "the form of the pictures"}
"""Of the provenance, beside what ``check_comparable`` knows: what else two sets of codes must have in common."""

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and the total."""


@dataclass(frozen=True, eq=False)
class Side:
    """The codes and labels of the queries or of the database, with the files they come from."""

    codes: Codes
    file: Path
    labels: Labels
    labels_from: str
    labels_file: Path | None = None

    def __len__(self) -> int:
        return len(self.codes)

    def to_dict(self) -> dict[str, Any]:
        """Where it comes from, with hashes, for the report."""
        files = {"codes": self.file, "labels": self.labels_file}
        return {
            "pictures": len(self),
            **{name: {"file": str(path), "sha256": file_sha256(path)} for name, path in files.items() if path},
            "labels_from": self.labels_from,
            "provenance": dict(self.codes.provenance),
        }


@dataclass(frozen=True, eq=False)
class Evaluation:
    """``scores`` has one entry for each K asked for, in that order; ``database`` is None for leave-one-out."""

    queries: Side
    database: Side | None
    scores: tuple[Scores, ...]

    @property
    def longest(self) -> Scores:
        """The entry with the longest rankings; its curves begin with those of the others."""
        return max(self.scores, key=lambda scores: scores.k)


@dataclass(frozen=True)
class Reading:
    """How a codes file is to be understood: the options of ``read_codes``."""

    bits: int | None = None
    variable: str | None = None
    layout: str | None = None
    values: str = "codes"


def read_sides(
    files: Sequence[Path],
    labels: Sequence[Path | None] = (None, None),
    *,
    readings: Sequence[Reading] = (Reading(), Reading()),
    folders: bool = False,
    say: Callable[[str], object] = lambda message: None,
) -> list[Side]:
    """The queries and, where two files are named, the database; with ``folders`` a picture's label is its folder.

    Raises what ``read_codes`` and ``read_labels`` raise, and RetrievalError where labels and codes do not match.
    """
    read = [read_codes(file, **vars(how), say=say) for file, how in zip(files, readings, strict=False)]
    if folders:
        found, names = folder_labels([codes.paths for codes in read], files)
        text = f"the folders the pictures lie in ({len(names)})"
        return [Side(codes, file, each.labels, text) for codes, file, each in zip(read, files, found, strict=True)]
    options = ("--query-labels", "--database-labels")
    found = [labels_of(*each) for each in zip(read, files, labels, options, strict=False)]
    aligned = align(found[0], found[-1])
    return [
        Side(codes, file, each, str(given or file), given)
        for codes, file, each, given in zip(read, files, aligned, labels, strict=False)
    ]


def measure(
    queries: Side,
    database: Side | None,
    *,
    ks: Sequence[int] | None = None,
    radius: int = 2,
    divisor: Divisor = "found",
    ties: bool = False,
    any_model: bool = False,
    threads: int | None = None,
    progress: Progress = lambda stage, done, total: None,
) -> Evaluation:
    """Rank the database for each query, or without one the other queries, and measure for each K of ``ks``.

    Without ``ks`` it is 1000, or the whole database where that is smaller. Raises RetrievalError for codes and labels
    that do not belong together and for a K the database cannot have.
    """
    answers = database or queries
    items = len(answers) - (database is None)
    ks = (min(DEFAULT_K, max(items, 1)),) if ks is None else check_ks(ks, items, leave_one_out=database is None)
    if database is not None:
        check_alike(queries, database, any_model=any_model)
    scores = [
        evaluate(
            queries.codes,
            queries.labels,
            answers.codes,
            answers.labels,
            k=k,
            radius=radius,
            divisor=divisor,
            ties=ties,
            leave_one_out=database is None,
            any_model=any_model,
            threads=threads,
            progress=partial(progress, f"K = {k:,}"),
        )
        for k in ks
    ]
    return Evaluation(queries, database, tuple(scores))


def asking_for_themselves(queries: Side, database: Side) -> int:
    """How many queries stand in the database too, where they find themselves first and flatter the figures."""
    first, second = queries.codes, database.codes
    if any(first.provenance.get(key) != second.provenance.get(key) for key in ("folder", "root")):
        return 0
    if first.provenance.get("folder"):  # else names may start anywhere and prove nothing
        return len({*first.paths} & {*second.paths})
    return len(first) if np.array_equal(first.packed, second.packed) else 0


def check_ks(ks: Sequence[int], items: int, *, leave_one_out: bool) -> tuple[int, ...]:
    """The different K in their order; RetrievalError for one that a database of ``items`` cannot have."""
    if not ks:
        raise UsageError("-k: give at least one number")
    for k in ks:
        if not 1 <= k <= items:
            others = " besides the query itself" if leave_one_out else ""
            raise RetrievalError(f"k = {k:,} is not possible: the database has {items:,} pictures{others}")
    return tuple(dict.fromkeys(ks))


def check_options(*, radius: int) -> None:
    """UsageError for a radius no code can have."""
    if radius < 0:
        raise UsageError(f"--radius {radius}: a Hamming distance is 0 or more")


def check_alike(queries: Side, database: Side, *, any_model: bool) -> None:
    """RetrievalError, with the reasons, unless both were hashed alike; ``any_model`` wants equal bits only."""
    names = (str(queries.file), str(database.file))
    advice = "hash both with one model, or give --any-model to measure them all the same"
    try:
        check_comparable(queries.codes, database.codes, names=names, any_model=any_model)
    except RetrievalError as error:
        if queries.codes.bits != database.codes.bits:
            raise
        raise RetrievalError(f"{error}; {advice}") from error
    reasons = differences(queries.codes.provenance, database.codes.provenance, ALSO_DECISIVE)
    if reasons and not any_model:
        raise RetrievalError(f"{names[0]} and {names[1]} were not made in the same way: {'; '.join(reasons)}; {advice}")
