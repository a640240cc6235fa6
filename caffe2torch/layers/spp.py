"""Spatial pyramid pooling."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from caffe2torch.errors import LayerError
from caffe2torch.layers.pooling import Pooling
from caffe2torch.layers.registry import Layer, Message, Shape, enum_name, register


@register("SPP")
class SPP(Layer):
    """Pools the plane into 1, 4, 16, ... bins and puts all of them one after the other: (N, C * bins).

    Level l has windows of ceil(size / 2^l), laid side by side, with the padding that this needs before the plane
    rounded up. Sizes at which that padding reaches a whole window are refused, as in Caffe. A pyramid of height 1
    keeps the shape (N, C, 1, 1).
    """

    def __init__(self, height: int, plane: tuple[int, int], *, method: str = "MAX") -> None:
        """``plane`` is the size the windows are found for; the layer takes other sizes too."""
        super().__init__()
        if height < 1:
            raise LayerError(f"pyramid_height is {height}: expected at least 1")
        self.height, self.method, self.plane = height, method, plane
        self.levels = nn.ModuleList(self._pools(plane))

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> SPP:
        p, shape = layer.spp_param, bottom_shapes[0]
        if len(shape) != 4:
            raise LayerError(f"the bottom has shape {shape}: expected 4 axes (N, C, H, W)")
        return cls(p.pyramid_height, (shape[2], shape[3]), method=enum_name(p, "pool"))

    def _pools(self, plane: tuple[int, int]) -> list[Pooling]:
        pools = []
        for level in range(self.height):
            bins = 1 << level
            kernel = [-(-size // bins) for size in plane]
            pad = [(k * bins - size + 1) // 2 for k, size in zip(kernel, plane, strict=True)]
            if any(p >= k for p, k in zip(pad, kernel, strict=True)):
                raise LayerError(
                    f"level {level} of the pyramid cuts a plane of {plane[0]} x {plane[1]} into {bins} x {bins} "
                    f"windows of {kernel[0]} x {kernel[1]}, which leaves some of them without a value; give a smaller "
                    "pyramid_height or a larger input"
                )
            made = Pooling(
                self.method, kernel=(kernel[0], kernel[1]), stride=(kernel[0], kernel[1]), pad=(pad[0], pad[1])
            )
            made.output_size(*plane)
            pools.append(made)
        return pools

    def forward(self, x: Tensor) -> Tensor:
        plane = (x.shape[2], x.shape[3])
        pools = self.levels if plane == self.plane else [pool.train(self.training) for pool in self._pools(plane)]
        parts = [pool(x) for pool in pools]
        return parts[0] if len(parts) == 1 else torch.cat([part.flatten(1) for part in parts], 1)

    def extra_repr(self) -> str:
        return f"{self.method}, height={self.height}"
