"""Layers of the YOLO forks: Reorg and the Upsample that repeats values."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from caffe2torch.errors import LayerError
from caffe2torch.layers.registry import Layer, Message, Shape, register


@register("Reorg")
class Reorg(Layer):
    """Darknet's reorganisation of (C, H, W) into (C s^2, H / s, W / s), where s is the ``stride``.

    Darknet reads its input as if it had the shape (C / s^2, H s, W s), makes a channel of every s-th row and column of
    that, and calls the result (C s^2, H / s, W / s); trained nets expect just this. ``reverse`` is what it says:
    channel (row s + column) C / s^2 + c becomes that row and column, of s x s, of channel c in (C / s^2, H s, W s).
    """

    def __init__(self, stride: int, *, reverse: bool = False) -> None:
        super().__init__()
        if stride < 1:
            raise LayerError(f"stride is {stride}: expected at least 1")
        self.stride, self.reverse = stride, reverse

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> Reorg:
        p, shape = layer.reorg_param, bottom_shapes[0]
        if not p.HasField("stride"):
            raise LayerError("reorg_param has no stride: expected one, such as 2")
        made = cls(p.stride, reverse=p.reverse)
        square = made.stride**2
        if len(shape) != 4 or shape[1] % square:
            raise LayerError(f"the bottom has shape {shape}: expected 4 axes and channels that {square} divides")
        if not made.reverse and (shape[2] % made.stride or shape[3] % made.stride):
            raise LayerError(f"the bottom has shape {shape}: expected rows and columns that {made.stride} divides")
        return made

    def forward(self, x: Tensor) -> Tensor:
        n, channels, height, width = x.shape
        s = self.stride
        fewer = channels // s**2
        if self.reverse:
            spread = x.reshape(n, s, s, fewer, height, width).permute(0, 3, 4, 1, 5, 2)
            return spread.reshape(n, fewer, height * s, width * s)
        gathered = x.reshape(n, fewer, height, s, width, s).permute(0, 3, 5, 1, 2, 4)
        return gathered.reshape(n, channels * s**2, height // s, width // s)

    def extra_repr(self) -> str:
        return f"stride={self.stride}, reverse={self.reverse}"


class NearestUpsample(Layer):
    """Every value ``scale`` times along the last two axes."""

    def __init__(self, scale: int = 1) -> None:
        super().__init__()
        if scale < 1:
            raise LayerError(f"scale is {scale}: expected at least 1")
        self.scale = scale

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> NearestUpsample:
        p, shape = layer.upsample_param, bottom_shapes[0]
        others = [field.name for field, _ in p.ListFields() if field.name != "scale"]
        if others:
            raise LayerError(
                f"upsample_param has {', '.join(others)}, which SegNet's Upsample has, but there is no second bottom; "
                "add the pooling's mask, or keep to scale for the YOLO forks' Upsample"
            )
        if len(shape) != 4:
            raise LayerError(f"the bottom has shape {shape}: expected 4 axes (N, C, H, W)")
        return cls(p.scale if p.HasField("scale") else 1)  # 2 is SegNet's default

    def forward(self, x: Tensor) -> Tensor:
        if self.scale == 1:
            return x
        # "nearest" takes the place from i / scale, which may round to the one before unless scale is a power of 2.
        mode = "nearest-exact" if self.scale & (self.scale - 1) else "nearest"
        return F.interpolate(x, (x.shape[2] * self.scale, x.shape[3] * self.scale), mode=mode)

    def extra_repr(self) -> str:
        return f"scale={self.scale}"
