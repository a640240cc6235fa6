"""Published results as typed facts: MAP and accuracy figures, precision curves, and which of them one may compare with.

The facts are in ``published.toml`` beside this module, each with its source and the protocol behind it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from caffe2torch.errors import FormatError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FACTS = Path(__file__).with_name("published.toml")
SCHEMA = 1
CIFAR10 = "CIFAR-10"


@dataclass(frozen=True)
class Source:
    """Where a figure stands; ``repository`` is OWNER/NAME on GitHub."""

    title: str
    repository: str | None = None
    commit: str | None = None
    path: str | None = None


@dataclass(frozen=True)
class Protocol:
    """How a figure was obtained: which part of the data asks, which answers ("" for classification), and the rest."""

    queries: str
    database: str
    text: str


@dataclass(frozen=True)
class Figure:
    """One published result.

    ``value`` is a fraction of 1 and ``digits`` the decimals it was printed with; ``k`` is the length of the ranking;
    ``models`` are the weights' names in the zoo; ``origin`` is "stated", "computed" (by us, from codes the authors
    released) or "measured" (by us, with real Caffe).
    """

    method: str
    metric: str
    value: float
    digits: int
    bits: int | None
    k: int | None
    data: str
    protocol: Protocol
    source: Source
    origin: str = "stated"
    models: tuple[str, ...] = ()
    note: str = ""

    @property
    def name(self) -> str:
        """What it is a figure of, such as ``MAP@1000 of KevinNet, 48 bits, CIFAR-10``."""
        metric = self.metric if self.k is None else f"{self.metric}@{self.k}"
        bits = "" if self.bits is None else f", {self.bits} bits"
        return f"{metric} of {self.method}{bits}, {self.data}"

    @property
    def text(self) -> str:
        """The value as it was printed."""
        return f"{self.value:.{self.digits}f}"

    def equals(self, value: float) -> bool:
        """Whether ``value`` is this figure to the digits that were printed (half a unit of the last one, inclusive)."""
        return abs(value - self.value) <= 0.5 * 10.0**-self.digits + 1e-12


@dataclass(frozen=True)
class Curve:
    """``precision[i]`` is the share of relevant images among the first ``k[i]``, averaged over the queries."""

    method: str
    bits: int
    k: tuple[int, ...]
    precision: tuple[float, ...]
    protocol: Protocol
    source: Source


@dataclass(frozen=True)
class Comparison:
    """The figure to compare a result with, and in which respects the two were not obtained alike (none: comparable)."""

    figure: Figure
    differences: tuple[str, ...]

    @property
    def comparable(self) -> bool:
        return not self.differences

    def difference(self, value: float) -> float:
        """``value`` minus the published one."""
        return value - self.figure.value


def figures(
    *,
    metric: str | None = None,
    method: str | None = None,
    bits: int | None = None,
    k: int | None = None,
    model: str | None = None,
    data: str | None = None,
) -> tuple[Figure, ...]:
    """The published figures that agree with everything given, in the file's order; ``model`` is a name in the zoo."""
    wanted = {"metric": metric, "method": method, "bits": bits, "k": k, "data": data}
    return tuple(
        figure
        for figure in _facts().figures
        if all(value is None or getattr(figure, key) == value for key, value in wanted.items())
        and (model is None or model in figure.models)
    )


def curves() -> tuple[Curve, ...]:
    """Precision at k on CIFAR-10 with 48 bits, in drawing order: KevinNet, SSDH, then the nine baselines."""
    return _facts().curves


def closest(
    metric: str = "MAP",
    *,
    bits: int,
    k: int | None = None,
    model: str | None = None,
    database: str = "train",
    data: str = CIFAR10,
) -> Comparison | None:
    """The published figure that a result of ours is best compared with, and what sets the two apart.

    Only figures of the same metric and data are considered, and none of the baselines; of these the one of the same
    model (where ``model``, a name in the zoo, is given) comes first, then the same database, bits and K, else the
    nearest bits and K. None when nothing was published of the kind.
    """
    known = [figure for figure in figures(metric=metric, data=data) if figure.protocol is not _facts().baseline]
    if not known:
        return None

    def distance(figure: Figure) -> tuple[float, ...]:
        unwanted = model not in figure.models if model is not None else figure.origin == "measured"
        return (
            # A mistaken run and a net nobody asked for are no standard.
            not figure.models or unwanted,
            figure.protocol.database not in ("", database),
            _apart(figure.bits, bits),
            _apart(figure.k, k),
        )

    best = min(known, key=distance)
    return Comparison(best, tuple(_differences(best, bits=bits, k=k, model=model, database=database)))


def _apart(published: int | None, ours: int | None) -> float:
    return 0.0 if published is None or ours is None else abs(math.log(published / ours))


def _differences(figure: Figure, *, bits: int, k: int | None, model: str | None, database: str) -> Iterator[str]:
    if model is not None and model not in figure.models:
        yield f"published for {' or '.join(figure.models) or figure.method}, not for {model}"
    if figure.bits not in (None, bits):
        yield f"{figure.bits} bits, here {bits}"
    if k is not None and figure.k not in (None, k):
        yield f"over the first {figure.k:,} of a ranking, here {k:,}"
    if figure.protocol.database not in ("", database):
        yield f"the database is the {figure.protocol.database} images, here the {database} images"


@dataclass(frozen=True)
class _Facts:
    figures: tuple[Figure, ...]
    curves: tuple[Curve, ...]
    baseline: Protocol


@lru_cache(maxsize=1)
def _facts() -> _Facts:
    try:
        table = tomllib.loads(FACTS.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FormatError(f"{FACTS}: cannot be read: {error}; the installation is incomplete") from error
    return parse(table)


def parse(table: Mapping[str, Any]) -> _Facts:
    """The facts of a parsed file; raises FormatError when it is not one of ours."""
    try:
        if table["schema"] != SCHEMA:
            raise FormatError(f"{FACTS}: schema is {table['schema']}, this version of caffe2torch reads {SCHEMA}")
        sources = {name: Source(**row) for name, row in table["sources"].items()}
        protocols = {name: Protocol(**row) for name, row in table["protocols"].items()}
        rows = [*table["figures"], *(row for some in table["tables"] for row in _rows(some))]
        return _Facts(
            tuple(_figure(row, sources, protocols) for row in rows),
            tuple(_curve(row, sources, protocols) for row in table["curves"]),
            protocols["baseline"],
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"{FACTS}: {type(error).__name__}: {error}; the installation is damaged") from error


def _rows(table: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    """A table's cells, each as a row of its own."""
    shared = {key: value for key, value in table.items() if key not in ("rows", "bits", "models")}
    for method, values in table["rows"].items():
        models: Sequence[str] = table.get("models", {}).get(method, ())
        for index, (bits, value) in enumerate(zip(table["bits"], values, strict=True)):
            yield {**shared, "method": method, "bits": bits, "value": value, "models": models[index : index + 1]}


def _figure(row: Mapping[str, Any], sources: Mapping[str, Source], protocols: Mapping[str, Protocol]) -> Figure:
    row = {"bits": None, "k": None, "data": CIFAR10, **row}
    known = {
        **row,
        "value": float(row["value"]),
        "digits": len(row["value"].partition(".")[2]),
        "models": tuple(row.get("models", ())),
        "protocol": protocols[row["protocol"]],
        "source": sources[row["source"]],
    }
    return Figure(**known)


def _curve(row: Mapping[str, Any], sources: Mapping[str, Source], protocols: Mapping[str, Protocol]) -> Curve:
    precision = tuple(float(value) for value in row["precision"])
    if len(row["k"]) != len(precision):
        raise ValueError(f"the curve of {row['method']} has {len(row['k'])} k and {len(precision)} values")
    changed = {
        "k": tuple(row["k"]),
        "precision": precision,
        "protocol": protocols[row["protocol"]],
        "source": sources[row["source"]],
    }
    return Curve(**{**row, **changed})
