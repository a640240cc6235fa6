"""SSD's layers on feature maps: Normalize, Permute and PriorBox. What becomes of their tops is in detection.py."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from caffe2torch.errors import LayerError
from caffe2torch.fillers import Filler, fill, from_caffe
from caffe2torch.layers.lrn import at_least_float32
from caffe2torch.layers.registry import Layer, Message, Shape, parameter, refuse, register


@register("Normalize")
class Normalize(Layer):
    """x / sqrt(eps + sum of squares) * scale, the sum over channels, or over channels and places (``across_spatial``).

    The blob ``scale`` holds one value, or one per channel. Its settings are read from ``norm_param``, or from
    ``normalize_param`` as some forks spell it.

    With ``normalize_type`` or ``bp_norm`` it is the layer of NormFace (caffe-windows), which has no blob: x over the
    length of its channels at each place, L2's sqrt(1e-6 + sum of squares), or L1's 1e-6 + sum of sizes. A second top,
    which ``bp_norm`` must be given for, is that length, and passes its gradient on where ``bp_norm`` is true. All tops
    have four axes. On the GPU the fork adds 1e-12 to the sum of squares, and with ``fix_gradient``, which is refused,
    has another gradient.
    A layer without settings is SSD's: a net of NormFace that gives none must be given ``normalize_type``.
    """

    blobs = ("scale",)
    tops = (1, 2)

    def __init__(
        self, channels: int, *, across_spatial: bool = True, channel_shared: bool = True, eps: float = 1e-10
    ) -> None:
        super().__init__()
        self.across_spatial, self.eps = across_spatial, eps
        self.scale = parameter(() if channel_shared else (channels,))

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> Layer:
        (shape,) = bottom_shapes
        if not 2 <= len(shape) <= 4:
            raise LayerError(f"the bottom has shape {shape}: expected 2 to 4 axes (N, C, H, W)")
        p = _settings(layer)
        if len(layer.top) > 1 or any(p.HasField(field) for field in ("normalize_type", "fix_gradient", "bp_norm")):
            return _unit_length(layer, p)
        return cls(shape[1], across_spatial=p.across_spatial, channel_shared=p.channel_shared, eps=p.eps)

    def fill(self, layer: Message, generator: torch.Generator | None = None) -> None:
        p = _settings(layer)
        filler = from_caffe(p.scale_filler) if p.HasField("scale_filler") else Filler(value=1.0)
        fill(self.scale, filler, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        axes = tuple(range(1, x.ndim)) if self.across_spatial else (1,)
        wide = at_least_float32(x)
        norm = (wide.square().sum(axes, keepdim=True) + self.eps).sqrt()
        scale = self.scale if not self.scale.ndim else self.scale.reshape(-1, *(1,) * (x.ndim - 2))
        return (wide / norm * scale).to(x.dtype)

    def extra_repr(self) -> str:
        return f"across_spatial={self.across_spatial}, eps={self.eps:g}"


def _settings(layer: Message) -> Message:
    if layer.HasField("norm_param") and layer.HasField("normalize_param"):
        raise LayerError("the layer gives both norm_param and normalize_param: remove one of them")
    return layer.normalize_param if layer.HasField("normalize_param") else layer.norm_param


def _unit_length(layer: Message, p: Message) -> UnitLength:
    refuse(p, "fix_gradient")
    if len(layer.top) > 1 and not p.HasField("bp_norm"):
        raise LayerError(
            "the layer has a second top, for which forks give the length of the channels, or one over it: give bp_norm "
            "of normalize_param if it is the length, or remove the top"
        )
    ssd = [field for field in ("across_spatial", "scale_filler", "channel_shared", "eps") if p.HasField(field)]
    if ssd or p.normalize_type not in ("L2", "L1"):
        raise LayerError(
            f"normalize_type is {p.normalize_type!r}, given with {', '.join(ssd) or 'nothing'} of SSD's Normalize: "
            "expected L2 or L1, and nothing of SSD's"
        )
    return UnitLength(p.normalize_type, lengths=len(layer.top) > 1, bp_norm=p.bp_norm)


class UnitLength(Layer):
    """NormFace's Normalize."""

    caffe_type = "Normalize"
    tops = (1, 2)

    def __init__(self, normalize_type: str = "L2", *, lengths: bool = False, bp_norm: bool = False) -> None:
        super().__init__()
        self.normalize_type, self.lengths, self.bp_norm = normalize_type, lengths, bp_norm

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = x.reshape(*x.shape, *(1,) * (4 - x.ndim))
        wide = at_least_float32(x)
        sums = (wide.square() if self.normalize_type == "L2" else wide.abs()).sum(1, keepdim=True) + 1e-6
        length = sums.sqrt() if self.normalize_type == "L2" else sums
        top, length = (wide / length).to(x.dtype), length.to(x.dtype)
        if not self.lengths:
            return top
        return top, length if self.bp_norm else length.detach()

    def extra_repr(self) -> str:
        return f"{self.normalize_type}, lengths={self.lengths}, bp_norm={self.bp_norm}"


@register("Permute")
class Permute(Layer):
    """Puts the axes in another order; those that ``order`` does not name follow in their old order."""

    def __init__(self, order: Sequence[int]) -> None:
        super().__init__()
        self.order = tuple(order)

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> Permute:
        order, axes = list(layer.permute_param.order), len(bottom_shapes[0])
        if len(set(order)) != len(order) or any(axis >= axes for axis in order):
            raise LayerError(f"permute_param.order is {order}: expected different axes, 0 to {axes - 1}")
        return cls([*order, *(axis for axis in range(axes) if axis not in order)])

    def forward(self, x: Tensor) -> Tensor:
        # Contiguous, as a blob is: what follows may reshape it.
        return x.permute(self.order).contiguous()

    def extra_repr(self) -> str:
        return f"order={self.order}"


@register("PriorBox")
class PriorBox(Layer):
    """The default boxes of every place of the first bottom, (1, 2, boxes x 4): corners over the image size; variances.

    Boxes of a place, for each ``min_size``: the square; the square of side sqrt(min max), if there are max sizes; for
    each aspect ratio other than 1 (and its inverse with ``flip``) one of the area of the first. Sizes are cut to whole
    pixels, as in SSD. The size of the image is that of the second bottom unless given.
    """

    bottoms = (1, 2)
    no_gradient = (0, 1)

    def __init__(
        self,
        sizes: Sequence[tuple[float, float]],
        *,
        variances: Sequence[float] = (0.1,),
        image: tuple[int, int] | None = None,
        step: tuple[float, float] | None = None,
        offset: float = 0.5,
        clip: bool = False,
    ) -> None:
        """``sizes``: (height, width) of each box in pixels; ``image`` and ``step``: (height, width)."""
        super().__init__()
        self.sizes, self.variances = tuple(sizes), tuple(variances) if len(variances) == 4 else (variances[0],) * 4
        self.image, self.step, self.offset, self.clip = image, step, offset, clip

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> PriorBox:
        p = layer.prior_box_param
        if any(len(shape) != 4 for shape in bottom_shapes):
            raise LayerError(f"the bottoms have shapes {', '.join(map(str, bottom_shapes))}: expected (N, C, H, W)")
        image, step = _pair(p, "img_h", "img_w", "img_size"), _pair(p, "step_h", "step_w", "step")
        if image is None and len(bottom_shapes) < 2:
            raise LayerError("the layer has one bottom and no img_size: give the image as second bottom")
        variances = list(p.variance) or [0.1]
        if len(variances) not in (1, 4) or min(variances) <= 0:
            raise LayerError(f"prior_box_param.variance is {variances}: expected 1 or 4 positive values")
        return cls(
            box_sizes(p.min_size, p.max_size, p.aspect_ratio, flip=p.flip),
            variances=variances,
            image=None if image is None else (int(image[0]), int(image[1])),
            step=step,
            offset=p.offset,
            clip=p.clip,
        )

    def forward(self, x: Tensor, image: Tensor | None = None) -> Tensor:
        if self.image is not None:
            height, width = self.image
        else:
            assert image is not None  # from_caffe has seen to it
            height, width = image.shape[2:]
        rows, columns = x.shape[2:]
        step_h, step_w = self.step or (height / rows, width / columns)
        y = ((torch.arange(rows, device=x.device, dtype=torch.float32) + self.offset) * step_h).double()
        x_ = ((torch.arange(columns, device=x.device, dtype=torch.float32) + self.offset) * step_w).double()
        half = torch.tensor(self.sizes, device=x.device, dtype=torch.float32).double() / 2
        top, bottom = ((y[:, None] + sign * half[:, 0]) / height for sign in (-1, 1))
        left, right = ((x_[:, None] + sign * half[:, 1]) / width for sign in (-1, 1))
        shape = (rows, columns, len(self.sizes))
        corners = (left[None], top[:, None], right[None], bottom[:, None])
        boxes = torch.stack([corner.expand(shape) for corner in corners], -1).to(x.dtype)
        if self.clip:
            boxes = boxes.clamp(0.0, 1.0)
        variances = torch.tensor(self.variances, device=x.device, dtype=x.dtype).expand(boxes.shape)
        return torch.stack((boxes.reshape(-1), variances.reshape(-1))).unsqueeze(0)

    def extra_repr(self) -> str:
        sizes = ", ".join(f"{h:g}x{w:g}" for h, w in self.sizes)
        return f"{sizes}, image={self.image}, step={self.step}, offset={self.offset:g}, clip={self.clip}"


def box_sizes(
    least: Sequence[float], most: Sequence[float], ratios: Sequence[float], *, flip: bool
) -> list[tuple[float, float]]:
    """(height, width) in pixels of the boxes of one place. Ratios closer than 1e-6 to an earlier one are left out."""
    if not least or min(least) <= 0:
        raise LayerError(f"prior_box_param.min_size is {list(least)}: expected one positive value or more")
    if most and (len(most) != len(least) or any(a >= b for a, b in zip(least, most, strict=True))):
        raise LayerError(
            f"prior_box_param.max_size is {list(most)}: expected as many values as min_size has, "
            f"each larger than its own of {list(least)}"
        )
    distinct = [1.0]
    for ratio in ratios:
        if ratio <= 0:
            raise LayerError(f"prior_box_param.aspect_ratio is {ratio:g}: expected a positive number")
        if all(abs(ratio - other) >= 1e-6 for other in distinct):
            distinct.extend((ratio, 1 / ratio) if flip else (ratio,))
    sizes: list[tuple[float, float]] = []
    for index, size in enumerate(map(int, least)):
        sizes.append((size, size))
        if most:
            side = math.sqrt(size * int(most[index]))
            sizes.append((side, side))
        sizes.extend((size / math.sqrt(r), size * math.sqrt(r)) for r in distinct if abs(r - 1) >= 1e-6)
    return sizes


def _pair(p: Message, height: str, width: str, both: str) -> tuple[float, float] | None:
    """A setting given for height and width, or by one field for both; None where it is not given."""
    own, shared = [p.HasField(height), p.HasField(width)], p.HasField(both)
    if not any(own) and not shared:
        return None
    if any(own) and (shared or not all(own)):
        raise LayerError(f"prior_box_param: give {both}, or both {height} and {width}")
    values = (getattr(p, both),) * 2 if shared else (getattr(p, height), getattr(p, width))
    if min(values) <= 0:
        raise LayerError(f"prior_box_param.{both if shared else height + ' and ' + width} must be positive: {values}")
    return values
