"""A set of hashed pictures to search: an index with names and labels, and the folder the pictures are in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from caffe2torch.browse.answers import Answer, Found, Labels, Query, labels_of, make_answer, name_of
from caffe2torch.browse.feature_rows import check_rows
from caffe2torch.browse.pictures import Places, Thumbnail
from caffe2torch.errors import FormatError, RetrievalError, UsageError
from caffe2torch.extract.listing import read_list
from caffe2torch.retrieval.coarse import CANDIDATES, CoarseToFine
from caffe2torch.retrieval.codes import Codes
from caffe2torch.retrieval.features import Features
from caffe2torch.retrieval.index import Index
from caffe2torch.retrieval.readers import read_codes
from caffe2torch.retrieval.store_head import HEAD


@dataclass(frozen=True)
class Wanted:
    """What to find: the ``k`` nearest, all within ``radius`` bits, or the nearest ``k`` of these.

    ``skip_self`` leaves out the query's own row. With ``metric`` ("euclidean" or "cosine") the nearest ``candidates``
    by code are ranked again by their features.
    """

    k: int | None = None
    radius: int | None = None
    skip_self: bool = False
    metric: str | None = None
    candidates: int = CANDIDATES


class Gallery:
    """A codes file or a saved index, opened for searching."""

    def __init__(
        self,
        path: Path,
        index: Index,
        *,
        root: str | Path | None = None,
        label_names: Sequence[str] = (),
        features: Features | None = None,
    ) -> None:
        if not len(index):
            raise RetrievalError(f"{path}: holds no codes, so there is nothing to search")
        self.path, self.index, self.features = path, index, features
        self.places = Places(path, index.provenance, root=root)
        self.label_names = tuple(label_names)
        self._ids: dict[str, int] | None = None
        self._names = ""

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        root: str | Path | None = None,
        names: str | Path | None = None,
        label_names: str | Path | None = None,
        features: str | Path | None = None,
        engine: str = "auto",
        say: Callable[[str], object] = lambda message: None,
    ) -> Gallery:
        """Open a codes file of ``extract`` or MATLAB, or the folder of a saved index.

        ``root`` is the folder its pictures lie in now. ``names`` is a list file with a path, and perhaps a label, for
        each code; ``label_names`` a text file with the name of a label on each line; ``features`` the file with a row
        of features for each code, where that is not the codes file itself. ``say`` hears how a MATLAB file was read.
        """
        path = Path(path)
        rows = Features.open(features) if features else None
        if path.is_dir():
            if names:
                raise UsageError(f"{path}: an index has its own names: leave out {names}")
            index = _open_index(path, engine)
            if rows is not None and len(rows) != index.next_id:
                raise RetrievalError(
                    f"{rows.source}: features of {len(rows):,} pictures, but {index.next_id:,} were added to {path} in "
                    "all: row i must be of the i-th, those removed since included"
                )
        else:
            codes = read_codes(path, say=say)
            if names:
                codes = _named(path, codes, Path(names))
            if rows is None and codes.features is not None and len(codes):
                rows = Features(codes.features, source=str(path))
            if rows is not None:
                rows.expect(len(codes))
            index = Index.of(codes, engine=engine)
        if features and rows is not None:
            check_rows(path, index, Path(features), len(rows))
        words = read_label_names(Path(label_names)) if label_names else ()
        return cls(path, index, root=root, label_names=words, features=rows)

    def __len__(self) -> int:
        return len(self.index)

    def __contains__(self, number: int) -> bool:
        return bool((self.index.ids == number).any())

    @property
    def bits(self) -> int:
        """Bits of a code."""
        return self.index.bits

    @property
    def provenance(self) -> Mapping[str, Any]:
        """How the codes were made; empty where the file does not say."""
        return self.index.provenance

    @property
    def model_name(self) -> str:
        """The model by name, empty where the file does not say."""
        return str(self.provenance.get("model") or "")

    def label_text(self, labels: Labels) -> str:
        """The labels by name, or by number."""
        names = self.label_names
        return ", ".join(names[label] if 0 <= label < len(names) else str(label) for label in labels or ())

    def name(self, number: int) -> str:
        """The path recorded for a picture."""
        return name_of(self.index.get([number]), 0, number)

    def thumbnails(self, numbers: Sequence[int]) -> list[Thumbnail | None]:
        """Small copies of pictures; None for those whose file is missing."""
        return self.places.thumbnails([self.name(number) for number in numbers])

    def find(self, name: str) -> int | None:
        """The number of the picture recorded as ``name``, or whose file that is; None where it is not in it."""
        number = self.numbers().get(name)
        return number if number is not None else self._find_file(Path(name), self.numbers())

    def numbers(self) -> Mapping[str, int]:
        """The number of each picture by its recorded path; of a path that stands there twice the first."""
        if self._ids is None:
            pairs = list(zip(self.index.codes().paths, self.index.ids.tolist(), strict=False))
            self._ids = dict(reversed(pairs))
            self._names = "\0".join((*self._ids, ""))  # to see quickly that none of a million ends so
        return self._ids

    def _find_file(self, wanted: Path, ids: Mapping[str, int]) -> int | None:
        """By the file itself: the few pictures of the same name are compared with it."""
        if not wanted.name or f"{wanted.name}\0" not in self._names:
            return None
        for name in (name for name in ids if name.endswith(wanted.name)):
            found = self.places.find(name)
            try:
                if found is not None and found.samefile(wanted):
                    return ids[name]
            except (OSError, ValueError):  # there is no file ``wanted``
                return None
        return None

    def query(self, number: int, *, thumbnail: bool = True) -> Query:
        """A picture of the database as a query, with its own code: nothing is hashed. RetrievalError if unknown."""
        codes = self.index.get([number])
        name = name_of(codes, 0, number)
        return Query(
            name,
            codes.packed[0],
            "database",
            labels_of(codes, 0),
            number,
            features=None if self.features is None else self.features.take(np.array([number]))[0],
            thumbnail=self.places.thumbnail(name) if thumbnail else None,
        )

    def answer(self, queries: Sequence[Query], wanted: Wanted) -> list[Answer]:
        """What each query finds, equal distances in the order of the database.

        RetrievalError when more results are asked for than there are pictures, or features are not there.
        """
        if not queries:
            return []
        if wanted.metric is not None:
            found = self._by_features(queries, wanted)
        elif wanted.radius is not None:
            found = self._within(queries, wanted.radius)
        else:
            found = self._nearest(queries, wanted)
        return [self._answer(query, items, wanted) for query, items in zip(queries, found, strict=True)]

    def _nearest(self, queries: Sequence[Query], wanted: Wanted) -> list[list[Found]]:
        hits = self.index.search(_packed(queries), self._asked(queries, wanted))
        return [_found(*columns) for columns in zip(hits.ids, hits.distances, strict=True)]

    def _within(self, queries: Sequence[Query], radius: int) -> list[list[Found]]:
        near = self.index.within(_packed(queries), radius)
        return [_found(near[place].ids, near[place].distances) for place in range(len(near))]

    def _by_features(self, queries: Sequence[Query], wanted: Wanted) -> list[list[Found]]:
        if self.features is None:
            raise RetrievalError(
                f"{self.path}: holds no features to rank by; extract them with --features BLOB, or name the file that "
                "has them with --features"
            )
        k = self._asked(queries, wanted)
        for query in queries:
            if query.features is None:
                raise RetrievalError(f"{query.name}: this query comes without features to rank by")
        assert wanted.metric is not None
        search = CoarseToFine(
            self.index,
            self.features,
            metric=wanted.metric,
            candidates=max(k, wanted.candidates),
            radius=wanted.radius,
            ids=np.arange(len(self.features)),
        )
        hits = search.search(_packed(queries), np.stack([q.features for q in queries if q.features is not None]), k)
        return [_found(*columns) for columns in zip(hits.ids, hits.hamming, hits.distances, strict=True)]

    def _asked(self, queries: Sequence[Query], wanted: Wanted) -> int:
        """How many to search for; one more where the query itself is then left out."""
        if wanted.k is None or wanted.k < 1:
            raise UsageError(f"k is {wanted.k}; ask for at least one result")
        extra = wanted.skip_self and any(query.id is not None for query in queries)
        available = len(self) - extra
        if wanted.k > available:
            if not available:
                raise RetrievalError(f"{self.path}: holds no picture besides the query itself")
            besides = " besides the query itself" if extra else ""
            raise RetrievalError(
                f"{self.path}: {wanted.k:,} results are asked for, but there are {available:,} pictures{besides}; give "
                f"-k {available} or less"
            )
        return wanted.k + extra

    def _answer(self, query: Query, found: Sequence[Found], wanted: Wanted) -> Answer:
        kept = [item for item in found if not (wanted.skip_self and item.id == query.id)][: wanted.k]
        return make_answer(query, kept, self.index.get(np.array([item.id for item in kept], np.int64)))


def _packed(queries: Sequence[Query]) -> Any:
    return np.stack([query.packed for query in queries])


def _found(*columns: Any) -> list[Found]:
    return [Found(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def _open_index(path: Path, engine: str) -> Index:
    if not (path / HEAD).exists():
        raise RetrievalError(
            f"{path}: a folder, but no index; if it holds pictures, hash them first (`caffe2torch extract {path}` "
            "makes codes.h5) and search in that"
        )
    return Index.open(path, engine=engine)


def _named(path: Path, codes: Codes, list_file: Path) -> Codes:
    """The codes with the paths of a list file, and its labels where it has them."""
    entries = list(read_list(list_file))
    if len(entries) != len(codes):
        raise RetrievalError(
            f"{list_file}: names {len(entries):,} pictures, but {path} has {len(codes):,} codes; they do not belong "
            "together"
        )
    labels = [entry.label for entry in entries if entry.label is not None]
    return replace(
        codes,
        paths=tuple(entry.shown for entry in entries),
        labels=np.array(labels, np.int64) if labels else codes.labels,
    )


def read_label_names(path: Path) -> tuple[str, ...]:
    """Names of the labels 0, 1, 2, ..., a line each."""
    try:
        lines = path.read_text("utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not lines or not all(line.strip() for line in lines):
        raise FormatError(f"{path}: expected the name of a label on each line, label 0 first; found an empty line")
    return tuple(line.strip() for line in lines)
