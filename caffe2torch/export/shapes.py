"""Which axes of a net's blobs follow the size of its batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from caffe2torch.errors import Caffe2TorchError
from caffe2torch.layers.recurrent import Recurrent
from caffe2torch.layers.registry import Layer, Shape
from caffe2torch.layers.sequence import Lstm
from caffe2torch.net import CaffeNet


@dataclass(frozen=True)
class Batch:
    """The shapes of all blobs; where the net takes any batch size, how each axis grows with it."""

    shapes: Mapping[str, Shape]
    growth: Mapping[str, Shape]
    """Blob -> per axis, by how much it grows for every item; empty for a net of fixed size."""
    size: int
    """The batch of the prototxt; 0 where there is none."""

    @property
    def free(self) -> bool:
        """Whether the net takes any number of items."""
        return bool(self.growth)

    def dims(self, blob: str) -> list[str]:
        """The axes of a blob: numbers, and N (2N, ...) where they follow the batch."""
        shape, growth = self.shapes[blob], self.growth.get(blob, ())
        grown = growth or (0,) * len(shape)
        return [_axis(size, step, self.size) for size, step in zip(shape, grown, strict=True)]

    def shape_text(self, blob: str) -> str:
        """``(N, 3, 227, 227)``."""
        dims = self.dims(blob)
        return f"({', '.join(dims)}{',' * (len(dims) == 1)})"

    def text(self, blob: str) -> str:
        """``3 x 227 x 227``: the axes of one item."""
        dims = self.dims(blob)
        return " x ".join(dims[1:] if dims and dims[0] == "N" and len(dims) > 1 else dims) or "scalar"


def _axis(size: int, step: int, batch: int) -> str:
    if not step:
        return str(size)
    rest = size - step * batch
    return ("N" if step == 1 else f"{step}N") + (f" + {rest}" if rest else "")


def batch_of(net: CaffeNet) -> Batch:
    """Find out by running the net on shapes alone, once with as many items as the prototxt says and once with one more.

    A net whose inputs do not begin with one batch axis, or that does not run so, has a fixed size; so has one with
    recurrent layers, whose first axis is time.
    """
    shapes = net.structure.blob_shapes
    firsts = {shape[0] if shape else 0 for shape in net.input_shapes.values()}
    fixed = Batch(shapes, {}, 0)
    if len(firsts) != 1 or 0 in firsts or any(isinstance(layer, (Recurrent, Lstm)) for _, layer in net.built()):
        return fixed
    (size,) = firsts
    blobs = tuple(dict.fromkeys((*net.inputs, *(top for step in net.plan for top in step.tops))))
    grown = _run_on_meta(net, blobs, 1)
    if grown is None:
        return fixed
    growth = {}
    for blob in blobs:
        before, after = shapes[blob], grown[blob]
        if len(before) != len(after):
            return fixed
        growth[blob] = tuple(b - a for a, b in zip(before, after, strict=True))
    if any(not growth[blob] or growth[blob][0] < 1 or sum(growth[blob][1:]) for blob in net.outputs):
        return fixed
    return Batch(shapes, growth, size)


def _run_on_meta(net: CaffeNet, blobs: tuple[str, ...], more: int) -> dict[str, Shape] | None:
    modules = {name: module for name, module in net.named_children() if isinstance(module, Layer)}
    whole = CaffeNet(net.structure, modules, blobs)
    whole.train(net.training)
    tensors = {**dict(whole.named_parameters()), **dict(whole.named_buffers())}
    values = {name: torch.empty_like(value, device="meta") for name, value in tensors.items()}
    inputs = {b: torch.empty((s[0] + more, *s[1:]), device="meta") for b, s in net.input_shapes.items()}
    try:
        with torch.no_grad():
            found = torch.func.functional_call(whole, values, (inputs,))
    except (RuntimeError, ValueError, IndexError, Caffe2TorchError):
        return None  # a layer that holds on to the size it was built for
    return {blob: tuple(value.shape) for blob, value in found.items()}
