"""The 60,000 pictures of CIFAR-10 as the papers had them, or in any other form that somebody may have hashed instead.

They come from the folders ``tools/make_cifar10.py`` builds, or straight from CIFAR-10 itself, where each is mirrored
and coded as JPEG when it is asked for: the very pixels of the papers' files without writing any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from caffe2torch.data.cifar10 import BATCHES, TEST_WALK, TRAIN_WALK, Batch, Cifar10, Layout, papers_file, papers_jpeg
from caffe2torch.data.cifar10 import papers_order as _papers_order
from caffe2torch.errors import FormatError, ImageError
from caffe2torch.preprocess import decode, read_image

Image = NDArray[np.uint8]
Rows = NDArray[np.int64]

WALKS = {"test": TEST_WALK, "train": TRAIN_WALK}
BATCH = 10_000
SHOWN = 3


@dataclass(frozen=True)
class Form:
    """How a picture looks compared with CIFAR-10: mirrored left-right or not, and how often it went through JPEG."""

    mirrored: bool = True
    jpeg: int = 2
    exif: bool = False
    """Turned upright by its EXIF orientation."""


def row_order(part: str, order: str) -> Rows:
    """Positions in CIFAR-10's own order of the rows of ``part``, in the papers' or the standard order."""
    if order == "papers":
        return _papers_order(WALKS[part])
    return np.arange(len(WALKS[part]) * BATCH)


def file_name(part: str, position: int) -> str:
    """The papers' name of the picture at a position of CIFAR-10's own order, such as batch1/4590.jpg."""
    batch = "test" if part == "test" else BATCHES[position // BATCH]
    return papers_file(batch, position % BATCH)


class Pictures:
    """Where pictures come from. ``place`` is for messages, ``own`` the form in which they are hashed."""

    place: str
    own: Form

    def read(self, part: str, position: int, form: Form) -> Image:
        """The picture at a position of the standard order: (32, 32, 3) BGR uint8. Raises ImageError."""
        raise NotImplementedError

    def forms(self) -> Sequence[Form]:
        """Every form that ``read`` can give, beside ``own``."""
        raise NotImplementedError

    def labels(self, part: str) -> NDArray[np.int64] | None:
        """Labels 0 to 9 in the standard order, None where nothing here tells them."""
        raise NotImplementedError


class FromCifar(Pictures):
    """Made from CIFAR-10 itself."""

    def __init__(self, cifar: Cifar10, own: Form) -> None:
        self.cifar, self.own, self.place = cifar, own, str(cifar.path)
        self._batches: dict[str, Batch] = {}
        self._lock = Lock()

    def _batch(self, name: str) -> Batch:
        with self._lock:
            if name not in self._batches:
                self._batches[name] = next(self.cifar.batches((name,)))
            return self._batches[name]

    def read(self, part: str, position: int, form: Form) -> Image:
        """The picture, mirrored and coded as ``form`` says."""
        batch = self._batch("test" if part == "test" else BATCHES[position // BATCH])
        return made(batch.images[position % BATCH], form, file_name(part, position))

    def forms(self) -> Sequence[Form]:
        """Mirrored or not, through JPEG up to three times."""
        every = [Form(mirrored, jpeg) for jpeg in (2, 1, 0, 3) for mirrored in (True, False)]
        return [form for form in every if form != self.own]

    def labels(self, part: str) -> NDArray[np.int64] | None:
        """CIFAR-10's own."""
        names = ("test",) if part == "test" else BATCHES[:5]
        return np.concatenate([self._batch(name).labels for name in names]).astype(np.int64)


def made(image: Image, form: Form, name: str) -> Image:
    """A picture of CIFAR-10, (32, 32, 3) RGB, in the form wanted, BGR."""
    if form.jpeg:
        source = image if form.mirrored else np.ascontiguousarray(image[:, ::-1])  # the papers' coder mirrors
        return decode(papers_jpeg(source, passes=form.jpeg), name, grey=False)
    return np.ascontiguousarray(image[:, ::-1, ::-1] if form.mirrored else image[..., ::-1])


class FromFolder(Pictures):
    """Read from the papers' folders: ``root`` is what make_cifar10 built, or the folder that holds batch1 to test.

    What the files hold is taken for ``own``, the form the release wants; other codings than that of the files can be
    had only where ``cifar`` is given too.
    """

    def __init__(self, root: Path, own: Form, cifar: Cifar10 | None = None) -> None:
        layout = Layout(root)
        self.folder = layout.dataset if layout.dataset.is_dir() else root
        self.own, self.place = own, str(self.folder)
        self._made = FromCifar(cifar, own) if cifar else None
        for batch in BATCHES:
            if not (self.folder / batch).is_dir():
                raise ImageError(
                    f"{self.folder}: has no folder {batch}; expected what tools/make_cifar10.py builds (batch1 to "
                    "batch5 and test, each with 1.jpg to 10000.jpg)"
                )
        self._suffix = (
            ".png" if not (self.folder / "test/1.jpg").exists() and (self.folder / "test/1.png").exists() else ".jpg"
        )

    def path(self, part: str, position: int) -> Path:
        """The picture's file."""
        return (self.folder / file_name(part, position)).with_suffix(self._suffix)

    def check(self, part: str, positions: Rows) -> None:
        """Raise ImageError, naming some, where pictures are missing."""
        missing = [path for path in (self.path(part, int(p)) for p in positions) if not path.exists()]
        if missing:
            names = ", ".join(str(path.relative_to(self.folder)) for path in missing[:SHOWN])
            raise ImageError(
                f"{self.folder}: {len(missing):,} of {len(positions):,} {part} pictures are missing, such as {names}; "
                "the papers' scripts went on silently and hashed zeros. `python tools/make_cifar10.py` makes what is "
                "missing"
            )

    def read(self, part: str, position: int, form: Form) -> Image:
        """The file's pixels, flipped where ``form`` is; another coding is made from CIFAR-10."""
        if form.jpeg != self.own.jpeg and self._made is not None:
            return self._made.read(part, position, form)
        image = read_image(self.path(part, position), exif=form.exif)
        return image if form.mirrored == self.own.mirrored else np.ascontiguousarray(image[:, ::-1])

    def forms(self) -> Sequence[Form]:
        """Flipped, turned by EXIF, and with CIFAR-10 at hand all codings."""
        flipped = Form(not self.own.mirrored, self.own.jpeg)
        turned = Form(self.own.mirrored, self.own.jpeg, exif=not self.own.exif)
        if self._made is None:
            return [flipped, turned]
        return [flipped, turned, *(form for form in self._made.forms() if form.jpeg != self.own.jpeg)]

    def labels(self, part: str) -> NDArray[np.int64] | None:
        """From CIFAR-10 where it is at hand, else from the label lists that make_cifar10 writes."""
        if self._made is not None:
            return self._made.labels(part)
        return self._listed_labels.get(part)

    @cached_property
    def _listed_labels(self) -> dict[str, NDArray[np.int64]]:
        found = {}
        for part in WALKS:
            file, order = self.folder / f"{part}-label.txt", row_order(part, "papers")
            if not file.is_file():
                continue
            try:
                listed = np.loadtxt(file, np.int64)
            except (OSError, ValueError) as error:
                raise FormatError(f"{file}: cannot be read as labels: {error}") from error
            if listed.shape != order.shape:
                raise FormatError(f"{file}: has {listed.size:,} labels, expected {len(order):,}, one for each picture")
            found[part] = np.empty_like(listed)
            found[part][order] = listed
        return found
