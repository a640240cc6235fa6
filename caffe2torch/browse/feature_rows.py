"""Whether a file of features is of the pictures of a database, row by row, as far as the file tells.

An .h5 or .npz of ``extract`` has codes and names beside the features. Names may be written otherwise and a code may
differ by a bit from that of another device, so a row is refused where both differ, or where much of the code does.
Other files tell no more than how many rows they have.
"""

from __future__ import annotations

import zipfile
from pathlib import Path, PurePosixPath

import h5py
import numpy as np

from caffe2torch.errors import RetrievalError
from caffe2torch.retrieval.codes import Codes
from caffe2torch.retrieval.comparable import check_comparable
from caffe2torch.retrieval.hamming import as_words, count_bits
from caffe2torch.retrieval.index import Index
from caffe2torch.retrieval.readers import read_codes

MOST_FLIPPED = 8
"""A code may differ by one bit in so many."""


def check_rows(path: Path, index: Index, features: Path, count: int) -> None:
    """RetrievalError unless row i of the file ``features`` may be of the picture with id i of ``index``, at ``path``.

    ``count`` is the number of its rows, more than any id.
    """
    codes = _codes_beside(features)
    if codes is None:
        return
    if len(codes) != count:
        raise RetrievalError(f"{features}: {count:,} rows of features beside {len(codes):,} codes")
    check_comparable(codes, Codes(index.packed, index.bits, (), index.provenance), names=(str(features), str(path)))
    mixed = as_words(codes.packed[index.ids], index.bits) ^ as_words(index.packed, index.bits)
    counts = np.empty(mixed.shape, np.uint8)
    count_bits(mixed, counts)
    distances = counts.sum(axis=1, dtype=np.int64)
    for place in np.flatnonzero(distances).tolist():
        number = int(index.ids[place])
        theirs, mine = codes.paths[number], (*index.get([number]).paths, "")[0]
        if distances[place] * MOST_FLIPPED > index.bits or (mine and _tail(mine) != _tail(theirs)):
            here = f"picture {number} of {path}" + (f", {mine}" if mine else "")
            raise RetrievalError(
                f"{features}: its row {number} is of {theirs}, whose code differs by {distances[place]} of "
                f"{index.bits} bits from that of {here}; row i of the features must be of picture i"
            )


def _codes_beside(features: Path) -> Codes | None:
    """The codes in a file of features that ``extract`` wrote, without the features."""
    suffix = features.suffix.lower()
    if suffix == ".h5":
        with h5py.File(features, "r") as file:
            whole = {"codes", "paths"} <= set(file) and "bits" in file.attrs
    elif suffix == ".npz":
        with zipfile.ZipFile(features) as archive:
            whole = {"codes.npy", "paths.npy", "bits.npy", "provenance.npy"} <= set(archive.namelist())
    else:
        return None
    return read_codes(features, features=False) if whole else None


def _tail(path: str) -> str:
    """What stays the same when a folder of pictures is moved."""
    return "/".join(PurePosixPath(path.replace("\\", "/")).parts[-2:])
