"""MemoryData layers: batches from arrays that the caller gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caffe2torch.data.draws import Draws
from caffe2torch.data.source import Array, Batch, Shape, batch_size, check_tops
from caffe2torch.data.transform import place
from caffe2torch.errors import GraphError, UsageError
from caffe2torch.schema import Message


class MemorySource:
    """Batches of arrays in their order, again from the start after the last. Nothing is transformed, as in Caffe.

    Labels come as (batch, 1, 1, 1), as only this layer of Caffe makes them.
    """

    def __init__(self, layer: Message, draws: Draws) -> None:
        check_tops(layer, 1, 2)
        self.draws = draws
        p = layer.memory_data_param
        self._place = place(layer)
        self.tops: tuple[str, ...] = tuple(layer.top)
        self._size = batch_size(layer, p.batch_size)
        data: Shape = (self._size, p.channels, p.height, p.width)
        if min(data) < 1:
            raise GraphError(f"{self._place}: channels, height and width are {data[1:]}, expected at least 1 of each")
        self.shapes: dict[str, Shape] = dict(zip(self.tops, (data, (self._size, 1, 1, 1)), strict=False))
        self._arrays: dict[str, Array] = {}
        self._first = self._next = 0  # the batch that begins with the first row, and the one after the last fetched

    def reset(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Give the arrays by blob name; the next batch begins with their first row. Labels: (N,) or (N, 1, 1, 1).

        Raises UsageError when one is missing or misshapen, or N is not a multiple of the batch size.
        """
        if set(arrays) != set(self.tops):
            raise UsageError(
                f"{self._place} needs arrays for {', '.join(self.tops)}; given: {', '.join(arrays) or 'none'}"
            )
        taken = {top: np.asarray(arrays[top], np.float32) for top in self.tops}
        rows = len(taken[self.tops[0]]) if taken[self.tops[0]].ndim else 0
        for top, array in taken.items():
            expected = (rows, *self.shapes[top][1:])
            if array.shape != expected and (array.shape != (rows,) or top == self.tops[0]):
                raise UsageError(f"{self._place}: the array for {top!r} has shape {array.shape}, expected {expected}")
            taken[top] = array.reshape(expected)
        if not rows or rows % self._size:
            raise UsageError(f"{self._place}: {rows} rows, expected a multiple of the batch size {self._size}")
        self._arrays, self._first = taken, self._next

    def fetch(self, number: int) -> Callable[[], Batch]:
        """Rows of each array; UsageError when none were given."""
        if not self._arrays:
            raise UsageError(f"{self._place} has no data: give arrays for {', '.join(self.tops)}")
        self._next = number + 1
        start = (number - self._first) * self._size % len(self._arrays[self.tops[0]])
        arrays = {top: array[start : start + self._size] for top, array in self._arrays.items()}
        return lambda: {top: array.copy() for top, array in arrays.items()}
