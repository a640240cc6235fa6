"""A project folder from pictures: everything that training needs, and what makes its result a model by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from caffe2torch.cores import cores
from caffe2torch.data.mean_image import channel_means
from caffe2torch.errors import FormatError, ImageError, OutputError, UsageError
from caffe2torch.files import make_folder
from caffe2torch.preprocess import load_mean
from caffe2torch.project.bases import Base, base
from caffe2torch.project.collect import Collection, collect
from caffe2torch.project.examine import Found, Mean, examine, sample
from caffe2torch.project.nets import Shape
from caffe2torch.project.plan import Plan, convenient, plan
from caffe2torch.project.split import Rows, split, trim
from caffe2torch.project.writing import Parts, write_project
from caffe2torch.zoo_project import latest

MOST_BITS = 4096
_SHOWN = 10


@dataclass(frozen=True)
class Wishes:
    """What the user asks for; ``test_images`` replaces the split, ``mean`` the mean of one's own pictures."""

    folder: Path
    images: Path
    bits: int = 48
    base: str = "ssdh_small"
    root: Path | None = None
    test_images: Path | None = None
    test_share: float = 0.1
    seed: int = 1
    epochs: float | None = None
    batch: int | None = None
    mean: Path | None = None
    check: bool = True
    skip_bad: bool = False
    force: bool = False


@dataclass(frozen=True, eq=False)
class Project:
    """What was made; ``counts`` are the training pictures of each class or label, ``notes`` what one should know."""

    folder: Path
    name: str
    base: Base
    bits: int
    pictures: Collection
    train: Collection
    test: Collection
    plan: Plan
    notes: list[str] = field(default_factory=list)

    @property
    def counts(self) -> NDArray[np.int64]:
        labels = self.train.labels
        if self.train.several:
            return np.asarray((labels > 0).sum(axis=0), np.int64)
        return np.bincount(labels, minlength=len(self.train.classes))


def make_project(wishes: Wishes, progress: Callable[[int, int], object] = lambda done, total: None) -> Project:
    """Read, check and split the pictures, and write the project. ``progress`` hears pictures done and their total.

    Nothing is written before everything is known to be right. Raises UsageError, ImageError, FormatError, OutputError.
    """
    chosen = base(wishes.base)
    name = _check(wishes, chosen)
    pictures = collect(wishes.images, root=wishes.root)
    pictures, train, test = _divide(wishes, chosen, pictures)
    notes = list(pictures.notes)
    found = _examine(wishes, chosen, pictures, train, progress)
    train, test = _without_bad(wishes, pictures, train, test, found, notes)
    notes += _notes(wishes, pictures, train, test, found)
    if pictures.several:
        train = np.random.default_rng((wishes.seed, 0)).permutation(train)
    numbers = plan(chosen, len(train), len(test), epochs=wishes.epochs, batch=wishes.batch)
    mean = _given_mean(wishes.mean, chosen) if wishes.mean else found.mean
    assert mean is not None
    shape = Shape(
        name,
        wishes.bits,
        len(pictures.classes),
        pictures.several,
        _root_folder(pictures.root, wishes.folder),
        None if chosen.mean_image else tuple(round(value, 1) for value in channel_means(mean)),
    )
    sides = pictures.take(train), pictures.take(test)
    make_folder(wishes.folder)
    write_project(
        wishes.folder, Parts(chosen, shape, numbers, *sides, mean if chosen.mean_image else None, wishes.seed)
    )
    return Project(wishes.folder, name, chosen, wishes.bits, pictures, *sides, numbers, notes)


def _check(wishes: Wishes, chosen: Base) -> str:
    """Refuse what is wrong before pictures are read; the project's name."""
    folder = wishes.folder
    if not 1 <= wishes.bits <= MOST_BITS:
        raise UsageError(f"--bits {wishes.bits}: expected 1 to {MOST_BITS}")
    if wishes.mean and not chosen.mean_image:
        raise UsageError(f"--mean: {chosen.name} subtracts the mean of each channel, not a mean image")
    if wishes.mean and not wishes.check and not wishes.mean.is_file():
        raise UsageError(f"--mean {wishes.mean}: no such file")
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: is a file; give the name of a folder")
    if wishes.images.is_dir() and wishes.images.resolve() in (folder.resolve(), *folder.resolve().parents):
        raise UsageError(
            f"{folder}: lies within the pictures of {wishes.images}, where it would count as a class; choose another "
            "place"
        )
    name = re.sub(r"[^\w.+-]+", "_", folder.resolve().name).strip("._") or "model"
    if folder.is_dir() and any(folder.iterdir()):
        if not wishes.force:
            raise OutputError(f"{folder}: exists and is not empty; --force replaces the project's files in it")
        trained = latest(folder, f"{name}_iter_*.caffemodel")
        if trained is not None:
            raise OutputError(
                f"{trained}: was trained with the project that is there, and would be taken for one of the new; move "
                f"or remove {name}_iter_* first"
            )
    return name


def _divide(wishes: Wishes, chosen: Base, pictures: Collection) -> tuple[Collection, Rows, Rows]:
    """All pictures, and the rows to train and to test with."""
    if not pictures.several and len(pictures.classes) < 2:
        raise ImageError(
            f"{wishes.images}: holds the one class {pictures.classes[0]!r}; there is nothing to tell apart, expected "
            "at least two"
        )
    if wishes.test_images is not None:
        return _join(wishes, pictures)
    train, test = split(pictures.labels, wishes.test_share, wishes.seed)
    if not len(test):
        raise ImageError(
            f"{wishes.images}: no class has two pictures, so that none can be kept to test with; add pictures, or name "
            "some with --test-images"
        )
    return pictures, *trim(train, test, pictures.labels, lambda count: convenient(count, chosen.test_batch))


def _join(wishes: Wishes, pictures: Collection) -> tuple[Collection, Rows, Rows]:
    """Pictures to train and to test with, from two places."""
    assert wishes.test_images is not None
    others = collect(
        wishes.test_images, root=wishes.root if wishes.test_images.is_file() else None, classes=pictures.classes
    )
    if others.several != pictures.several:
        raise FormatError(f"{wishes.test_images}: has another kind of labels than {wishes.images}")
    root, names = pictures.root, (*pictures.names, *others.names)
    if others.root != root:
        root, names = "", tuple(str(side.path(row)) for side in (pictures, others) for row in range(len(side)))
    again = set(names[: len(pictures)]) & set(names[len(pictures) :])
    if again:
        raise FormatError(f"{wishes.test_images}: has {len(again):,} pictures of --images too, such as {min(again)}")
    labels = np.concatenate([pictures.labels, others.labels])
    notes = (*pictures.notes, *others.notes)
    rows = np.arange(len(names))
    joined = Collection(root, names, labels, pictures.classes, notes)
    return joined, rows[: len(pictures)], rows[len(pictures) :]


def _examine(
    wishes: Wishes, chosen: Base, pictures: Collection, train: Rows, progress: Callable[[int, int], object]
) -> Found:
    """Every picture, or enough for the mean."""
    rows = None if wishes.check else sample(train) if not wishes.mean else np.zeros(0, np.int64)
    total = len(pictures) if rows is None else len(rows)
    mask = np.zeros(len(pictures), bool)
    mask[train] = not wishes.mean
    return examine(pictures, mask, chosen.size, rows=rows, workers=cores(), progress=lambda done: progress(done, total))


def _without_bad(
    wishes: Wishes, pictures: Collection, train: Rows, test: Rows, found: Found, notes: list[str]
) -> tuple[Rows, Rows]:
    """The rows without the pictures that cannot be read; ImageError names these unless they are to be left out."""
    if not found.bad:
        return train, test
    named = "".join(f"\n  {message}" for message in list(found.bad.values())[:_SHOWN])
    more = f"\n  ... and {len(found.bad) - _SHOWN:,} more" if len(found.bad) > _SHOWN else ""
    if not wishes.skip_bad:
        raise ImageError(
            f"{wishes.images}: {len(found.bad):,} of {len(pictures):,} pictures cannot be read (--skip-bad leaves them "
            f"out):{named}{more}"
        )
    notes.append(f"left out {len(found.bad):,} pictures that cannot be read:{named}{more}")
    bad = np.fromiter(found.bad, np.int64)
    train, test = np.setdiff1d(train, bad), np.setdiff1d(test, bad)
    if not pictures.several:
        lost = sorted(set(range(len(pictures.classes))) - set(pictures.labels[train].tolist()))
        if lost:
            raise ImageError(
                f"{wishes.images}: no training picture of class {pictures.classes[lost[0]]!r} can be read:{named}{more}"
            )
    if not len(test) or not len(train):
        raise ImageError(
            f"{wishes.images}: no picture is left to {'train' if len(test) else 'test'} with:{named}{more}"
        )
    return train, test


def _notes(wishes: Wishes, pictures: Collection, train: Rows, test: Rows, found: Found) -> Iterator[str]:
    """What one should know of these pictures."""
    if pictures.several:
        unseen = np.flatnonzero((pictures.labels[train] <= 0).all(axis=0)).tolist()
        if unseen:
            named = ", ".join(pictures.classes[i] for i in unseen[:5]) + (", ..." if len(unseen) > 5 else "")
            yield f"no picture to train with has {len(unseen):,} of the labels: {named}"
    else:
        for what, rows in (("train", train), ("test", test)):
            lacking = sorted(set(range(len(pictures.classes))) - set(pictures.labels[rows].tolist()))
            if lacking:
                named = ", ".join(pictures.classes[i] for i in lacking[:5]) + (", ..." if len(lacking) > 5 else "")
                yield f"no picture to {what} with for {len(lacking):,} of the classes: {named}"
        counts = np.bincount(pictures.labels[train])
        if counts.max() > 20 * max(counts.min(), 1):
            yield (
                f"the classes are of very different sizes ({counts.min():,} to {counts.max():,} pictures); a rare one "
                "is learned badly"
            )
    if found.copies:
        yield _copies(pictures, test, found)
    if not wishes.check:
        yield "not all pictures were opened (--no-check): training stops at one that cannot be read"


def _copies(pictures: Collection, test: Rows, found: Found) -> str:
    tested = np.zeros(len(pictures), bool)
    tested[test] = True
    across = sum(bool(tested[a] != tested[b]) for a, b in found.copies)
    differing = sum(bool(np.any(pictures.labels[a] != pictures.labels[b])) for a, b in found.copies)
    first, second = found.copies[0]
    example = f"{pictures.names[first]} of {pictures.names[second]}"
    text = f"{len(found.copies):,} pictures are copies of others, such as {example}"
    if differing:
        text += f"; {differing:,} of them with another label"
    return text + (f"; {across:,} stand on both sides of the split, which flatters the test" if across else "")


def _given_mean(path: Path, chosen: Base) -> Mean:
    mean = load_mean(path)
    if mean.shape != (3, chosen.size, chosen.size):
        raise FormatError(
            f"{path}: a mean image of shape {mean.shape}, {chosen.name} needs (3, {chosen.size}, {chosen.size})"
        )
    return mean


def _root_folder(root: str, folder: Path) -> str:
    """Where the names of the lists start, for the nets: relative for pictures beside the project."""
    if not root:
        return ""
    try:
        root.encode()
    except UnicodeEncodeError as error:
        raise ImageError(f"{root!r}: a folder's name is not UTF-8, which a net cannot hold; rename it") from error
    place = folder.resolve().parent
    if Path(root).is_relative_to(place):
        return f"{Path('..', Path(root).relative_to(place)).as_posix()}/"
    return f"{Path(root).as_posix().rstrip('/')}/"
