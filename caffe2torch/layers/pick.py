"""Layers that take a part of a blob: a window, items by number, items by a mark."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from caffe2torch.errors import LayerError
from caffe2torch.layers.registry import Layer, Message, Shape, canonical_axis, register


@register("Crop")
class Crop(Layer):
    """The window of the first bottom that is as large as the second one, on the axes from ``axis`` on.

    ``offsets`` has one entry for each of these axes. The second bottom gives its shape only, and gets no gradient.
    """

    bottoms = (2, 2)
    no_gradient = (1,)

    def __init__(self, offsets: Sequence[int], axis: int = 2) -> None:
        super().__init__()
        self.offsets, self.axis = tuple(offsets), axis

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> Crop:
        p, (shape, window) = layer.crop_param, bottom_shapes
        axis = canonical_axis(p.axis, shape, "crop_param.axis")
        cropped = len(shape) - axis
        if len(p.offset) not in (0, 1, cropped):
            raise LayerError(
                f"crop_param has {len(p.offset)} offsets {list(p.offset)}: expected none, 1, or {cropped} (one for "
                f"each axis of {shape} from axis {axis} on)"
            )
        if len(window) < len(shape):
            raise LayerError(f"the bottoms have shapes {shape} and {window}: expected as many axes in the second")
        offsets = tuple(p.offset) if len(p.offset) == cropped else (p.offset[0] if p.offset else 0,) * cropped
        for index, offset in enumerate(offsets, start=axis):
            if offset + window[index] > shape[index]:
                raise LayerError(
                    f"a window of {window[index]} at offset {offset} does not fit the {shape[index]} values on axis "
                    f"{index} of the bottom {shape}: make the offset smaller"
                )
        return cls(offsets, axis)

    def forward(self, x: Tensor, window: Tensor) -> Tensor:
        # The start is not named: torch.compile of torch 2.4 does not know the name.
        for index, offset in enumerate(self.offsets, self.axis):
            x = x.narrow(index, offset, window.shape[index])
        return x

    def extra_repr(self) -> str:
        return f"offsets={self.offsets}, axis={self.axis}"


@register("BatchReindex")
class BatchReindex(Layer):
    """The items of the first bottom whose numbers the second one lists, in its order; an item may come repeatedly."""

    bottoms = (2, 2)
    no_gradient = (1,)

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> BatchReindex:
        x, index = bottom_shapes
        if not x or len(index) != 1:
            raise LayerError(f"the bottoms have shapes {x} and {index}: expected (N, ...) and one axis of numbers")
        return cls()

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        return x.index_select(0, index.detach().long())


@register("Filter")
class Filter(Layer):
    """The items of every bottom but the last where the last one, the selector, is not 0.

    Where it is 0 everywhere the tops have 0 items. The number of items depends on values: with older torch releases
    ``torch.compile`` takes it into one graph only under ``torch._dynamo.config.capture_dynamic_output_shape_ops``.
    """

    bottoms = (2, None)
    tops = (1, None)

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> Filter:
        *items, selector = bottom_shapes
        if len(layer.top) != len(items):
            raise LayerError(
                f"found {len(bottom_shapes)} bottoms and {len(layer.top)} tops: expected a top for each bottom but the "
                "last, the selector"
            )
        if not selector or any(dim != 1 for dim in selector[1:]):
            raise LayerError(f"the selector, the last bottom, has shape {selector}: expected one value an item")
        for shape in items:
            if not shape or shape[0] != selector[0]:
                raise LayerError(f"a bottom has shape {shape}: expected {selector[0]} items, as many as the selector")
        made = cls()
        made.no_gradient = (len(items),)
        return made

    def top_shapes(self, bottom_shapes: Sequence[Shape]) -> list[Shape]:
        return list(bottom_shapes[:-1])

    def forward(self, *bottoms: Tensor) -> Tensor | tuple[Tensor, ...]:
        *items, selector = bottoms
        chosen = selector.detach().reshape(-1).nonzero().reshape(-1)
        tops = tuple(x.index_select(0, chosen) for x in items)
        return tops[0] if len(tops) == 1 else tops
