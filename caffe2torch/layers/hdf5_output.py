"""HDF5Output: a blob and its labels into a file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from caffe2torch.errors import LayerError, OutputError
from caffe2torch.files import atomic_path, explain
from caffe2torch.layers.registry import Layer, Message, Shape, register

Array = NDArray[np.floating[Any]]


@register("HDF5Output")
class HDF5Output(Layer):
    """Writes its bottoms as the datasets ``data`` and ``label``, both with four axes, in their own precision.

    The first pass replaces the file, which lies below the current folder unless its name is absolute; every later one
    adds its items (Caffe stops there: its file has room for one batch). Not captured by torch.export because it writes
    a file.
    """

    bottoms = (2, 2)
    tops = (0, 0)
    sink = True
    no_gradient = (0, 1)

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__()
        self.path, self.items = Path(path), 0

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> HDF5Output:
        name = layer.hdf5_output_param.file_name
        if not name:
            raise LayerError("hdf5_output_param.file_name is empty: expected the name of the file to write")
        for shape in bottom_shapes:
            if len(shape) > 4:
                raise LayerError(f"a bottom has shape {shape}: expected at most 4 axes")
        if bottom_shapes[0][:1] != bottom_shapes[1][:1]:
            raise LayerError(
                f"the bottoms have shapes {bottom_shapes[0]} and {bottom_shapes[1]}: expected equal batches"
            )
        return cls(name)

    def top_shapes(self, bottom_shapes: Sequence[Shape]) -> list[Shape]:
        return []

    def forward(self, data: Tensor, label: Tensor) -> tuple[()]:
        self._write(data.detach(), label.detach())
        return ()

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _write(self, data: Tensor, label: Tensor) -> None:
        from caffe2torch.hdf5_output import hdf5_output

        blobs = {"data": _four_axes(data), "label": _four_axes(label)}
        count = len(blobs["data"])
        if len(blobs["label"]) != count:
            raise LayerError(f"layer {self.caffe_name!r} (HDF5Output) was given {count} items and {len(label)} labels")
        try:
            if self.items:
                with hdf5_output(self.path, append=True) as (file, _):
                    self._append(file, blobs)
            else:
                with atomic_path(self.path) as temporary, hdf5_output(temporary) as (file, _):
                    for name, values in blobs.items():
                        file.create_dataset(name, data=values, maxshape=(None, *values.shape[1:]))
        except (OSError, KeyError) as error:  # KeyError: somebody else has changed the file
            reason = explain(error)
            raise OutputError(f"{self.path}: layer {self.caffe_name!r} cannot write it: {reason}") from error
        self.items += count

    def _append(self, file: Any, blobs: Mapping[str, Array]) -> None:
        for name, values in blobs.items():
            dataset = file[name]
            if dataset.shape != (self.items, *values.shape[1:]):
                raise LayerError(
                    f"layer {self.caffe_name!r} (HDF5Output): {self.path} holds {name} of shape {dataset.shape}, which "
                    f"takes no items of shape {values.shape[1:]}"
                )
        for name, values in blobs.items():
            file[name].resize(self.items + len(values), 0)
            file[name][self.items :] = values

    def extra_repr(self) -> str:
        return str(self.path)


def _four_axes(x: Tensor) -> Array:
    """The blob's values with axes of size 1 after its own, as Caffe counts num, channels, height and width."""
    values = x.cpu()
    if values.dtype not in (torch.float32, torch.float64):
        values = values.float()
    return values.reshape(*values.shape, *(1,) * (4 - values.ndim)).numpy()
