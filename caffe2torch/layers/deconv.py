"""Deconvolution (the transpose of Convolution) over any number of spatial axes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from caffe2torch.errors import LayerError
from caffe2torch.layers.conv import Convolution
from caffe2torch.layers.registry import Shape, register

_DECONVOLVE: dict[int, Callable[..., Tensor]] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


@register("Deconvolution")
class Deconvolution(Convolution):
    """The transpose of Convolution: weight (in, out / group, *kernel), bias (out).

    A spatial axis has stride * (size - 1) + dilation * (kernel - 1) + 1 - 2 * pad values afterwards.
    """

    @staticmethod
    def by_torch() -> dict[int, Callable[..., Tensor]]:
        return _DECONVOLVE

    @staticmethod
    def weight_shape(in_channels: int, num_output: int, group: int) -> Shape:
        return in_channels, num_output // group

    def check_bottom(self, shape: Shape, first: Shape) -> None:
        """Raise LayerError unless this bottom has the first one's shape and the padding leaves some of the output."""
        if shape != first:
            raise LayerError(f"the bottoms have different shapes {first} and {shape}: expected all the same")
        for size, kernel, stride, pad, dilation in zip(
            shape[self.axis + 1 :], self.kernel, self.stride, self.pad, self.dilation, strict=True
        ):
            whole = stride * (size - 1) + dilation * (kernel - 1) + 1
            if whole - 2 * pad < 1:
                raise LayerError(
                    f"the kernel spreads {size} values of the input {shape} over {whole} (size {kernel}, stride "
                    f"{stride}, dilation {dilation}), and pad {pad} takes {2 * pad} of them: make pad smaller"
                )

    def by_places(self, x: Tensor, weight: Tensor, bias: Tensor | None, first: int) -> Tensor:
        """Every place of the kernel's first axis spreads over the others, with the input's first one as batch."""
        stride, pad, dilation = self.stride[first], self.pad[first], self.dilation[first]
        rows = x.transpose(1, 2)
        span = stride * (rows.shape[1] - 1) + 1
        whole = span + dilation * (weight.shape[2] - 1)
        total: Tensor | None = None
        for place in range(weight.shape[2]):
            part = self.compute(rows.flatten(0, 1), weight[:, :, place], None, first + 1)
            part = part.reshape(*rows.shape[:2], *part.shape[1:]).transpose(1, 2)
            total = part.new_zeros(*part.shape[:2], whole, *part.shape[3:]) if total is None else total
            start = place * dilation
            spread = torch.zeros_like(total)
            spread[:, :, start : start + span : stride] = part
            total = total + spread
        assert total is not None  # a kernel has at least one place
        y = total[:, :, pad : whole - pad]
        return y if bias is None else y + bias.reshape(-1, *(1,) * (x.ndim - 2))
