"""What was released with published weights: codes, their order, the pictures behind them, the figures beside them.

The facts are in ``releases.toml`` beside this module.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from caffe2torch.errors import FormatError, UsageError
from caffe2torch.evaluation import published

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FACTS = Path(__file__).with_name("releases.toml")
SCHEMA = 1
PARTS = ("test", "train")
"""The two lists of pictures: those that ask, 10,000, and those that answer, 50,000."""
ORDERS = ("papers", "standard")


@dataclass(frozen=True)
class Known:
    """Codes that somebody published: files for each part, below the reference material."""

    name: str
    files: Mapping[str, str]


@dataclass(frozen=True)
class Release:
    """One release. ``codes`` is empty where no codes are public; ``jpeg`` counts passes through JPEG.

    ``bundled`` codes come with the model instead of with the reference material.
    """

    model: str
    codes: Mapping[str, str]
    order: str = "papers"
    mirrored: bool = True
    jpeg: int = 2
    repositories: tuple[str, ...] = ()
    curve: str | None = None
    caution: str = ""
    bundled: bool = False
    others: tuple[Known, ...] = ()

    def figures(self) -> tuple[published.Figure, ...]:
        """The MAP figures published for these weights."""
        known = published.figures(metric="MAP", model=self.model, data=published.CIFAR10)
        return tuple(figure for figure in known if (figure.source.repository or "") in self.repositories)

    def precision(self) -> published.Curve | None:
        """The precision curve published for these weights."""
        return next((curve for curve in published.curves() if curve.method == self.curve), None)


def release(model: str) -> Release:
    """What was released for a model of the zoo; UsageError where nothing is known."""
    known = _releases()
    if model not in known:
        raise UsageError(
            f"{model}: nothing is known of a release of this model, only of {', '.join(known)}; give --codes TRAIN "
            "TEST with the codes to compare with"
        )
    return known[model]


def unknown(model: str) -> Release:
    """For a model of which nothing is known: papers' pictures and order, no codes and no figures."""
    return Release(model, {})


@lru_cache(maxsize=1)
def _releases() -> Mapping[str, Release]:
    try:
        table = tomllib.loads(FACTS.read_text(encoding="utf-8"))
        if table["schema"] != SCHEMA:
            raise FormatError(f"{FACTS}: schema is {table['schema']}, this version of caffe2torch reads {SCHEMA}")
        return {name: _release(name, row) for name, row in table["models"].items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{FACTS}: {type(error).__name__}: {error}; the installation is damaged") from error


def _release(name: str, row: Mapping[str, Any]) -> Release:
    rest = {key: value for key, value in row.items() if key not in (*PARTS, "others", "repositories")}
    others = tuple(Known(other["name"], _files(other)) for other in row.get("others", ()))
    return Release(name, _files(row), repositories=tuple(row["repositories"]), others=others, **rest)


def _files(row: Mapping[str, Any]) -> dict[str, str]:
    return {part: row[part] for part in PARTS if part in row}
