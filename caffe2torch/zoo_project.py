"""A project folder as a model: ``project.toml`` there says what the zoo's manifest says of its models.

``caffe2torch new-project`` writes it. Paths in it are names within the folder. ``weights`` may have a ``*`` where the
iteration stands, as in ``birds_iter_*.caffemodel``: the latest snapshot is meant, in either format.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from caffe2torch.errors import ZooError
from caffe2torch.zoo_manifest import SCHEMA, Entry, FileEntry
from caffe2torch.zoo_table import Table, net_path, read_table, required_net_path

FILE = "project.toml"


def is_project(name: str) -> bool:
    """Whether ``name``, which no model of the zoo has, is meant to be a folder."""
    separators = [separator for separator in (os.sep, os.altsep) if separator]
    if Path(name).name == FILE or any(separator in name for separator in separators):
        return True
    return os.path.isdir(name)  # noqa: PTH112  Path.is_dir raises for names that no folder can have


def read_project(name: str) -> Entry:
    """The model in the folder ``name``, called as the folder was named. Raises ZooError."""
    given = Path(name)
    folder = given.parent if given.name == FILE else given
    path = folder / FILE
    if not os.path.isfile(path):  # noqa: PTH113  likewise
        lacks = "has no" if os.path.isdir(folder) else "is no folder with a"  # noqa: PTH112
        raise ZooError(f"{folder}: {lacks} {FILE}; `caffe2torch new-project` makes such folders")
    table = read_table(path, "project", advice="make the project anew with `caffe2torch new-project --force`")
    schema = table.required("schema", int)
    if schema != SCHEMA:
        raise table.error(f"schema is {schema}, this version of caffe2torch reads {SCHEMA}")
    preprocessing = table.required("preprocessing", dict)
    entry = Entry(
        # Relative to where one stands: `.` would say nothing in a codes file.
        str(folder) if folder.name not in ("", "..") else str(folder.resolve()),
        title=table.required("title", str),
        paper=table.required("paper", str),
        deploy=required_net_path(table, "deploy", folder),
        weights=_weights(table, folder),
        preprocessing=MappingProxyType(preprocessing),
        feature_blob=table.required("feature_blob", str),
        mean=_mean(table, preprocessing, folder),
        train_val=net_path(table, "train_val", folder),
        solver=net_path(table, "solver", folder),
        with_classifier=net_path(table, "with_classifier", folder),
        bits=table.required("bits", int),
        code_blob=table.required("code_blob", str),
        code_layer=table.required("code_layer", str),
        extra_layers=tuple(table.strings("extra_layers")),
    )
    table.done()
    return entry


def _weights(table: Table, folder: Path) -> FileEntry:
    pattern = table.required("weights", str)
    if "/" in pattern or "\\" in pattern or pattern.count("*") > 1:
        raise table.error(f"weights: expected a file name, with one * for the iteration, found {pattern!r}")
    path = latest(folder, pattern) or folder / pattern
    solver = folder / "solver.prototxt"
    return FileEntry(
        path.name,
        "your own",
        bytes=path.stat().st_size if path.is_file() else None,
        note=f"this project is not trained yet: `caffe2torch train --solver {solver}` does it (with --weights, where "
        "new-project said so); --weights FILE names others",
        path=path,
    )


def latest(folder: Path, pattern: str) -> Path | None:
    """The file of the highest iteration among those that ``pattern``, or ``pattern`` with .h5, names."""
    before, star, after = pattern.partition("*")
    if not star:
        return folder / pattern if (folder / pattern).is_file() else None
    form = re.compile(re.escape(before) + r"(\d{1,18})" + re.escape(after) + r"(?:\.h5)?")
    found = [(int(match[1]), path.name) for path in folder.iterdir() if (match := form.fullmatch(path.name))]
    return folder / max(found)[1] if found else None


def _mean(table: Table, preprocessing: Mapping[str, Any], folder: Path) -> FileEntry | None:
    name = preprocessing.get("mean_file")
    if name is None:
        return None
    if not isinstance(name, str) or Path(name).name != name:
        raise table.error(f"preprocessing.mean_file: expected a file name, found {name!r}")
    return FileEntry(name, "your own", path=folder / name, note="new-project wrote it; --mean FILE names another")
