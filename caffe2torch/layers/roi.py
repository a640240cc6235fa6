"""Layers that pool a feature map over regions of interest: rows (image, x1, y1, x2, y2) in pixels of the image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from caffe2torch.errors import LayerError
from caffe2torch.layers.registry import Layer, Message, Shape, register


class _RegionLayer(Layer):
    """A layer of features (N, C, H, W) and regions (R, 5), which get no gradient."""

    bottoms = (2, 2)
    no_gradient = (1,)


@register("ROIPooling")
class ROIPooling(_RegionLayer):
    """The largest value of each of ``pooled`` (height, width) cells of every region; 0 where a cell is empty.

    Corners are rounded, halves away from zero; the last pixel belongs to the region. Of equal values the first of the
    cell gets the gradient.
    """

    def __init__(self, pooled: tuple[int, int], scale: float = 1.0) -> None:
        super().__init__()
        self.pooled, self.scale = pooled, scale

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> ROIPooling:
        p = layer.roi_pooling_param
        check_regions(bottom_shapes)
        return cls(pooled_size(p), p.spatial_scale)

    def forward(self, x: Tensor, regions: Tensor) -> Tensor:
        _, channels, height, width = x.shape
        rows = regions.detach().reshape(-1, 5)
        image = rows[:, 0].long()
        corners = round_away(rows[:, 1:] * self.scale)
        top, bottom = cells(corners[:, 1], corners[:, 3], self.pooled[0], height)
        left, right = cells(corners[:, 0], corners[:, 2], self.pooled[1], width)
        top, bottom = (edge[:, :, None].expand(-1, -1, self.pooled[1]) for edge in (top, bottom))
        left, right = (edge[:, None, :].expand(-1, self.pooled[0], -1) for edge in (left, right))
        pooled, place = largest(x.detach(), (top, left), (bottom, right), image[:, None, None])
        if x.requires_grad and torch.is_grad_enabled():
            places = (place + (image * height * width)[:, None, None, None]).reshape(-1, channels)
            pooled = x.permute(0, 2, 3, 1).reshape(-1, channels).gather(0, places).reshape(place.shape)
        empty = (bottom <= top) | (right <= left)
        return torch.where(empty.unsqueeze(-1), 0.0, pooled).permute(0, 3, 1, 2).contiguous()

    def extra_repr(self) -> str:
        return f"{self.pooled[0]}x{self.pooled[1]}, scale={self.scale:g}"


@register("PSROIPooling")
class PSROIPooling(_RegionLayer):
    """Means over a grid of cells of every region; each cell has channels of its own (R-FCN).

    Top: (R, ``outputs``, ``group``, ``group``) from ``outputs`` x group x group channels. Summed in float64.
    """

    def __init__(self, outputs: int, group: int, scale: float) -> None:
        super().__init__()
        self.outputs, self.group, self.scale = outputs, group, scale

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> PSROIPooling:
        p = layer.psroi_pooling_param
        check_regions(bottom_shapes)
        if p.output_dim < 1 or p.group_size < 1 or p.spatial_scale <= 0:
            raise LayerError(
                f"psroi_pooling_param has output_dim {p.output_dim}, group_size {p.group_size} and spatial_scale "
                f"{p.spatial_scale:g}: expected positive numbers"
            )
        wanted = p.output_dim * p.group_size**2
        if bottom_shapes[0][1] != wanted:
            raise LayerError(
                f"the first bottom has {bottom_shapes[0][1]} channels: expected output_dim x group_size^2 = {wanted}"
            )
        return cls(p.output_dim, p.group_size, p.spatial_scale)

    def forward(self, x: Tensor, regions: Tensor) -> Tensor:
        height, width = x.shape[2:]
        rows = regions.detach().reshape(-1, 5)
        low = round_away(rows[:, 1:3]) * self.scale
        high = (round_away(rows[:, 3:]) + 1.0) * self.scale
        left, right = self._cells(low[:, 0], high[:, 0], width)
        top, bottom = self._cells(low[:, 1], high[:, 1], height)
        sums = F.pad(x.double().cumsum(2).cumsum(3), (1, 0, 1, 0))  # of all places above and to the left
        sums = sums.reshape(x.shape[0], self.outputs, self.group**2, -1)
        cell = torch.arange(self.group**2, device=x.device)
        output = torch.arange(self.outputs, device=x.device)[:, None]
        image = rows[:, 0].long()[:, None, None]

        def corner(y: Tensor, x_: Tensor) -> Tensor:
            place = (y[:, :, None] * (width + 1) + x_[:, None, :]).flatten(1)
            return sums[image, output, cell, place[:, None]]

        total = corner(bottom, right) - corner(top, right) - corner(bottom, left) + corner(top, left)
        count = ((bottom - top)[:, :, None] * (right - left)[:, None, :]).flatten(1)[:, None]
        empty = ((bottom <= top)[:, :, None] | (right <= left)[:, None, :]).flatten(1)[:, None]
        means = torch.where(empty, 0.0, total / torch.where(empty, 1, count))
        return means.to(x.dtype).reshape(-1, self.outputs, self.group, self.group)

    def _cells(self, low: Tensor, high: Tensor, size: int) -> tuple[Tensor, Tensor]:
        step = (high - low).clamp(min=0.1)[:, None] / self.group
        number = torch.arange(self.group, device=low.device, dtype=low.dtype)
        start = (number * step + low[:, None]).floor()
        end = ((number + 1) * step + low[:, None]).ceil()
        return start.long().clamp(0, size), end.long().clamp(0, size)

    def extra_repr(self) -> str:
        return f"outputs={self.outputs}, group={self.group}, scale={self.scale:g}"


@register("ROIAlign")
class ROIAlign(_RegionLayer):
    """Means of interpolated values at ``samples`` x ``samples`` points of each cell of every region (Mask R-CNN).

    Corners are not rounded; a region is at least 1 x 1. ``samples`` 0: as many as the cell has pixels, rounded up.
    Points more than a pixel outside the map count as 0. The forks that read ``roi_pooling_param`` define the layer in
    other ways, each its own; those are refused.
    Captured by torch.export only where sampling_ratio is set: the number of points depends on the regions otherwise.
    """

    def __init__(self, pooled: tuple[int, int], scale: float = 1.0, *, samples: int = 0) -> None:
        super().__init__()
        self.pooled, self.scale, self.samples = pooled, scale, samples

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> ROIAlign:
        if layer.HasField("roi_pooling_param"):
            raise LayerError(
                "the layer gives roi_pooling_param: forks that read it for ROIAlign compute it in different ways; "
                "give roi_align_param, or register a class of your own for the layer"
            )
        p = layer.roi_align_param
        check_regions(bottom_shapes)
        return cls(pooled_size(p), p.spatial_scale, samples=max(p.sampling_ratio, 0))

    def top_shapes(self, bottom_shapes: Sequence[Shape]) -> list[Shape]:
        return [(bottom_shapes[1][0], bottom_shapes[0][1], *self.pooled)]

    def forward(self, x: Tensor, regions: Tensor) -> Tensor:
        _, channels, height, width = x.shape
        rows = regions.detach().reshape(-1, 5)
        low, high = rows[:, 1:3] * self.scale, rows[:, 3:] * self.scale
        y, weight_y = self._points(low[:, 1], high[:, 1], self.pooled[0], height)
        x_, weight_x = self._points(low[:, 0], high[:, 0], self.pooled[1], width)
        base = (rows[:, 0].long() * (height * width))[:, None, None, None, None]
        place = base + y[:, :, None, :, None] * width + x_[:, None, :, None, :]
        weight = weight_y[:, :, None, :, None] * weight_x[:, None, :, None, :]
        bags = F.embedding_bag(
            place.flatten(3).flatten(0, 2),
            x.permute(0, 2, 3, 1).reshape(-1, channels),
            per_sample_weights=weight.flatten(3).flatten(0, 2).to(x.dtype),
            mode="sum",
        )
        return bags.reshape(rows.shape[0], *self.pooled, channels).permute(0, 3, 1, 2).contiguous()

    def _points(self, low: Tensor, high: Tensor, pooled: int, size: int) -> tuple[Tensor, Tensor]:
        """Places along one axis and their weights, (R, cells, points x 2): the neighbours of every point."""
        step = ((high - low).clamp(min=1.0) / pooled)[:, None, None]
        if self.samples:
            count, most = torch.full_like(step, self.samples), self.samples
        else:
            count = step.ceil()
            most = int(count.max()) if low.numel() else 1
        number = torch.arange(most, device=low.device, dtype=low.dtype)
        cell = torch.arange(pooled, device=low.device, dtype=low.dtype)[:, None]
        point = low[:, None, None] + cell * step + (number + 0.5) * step / count
        counted = (number < count) & (point >= -1.0) & (point <= size)
        point = point.clamp(0, size - 1)
        before = point.floor()
        share = point - before
        weights = torch.stack((1.0 - share, share), -1) * (counted / count).unsqueeze(-1)
        places = torch.stack((before, (before + 1).clamp(max=size - 1)), -1).long()
        return places.flatten(2), weights.flatten(2)

    def extra_repr(self) -> str:
        return f"{self.pooled[0]}x{self.pooled[1]}, scale={self.scale:g}, samples={self.samples or 'adaptive'}"


def check_regions(shapes: Sequence[Shape]) -> None:
    """Raise LayerError unless the bottoms are features (N, C, H, W) and regions (R, 5)."""
    features, regions = shapes
    if len(features) != 4 or len(regions) < 2 or math.prod(regions[1:]) != 5:
        raise LayerError(f"the bottoms have shapes {features} and {regions}: expected (N, C, H, W) and (R, 5)")


def pooled_size(p: Message) -> tuple[int, int]:
    """``pooled_h`` and ``pooled_w``, which must both be given."""
    if not p.pooled_h or not p.pooled_w:
        raise LayerError(f"{p.DESCRIPTOR.name} has pooled_h {p.pooled_h} and pooled_w {p.pooled_w}: both must be set")
    return p.pooled_h, p.pooled_w


def round_away(x: Tensor) -> Tensor:
    """Round to whole numbers, halves away from zero, as C's round does (torch's takes the even one)."""
    whole = x.trunc()
    return torch.where((x - whole).abs() >= 0.5, whole + x.sign(), whole)


def cells(low: Tensor, high: Tensor, pooled: int, size: int) -> tuple[Tensor, Tensor]:
    """First and past-the-last index of the cells of regions from ``low`` to ``high``, both included: (R, pooled)."""
    step = (high - low + 1).clamp(min=1)[:, None] / pooled
    number = torch.arange(pooled, device=low.device, dtype=low.dtype)
    start = (number * step).floor() + low[:, None]
    end = ((number + 1) * step).ceil() + low[:, None]
    return start.long().clamp(0, size), end.long().clamp(0, size)


def largest(x: Tensor, low: tuple[Tensor, Tensor], high: tuple[Tensor, Tensor], image: Tensor) -> tuple[Tensor, Tensor]:
    """The largest value of each rectangle of a map, for each channel (..., C), and its place y * width + x.

    Rectangles are given by rows and columns, ``low`` included and ``high`` not; of equal values the first counts. A
    table holds the answer for all rectangles of 2^i x 2^j; four of them cover any other.
    """
    images, channels, height, width = x.shape
    sides = [(end - start).clamp(min=1) for start, end in zip(low, high, strict=True)]
    levels = [_levels(side, size) for side, size in zip(sides, (height, width), strict=True)]
    power = [_power(side, n) for side, n in zip(sides, levels, strict=True)]
    place = torch.arange(height * width, device=x.device, dtype=torch.int32).reshape(1, height, width, 1)
    values = x.permute(0, 2, 3, 1).contiguous()
    down = (values, place.expand(values.shape))
    table = []
    for i in range(levels[0]):
        across = down
        for j in range(levels[1]):
            table.append(across)
            across = _join(across, 2, 2**j) if j + 1 < levels[1] else across
        down = _join(down, 1, 2**i) if i + 1 < levels[0] else down
    entries = [torch.stack(part).reshape(-1, channels) for part in zip(*table, strict=True)]
    base = ((power[0] * levels[1] + power[1]) * images + image) * height
    best: tuple[Tensor, Tensor] | None = None
    for y in (low[0], high[0] - 2 ** power[0]):
        for x_ in (low[1], high[1] - 2 ** power[1]):
            row = ((base + y.clamp(0, height - 1)) * width + x_.clamp(0, width - 1)).flatten()
            found = (entries[0].index_select(0, row), entries[1].index_select(0, row))
            best = found if best is None else _better(best, found)
    assert best is not None
    shape = (*base.shape, channels)
    return best[0].reshape(shape), best[1].reshape(shape)


def _levels(side: Tensor, size: int) -> int:
    """How many powers of two the table needs; all there are while nobody knows the values."""
    if torch.compiler.is_compiling() or side.is_meta or not side.numel():
        return int(math.log2(size)) + 1  # torch.compile of torch 2.4 stops at bit_length
    return int(side.max()).bit_length()


def _power(side: Tensor, levels: int) -> Tensor:
    """The exponent of the largest power of two that is not above ``side``."""
    power = torch.zeros_like(side)
    for k in range(1, levels):
        power = power + (side >= 2**k)
    return power


def _join(entry: tuple[Tensor, Tensor], axis: int, shift: int) -> tuple[Tensor, Tensor]:
    """The table for rectangles twice as long: the better of two entries ``shift`` apart."""
    size = entry[0].shape[axis]
    moved = (torch.arange(size, device=entry[0].device) + shift).clamp(max=size - 1)
    return _better(entry, (entry[0].index_select(axis, moved), entry[1].index_select(axis, moved)))


def _better(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The larger value and its place; of equal values the smaller place."""
    second = (b[0] > a[0]) | ((b[0] == a[0]) & (b[1] < a[1]))
    return torch.where(second, b[0], a[0]), torch.where(second, b[1], a[1])
