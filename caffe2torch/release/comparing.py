"""Two sets of codes bit by bit, and the mix-ups that show in the codes alone, without running a net."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from caffe2torch.errors import FormatError, RetrievalError
from caffe2torch.release.pictures import BATCH, WALKS, Rows, file_name, row_order
from caffe2torch.retrieval.codes import Bits, Codes, pack, packed_width, unpack
from caffe2torch.retrieval.readers import read_codes

CHANCE = 0.2
"""A mix-up is named only where it leaves fewer than this share of the bits that differed."""


@dataclass(frozen=True, eq=False)
class Difference:
    """``rows`` are the pictures that differ, in order, and ``bits`` in how many bits; ``total`` bits were compared."""

    part: str
    pictures: int
    total: int
    rows: NDArray[np.int64]
    bits: NDArray[np.int64]

    @property
    def count(self) -> int:
        """Bits that differ."""
        return int(self.bits.sum())


def compare(part: str, ours: Bits, theirs: Bits) -> Difference:
    """Both (N, bits)."""
    each = np.count_nonzero(ours != theirs, axis=1)
    rows = np.flatnonzero(each)
    return Difference(part, len(ours), ours.size, rows, each[rows].astype(np.int64))


def read_reference(place: str, part: str, bits: int | None, *, limit: int | None = None) -> Bits:
    """Codes (N, bits) from any codes file, MATLAB's, or an array: ``.npy``, or ``FILE.npz#NAME`` in an archive.

    An array is (N, bits) of 0 and 1 or the bytes of packed codes. Raises FormatError, and RetrievalError where these
    are no codes of ``bits`` bits or not of this part's pictures; with ``limit`` the first so many are enough.
    """
    name, _, member = place.partition("#")
    path = Path(name)
    if member or path.suffix.lower() == ".npy":
        found = _from_array(_load(path, member), place, bits)
    else:
        codes = read_codes(path)
        if bits is not None and codes.bits != bits:
            raise RetrievalError(
                f"{place}: holds codes of {codes.bits} bits, the model makes {bits}: another model's codes"
            )
        found = codes.unpacked()
    expected = len(WALKS[part]) * BATCH
    if len(found) != expected and (limit is None or not limit <= len(found) < expected):
        hint = "; --codes takes the training images first" if len(found) in (10_000, 50_000) else ""
        raise RetrievalError(f"{place}: has {len(found):,} codes, expected {expected:,} of the {part} images{hint}")
    return found[:limit]


def _load(path: Path, member: str) -> NDArray[np.generic]:
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            array = loaded[member] if member else loaded
            return np.asarray(array)
    except (OSError, ValueError, KeyError, EOFError, MemoryError, IndexError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FormatError(f"{path}{'#' + member if member else ''}: cannot be read as an array: {reason}") from error


def _from_array(array: NDArray[np.generic], place: str, bits: int | None) -> Bits:
    if array.ndim == 2 and len(array) and array.dtype.kind in "bui":
        width = array.shape[1]
        if array.dtype == np.uint8 and bits is not None and width == packed_width(bits) and width != bits:
            return unpack(array.astype(np.uint8), bits)
        if (bits is None or width == bits) and np.isin(array, (0, 1)).all():
            return array.astype(np.bool_)
    wanted = "bits" if bits is None else f"{bits} bits (or {packed_width(bits)} bytes of packed bits)"
    raise RetrievalError(f"{place}: an array of {array.dtype} {array.shape}, expected (pictures, {wanted}) of 0 and 1")


def codes_of(bits: Bits) -> Codes:
    """For the functions of ``retrieval``."""
    return Codes(packed=pack(bits), bits=bits.shape[1], paths=())


@dataclass(frozen=True)
class MixUp:
    """Something that was exchanged between the two sets of codes, and how many bits differ once it is undone."""

    text: str
    left: int


def mix_ups(part: str, ours: Bits, theirs: Bits, positions: Rows, *, whole: bool) -> MixUp | None:
    """The exchange of bits or of rows that explains best why these codes differ, None where none explains much.

    ``positions`` are those of the rows in the standard order; rows can be exchanged only where the part is ``whole``.
    """
    before = np.count_nonzero(ours != theirs)
    candidates = list(_bit_exchanges(ours))
    if whole:
        candidates += _row_exchanges(part, ours, positions)
    tried = [MixUp(text, int(np.count_nonzero(changed != theirs))) for text, changed in candidates]
    best = min(tried, key=lambda mix_up: mix_up.left)
    return best if best.left < CHANCE * before else None


def _bit_exchanges(ours: Bits) -> Iterator[tuple[str, Bits]]:
    yield "the released bits are inverted: 0 stands for 1", ~ours
    yield "the released bits stand in reverse order", ours[:, ::-1]
    if ours.shape[1] % 8 == 0:
        packed = np.packbits(ours, axis=1, bitorder="little")
        yield "the released bits are packed from the other end of each byte", unpack(packed, ours.shape[1])


def _row_exchanges(part: str, ours: Bits, positions: Rows) -> Iterator[tuple[str, Bits]]:
    standard = np.empty_like(ours)
    standard[positions] = ours
    batches = len(WALKS[part])
    orders: Mapping[str, Rows] = {
        "the released codes are in the order of the papers' lists, ours are compared in CIFAR-10's own": row_order(
            part, "papers"
        ),
        "the released codes are in CIFAR-10's own order, ours are compared in that of the papers' lists": row_order(
            part, "standard"
        ),
        "the released codes are in the papers' order but go through the batches as 1, 2, 3, 4, 5": np.concatenate(
            [row_order("test", "papers") + batch * BATCH for batch in range(batches)]
        ),
    }
    for text, order in orders.items():
        yield text, standard[order]
    for step, text in ((1, "after"), (-1, "before")):
        shifted = positions // BATCH * BATCH + (positions + step) % BATCH
        yield f"the names are off by one: N.jpg is the picture {text} the one it should be", standard[shifted]


def first_names(difference: Difference, positions: Rows, count: int) -> list[str]:
    """The papers' names of the first pictures that differ, with the number of their bits."""
    return [
        f"{file_name(difference.part, int(positions[row]))} ({bits} bit{'' if bits == 1 else 's'})"
        for row, bits in zip(difference.rows[:count], difference.bits[:count], strict=True)
    ]
