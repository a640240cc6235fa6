"""``index.json`` of a saved index: what its columns hold and how many of their bytes count."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from caffe2torch.errors import FormatError
from caffe2torch.files import atomic_path
from caffe2torch.retrieval.codes import MAX_BITS
from caffe2torch.retrieval.hamming import stride

HEAD = "index.json"
FORMAT = "caffe2torch index"
VERSION = 1
MOST_BYTES = 1 << 26
MOST_ROWS = 1 << 40
MOST_ID = 1 << 62


@dataclass(frozen=True)
class Column:
    """How many bytes of a column's file count, and their CRC-32."""

    size: int
    crc32: int


@dataclass(frozen=True)
class Head:
    """``stride`` is in bytes; ``label_width`` is 0 for one number per row; ``serial`` counts the writes."""

    bits: int
    stride: int
    rows: int
    next_id: int
    generation: int
    serial: int
    label_width: int
    provenance: Mapping[str, Any]
    columns: Mapping[str, Column]


def is_index(path: Path) -> bool:
    """Whether ``path`` is a folder in which an index was saved."""
    return (path / HEAD).is_file()


def write_head(path: Path, head: Head) -> None:
    """Put ``index.json`` in the place of the one before; from that moment the columns count as it says."""
    content = asdict(head)
    whole = {"format": FORMAT, "version": VERSION, "crc32": _crc(content), "content": content}
    with atomic_path(path / HEAD) as temporary:
        temporary.write_text(json.dumps(whole, indent=1, ensure_ascii=True), encoding="ascii")


def read_head(path: Path) -> Head:
    """What ``index.json`` says, once its version, its checksum and all its numbers are in order."""
    file = path / HEAD
    try:
        if not path.is_dir():
            raise FormatError(f"{path}: no index: an index is a folder with {HEAD} in it")
        if file.stat().st_size > MOST_BYTES:
            raise FormatError(f"{file}: {file.stat().st_size} bytes; an index's head has at most {MOST_BYTES}")
        whole = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FormatError(f"{path}: no index: there is no {HEAD} in it") from error
    except OSError as error:
        raise FormatError(f"{file}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{file}: damaged: not JSON: {error}") from error
    if not isinstance(whole, dict) or whole.get("format") != FORMAT:
        raise FormatError(f"{file}: not the head of a {FORMAT}")
    version = whole.get("version")
    if not isinstance(version, int) or not _whole(version, 1, 1 << 31):
        raise FormatError(f"{file}: damaged: its version is {version!r}")
    if version > VERSION:
        raise FormatError(
            f"{file}: version {version} of the {FORMAT}, this program reads up to {VERSION}; update caffe2torch"
        )
    content = whole.get("content")
    if not isinstance(content, dict) or whole.get("crc32") != _crc(content):
        raise FormatError(f"{file}: damaged: its checksum does not fit its content")
    return _checked(file, content)


def _checked(file: Path, content: dict[str, Any]) -> Head:
    try:
        columns = {name: Column(**column) for name, column in content["columns"].items()}
        head = Head(**{**content, "columns": columns})
    except (TypeError, KeyError, AttributeError) as error:
        raise FormatError(f"{file}: damaged: {error}") from error
    limits = {
        "bits": (1, MAX_BITS),
        "rows": (0, MOST_ROWS),
        "next_id": (0, MOST_ID),
        "generation": (1, 1 << 40),
        "serial": (1, 1 << 40),
        "label_width": (0, 1 << 20),
    }
    for name, (least, most) in limits.items():
        if not _whole(getattr(head, name), least, most):
            raise FormatError(f"{file}: {name} is {getattr(head, name)!r}, expected {least} to {most}")
    if head.stride != stride(head.bits) or not isinstance(head.provenance, dict):
        raise FormatError(f"{file}: damaged: its parts contradict each other")
    _check_columns(file, head)
    return head


def _check_columns(file: Path, head: Head) -> None:
    widths = {"codes": head.stride, "ids": 8, "path_ends": 8, "labels": head.label_width or 8}
    names = set(head.columns)
    if not {"codes", "ids", "removed"} <= names or ("paths" in names) != ("path_ends" in names):
        raise FormatError(f"{file}: columns are missing: it has {', '.join(sorted(names))}")
    if unknown := names - {*widths, "removed", "paths"}:
        raise FormatError(f"{file}: unknown columns: {', '.join(sorted(unknown))}")
    for name, column in head.columns.items():
        if not _whole(column.size, 0, 1 << 50) or not _whole(column.crc32, 0, (1 << 32) - 1):
            raise FormatError(f"{file}: the column {name} has {column.size!r} bytes with checksum {column.crc32!r}")
        if name in widths and column.size != head.rows * widths[name]:
            raise FormatError(f"{file}: {head.rows} rows, but {column.size} bytes of {name}")
    if head.columns["removed"].size % 8 or head.columns["removed"].size > 8 * head.rows:
        raise FormatError(f"{file}: {head.columns['removed'].size} bytes of removed rows for {head.rows} rows")


def _whole(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _crc(content: Any) -> int:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return zlib.crc32(text.encode("ascii"))
