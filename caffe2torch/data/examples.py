"""Batches from single examples: what Data and ImageData layers share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from caffe2torch.data.datum import Record
from caffe2torch.data.source import Array, Shape
from caffe2torch.data.transform import Transform
from caffe2torch.errors import ImageError
from caffe2torch.schema import Message


class Example(NamedTuple):
    """One record with its label, and what messages call it."""

    record: Record
    label: int
    where: str


class ExampleSource:
    """Batches of ``size`` from an endless row of examples; with one top, labels are left out."""

    def __init__(self, layer: Message, examples: Iterator[Example], size: int, transform: Transform) -> None:
        self.tops: tuple[str, ...] = tuple(layer.top)
        self._examples, self._size, self._transform = examples, size, transform
        self._ahead: Example | None = next(examples)
        data: Shape = (size, *transform.shape(self._ahead.record))
        self.shapes: dict[str, Shape] = dict(zip(self.tops, (data, (size,)), strict=False))

    def next_batch(self) -> dict[str, Array]:
        """``{data, label}``; the first example decides the shape, as in Caffe. ImageError when another does not fit."""
        first = self._ahead or next(self._examples)
        self._ahead = None
        shape = self._transform.shape(first.record)
        data = np.empty((self._size, *shape), np.float32)
        labels = np.empty(self._size, np.float32)
        for index in range(self._size):
            example = next(self._examples) if index else first
            if self._transform.shape(example.record) != shape:
                found, expected = ("x".join(map(str, r.shape)) for r in (example.record, first.record))
                raise ImageError(
                    f"{example.where}: {found} (channels x height x width), but {first.where}, the first of its batch, "
                    f"is {expected}; bring all to one size, or set crop_size"
                )
            self._transform(example.record, example.where, data[index])
            labels[index] = example.label
        return dict(zip(self.tops, (data, labels), strict=False))
