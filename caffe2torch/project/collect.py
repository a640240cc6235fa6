"""The pictures and labels a user has: a folder with a folder for each class, or a list file."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from caffe2torch.data.class_folders import read_class_folders
from caffe2torch.errors import FormatError, ImageError, UsageError

Labels = NDArray[np.int64]
_WORD = re.compile(r"^(.*\S)[ \t]+(\S+)$", re.DOTALL)
_NUMBERED = re.compile(r"\.\w{2,5}(?:[ \t]+[+-]?\d+)+$")
"""A suffix and numbers behind it."""
_LINE = 1 << 16


@dataclass(frozen=True, eq=False)
class Collection:
    """``names`` are the pictures below ``root`` (empty: full paths).

    ``labels`` is (N,), numbers of ``classes``, or (N, L) with 1 (has it), -1 (has it not) and 0 (unknown).
    """

    root: str
    names: tuple[str, ...]
    labels: Labels
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    @property
    def several(self) -> bool:
        """Whether a picture may have several labels."""
        return self.labels.ndim == 2

    def path(self, row: int) -> Path:
        """Where picture ``row`` is."""
        return Path(self.root, self.names[row])

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> Collection:
        """These pictures, in this order."""
        return Collection(self.root, tuple(self.names[i] for i in rows), self.labels[rows], self.classes, self.notes)


def collect(source: Path, *, root: Path | None = None, classes: Sequence[str] | None = None) -> Collection:
    """The pictures of a folder or a list.

    The paths of a list start at ``root``, by default at the folder of the list. ``classes`` are those that there may
    be. Raises ImageError or FormatError for pictures without labels, lists that are none, and names no list can hold.
    """
    if source.is_dir():
        if root is not None:
            raise UsageError(f"--root {root}: is for list files, and {source} is a folder")
        found = _from_folder(source, classes)
    elif source.exists():
        found = _from_list(source, root, classes)
    else:
        raise ImageError(f"{source}: no such folder or list file")
    for name in found.names:
        if name != name.strip() or "\r" in name:
            raise ImageError(f"{name!r} of {source}: begins or ends with a blank, which a list cannot hold; rename it")
    return found


def _from_folder(folder: Path, classes: Sequence[str] | None) -> Collection:
    read = read_class_folders(folder)
    notes = (f"passed over {read.ignored:,} files without a picture's suffix",) if read.ignored else ()
    numbers = _numbers(read.classes, classes, folder)
    labels = np.array([numbers[label] for _, label in read.lines], np.int64)
    names = tuple(name for name, _ in read.lines)
    return Collection(str(folder.resolve()), names, labels, tuple(classes or read.classes), notes)


def _numbers(names: Sequence[str], classes: Sequence[str] | None, source: Path) -> list[int]:
    """The number of each class, by its place among ``classes``."""
    if classes is None:
        return list(range(len(names)))
    unknown = [name for name in names if name not in set(classes)]
    if unknown:
        raise FormatError(
            f"{source}: has the class {unknown[0]!r}, which there is none of in --images ({', '.join(classes[:8])}"
            f"{', ...' if len(classes) > 8 else ''})"
        )
    return [list(classes).index(name) for name in names]


def _from_list(path: Path, root: Path | None, classes: Sequence[str] | None) -> Collection:
    """One label or several, told by the first line: several are written as 0 and 1 (or -1 and 1)."""
    lines = _read_lines(path)
    several = len(_flags(lines[0][1])[1]) > 1
    names, labels, known, notes = (_several if several else _single)(path, lines, classes)
    seen: dict[str, int] = {}
    for (number, _), name in zip(lines, names, strict=True):
        if name in seen:
            raise FormatError(f"{path}:{number}: names {name!r} again, as line {seen[name]} does; name a picture once")
        seen[name] = number
    start, names = _place(path, names, root)
    return Collection(start, tuple(names), labels, tuple(known), notes)


Parsed = tuple[list[str], Labels, Sequence[str], tuple[str, ...]]


def _single(path: Path, lines: Sequence[tuple[int, str]], classes: Sequence[str] | None) -> Parsed:
    """A path and a label, a number or a word; classes are numbered in the order of the numbers, or of the words."""
    names, words = [], []
    for number, text in lines:
        match = _WORD.match(text)
        if match is None:
            raise FormatError(f"{path}:{number}: {text[:200]!r} is no path with a label behind it")
        if _NUMBERED.search(match[1]):
            raise FormatError(
                f"{path}:{number}: {text[:200]!r} has several numbers behind the path; where a picture may have "
                "several labels, give a 0 or 1 for each label there is, equally many on every line"
            )
        names.append(match[1])
        words.append(match[2])
    numeric = all(re.fullmatch(r"[+]?\d{1,9}", word) for word in words)
    negative = [word for word in words if re.fullmatch(r"-\d+", word)]
    if negative:
        raise FormatError(f"{path}: has the label {negative[0]}; labels are whole numbers from 0 on, or words")
    if numeric:
        words = [str(int(word)) for word in words]
    key: Callable[[str], tuple[int, str]] = (lambda word: (int(word), word)) if numeric else (lambda word: (0, word))
    known = sorted(set(words), key=key)
    if classes is not None:
        _numbers(known, classes, path)
        known = list(classes)
    notes: tuple[str, ...] = ()
    if numeric and known != [str(i) for i in range(len(known))]:
        notes = (f"the labels {known[0]} to {known[-1]} of {path.name} are numbered 0 to {len(known) - 1} here",)
    elif not numeric:
        notes = (f"the last word of each line is its class: {', '.join(known[:6])}{', ...' if len(known) > 6 else ''}",)
    place = {word: index for index, word in enumerate(known)}
    return names, np.array([place[word] for word in words], np.int64), known, notes


def _flags(text: str) -> tuple[str, list[int]]:
    """The path, and the numbers 0, 1 and -1 at the end of the line."""
    found: list[int] = []
    while (match := _WORD.match(text)) and match[2] in ("0", "1", "+1", "-1"):
        text = match[1]
        found.append(int(match[2]))
    return text, found[::-1]


def _several(path: Path, lines: Sequence[tuple[int, str]], classes: Sequence[str] | None) -> Parsed:
    """A path and a 0 or 1 for each label there is. Where -1 occurs, it is the no and 0 stands for unknown."""
    names: list[str] = []
    rows: list[list[int]] = []
    for number, text in lines:
        name, row = _flags(text)
        if rows and len(row) != len(rows[0]):
            raise FormatError(
                f"{path}:{number}: {text[:200]!r} has {len(row)} labels of 0 and 1, those above have {len(rows[0])}; "
                "each line needs a 0 or 1 for every label there is"
            )
        names.append(name)
        rows.append(row)
    labels = np.array(rows, np.int64)
    if not (labels == -1).any():
        labels = np.where(labels == 1, 1, -1)
    known = list(classes) if classes is not None else [str(i) for i in range(labels.shape[1])]
    if len(known) != labels.shape[1]:
        raise FormatError(f"{path}: has {labels.shape[1]} labels a picture, --images has {len(known)}")
    return names, labels, known, (f"{labels.shape[1]} labels, of which a picture may have several",)


def _place(path: Path, names: Sequence[str], root: Path | None) -> tuple[str, list[str]]:
    """Where the names start, and the names from there; full paths where some are."""
    full = [Path(name).is_absolute() for name in names]
    if root is not None:
        return str(root.resolve()), [name.lstrip("/\\") for name in names]
    start = path.resolve().parent
    if not any(full):
        return str(start), list(names)
    return "", [name if is_full else str(start / name) for name, is_full in zip(names, full, strict=True)]


def _read_lines(path: Path) -> list[tuple[int, str]]:
    """Number and text of the lines that are not empty."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror or error}") from error
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise FormatError(f"{path}: this list is UTF-16; save it as UTF-8")
    if b"\0" in data[:_LINE]:
        raise FormatError(f"{path}: has a NUL byte; expected a folder or a text list of pictures with labels")
    text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1)]
    lines = [(number, line) for number, line in lines if line]
    if not lines:
        raise FormatError(f"{path}: the list is empty, expected lines of a picture's path and its label")
    return lines
