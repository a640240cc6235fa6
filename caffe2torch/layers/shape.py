"""Layers that only rearrange blobs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from caffe2torch.errors import LayerError
from caffe2torch.layers.registry import Layer, Message, Shape, canonical_axis, register


@register("Concat")
class Concat(Layer):
    """The bottoms one after another along ``axis``."""

    bottoms = (1, None)

    def __init__(self, axis: int = 1) -> None:
        super().__init__()
        self.axis = axis

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> Concat:
        first = bottom_shapes[0]
        axis = _legacy_axis(layer.concat_param, "concat_dim", first, "concat_param")
        for shape in bottom_shapes:
            if len(shape) != len(first) or shape[:axis] + shape[axis + 1 :] != first[:axis] + first[axis + 1 :]:
                raise LayerError(f"bottoms of shape {first} and {shape} differ on other axes than {axis}")
        return cls(axis)

    def forward(self, *bottoms: Tensor) -> Tensor:
        return bottoms[0] if len(bottoms) == 1 else torch.cat(bottoms, self.axis)


@register("Slice")
class Slice(Layer):
    """Cuts the bottom along ``axis`` at ``points``, or into ``pieces`` equal parts where no points are given."""

    tops = (1, None)

    def __init__(self, pieces: int, *, axis: int = 1, points: Sequence[int] = ()) -> None:
        super().__init__()
        self.pieces, self.axis, self.points = pieces, axis, tuple(points)

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> Slice:
        p = layer.slice_param
        shape, pieces, points = bottom_shapes[0], len(layer.top), tuple(p.slice_point)
        axis = _legacy_axis(p, "slice_dim", shape, "slice_param")
        edges = (0, *points, shape[axis])
        if points and (len(points) != pieces - 1 or any(a >= b for a, b in itertools.pairwise(edges))):
            raise LayerError(
                f"slice_point {list(points)} for {pieces} tops and {shape[axis]} values on axis {axis}: "
                f"expected {pieces - 1} rising points between 0 and {shape[axis]}"
            )
        if not points and shape[axis] % pieces:
            raise LayerError(
                f"{shape[axis]} values on axis {axis} cannot be cut into {pieces} equal tops: give slice_point"
            )
        return cls(pieces, axis=axis, points=points)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        if self.pieces == 1:
            return x
        if self.points:
            return tuple(torch.tensor_split(x, self.points, self.axis))
        return tuple(torch.split(x, x.shape[self.axis] // self.pieces, self.axis))


@register("Flatten")
class Flatten(Layer):
    """Merges the axes from ``axis`` to ``end_axis``, both included."""

    def __init__(self, axis: int = 1, end_axis: int = -1) -> None:
        super().__init__()
        self.axis, self.end_axis = axis, end_axis

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> Flatten:
        p, shape = layer.flatten_param, bottom_shapes[0]
        axis = canonical_axis(p.axis, shape, "flatten_param.axis")
        end = canonical_axis(p.end_axis, shape, "flatten_param.end_axis")
        if end < axis:
            raise LayerError(f"flatten_param ends at axis {end}, before its start {axis}")
        return cls(axis, end)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(self.axis, self.end_axis)


@register("Reshape")
class Reshape(Layer):
    """Gives the axes from ``start`` to ``end`` (not included) the new ``dims``.

    A dim of 0 keeps the bottom's size at that place, counted from ``start``; one -1 takes what is left.
    """

    def __init__(self, dims: Sequence[int], start: int = 0, end: int | None = None) -> None:
        super().__init__()
        self.dims, self.start, self.end = tuple(dims), start, end

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> Reshape:
        p, shape = layer.reshape_param, bottom_shapes[0]
        # Unlike elsewhere -1 stands for the place after the last axis, where new axes can be inserted.
        start = p.axis if p.axis >= 0 else len(shape) + p.axis + 1
        if not 0 <= start <= len(shape):
            raise LayerError(f"reshape_param.axis is {p.axis}, but the bottom {shape} has {len(shape)} axes")
        end = len(shape) if p.num_axes == -1 else start + p.num_axes
        if p.num_axes < -1 or end > len(shape):
            raise LayerError(f"reshape_param.num_axes is {p.num_axes} from axis {start} on: the bottom is {shape}")
        made = cls(tuple(p.shape.dim), start, None if p.num_axes == -1 else end)
        made.check(shape, end)
        return made

    def check(self, shape: Shape, end: int) -> None:
        """Raise LayerError unless the new dims hold exactly the values of ``shape``."""
        place = f"reshape_param.shape {list(self.dims)} for axes {self.start} to {end} of {shape}"
        if self.dims.count(-1) > 1 or any(dim < -1 for dim in self.dims):
            raise LayerError(f"{place}: expected dims of 0 or more and at most one -1")
        if any(dim == 0 and self.start + i >= len(shape) for i, dim in enumerate(self.dims)):
            raise LayerError(f"{place}: a dim of 0 copies an axis that the bottom does not have")
        known = math.prod(shape[self.start + i] if dim == 0 else dim for i, dim in enumerate(self.dims) if dim != -1)
        count = math.prod(shape[self.start : end])
        if (known == 0 or count % known) if -1 in self.dims else known != count:
            raise LayerError(f"{place}: {count} values do not fit")

    def forward(self, x: Tensor) -> Tensor:
        end = x.ndim if self.end is None else self.end
        dims = [x.shape[self.start + i] if dim == 0 else dim for i, dim in enumerate(self.dims)]
        return x.reshape((*x.shape[: self.start], *dims, *x.shape[end:]))

    def extra_repr(self) -> str:
        return f"{self.dims}, start={self.start}, end={self.end}"


@register("Tile")
class Tile(Layer):
    """The bottom ``tiles`` times, one after another along ``axis``."""

    def __init__(self, tiles: int, axis: int = 1) -> None:
        super().__init__()
        if tiles < 1:
            raise LayerError(f"tile_param.tiles is {tiles}: expected at least 1")
        self.tiles, self.axis = tiles, axis

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> Tile:
        p = layer.tile_param
        return cls(p.tiles, canonical_axis(p.axis, bottom_shapes[0], "tile_param.axis"))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x] * self.tiles, self.axis)


@register("Split")
class Split(Layer):
    """The same blob under several names."""

    tops = (1, None)

    def __init__(self, copies: int) -> None:
        super().__init__()
        self.copies = copies

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> Split:
        return cls(len(layer.top))

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        return x if self.copies == 1 else (x,) * self.copies


@register("Silence")
class Silence(Layer):
    """Reads blobs so that they are no outputs of the net, and gives nothing."""

    bottoms = (1, None)
    tops = (0, 0)

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> Silence:
        made = cls()
        made.sink = layer.phase == 0  # in training the layers above it learn statistics
        return made

    def forward(self, *bottoms: Tensor) -> tuple[()]:
        return ()


def _legacy_axis(p: Message, old: str, shape: Shape, message: str) -> int:
    """The axis given by ``axis``, or by the field that said it before blobs had any number of axes."""
    if not p.HasField(old):
        return canonical_axis(p.axis, shape, f"{message}.axis")
    if p.HasField("axis"):
        raise LayerError(f"{message} gives both axis and {old}: remove one of them")
    return canonical_axis(getattr(p, old), shape, f"{message}.{old}")
