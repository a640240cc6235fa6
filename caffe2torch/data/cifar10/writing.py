"""The papers' pictures and lists on disk; what is there already and right is left alone, so a run can be repeated."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from caffe2torch.cores import cores
from caffe2torch.data.cifar10.dataset import Batch, Cifar10
from caffe2torch.data.cifar10.papers import (
    PASSES,
    TEST_WALK,
    TRAIN_WALK,
    Layout,
    label_text,
    labelled_list_text,
    list_text,
    papers_jpeg,
)
from caffe2torch.data.cifar10.records import BATCHES, SIZE
from caffe2torch.errors import OutputError
from caffe2torch.files import atomic_path, explain, make_folder

CHUNK = 200

Progress = Callable[[int, int], object]
"""Called with the pictures done and all there are."""


@dataclass(frozen=True)
class Written:
    """What a run did: pictures written, pictures that were there and right, bytes of both."""

    layout: Layout
    written: int
    kept: int
    bytes: int


def write_papers_dataset(
    cifar: Cifar10,
    root: str | os.PathLike[str],
    *,
    passes: int = PASSES,
    first: int = SIZE,
    force: bool = False,
    workers: int | None = None,
    progress: Progress = lambda done, total: None,
) -> Written:
    """Write the papers' pictures, lists and labels below ``root``, in the layout of the authors' repository.

    ``first`` takes only that many pictures of each batch, and lists just these. A file that is there with other
    contents is an OutputError unless ``force`` replaces it. The lists come last: where they are, all pictures are.
    """
    if not 1 <= first <= SIZE:
        raise ValueError(f"first: expected 1 to {SIZE}, found {first}")
    if passes < 1:
        raise ValueError(f"passes: expected 1 or more, found {passes}")
    layout = Layout(Path(root))
    for path, text in _lists(layout, first).items():
        _is_right(path, text.encode(), force=force)  # better now than after 60,000 pictures
    total, done, new, size = first * len(BATCHES), 0, 0, 0
    labels: dict[str, NDArray[np.uint8]] = {}
    for batch in cifar.batches():
        part = batch.first(first)
        labels[part.name] = part.labels
        for count, written, length in _write_pictures(part, layout, passes, force=force, workers=workers):
            done, new, size = done + count, new + written, size + length
            progress(done, total)
    for path, text in (_lists(layout, first) | _label_files(layout, first, labels)).items():
        _write(path, text.encode(), force=force)
    return Written(layout, new, total - new, size)


def _lists(layout: Layout, first: int) -> dict[Path, str]:
    return {layout.train_list: list_text(TRAIN_WALK, first=first), layout.test_list: list_text(TEST_WALK, first=first)}


def _label_files(layout: Layout, first: int, labels: dict[str, NDArray[np.uint8]]) -> dict[Path, str]:
    return {
        layout.train_labels: label_text(TRAIN_WALK, labels, first=first),
        layout.test_labels: label_text(TEST_WALK, labels, first=first),
        layout.labelled_train_list: labelled_list_text(TRAIN_WALK, labels, first=first),
        layout.labelled_test_list: labelled_list_text(TEST_WALK, labels, first=first),
    }


def _write_pictures(
    batch: Batch, layout: Layout, passes: int, *, force: bool, workers: int | None
) -> Iterator[tuple[int, int, int]]:
    """Write the pictures of a batch; after each chunk yields how many it has, how many were not there, and bytes."""
    make_folder(layout.dataset / batch.name)

    def write(chunk: range) -> tuple[int, int, int]:
        new, size = 0, 0
        for index in chunk:
            data = papers_jpeg(batch.images[index], passes=passes)
            new += _write(layout.picture(batch.name, index), data, force=force)
            size += len(data)
        return len(chunk), new, size

    executor = ThreadPoolExecutor(workers or cores())
    try:
        yield from executor.map(write, [range(i, min(i + CHUNK, len(batch))) for i in range(0, len(batch), CHUNK)])
    finally:
        executor.shutdown(cancel_futures=True)


def _write(path: Path, data: bytes, *, force: bool) -> bool:
    """Whether the file had to be written."""
    if _is_right(path, data, force=force):
        return False
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
    return True


def _is_right(path: Path, data: bytes, *, force: bool) -> bool:
    """Whether the file is there with these contents; OutputError when it has others, unless ``force``."""
    try:
        with path.open("rb") as file:
            same = file.read(len(data) + 1) == data
    except FileNotFoundError:
        return False
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {explain(error)}") from error
    if not same and not force:
        raise OutputError(
            f"{path}: is there already with other contents (made with other settings, or changed since); choose "
            "another folder, or --force to replace it"
        )
    return same
