"""Label files: text, .npy or .mat; one label for each picture, or several.

Text has a line for each picture, in one of four forms, the same on every line:

- ``3``: its label;
- ``folder/a.jpg 3``: its path, then its label;
- ``0 1 0 0 1``: 0 or 1 for each label there is;
- ``1 4`` or ``1,4``: the numbers of its labels, at least one, each once.
"""

from __future__ import annotations

import re
import tokenize
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from caffe2torch.errors import FormatError, RetrievalError, UsageError
from caffe2torch.retrieval.checked import file_size
from caffe2torch.retrieval.matlab import MUCH_LONGER, open_mat

MOST_LABELS = 1 << 16
"""Different labels where a picture may have several."""

MOST_CELLS = 1 << 32
"""Pictures times different labels: 4 GB as booleans."""

Labels = npt.NDArray[Any]
_NUMBER = re.compile(r"[+-]?[0-9]{1,18}(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,3})?")
_SEPARATOR = re.compile(r"[ \t]*[,;][ \t]*|[ \t]+")
_LISTED = re.compile(r"(.*\S)[ \t]+([+-]?[0-9]{1,18})", re.DOTALL)
_SHOWN = 80


@dataclass(frozen=True, eq=False)
class LabelFile:
    """``labels`` is int64 (N,), or bool (N, L) where a picture may have several labels.

    ``paths`` has the pictures' names where the file has them, else it is empty. ``numbered`` says that several labels
    were given as numbers: L is then one more than the greatest that occurs, and another file may know greater ones.
    """

    labels: Labels
    paths: tuple[str, ...] = ()
    numbered: bool = False

    def __len__(self) -> int:
        return len(self.labels)


def read_labels(path: str | Path, *, count: int | None = None, variable: str | None = None) -> LabelFile:
    """Read a label file; ``count`` is how many pictures it must be for, ``variable`` names the matrix of a .mat.

    Raises FormatError for a file that is no label file, RetrievalError when it is for another number of pictures,
    UsageError when a .mat can be understood in more than one way.
    """
    path = Path(path)
    size = file_size(path)
    suffix = path.suffix.lower()
    if variable is not None and suffix != ".mat":
        raise UsageError(f"{path}: the option variable is for MATLAB files")
    if suffix == ".mat":
        found = LabelFile(_from_mat(path, size, variable, count))
    elif suffix == ".npy":
        found = LabelFile(_from_array(path, _load(path), "the array"))
    else:
        found = _from_text(path)
    if count is not None and len(found) != count:
        raise RetrievalError(f"{path}: {len(found):,} labels for {count:,} pictures; they do not belong together")
    return found


def align(first: LabelFile, second: LabelFile) -> tuple[Labels, Labels]:
    """The labels of two files that are to be compared, numbered ones made equally wide.

    Raises RetrievalError when one has a single label for each picture and the other several, or other labels.
    """
    one, two = first.labels, second.labels
    if one.ndim != two.ndim:
        raise RetrievalError("one file has a single label for each picture, the other several; give both alike")
    if one.ndim == 1 or one.shape[1] == two.shape[1]:
        return one, two
    if not (first.numbered and second.numbered):
        raise RetrievalError(
            f"one file knows {one.shape[1]} labels, the other {two.shape[1]}; they do not belong together"
        )
    width = max(one.shape[1], two.shape[1])
    return _widened(one, width), _widened(two, width)


def _widened(labels: Labels, width: int) -> Labels:
    return np.pad(labels, ((0, 0), (0, width - labels.shape[1])))


def _from_text(path: Path) -> LabelFile:
    try:
        lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").decode("utf-8", errors="surrogateescape").split("\n")
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror or error}") from error
    lines = [line.strip() for line in lines]
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise FormatError(f"{path}: holds no labels")
    if "\0" in lines[0]:
        raise FormatError(f"{path}: is no text; labels are kept in text, .npy or .mat files")
    rows = [_SEPARATOR.split(line) for line in lines]
    numeric = [all(map(_NUMBER.fullmatch, row)) for row in rows]
    if not numeric[0]:
        return _from_list(path, lines, numeric)
    if not all(numeric):
        raise _unlike(path, lines, numeric.index(False))
    numbers = [[_whole(path, index, word) for word in row] for index, row in enumerate(rows)]
    if all(len(row) == 1 for row in numbers):
        return LabelFile(np.array(numbers, np.int64).ravel())
    return _several(path, numbers)


def _unlike(path: Path, lines: Sequence[str], index: int) -> FormatError:
    shown, first = lines[index][:_SHOWN], lines[0][:_SHOWN]
    return FormatError(f"{path}:{index + 1}: {shown!r} is no line like the first, {first!r}")


def _whole(path: Path, index: int, word: str) -> int:
    """A label's number; MATLAB writes 7 as ``7.0000000e+00``."""
    value = float(word) if any(mark in word for mark in ".eE") else int(word)
    if value != value // 1 or not 0 <= value < 2**53:
        raise FormatError(f"{path}:{index + 1}: the label {word} is no whole number from 0 on")
    return int(value)


def _from_list(path: Path, lines: Sequence[str], numeric: Sequence[bool]) -> LabelFile:
    """Lines of a path and a label."""
    paths, labels = [], []
    for index, line in enumerate(lines):
        match = _LISTED.fullmatch(line)
        if match is None or numeric[index]:
            if index:
                raise _unlike(path, lines, index)
            raise FormatError(f"{path}:1: {line[:_SHOWN]!r} is neither a label nor a path with a label behind it")
        name = match[1]
        if re.search(r"[ \t][+-]?[0-9]+$", name):
            raise FormatError(
                f"{path}:{index + 1}: {line[:_SHOWN]!r} has two numbers at its end: is it a path with several labels? "
                "Give several labels in a file of their own, without paths"
            )
        paths.append(name)
        labels.append(_whole(path, index, match[2]))
    return LabelFile(np.array(labels, np.int64), tuple(paths))


def _several(path: Path, numbers: Sequence[Sequence[int]]) -> LabelFile:
    """0 and 1 for each label, where every line can be read so; else the numbers of the labels."""
    width = len(numbers[0])
    if all(len(row) == width and max(row) <= 1 for row in numbers):
        return LabelFile(np.array(numbers, np.int64) == 1)
    most = max(max(row) for row in numbers)
    if most >= MOST_LABELS or len(numbers) * (most + 1) > MOST_CELLS:
        raise FormatError(f"{path}: has the label {most}; where a picture has several, such a table becomes too large")
    labels = np.zeros((len(numbers), most + 1), np.bool_)
    for index, row in enumerate(numbers):
        if len(set(row)) != len(row):
            raise FormatError(
                f"{path}:{index + 1}: names a label twice; expected the numbers of a picture's labels, or 0 and 1 for "
                "each label there is, equally many on every line"
            )
        labels[index, row] = True
    return LabelFile(labels, numbered=True)


def _load(path: Path) -> Labels:
    try:
        # Mapped, an array that claims more than the file holds is refused before anything is allocated.
        array: Labels = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, TypeError, EOFError, MemoryError, SyntaxError, tokenize.TokenError) as error:
        raise FormatError(f"{path}: not a readable .npy file: {error}") from error
    return array


def _from_mat(path: Path, size: int, variable: str | None, count: int | None) -> Labels:
    with open_mat(path, size) as file:
        listed = (
            ", ".join(f"{name} ({matrix.text})" for name, matrix in file.matrices.items()) or "no matrix of numbers"
        )
        named = [name for name in file.matrices if "label" in name.lower()] or list(file.matrices)
        if variable is not None:
            named = [name for name in file.matrices if name == variable]
        if not named:
            raise FormatError(f"{path}: holds {listed}, no matrix {variable or 'of labels'}")
        if len(named) > 1:
            raise UsageError(f"{path}: holds several matrices; say with the option variable which is meant: {listed}")
        matrix = file.matrices[named[0]]
        values = matrix.read()
    rows, columns = values.shape
    if min(rows, columns) > 1:
        fits = [
            side == count if count is not None else side >= MUCH_LONGER * min(rows, columns) for side in (rows, columns)
        ]
        if fits == [True, True]:
            raise UsageError(f"{path}: {matrix.name} is {matrix.text}, labels in rows or in columns? Use .npy or text")
        if fits == [False, False]:
            raise FormatError(f"{path}: {matrix.name} is {matrix.text}, expected one row for each picture")
        values = values if fits[0] else values.T
    return _from_array(path, values, matrix.name)


def _from_array(path: Path, array: Labels, name: str) -> Labels:
    """Checked labels from whole numbers (N,), (N, 1) or (1, N), or from 0 and 1 as (N, L)."""
    if array.dtype.kind not in "biuf" or array.ndim not in (1, 2):
        raise FormatError(
            f"{path}: {name} is {array.dtype} {array.shape}, expected whole numbers (N,) or 0 and 1 (N, L)"
        )
    if array.ndim == 2 and 1 in array.shape:
        array = array.ravel()
    if not array.size:
        raise FormatError(f"{path}: holds no labels")
    low, high = array.min(), array.max()
    if not low >= 0 or not high < 2**53 or (array.dtype.kind == "f" and bool((array != np.floor(array)).any())):
        raise FormatError(f"{path}: {name} has values from {low} to {high}, expected whole numbers from 0 on")
    if array.ndim == 1:
        return array.astype(np.int64)
    if high > 1:
        raise FormatError(f"{path}: {name} is {array.shape} with values up to {high}, expected 0 and 1 for each label")
    return array.astype(np.bool_)
