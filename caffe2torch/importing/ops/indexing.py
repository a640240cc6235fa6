"""Parts of a blob: Slice, with Silence for what nobody reads."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from caffe2torch.importing.builder import Builder
from caffe2torch.importing.lrn import window_values
from caffe2torch.importing.ops.shape import reshape
from caffe2torch.importing.registry import converts
from caffe2torch.importing.values import PENDING, Operand, Refused, Value, axis_of, blob_of


def pieces(net: Builder, x: Value, axis: int, sizes: Sequence[int], *, part: str = "") -> list[Value]:
    """``x`` cut along ``axis`` into pieces of these sizes."""
    if len(sizes) == 1:
        return [x]
    if 0 in sizes:
        raise Refused(f"it cuts {x.shape} into pieces of {list(sizes)}; Caffe's blobs are not empty")
    settings: dict[str, Any] = {"axis": axis} if axis != 1 else {}
    if len(set(sizes)) > 1 or axis == 0:
        settings["slice_point"] = list(itertools.accumulate(sizes))[:-1]
    shapes = [(*x.shape[:axis], size, *x.shape[axis + 1 :]) for size in sizes]
    return net.add_many("Slice", [x], shapes, part=part, slice_param=settings)


def cut(net: Builder, x: Value, axis: int, start: int, stop: int, *, part: str = "") -> Value:
    """The places from ``start`` to ``stop`` (not included) along an axis."""
    if stop <= start:
        raise Refused(f"it takes an empty part of {x.shape}; Caffe's blobs are not empty")
    sizes = [size for size in (start, stop - start, x.shape[axis] - stop) if size]
    return pieces(net, x, axis, sizes, part=part)[1 if start else 0]


@converts("chunk", whole=True)
def chunk(net: Builder, input: Operand, chunks: int, dim: int = 0) -> list[Value]:
    x = blob_of(input)
    axis = axis_of(dim, len(x.shape))
    return split(net, x, -(-x.shape[axis] // chunks), dim)


@converts("split", "split_with_sizes", whole=True)
def split(
    net: Builder, tensor: Operand, split_size_or_sections: Any = None, dim: int = 0, *, split_size: Any = None
) -> list[Value]:
    x = blob_of(tensor)
    axis = axis_of(dim, len(x.shape))
    size = split_size if split_size is not None else split_size_or_sections
    if isinstance(size, int):
        whole, rest = divmod(x.shape[axis], size)
        size = [size] * whole + ([rest] if rest else [])
    return pieces(net, x, axis, list(size))


@converts("tensor_split", whole=True)
def tensor_split(
    net: Builder, input: Operand, indices_or_sections: Any = None, dim: int = 0, **names: Any
) -> list[Value]:
    x = blob_of(input)
    axis = axis_of(dim, len(x.shape))
    given = names.get("indices", names.get("sections", indices_or_sections))
    if isinstance(given, int):
        size, more = divmod(x.shape[axis], given)
        return pieces(net, x, axis, [size + (index < more) for index in range(given)])
    edges = [slice(None, at).indices(x.shape[axis])[1] for at in given]
    return pieces(net, x, axis, [b - a for a, b in itertools.pairwise((0, *edges, x.shape[axis]))])


@converts("unfold", takes=("channels",))
def unfold(net: Builder, input: Operand, dimension: Any, size: Any = None, step: Any = None, **other: Any) -> Value:
    """Windows of neighbouring channels, as a fast LRN takes them; there is no other use for them in Caffe."""
    x = blob_of(input)
    if step is None or other:
        raise Refused("Caffe does it in a convolution only")  # torch.nn.functional.unfold, another function
    around = x.amounts[0] if x.pending else 0
    if axis_of(dimension, len(x.shape)) != 1 or step != 1 or size != 2 * around + 1:
        raise Refused("no layer of Caffe gives windows by themselves; use a convolution, a pooling or LRN")
    shape = (x.shape[0], x.shape[1] - size + 1, *x.shape[2:], size)
    return replace(x, shape=shape, pending="windows", amounts=(size,))


@converts("unbind", takes=("windows",), whole=True)
def unbind(net: Builder, input: Operand, dim: int = 0) -> list[Value]:
    x = blob_of(input)
    axis = axis_of(dim, len(x.shape))
    if x.pending:
        if axis != len(x.shape) - 1:
            raise Refused(PENDING[x.pending])
        return window_values(net, x)
    parts = pieces(net, x, axis, [1] * x.shape[axis], part="parts")
    return [reshape(net, y, (*y.shape[:axis], *y.shape[axis + 1 :])) for y in parts]


@converts("narrow", whole=True)
def narrow(net: Builder, input: Operand, dim: int, start: int, length: int) -> Value:
    x = blob_of(input)
    axis = axis_of(dim, len(x.shape))
    start = start % x.shape[axis] if start < 0 else start
    return cut(net, x, axis, start, start + length)


@converts("select", whole=True)
def select(net: Builder, input: Operand, dim: int, index: int) -> Value:
    x = blob_of(input)
    axis = axis_of(dim, len(x.shape))
    index %= x.shape[axis]
    y = cut(net, x, axis, index, index + 1, part="part")
    return reshape(net, y, (*y.shape[:axis], *y.shape[axis + 1 :]))


@converts("__getitem__", whole=True)
def getitem(net: Builder, input: Operand, index: Any) -> Value:
    """Numbers, slices, None and ``...``; each axis that is cut takes one Slice."""
    x = blob_of(input)
    indices = list(index) if isinstance(index, tuple) else [index]
    if any(not (i is None or i is Ellipsis or isinstance(i, slice) or _is_number(i)) for i in indices):
        raise Refused("its index is a tensor or a list; Caffe's Slice takes ranges")
    named = sum(i is not None and i is not Ellipsis for i in indices)
    gap = [slice(None)] * (len(x.shape) - named)
    if Ellipsis in indices:
        place = indices.index(Ellipsis)
        indices[place : place + 1] = gap
    else:
        indices += gap
    shape: list[int] = []
    axis = 0
    for i in indices:
        if i is None:
            shape.append(1)
            continue
        start, stop = _range(i, x.shape[axis])
        if (start, stop) != (0, x.shape[axis]):
            x = cut(net, x, axis, start, stop, part=f"axis{axis}")
        if isinstance(i, slice):
            shape.append(x.shape[axis])
        axis += 1
    return reshape(net, x, shape)


def _is_number(index: Any) -> bool:
    return isinstance(index, int) and not isinstance(index, bool)


def _range(index: Any, size: int) -> tuple[int, int]:
    if not isinstance(index, slice):
        return index % size, index % size + 1
    start, stop, step = index.indices(size)
    if step != 1:
        raise Refused(f"its step is {step}; Caffe's Slice takes ranges without steps")
    return start, stop
