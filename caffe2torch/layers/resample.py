"""FlowNet2's layers that change the size of planes: Resample, Downsample and Accum."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from caffe2torch.errors import LayerError
from caffe2torch.layers.registry import Layer, Message, Shape, check_count, enum_name, refuse, register
from caffe2torch.layers.roi import round_away

Pair = tuple[int, int]
Taps = tuple[Tensor, Tensor]
"""Along one axis: which places of the bottom each place of the top takes, and with what weights, both (top, taps)."""


def weighted(x: Tensor, rows: Taps, columns: Taps) -> Tensor:
    """The planes of ``x`` (N, C, H, W) with rows and columns that are weighted sums; places outside count as 0."""
    return _along_last(_along_last(x, *columns).transpose(2, 3), *rows).transpose(2, 3).contiguous()


def _along_last(x: Tensor, place: Tensor, weight: Tensor) -> Tensor:
    size = x.shape[3]
    inside = torch.where((place >= 0) & (place < size), place, size).long()
    values = F.pad(x, (0, 1)).index_select(3, inside.flatten())
    return (values.reshape(*values.shape[:3], *place.shape) * weight.to(x.dtype)).sum(-1)


@register("Resample")
class Resample(Layer):
    """FlowNet's: planes of another size, ``height`` x ``width`` or that of a second bottom; no gradient.

    With fx and fy the sizes of the bottom over those of the top, column i of the top lies at i fx + fy / 2 - 1/2 of the
    bottom, row j at j fy + fx / 2 - 1/2 (each with half the other axis's step, as the fork has it; it matters where
    these differ). NEAREST takes the value there, halves rounded up. LINEAR and CUBIC (a = -1/2) weigh the values around
    and divide by the sum of the weights inside the plane; a sum of 0 gives 0. With ``antialias`` and a top that is
    smaller on either axis, the kernels are fx and fy times as wide, on an axis that grows narrower. AREA is refused, as
    in the fork. A gradient that would flow through the layer stops the fork; here it ends.
    """

    bottoms = (1, 2)
    no_gradient = (0, 1)

    def __init__(self, size: Pair | None = None, *, kind: str = "LINEAR", antialias: bool = True) -> None:
        """``size``: rows and columns of the top, None for those of the second bottom."""
        super().__init__()
        if kind not in ("NEAREST", "LINEAR", "CUBIC"):
            raise LayerError(f"type is {kind}: expected NEAREST, LINEAR or CUBIC")
        self.size, self.kind, self.antialias = size, kind, antialias

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> Resample:
        p = layer.resample_param
        refuse(p, "factor")
        made = cls(
            top_size(p.height, p.width, bottom_shapes, "resample_param has height"),
            kind=enum_name(p, "type"),
            antialias=p.antialias,
        )
        height, width = bottom_shapes[0][2:]
        rows, columns = made.size or bottom_shapes[1][2:]
        across, down = width * rows, height * columns  # in the ratio of fx to fy
        if made.kind == "NEAREST" and not across < 2 * down < 4 * across:
            raise LayerError(
                f"NEAREST from {height} x {width} to {rows} x {columns} reads outside the plane in the fork: expected "
                "factors for height and width that differ less than twofold"
            )
        return made

    def forward(self, x: Tensor, like: Tensor | None = None) -> Tensor:
        rows, columns = self.size or _size_of(like)
        x = x.detach()
        fy, fx = x.shape[2] / rows, x.shape[3] / columns
        y = torch.arange(rows, device=x.device, dtype=torch.float32) * fy + fx / 2 - 0.5
        x_ = torch.arange(columns, device=x.device, dtype=torch.float32) * fx + fy / 2 - 0.5
        if self.kind == "NEAREST":
            places = [round_away(at).long().clamp(max=n - 1) for at, n in zip((y, x_), x.shape[2:], strict=True)]
            return x.index_select(2, places[0]).index_select(3, places[1])
        wide = self.antialias and max(fx, fy) > 1
        return weighted(x, self._taps(y, fy, x.shape[2], wide=wide), self._taps(x_, fx, x.shape[3], wide=wide))

    def _taps(self, at: Tensor, factor: float, size: int, *, wide: bool) -> Taps:
        width = factor if wide else 1.0
        reach = 2 if factor < 1 else math.ceil((4 if self.kind == "CUBIC" else 2) * width)
        place = round_away(at)[:, None] + torch.arange(-reach, reach + 1, device=at.device)
        distance = (at[:, None] - place).abs() * (1 / width)
        weight = _cubic(distance) if self.kind == "CUBIC" else (1 - distance).clamp(min=0)
        weight = torch.where((place >= 0) & (place < size), weight, 0.0)
        total = weight.sum(1, keepdim=True)
        return place, torch.where(total == 0, 0.0, weight / total)

    def extra_repr(self) -> str:
        return f"size={self.size}, kind={self.kind}, antialias={self.antialias}"


def _cubic(x: Tensor) -> Tensor:
    """The bicubic kernel with a = -1/2 at distances from 0 on."""
    near, far = x * x * (1.5 * x - 2.5) + 1, x * (x * (-0.5 * x + 2.5) - 4) + 2
    return torch.where(x <= 1, near, torch.where(x < 2, far, 0.0))


def top_size(height: int, width: int, bottom_shapes: Sequence[Shape], where: str) -> Pair | None:
    """The size that a layer of one bottom says, None for that of a second bottom."""
    if any(len(shape) != 4 for shape in bottom_shapes):
        raise LayerError(f"the bottoms have shapes {', '.join(map(str, bottom_shapes))}: expected 4 axes (N, C, H, W)")
    if len(bottom_shapes) == 2:
        return None
    if min(height, width) < 1:
        raise LayerError(f"{where} {height} and width {width}: expected both, or a second bottom")
    check_count((*bottom_shapes[0][:2], height, width), "the top")
    return height, width


def _size_of(like: Tensor | None) -> Pair:
    assert like is not None  # from_caffe has seen to it
    return like.shape[2], like.shape[3]


@register("Downsample")
class Downsample(Layer):
    """FlowNet's: planes of ``top_height`` x ``top_width`` or of a second bottom's size, corners in place; no gradient.

    The value is the mean of those around, weighed by triangles that reach to the next place of the top; NaNs are left
    out, and where they have more than half the weight of the others the value is NaN. Where the top is larger it has
    places without any value, NaN. A gradient that would flow through the layer stops the fork; here it ends.
    """

    bottoms = (1, 2)
    no_gradient = (0, 1)

    def __init__(self, size: Pair | None = None) -> None:
        """``size``: rows and columns of the top, None for those of the second bottom."""
        super().__init__()
        self.size = size

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> Downsample:
        p, shape = layer.downsample_param, bottom_shapes[0]
        made = cls(top_size(p.top_height, p.top_width, bottom_shapes, "downsample_param has top_height"))
        size = made.size or bottom_shapes[1][2:]
        if size != shape[2:] and min(*size, *shape[2:]) < 2:
            raise LayerError(
                f"from {shape[2]} x {shape[3]} to {size[0]} x {size[1]}: expected at least 2 rows and columns in both"
            )
        return made

    def forward(self, x: Tensor, like: Tensor | None = None) -> Tensor:
        size = self.size or _size_of(like)
        x = x.detach()
        if x.shape[2:] == size:
            return x
        taps = [self._taps(n, top, x.device) for n, top in zip(x.shape[2:], size, strict=True)]
        missing = x.isnan()
        values = weighted(torch.where(missing, 0.0, x), taps[0], taps[1])
        weight = weighted((~missing).to(x.dtype), taps[0], taps[1])
        lost = weighted(missing.to(x.dtype), taps[0], taps[1])
        return torch.where(lost / weight > 0.5, torch.nan, values / weight)

    @staticmethod
    def _taps(size: int, top: int, device: torch.device) -> Taps:
        at = torch.arange(top, device=device, dtype=torch.float32) / (top - 1) * (size - 1)
        step = (size - 1) / (top - 1)
        reach = math.ceil(step)
        place = round_away(at)[:, None] + torch.arange(-reach, reach + 1, device=device)
        return place, (1 - (place - at[:, None]).abs() / step).clamp(min=0)

    def extra_repr(self) -> str:
        return f"size={self.size}"


@register("Accum")
class Accum(Layer):
    """FlowNet's: brings all bottoms to one size by bilinear interpolation, corners in place, and joins their channels.

    The size is that of the last bottom, which gives nothing else, with ``have_reference``. Else it is the largest
    height and the largest width, or, where both are larger, those divided by ``size_divisible_by`` rounded up times
    it, or ``top_height`` and ``top_width``.
    """

    bottoms = (1, None)

    def __init__(self, bottoms: int, size: Pair | None = None) -> None:
        """``size``: rows and columns of the top, None for those of the last bottom, the reference."""
        super().__init__()
        self.size = size
        self.no_gradient = () if size else (bottoms - 1,)

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> Accum:
        p = layer.accum_param
        shapes = ", ".join(map(str, bottom_shapes))
        if any(len(shape) != 4 for shape in bottom_shapes):
            raise LayerError(f"the bottoms have shapes {shapes}: expected 4 axes (N, C, H, W)")
        joined = bottom_shapes[:-1] if p.have_reference else bottom_shapes
        if not joined:
            raise LayerError(
                "have_reference is set, but there is one bottom: expected the reference as the last of two"
            )
        if any(shape[0] != joined[0][0] for shape in joined):
            raise LayerError(f"the bottoms have shapes {shapes}: expected equal first dimensions")
        rows, columns = bottom_shapes[-1][2:]
        size = (rows, columns) if p.have_reference else cls._largest(p, bottom_shapes)
        check_count((joined[0][0], sum(shape[1] for shape in joined), *size), "the top")
        if any(top == 1 != n for shape in joined for n, top in zip(shape[2:], size, strict=True)):
            raise LayerError(f"the top has planes of {size[0]} x {size[1]}: expected at least 2 rows and columns")
        return cls(len(bottom_shapes), None if p.have_reference else size)

    @staticmethod
    def _largest(p: Message, shapes: Sequence[Shape]) -> Pair:
        height, width = (max(shape[axis] for shape in shapes) for axis in (2, 3))
        larger: Pair = (p.top_height, p.top_width)
        if p.HasField("size_divisible_by"):
            divisor = p.size_divisible_by
            if not divisor:
                raise LayerError("size_divisible_by is 0: expected at least 1")
            larger = (-(-height // divisor) * divisor, -(-width // divisor) * divisor)
        return larger if larger[0] > height and larger[1] > width else (height, width)

    def forward(self, *bottoms: Tensor) -> Tensor:
        size = self.size or _size_of(bottoms[-1])
        joined = bottoms if self.size else bottoms[:-1]
        return torch.cat([_enlarged(x, size) for x in joined], 1)

    def extra_repr(self) -> str:
        return f"size={self.size}"


def _enlarged(x: Tensor, size: Pair) -> Tensor:
    return x if x.shape[2:] == size else F.interpolate(x, size, mode="bilinear", align_corners=True)
