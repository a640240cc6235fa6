"""Pictures, pictures of the database and codes files to queries."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from caffe2torch.browse.answers import Query, labels_of
from caffe2torch.browse.gallery import Gallery
from caffe2torch.browse.pictures import Places, thumbnail
from caffe2torch.errors import RetrievalError, WeightsError
from caffe2torch.extract.listing import Entry, Found, walk
from caffe2torch.preprocess import read_image
from caffe2torch.retrieval.codes import Codes, Floats, Packed, pack, threshold
from caffe2torch.retrieval.comparable import check_comparable
from caffe2torch.retrieval.readers import read_codes

if TYPE_CHECKING:
    from caffe2torch.extract import Hasher

CODES_FILES = (".h5", ".mat", ".npz", ".csv")
BATCH = 16  # pictures decoded and hashed together


def read_queries(
    items: Sequence[str | Path],
    gallery: Gallery,
    hasher: Callable[[], Hasher],
    *,
    root: str | Path | None = None,
    thumbnails: bool = False,
    any_model: bool = False,
) -> list[Query]:
    """The queries that ``items`` name, in their order.

    An item is a picture, a folder or a list file (as for ``extract``; ``root`` is where its paths start), a codes file
    made with the same model, or the path of a picture of the database, whose code is taken from there. ``hasher`` is
    called once, and only if a picture is to be hashed. A codes file of another model is refused, unless ``any_model``.
    Raises ImageError for a picture that cannot be read.
    """
    queries: list[Query | Entry] = []
    for item in items:
        if Path(item).suffix.lower() in CODES_FILES:
            queries += from_codes_file(Path(item), gallery, thumbnails=thumbnails, any_model=any_model)
            continue
        number = gallery.find(str(item))
        if number is not None:
            queries.append(gallery.query(number, thumbnail=thumbnails))
        else:
            queries += _from_pictures(item, gallery, root, thumbnails=thumbnails)
    return list(_hashed(queries, gallery, hasher, thumbnails=thumbnails))


def from_codes_file(path: Path, gallery: Gallery, *, thumbnails: bool, any_model: bool) -> Iterator[Query]:
    """Every code of a codes file; RetrievalError where another model made it."""
    codes = read_codes(path)
    check_comparable(codes, gallery.index.get([]), names=(str(path), str(gallery.path)), any_model=any_model)
    if not len(codes):
        raise RetrievalError(f"{path}: holds no codes to search with")
    places = Places(path, codes.provenance)
    rows = _rows_in(gallery, codes)
    for row, name in enumerate(codes.paths or [f"{path.name} {row}" for row in range(len(codes))]):
        features = None if codes.features is None else codes.features[row]
        small = places.thumbnail(name) if thumbnails else None
        labels = labels_of(codes, row)
        yield Query(name, codes.packed[row], "codes file", labels, rows.get(name), features=features, thumbnail=small)


def _rows_in(gallery: Gallery, codes: Codes) -> Mapping[str, int]:
    """The numbers in the database of the pictures of a codes file: names that start at the same place are the same."""
    own, theirs = codes.provenance, gallery.provenance
    if not own.get("folder") or own.get("root") != theirs.get("root"):
        return {}
    known = gallery.numbers()
    if own["folder"] == theirs.get("folder"):
        return known
    return {name: known[name] for name in codes.paths if name in known and Path(name).is_absolute()}


def _from_pictures(
    item: str | Path, gallery: Gallery, root: str | Path | None, *, thumbnails: bool
) -> Iterator[Query | Entry]:
    """The pictures of a folder or list; those that are in the database with the code they have there."""
    for entry in walk([item], root=root, found=Found()):
        number = gallery.find(entry.file) if entry.file != str(item) else None
        if number is None:
            yield entry
            continue
        query = gallery.query(number, thumbnail=thumbnails)
        yield query if entry.label is None else replace(query, labels=(entry.label,))


def _hashed(
    items: Sequence[Query | Entry], gallery: Gallery, hasher: Callable[[], Hasher], *, thumbnails: bool
) -> Iterator[Query]:
    """The items with every picture among them hashed, a batch at a time."""
    wanted = [item for item in items if isinstance(item, Entry)]
    done = _hash_entries(wanted, gallery, hasher(), thumbnails=thumbnails) if wanted else iter(())
    for item in items:
        yield item if isinstance(item, Query) else next(done)


def _hash_entries(entries: Sequence[Entry], gallery: Gallery, hasher: Hasher, *, thumbnails: bool) -> Iterator[Query]:
    for first in range(0, len(entries), BATCH):
        batch = entries[first : first + BATCH]
        inputs, small = [], []
        for entry in batch:
            image = read_image(entry.file, exif=hasher.model.exif)
            inputs.append(hasher.preprocess(image))
            small.append(thumbnail(image) if thumbnails else None)
        hashed = hash_inputs(hasher, inputs, gallery)
        for entry, (packed, features), picture in zip(batch, hashed, small, strict=True):
            labels = None if entry.label is None else (entry.label,)
            yield Query(entry.shown, packed, "hashed", labels, features=features, thumbnail=picture)


def hash_inputs(hasher: Hasher, inputs: Sequence[Floats], gallery: Gallery) -> list[tuple[Packed, Floats | None]]:
    """Code and features of each preprocessed picture; RetrievalError unless codes are as long as the database's."""
    if hasher.bits != gallery.bits:
        raise RetrievalError(
            f"{gallery.path}: its codes have {gallery.bits} bits, but {hasher.model.name} makes {hasher.bits}; name "
            "the model that made them"
        )
    output = hasher.run(np.stack(inputs))
    if not np.isfinite(output.values).all():
        raise WeightsError(f"{hasher.model.weights}: the blob {hasher.model.blob} is not finite for the query")
    packed = pack(threshold(output.values))
    return [(code, None if output.features is None else output.features[row]) for row, code in enumerate(packed)]
