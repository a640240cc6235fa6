"""Which label belongs to which code: by a label file, the codes file itself, or the folders the pictures lie in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from caffe2torch.errors import RetrievalError
from caffe2torch.retrieval.codes import Codes
from caffe2torch.retrieval.labels import LabelFile, read_labels


def labels_of(codes: Codes, codes_file: Path, file: Path | None, option: str) -> LabelFile:
    """A label (or several) for each code, in the order of the codes.

    ``file``, where there is one, goes before labels in the codes file. If it names the pictures and the codes file does
    too, they are matched by name, so that it may stand in another order or name more. Raises RetrievalError where
    labels are missing or do not match; ``option`` is how to give a label file, for the message.
    """
    if file is None:
        if codes.labels is None:
            raise RetrievalError(
                f"{codes_file}: holds no labels, so nothing says which neighbours are right: give {option} FILE with a "
                "label on each line, or with the path of each picture and its label behind it"
            )
        return LabelFile(codes.labels, codes.paths)
    if not codes.paths:
        return read_labels(file, count=len(codes))
    found = read_labels(file)
    if found.paths:
        return replace(found, labels=found.labels[_rows(codes.paths, found.paths, file, codes_file)], paths=codes.paths)
    if len(found) != len(codes):
        raise RetrievalError(
            f"{file}: {len(found):,} labels, but {codes_file} has {len(codes):,} codes; they do not belong together"
        )
    return found


def _rows(wanted: Sequence[str], listed: Sequence[str], file: Path, codes_file: Path) -> list[int]:
    """The line of the label file for each picture, told by the last folder and the name."""
    mine, theirs = [_tail(path) for path in wanted], [_tail(path) for path in listed]
    if mine == theirs:
        return list(range(len(mine)))
    lines = {tail: line for line, tail in enumerate(theirs)}
    if len(lines) != len(theirs):
        raise RetrievalError(
            f"{file}: names several pictures by the same folder and name, and not in the order of {codes_file}; give "
            "the labels in the order of the codes, or make the codes from this very list"
        )
    missing = [path for path, tail in zip(wanted, mine, strict=True) if tail not in lines]
    if missing:
        raise RetrievalError(
            f"{file}: has no label for {len(missing):,} of the {len(wanted):,} pictures of {codes_file}, such as "
            f"{missing[0]}"
        )
    return [lines[tail] for tail in mine]


def _tail(path: str) -> str:
    """What stays the same when a folder of pictures is moved."""
    return "/".join(PurePosixPath(path.replace("\\", "/")).parts[-2:])


def folder_labels(paths: Sequence[Sequence[str]], files: Sequence[Path]) -> tuple[list[LabelFile], list[str]]:
    """The number of the folder each picture lies in, by name over all sets of pictures, and these names."""
    names = []
    for each, file in zip(paths, files, strict=True):
        folders = [PurePosixPath(path.replace("\\", "/")).parent.name for path in each]
        if not len(each):
            raise RetrievalError(f"{file}: holds no paths of pictures, so folders cannot be labels")
        if not all(folders):
            raise RetrievalError(f"{file}: does not say in which folder each picture lies, so folders cannot be labels")
        names.append(folders)
    known = sorted(set().union(*names))
    number = {name: index for index, name in enumerate(known)}
    found = [LabelFile(np.array([number[name] for name in folders], np.int64)) for folders in names]
    return found, known
