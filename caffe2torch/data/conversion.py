"""Pictures of a list into a database, record for record as Caffe's convert_imageset writes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from caffe2torch import schema
from caffe2torch.data.datum import to_record
from caffe2torch.data.image_list import Line
from caffe2torch.data.picture import Image, read_bytes, resize
from caffe2torch.data.prefetch import in_threads
from caffe2torch.data.writing import new_database
from caffe2torch.errors import ImageError, UsageError
from caffe2torch.preprocess import decode


@dataclass(frozen=True)
class Conversion:
    """How pictures become records; the names are those of Caffe's flags.

    ``encoded`` alone keeps the bytes of the files (Caffe decodes them when training); with a ``size`` (height, width)
    or an ``encode_type`` they are coded anew, as OpenCV does by default.
    """

    gray: bool = False
    size: tuple[int, int] | None = None
    check_size: bool = False
    encoded: bool = False
    encode_type: str = ""

    def __post_init__(self) -> None:
        """Refuse sizes and encodings that cannot be."""
        if self.size is not None and min(self.size) < 1:
            raise UsageError(
                f"resize_height {self.size[0]} and resize_width {self.size[1]}: give both, at least 1, or none"
            )
        if self.encode_type:
            _encoded(np.zeros((1, 1, 3), np.uint8), self.encode_type)

    def record(self, path: Path, label: int) -> tuple[bytes, tuple[int, ...]]:
        """The Datum of a picture file, and the shape (C, H, W) of its picture; ImageError naming the file."""
        data = read_bytes(path)
        image = decode(data, str(path), grey=self.gray)
        if self.size is not None:
            image = resize(image, self.size)
        record = to_record(image)
        datum = schema.new("Datum")
        kind = self.encode_type
        if self.encoded and not kind:
            kind = path.suffix.lower()
            if not kind:
                raise ImageError(f"{path}: the name does not say how to encode the picture; give encode_type")
        if not kind:
            datum.channels, datum.height, datum.width = record.shape
            datum.data = record.tobytes()
        else:
            kept = self.size is None and kind.lower() == path.suffix.lower()  # with the dot, so given types never are
            datum.data = data if kept else _encoded(image, kind)
        datum.label = label
        datum.encoded = bool(kind)
        value: bytes = datum.SerializeToString()
        return value, record.shape


@dataclass(frozen=True)
class Converted:
    """What became of a list: how many records were written, and why pictures were left out."""

    written: int
    skipped: tuple[str, ...]


def convert(
    lines: Sequence[Line],
    root: str,
    database: Path,
    conversion: Conversion,
    *,
    backend: str = "lmdb",
    skip_bad: bool = False,
    workers: int = 1,
    progress: Callable[[int], object] = lambda count: None,
) -> Converted:
    """Write a new database with a record for each line; ``root`` is put before the names as it is.

    The key is the number of the line and the name. A picture that cannot be read ends it with ImageError, and there is
    no database; with ``skip_bad`` it is left out and reported (its number too, as in Caffe). ``progress`` is called
    with the number of lines done. Raises OutputError where the database cannot be written.
    """
    if len(lines) > 10**8:
        raise UsageError(f"{len(lines)} lines, more than the {10**8} that keys of eight digits keep in order")
    skipped: list[str] = []
    first: tuple[str, tuple[int, ...]] | None = None
    attempt = partial(_attempt, root=root, conversion=conversion)
    with new_database(database, backend) as writer, closing(in_threads(lines, attempt, workers=workers)) as results:
        for index, ((name, _), result) in enumerate(zip(lines, results, strict=True)):
            if isinstance(result, ImageError):
                if not skip_bad:
                    raise result
                skipped.append(str(result))
            else:
                value, shape = result
                first = first or (name, shape)
                if conversion.check_size and shape != first[1]:
                    raise ImageError(f"{root}{name}: {_text(shape)}, but {root}{first[0]} is {_text(first[1])}")
                writer.put(b"%08d_" % index + name.encode("utf-8", "surrogateescape"), value)
            progress(index + 1)
        if len(skipped) == len(lines):
            raise ImageError(f"{root}: none of the {len(lines)} pictures can be read; the first: {skipped[0]}")
    return Converted(len(lines) - len(skipped), tuple(skipped))


def _attempt(line: Line, *, root: str, conversion: Conversion) -> tuple[bytes, tuple[int, ...]] | ImageError:
    try:
        return conversion.record(Path(root + line[0]), line[1])
    except ImageError as error:
        return error


def _encoded(image: Image, kind: str) -> bytes:
    """The picture as a file of a kind (png, jpg, ..., with or without a dot)."""
    try:
        done, data = cv2.imencode(f".{kind.lstrip('.')}", image)
    except cv2.error as error:
        raise UsageError(f"encode_type {kind!r}: OpenCV has no such encoder; use png or jpg") from error
    if not done:
        raise UsageError(f"encode_type {kind!r}: OpenCV cannot encode pictures of shape {image.shape}; use png or jpg")
    return data.tobytes()


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) + " (channels x height x width)"
