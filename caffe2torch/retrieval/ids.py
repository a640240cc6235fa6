"""Ids of codes: whole numbers that a user chooses or the index gives, and where each of them stands."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from caffe2torch.errors import RetrievalError

Ids = npt.NDArray[np.int64]
LARGEST = (1 << 62) - 1


class Places:
    """Where each id stands; ids that ascend, as they do unless others were given, need no sorting."""

    def __init__(self, ids: Ids) -> None:
        self.ids = ids
        self.order = None if bool((ids[1:] > ids[:-1]).all()) else np.argsort(ids, kind="stable")
        self.are_positions = self.order is None and len(ids) > 0 and ids[0] == 0 and ids[-1] == len(ids) - 1

    def find(self, wanted: Ids) -> npt.NDArray[np.int64]:
        """The position of each id, -1 where it is unknown."""
        if not len(self.ids):
            return np.full(len(wanted), -1)
        found = np.minimum(np.searchsorted(self.ids, wanted, sorter=self.order), len(self.ids) - 1)
        places = found if self.order is None else self.order[found]
        return np.where(self.ids[places] == wanted, places, -1)


def as_ids(ids: npt.ArrayLike) -> Ids:
    """The ids as (N,) int64, or RetrievalError for what cannot be ids."""
    found = np.asarray(ids)
    if found.ndim != 1 or (found.dtype.kind not in "iu" and len(found)):
        raise RetrievalError(f"ids are {found.dtype} {found.shape}; expected whole numbers, one per code")
    if len(found) and (int(found.min()) < 0 or int(found.max()) > LARGEST):
        raise RetrievalError(f"ids reach from {found.min()} to {found.max()}; 0 to {LARGEST} are possible")
    return found.astype(np.int64)


def refuse_repeated(ids: Ids) -> None:
    """RetrievalError where an id stands twice."""
    if bool((ids[1:] > ids[:-1]).all()):
        return
    values, counts = np.unique(ids, return_counts=True)
    if len(values) < len(ids):
        raise RetrievalError(f"{listed(values[counts > 1])} given more than once")


def listed(ids: Ids) -> str:
    """The first of these ids and a verb, to begin a message with."""
    shown = ", ".join(str(number) for number in ids[:5])
    return f"the id {shown} is" if len(ids) == 1 else f"the ids {shown}{', ...' if len(ids) > 5 else ''} are"
