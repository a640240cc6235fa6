"""A picture that came from a browser to a query, with limits that are checked before it is decoded."""

from __future__ import annotations

from threading import Lock

import numpy as np
from numpy.typing import NDArray

from caffe2torch.browse.answers import Query
from caffe2torch.browse.gallery import Gallery
from caffe2torch.browse.markup import printable
from caffe2torch.browse.pictures import thumbnail
from caffe2torch.browse.queries import hash_inputs
from caffe2torch.errors import ImageError
from caffe2torch.extract import Hasher
from caffe2torch.preprocess import decode
from caffe2torch.preprocess.formats import read_header

MAX_PIXELS = 64 << 20  # of an upload: more than most phones make, 200 MB decoded
NAME_LENGTH = 120
SIDEWAYS = (
    "This picture is stored sideways and turned upright by a note in it (EXIF). The codes of this database were made "
    "without such notes, so it was hashed as it is stored, and is shown so. Save it upright for better results."
)


class Uploads:
    """Hashes uploads with one model, one at a time: more would only take memory and slow each other down."""

    def __init__(self, gallery: Gallery, hasher: Hasher) -> None:
        self.gallery, self.hasher = gallery, hasher
        self._lock = Lock()

    def query(self, data: bytes, name: str) -> Query:
        """The query for an encoded picture. What it is decides its content; ``name`` is only shown.

        Raises ImageError for what is no picture, damaged, of a refused form, or too large to decode here.
        """
        name = printable(name.replace("\\", "/").rpartition("/")[2])[:NAME_LENGTH] or "your picture"
        with self._lock:
            image, turned = self._decoded(data, name)
            ((packed, features),) = hash_inputs(self.hasher, [self.hasher.preprocess(image)], self.gallery)
            small = thumbnail(image)
        note = SIDEWAYS if turned and not self.hasher.model.exif else ""
        return Query(name, packed, "hashed", features=features, thumbnail=small, note=note)

    def _decoded(self, data: bytes, name: str) -> tuple[NDArray[np.uint8], bool]:
        if not data:
            raise ImageError(f"{name}: the file is empty")
        header = read_header(data, name)
        if header.width * header.height > MAX_PIXELS:
            raise ImageError(
                f"{name}: {header.width} x {header.height} pixels, more than the {MAX_PIXELS >> 20} million taken "
                "here; make it smaller first"
            )
        return decode(data, name, exif=self.hasher.model.exif), header.orientation != 1
