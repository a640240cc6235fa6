"""TOML read strictly: every key must be asked for, and whatever is wrong is named with its file and place."""

from __future__ import annotations

import sys
from pathlib import Path, PurePosixPath
from typing import TypeVar

from caffe2torch.errors import ZooError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_T = TypeVar("_T")


class Table:
    """A TOML table whose every key must be asked for: a wrong type or a key nobody knows is an error with its place."""

    def __init__(self, value: object, path: Path, place: str, *, advice: str) -> None:
        if not isinstance(value, dict):
            raise ZooError(f"{path}: {place}: expected a table, found {type(value).__name__}")
        self._left = dict(value)
        self.path, self.place, self.advice = path, place, advice

    def error(self, message: str) -> ZooError:
        return ZooError(f"{self.path}: {self.place}: {message}")

    def optional(self, key: str, kind: type[_T]) -> _T | None:
        if key not in self._left:
            return None
        value = self._left.pop(key)
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise self.error(f"{key}: expected {kind.__name__}, found {value!r}")
        if value == "":
            raise self.error(f"{key}: must not be empty")
        return value

    def required(self, key: str, kind: type[_T]) -> _T:
        value = self.optional(key, kind)
        if value is None:
            raise self.error(f"{key} is missing ({kind.__name__})")
        return value

    def strings(self, key: str) -> list[str]:
        values = self.optional(key, list) or []
        for value in values:
            if type(value) is not str or not value:
                raise self.error(f"{key}: expected a list of names, found {value!r}")
        return values

    def tables(self, key: str) -> list[Table]:
        rows = self.optional(key, list) or []
        return [
            Table(row, self.path, f"{self.place}.{key}[{index}]", advice=self.advice) for index, row in enumerate(rows)
        ]

    def named(self, key: str) -> dict[str, Table]:
        rows = self.required(key, dict)
        return {name: Table(row, self.path, f"{key}.{name}", advice=self.advice) for name, row in rows.items()}

    def done(self) -> None:
        if self._left:
            raise self.error(f"unknown keys: {', '.join(sorted(self._left))}")


def read_table(path: Path, place: str, *, advice: str) -> Table:
    """The whole of a TOML file; messages call it ``place`` and say ``advice`` of missing files. Raises ZooError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ZooError(f"{path}: cannot be read: {error}; {advice}") from error
    try:
        return Table(tomllib.loads(text), path, place, advice=advice)
    except tomllib.TOMLDecodeError as error:
        raise ZooError(f"{path}: is not TOML: {error}") from error


def net_path(table: Table, key: str, root: Path) -> Path | None:
    """The prototxt that ``key`` names below ``root``, None where there is none; ZooError when it is not there."""
    value = table.optional(key, str)
    if value is None:
        return None
    relative = PurePosixPath(value)
    if relative.is_absolute() or ".." in relative.parts or relative.suffix != ".prototxt":
        raise table.error(f"{key}: expected a relative path to a .prototxt, found {value!r}")
    path = root / relative
    if not path.is_file():
        raise table.error(f"{key}: {path} does not exist; {table.advice}")
    return path


def required_net_path(table: Table, key: str, root: Path) -> Path:
    """As `net_path`; a missing key is an error."""
    path = net_path(table, key, root)
    if path is None:
        raise table.error(f"{key} is missing (str)")
    return path
