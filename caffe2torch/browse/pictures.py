"""Where the pictures that a codes file names lie now, and small copies of them to show."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from caffe2torch.errors import ImageError
from caffe2torch.preprocess import read_image

SIDE = 256  # most pixels of a thumbnail in a line: sharp at the 160 CSS pixels it is shown at
TINY = 96  # pictures up to this size are kept as they are, and shown with their pixels
QUALITY = 82
THREADS = 4


@dataclass(frozen=True)
class Thumbnail:
    """A small JPEG (or PNG, of a tiny picture) and its size in pixels."""

    data: bytes
    type: str
    width: int
    height: int

    @property
    def tiny(self) -> bool:
        """Whether it is the whole picture, to be enlarged by whole pixels."""
        return self.type == "image/png"


class Places:
    """Finds the files of pictures. ``root``, the folder they lie in now, replaces all that ``extract`` recorded.

    Otherwise a name starts where it did for ``extract``: at its --root or current folder. Where that folder is gone
    (the codes were made on another machine) it starts at the folder of the codes file, then at the current one.
    """

    def __init__(self, codes_file: Path, provenance: Mapping[str, Any], *, root: str | Path | None = None) -> None:
        self.root = None if root is None else Path(root)
        self.exif = provenance.get("exif") is True
        self._beside = codes_file.parent
        self._folder = _text(provenance.get("folder"))
        self._recorded_root = _text(provenance.get("root"))
        inputs = provenance.get("inputs")
        self._inputs = tuple(item for item in inputs if _text(item)) if isinstance(inputs, list) else ()

    def find(self, name: str) -> Path | None:
        """The file of the picture recorded as ``name``, None where it is nowhere to be found."""
        for path in self._candidates(name):
            if is_file(path):
                return path
        return None

    def _candidates(self, name: str) -> Iterator[Path]:
        below = name.lstrip("/\\")
        if self.root is not None:
            yield self.root / below
            for start in self._inputs:  # extract /data/photos, and these now lie in --root
                if name.startswith(start.rstrip("/\\") + os.sep):
                    yield self.root / name[len(start) :].lstrip("/\\")
            return
        if self._folder:
            if self._recorded_root:
                yield Path(self._folder, self._recorded_root, below)
            yield Path(self._folder, name)
        yield self._beside / name
        yield Path(name)

    def thumbnail(self, name: str) -> Thumbnail | None:
        """A small copy of the picture recorded as ``name``; None where the file is missing or cannot be read."""
        path = self.find(name)
        if path is None:
            return None
        try:
            return thumbnail(read_image(path, exif=self.exif))
        except ImageError:  # changed since it was hashed: the page shows a placeholder
            return None

    def thumbnails(self, names: Sequence[str]) -> list[Thumbnail | None]:
        """``thumbnail`` of each name, several decoded at a time."""
        with ThreadPoolExecutor(THREADS) as pool:
            return list(pool.map(self.thumbnail, names))


def thumbnail(image: NDArray[np.uint8]) -> Thumbnail:
    """A small copy of a BGR or grey picture."""
    height, width = image.shape[:2]
    if max(height, width) <= TINY:
        return _encoded(image, ".png", "image/png")
    scale = min(1.0, SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = image if scale == 1 else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return _encoded(np.asarray(small, np.uint8), ".jpg", "image/jpeg")


def _encoded(image: NDArray[np.uint8], suffix: str, kind: str) -> Thumbnail:
    options = [cv2.IMWRITE_JPEG_QUALITY, QUALITY, cv2.IMWRITE_JPEG_OPTIMIZE, 1] if suffix == ".jpg" else []
    good, data = cv2.imencode(suffix, image, options)
    assert good, suffix  # both are part of every OpenCV
    return Thumbnail(data.tobytes(), kind, image.shape[1], image.shape[0])


def is_file(path: Path) -> bool:
    """Whether there is such a file; False for names that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value and "\0" not in value else None
