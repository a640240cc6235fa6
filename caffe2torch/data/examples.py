"""Batches from single examples: what Data and ImageData layers share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np

from caffe2torch.data.datum import Record
from caffe2torch.data.draws import Draws, Orders
from caffe2torch.data.source import Batch, Shape
from caffe2torch.data.transform import Transform
from caffe2torch.errors import ImageError
from caffe2torch.schema import Message

_T = TypeVar("_T")


class Example(NamedTuple):
    """One record with its label, and what messages call it."""

    record: Record
    label: int
    where: str


class Rows(Protocol):
    """An endless row of examples."""

    def take(self, position: int, count: int, draws: Draws) -> Sequence[Callable[[], Example]]:
        """So many from a position on, read but not yet decoded: calling one does that."""


class ListedRows(Generic[_T]):
    """Examples of a list that is gone through again and again, each time in another order if they are shuffled.

    ``skip`` says how many of the first round are left out.
    """

    def __init__(
        self,
        items: Sequence[_T],
        read: Callable[[_T], Example],
        *,
        shuffle: bool,
        skip: Callable[[Draws], int] = lambda draws: 0,
    ) -> None:
        self._items, self._read, self._skip = items, read, skip
        self._orders = Orders(len(items), shuffle=shuffle)

    def take(self, position: int, count: int, draws: Draws) -> Sequence[Callable[[], Example]]:
        first = position + self._skip(draws)
        places = (divmod(place, len(self._items)) for place in range(first, first + count))
        return [partial(self._read, self._items[self._orders.order(draws, epoch)[i]]) for epoch, i in places]


class ExampleSource:
    """Batches of ``size`` from an endless row of examples; with one top, labels are left out."""

    def __init__(self, layer: Message, rows: Rows, size: int, transform: Transform, draws: Draws) -> None:
        self.tops: tuple[str, ...] = tuple(layer.top)
        self.draws = draws
        self._rows, self._size, self._transform = rows, size, transform
        first = rows.take(0, 1, draws)[0]()
        data: Shape = (size, *transform.shape(first.record))
        self.shapes: dict[str, Shape] = dict(zip(self.tops, (data, (size,)), strict=False))

    def fetch(self, number: int) -> Callable[[], Batch]:
        """``{data, label}``; the first example decides the shape, as in Caffe. ImageError when another does not fit."""
        examples = self._rows.take(number * self._size, self._size, self.draws)
        return partial(self._make, examples, self.draws.batch(number))

    def _make(self, examples: Sequence[Callable[[], Example]], rng: np.random.Generator) -> Batch:
        first = examples[0]()
        shape = self._transform.shape(first.record)
        data = np.empty((self._size, *shape), np.float32)
        labels = np.empty(self._size, np.float32)
        for index, read in enumerate(examples):
            example = read() if index else first
            if self._transform.shape(example.record) != shape:
                found, expected = ("x".join(map(str, r.shape)) for r in (example.record, first.record))
                raise ImageError(
                    f"{example.where}: {found} (channels x height x width), but {first.where}, the first of its batch, "
                    f"is {expected}; bring all to one size, or set crop_size"
                )
            self._transform(example.record, example.where, data[index], rng)
            labels[index] = example.label
        return dict(zip(self.tops, (data, labels), strict=False))
