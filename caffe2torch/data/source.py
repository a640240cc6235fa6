"""What all sources of batches have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from caffe2torch.data.draws import Draws
from caffe2torch.data.transform import place
from caffe2torch.errors import GraphError
from caffe2torch.schema import Message

Array = NDArray[np.float32]
Shape = tuple[int, ...]
Batch: TypeAlias = "dict[str, Array]"
"""Fresh float32 arrays by blob name."""


class Source(Protocol):
    """A data layer at work. Which batch is made depends on its number alone."""

    draws: Draws
    """What is random in its batches."""

    @property
    def tops(self) -> tuple[str, ...]:
        """The blobs it makes."""

    @property
    def shapes(self) -> Mapping[str, Shape]:
        """The shape of each blob in the first batch; with a batch size of 1, later pictures may have other sizes."""

    def fetch(self, number: int) -> Callable[[], Batch]:
        """Read what batch ``number`` (from 0, without end) is made of; calling the result makes it.

        One call of `fetch` at a time; numbers in order are quick, others are sought. The results may be called in any
        thread and order.
        """


def batch_size(layer: Message, size: int) -> int:
    """The batch size, or GraphError when it is missing."""
    if size < 1:
        raise GraphError(f"{place(layer)} has no batch_size, expected at least 1")
    return size


def check_tops(layer: Message, least: int, most: int) -> None:
    """Refuse another number of tops than Caffe takes."""
    if not least <= len(layer.top) <= most:
        expected = f"{least}" if least == most else f"{least} to {most}"
        raise GraphError(f"{place(layer)} names {len(layer.top)} tops ({', '.join(layer.top)}), expected {expected}")
