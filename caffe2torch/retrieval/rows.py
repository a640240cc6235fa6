"""The columns of an index: a code and an id per row, and where they are known a path and a label."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from caffe2torch.errors import FormatError, RetrievalError
from caffe2torch.retrieval.codes import Packed
from caffe2torch.retrieval.ids import Ids

Labels = npt.NDArray[np.int64] | npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Texts(Sequence[str]):
    """Texts as one stretch of UTF-8 bytes, each ending where ``ends`` says; both may lie in a mapped file."""

    blob: npt.NDArray[np.uint8]
    ends: npt.NDArray[np.int64]

    @staticmethod
    def of(texts: Sequence[str]) -> Texts:
        if isinstance(texts, Texts):
            return texts
        try:
            encoded = [text.encode("utf-8", "surrogateescape") for text in texts]
        except UnicodeEncodeError as error:
            shown = error.object.encode("unicode_escape").decode("ascii")
            raise RetrievalError(f"the path {shown[:200]} holds half a surrogate pair, no character") from error
        ends = np.cumsum([len(text) for text in encoded], dtype=np.int64)
        return Texts(np.frombuffer(b"".join(encoded), np.uint8), ends)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            return self.take(np.arange(len(self))[row])
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        row %= len(self)
        start, stop = int(self.ends[row - 1]) if row else 0, int(self.ends[row])
        if not 0 <= start <= stop <= len(self.blob):
            raise FormatError(f"text {row} of the index is said to be bytes {start} to {stop} of {len(self.blob)}")
        return self.blob[start:stop].tobytes().decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        return (self[row] for row in range(len(self)))

    def take(self, rows: npt.NDArray[np.int64]) -> Texts:
        return Texts.of([self[row] for row in rows.tolist()])

    @staticmethod
    def join(parts: Sequence[Texts]) -> Texts:
        offsets = np.cumsum([0, *(len(part.blob) for part in parts)])
        return Texts(
            np.concatenate([np.zeros(0, np.uint8), *(part.blob for part in parts)]),
            np.concatenate(
                [np.zeros(0, np.int64), *(part.ends + start for part, start in zip(parts, offsets, strict=False))]
            ),
        )


@dataclass(frozen=True, eq=False)
class Rows:
    """Columns of one length: ``codes`` padded to whole words (N, stride), ``ids`` (N,), ``labels`` (N,) or (N, L)."""

    codes: Packed
    ids: Ids
    paths: Texts | None = None
    labels: Labels | None = None

    def __post_init__(self) -> None:
        for name, column in (("ids", self.ids), ("paths", self.paths), ("labels", self.labels)):
            if column is not None and len(column) != len(self.codes):
                raise RetrievalError(f"{len(self.codes)} codes but {len(column)} {name}")

    def __len__(self) -> int:
        return len(self.codes)

    def take(self, rows: npt.NDArray[np.int64]) -> Rows:
        return Rows(
            self.codes[rows],
            self.ids[rows],
            None if self.paths is None else self.paths.take(rows),
            None if self.labels is None else self.labels[rows],
        )

    def refuse_unlike(self, more: Rows) -> None:
        """RetrievalError where rows cannot follow these: one has paths or labels and the other has not."""
        for name, own, new in (("paths", self.paths, more.paths), ("labels", self.labels, more.labels)):
            if own is not None and new is None:
                raise RetrievalError(f"the index has {name}, the new codes have none: give them too")
            if own is None and new is not None:
                raise RetrievalError(f"the new codes have {name}, the index has none: leave them out")
        if self.labels is not None and more.labels is not None:
            first, second = (_kind(labels) for labels in (self.labels, more.labels))
            if first != second:
                raise RetrievalError(f"the index has {first}, the new codes have {second}")

    @staticmethod
    def join(parts: Sequence[Rows]) -> Rows:
        """The rows of all parts, one after the other; a single part is given back as it is."""
        if len(parts) == 1:
            return parts[0]
        paths, labels = [part.paths for part in parts], [part.labels for part in parts]
        return Rows(
            np.concatenate([part.codes for part in parts]),
            np.concatenate([part.ids for part in parts]),
            None if paths[0] is None else Texts.join([texts for texts in paths if texts is not None]),
            None if labels[0] is None else np.concatenate([column for column in labels if column is not None]),
        )


def check_labels(labels: npt.ArrayLike | None) -> Labels | None:
    """One whole number per code, (N,), or a truth value per code and label, (N, L); otherwise RetrievalError."""
    if labels is None:
        return None
    found = np.asarray(labels)
    if found.ndim == 1 and (found.dtype.kind in "iu" or not len(found)):
        return found.astype(np.int64)
    if found.ndim == 2 and found.dtype == np.bool_:
        return found.copy()
    raise RetrievalError(f"labels are {found.dtype} {found.shape}; expected integers (N,) or booleans (N, labels)")


def _kind(labels: Labels) -> str:
    return "one label per code" if labels.ndim == 1 else f"{labels.shape[1]} labels to choose from"
