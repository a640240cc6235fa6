"""Rearranging: other shapes, other orders, several blobs in one, repeats."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from caffe2torch.importing.builder import Builder
from caffe2torch.importing.registry import converts
from caffe2torch.importing.values import PENDING, Operand, Refused, Shape, Value, axis_of, blob_of


def reshape(net: Builder, x: Value, shape: Sequence[int], *, part: str = "") -> Value:
    """``x`` under another shape: Flatten where that is what happens, else Reshape; axes in front that stay are 0."""
    new = tuple(shape)
    if new == x.shape:
        return x
    if 0 in new or not new:
        raise Refused(f"it makes {x.shape} to {new}, a shape that Caffe's Reshape has not")
    merged = _merged(x.shape, new)
    if merged is not None:
        start, end = merged
        settings = {} if merged == (1, len(x.shape) - 1) else {"axis": start, "end_axis": end}
        return net.add("Flatten", [x], new, part=part, flatten_param=settings)
    same = 0
    while same < min(len(new), len(x.shape)) and new[same] == x.shape[same]:
        same += 1
    # A first axis that changes takes what is left, so that the net serves other batch sizes.
    dims = [0] * same + list(new[same:])
    if same == 0:
        dims[0] = -1
    return net.add("Reshape", [x], new, part=part, reshape_param={"shape": {"dim": dims}})


def _merged(shape: Shape, new: Shape) -> tuple[int, int] | None:
    """First and last of the axes (not the batch's) that were merged into one, the longest run; None if none were."""
    for start in range(1, len(shape) - 1):
        for end in range(len(shape) - 1, start, -1):
            if new == (*shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :]):
                return start, end
    return None


def permute(net: Builder, x: Value, order: Sequence[int], *, part: str = "") -> Value:
    """The axes in another order: by SSD's Permute, or by a new shape where only axes of size 1 move."""
    order = tuple(axis_of(axis, len(x.shape)) for axis in order)
    if order == tuple(range(len(x.shape))):
        return x
    shape = tuple(x.shape[axis] for axis in order)
    wide = [axis for axis in order if x.shape[axis] != 1 or axis == 0]
    if wide == sorted(wide) and order[0] == 0:
        return reshape(net, x, shape, part=part)
    return net.add("Permute", [x], shape, part=part, permute_param={"order": order})


def _sizes(sizes: tuple[Any, ...]) -> tuple[int, ...]:
    """``f(1, 2)`` and ``f((1, 2))`` alike."""
    if len(sizes) == 1 and isinstance(sizes[0], list | tuple | torch.Size):
        return tuple(int(s) for s in sizes[0])
    return tuple(int(s) for s in sizes)


@converts("view", "reshape", whole=True)
def view(net: Builder, input: Operand, *sizes: Any, shape: Any = None) -> Value:
    if sizes and isinstance(sizes[0], torch.dtype):
        raise Refused("it reads the bits of one type as another")
    x = blob_of(input)
    new = _sizes(sizes if shape is None else (shape,))
    if -1 in new:
        rest = -math.prod(new)
        new = tuple(math.prod(x.shape) // rest if n == -1 else n for n in new)
    return reshape(net, x, new)


@converts("view_as", "reshape_as", whole=True)
def view_as(net: Builder, input: Operand, other: Operand) -> Value:
    shape = other.shape if not isinstance(other, int | float) else ()
    return reshape(net, blob_of(input), tuple(shape))


@converts("flatten", "ravel", whole=True)
def flatten(net: Builder, input: Operand, start_dim: int = 0, end_dim: int = -1) -> Value:
    x = blob_of(input)
    start, end = axis_of(start_dim, len(x.shape)), axis_of(end_dim, len(x.shape))
    return reshape(net, x, (*x.shape[:start], math.prod(x.shape[start : end + 1]), *x.shape[end + 1 :]))


@converts("unflatten", whole=True)
def unflatten(net: Builder, input: Operand, dim: int, sizes: Sequence[int]) -> Value:
    x = blob_of(input)
    axis, new = axis_of(dim, len(x.shape)), tuple(sizes)
    if -1 in new:
        rest = -math.prod(new)
        new = tuple(x.shape[axis] // rest if n == -1 else n for n in new)
    return reshape(net, x, (*x.shape[:axis], *new, *x.shape[axis + 1 :]))


@converts("squeeze", "squeeze_", whole=True)
def squeeze(net: Builder, input: Operand, dim: Any = None) -> Value:
    x = blob_of(input)
    if dim is None:
        dims = set(range(len(x.shape)))
    else:
        dims = {axis_of(d, len(x.shape)) for d in ((dim,) if isinstance(dim, int) else dim)}
    return reshape(net, x, tuple(n for a, n in enumerate(x.shape) if n != 1 or a not in dims))


@converts("unsqueeze", "unsqueeze_", whole=True)
def unsqueeze(net: Builder, input: Operand, dim: int) -> Value:
    x = blob_of(input)
    axis = dim % (len(x.shape) + 1)
    return reshape(net, x, (*x.shape[:axis], 1, *x.shape[axis:]))


@converts("permute", whole=True)
def permuted(net: Builder, input: Operand, *sizes: Any, dims: Any = None) -> Value:
    return permute(net, blob_of(input), _sizes(sizes if dims is None else (dims,)))


@converts("transpose", "swapaxes", "swapdims", "transpose_", whole=True)
def transpose(net: Builder, input: Operand, dim0: int, dim1: int) -> Value:
    x = blob_of(input)
    order = list(range(len(x.shape)))
    a, b = axis_of(dim0, len(order)), axis_of(dim1, len(order))
    order[a], order[b] = order[b], order[a]
    return permute(net, x, order)


@converts("movedim", "moveaxis", whole=True)
def movedim(net: Builder, input: Operand, source: Any, destination: Any) -> Value:
    x = blob_of(input)
    ndim = len(x.shape)
    pairs = zip(
        (source,) if isinstance(source, int) else source,
        (destination,) if isinstance(destination, int) else destination,
        strict=True,
    )
    placed = {axis_of(to, ndim): axis_of(come, ndim) for come, to in pairs}
    rest = iter(axis for axis in range(ndim) if axis not in placed.values())
    return permute(net, x, [placed[a] if a in placed else next(rest) for a in range(ndim)])


@converts("t", "T.__get__", "mT.__get__", "H.__get__", "mH.__get__", "adjoint", whole=True)
def transposed(net: Builder, input: Operand) -> Value:
    x = blob_of(input)
    order = list(range(len(x.shape)))
    order = order[::-1] if net.operation in ("t", "T", "H") else [*order[:-2], order[-1], order[-2]]
    return permute(net, x, order)


@converts("cat", "concat", "concatenate", whole=True)
def cat(net: Builder, tensors: Sequence[Operand], dim: int = 0, *, axis: int | None = None) -> Value:
    values = [blob_of(x, f"input {index}") for index, x in enumerate(tensors)]
    along = axis_of(dim if axis is None else axis, len(values[0].shape))
    if len(values) == 1:
        return values[0]
    shape = list(values[0].shape)
    shape[along] = sum(x.shape[along] for x in values)
    return net.add("Concat", values, shape, concat_param={"axis": along} if along != 1 else {})


@converts("stack", whole=True)
def stack(net: Builder, tensors: Sequence[Operand], dim: int = 0) -> Value:
    values = [blob_of(x, f"input {index}") for index, x in enumerate(tensors)]
    axis = dim % (len(values[0].shape) + 1)
    shape = (*values[0].shape[:axis], 1, *values[0].shape[axis:])
    parts = [reshape(net, x, shape, part=f"input{index}") for index, x in enumerate(values)]
    return cat(net, parts, axis)


@converts("expand", whole=True)
def expand(net: Builder, input: Operand, *sizes: Any, size: Any = None) -> Value:
    x = blob_of(input)
    wanted = _sizes(sizes if size is None else (size,))
    own = (1,) * (len(wanted) - len(x.shape)) + x.shape
    return tile_to(net, x, tuple(n if w == -1 else w for w, n in zip(wanted, own, strict=True)))


@converts("expand_as", whole=True)
def expand_as(net: Builder, input: Operand, other: Operand) -> Value:
    return expand(net, input, tuple(getattr(other, "shape", ())))


@converts("repeat", "tile", whole=True)
def repeat(net: Builder, input: Operand, *repeats: Any, dims: Any = None) -> Value:
    x = blob_of(input)
    times = _sizes(repeats if dims is None else (dims,))
    times = (1,) * (len(x.shape) - len(times)) + times
    return _tiled(net, reshape(net, x, (1,) * (len(times) - len(x.shape)) + x.shape, part="axes"), times)


def tile_to(net: Builder, x: Value, shape: Shape, *, part: str = "") -> Value:
    """``x`` repeated along its axes of size 1 until it has this shape; axes that it lacks come in front."""
    own = (1,) * (len(shape) - len(x.shape)) + x.shape
    times = [w // n for w, n in zip(shape, own, strict=True)]
    return _tiled(net, reshape(net, x, own, part=f"{part}axes"), times, part=part)


def _tiled(net: Builder, x: Value, times: Sequence[int], *, part: str = "") -> Value:
    axes = [axis for axis, n in enumerate(times) if n != 1]
    for axis in axes:
        shape = (*x.shape[:axis], x.shape[axis] * times[axis], *x.shape[axis + 1 :])
        own = part if axis == axes[-1] else f"{part}axis{axis}"
        x = net.add("Tile", [x], shape, part=own, tile_param={"axis": axis, "tiles": times[axis]})
    return x


@converts("channel_shuffle")
def channel_shuffle(net: Builder, input: Operand, groups: int) -> Value:
    x = blob_of(input)
    return net.add("ShuffleChannel", [x], x.shape, shuffle_channel_param={"group": groups})


@converts(
    *("contiguous", "clone", "detach", "data.__get__", "real.__get__", "requires_grad_", "cpu", "positive"),
    takes=PENDING,
    whole=True,
)
def same(net: Builder, input: Operand, *args: Any, **kwargs: Any) -> Value:
    """The same values."""
    return blob_of(input)


@converts("float", "to", "type", "type_as", "bfloat16", "half", "double", "long", "int", "bool", whole=True)
def cast(net: Builder, input: Operand, *args: Any, **kwargs: Any) -> Value:
    """The same values; the tracer refuses a result that is neither float32 nor of the type it was."""
    return blob_of(input)


def spans(shape: Shape, axes: Sequence[int]) -> bool:
    """Whether these axes are the last ones."""
    return sorted(axes) == list(range(len(shape) - len(axes), len(shape)))
