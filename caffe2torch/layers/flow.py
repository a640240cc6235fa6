"""FlowNet2's layers that compare two feature maps or move one along a flow: Correlation, FlowWarp, ChannelNorm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from caffe2torch.errors import LayerError
from caffe2torch.layers.gradient import with_gradient_of, with_slopes
from caffe2torch.layers.lrn import at_least_float32
from caffe2torch.layers.registry import Layer, Message, Shape, check_count, enum_name, register


@register("Correlation")
class Correlation(Layer):
    """FlowNet's: how alike two maps (N, C, H, W) are around each place, for every displacement of the second.

    Both are padded with ``pad`` zeros. Top channel (p + r) (2r + 1) + o + r, where r = max_displacement / stride_2, is
    the mean over channels and a window of ``kernel_size`` of a[y, x] b[y + p stride_2, x + o stride_2], or with
    correlation_type SUBTRACT of |a - b|. The windows begin at ``max_displacement`` and are ``stride_1`` apart, those
    that fit: rows and columns ceil((n + 2 pad - 2 max_displacement - kernel_size + 1) / stride_1).

    The gradient of SUBTRACT is the fork's, which compares a and b at the same place: that of a is what the product
    would have with the sign of a - b in place of b, and that of b with the opposite sign in place of a (zeros compare
    as positive). ``do_abs`` has no effect, as in the fork.
    """

    bottoms = (2, 2)

    def __init__(
        self,
        max_displacement: int,
        *,
        kernel_size: int = 1,
        pad: int = 0,
        stride: tuple[int, int] = (1, 1),
        subtract: bool = False,
    ) -> None:
        """``stride``: of the windows, and of the displacements."""
        super().__init__()
        if kernel_size % 2 != 1:
            raise LayerError(f"kernel_size is {kernel_size}: expected an odd number")
        if min(stride) < 1:
            raise LayerError(f"stride_1 and stride_2 are {stride[0]} and {stride[1]}: expected at least 1")
        self.max_displacement, self.kernel_size, self.pad = max_displacement, kernel_size, pad
        self.stride, self.subtract = stride, subtract
        reach = max_displacement // stride[1] * stride[1]
        self.across = range(-reach, reach + 1, stride[1])
        self.down = self.across

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> Correlation:
        p, (shape, other) = layer.correlation_param, bottom_shapes
        missing = [name for name in ("kernel_size", "max_displacement") if not p.HasField(name)]
        if missing:
            raise LayerError(f"correlation_param has no {' and no '.join(missing)}: expected both")
        if len(shape) != 4 or shape != other:
            raise LayerError(f"the bottoms have shapes {shape} and {other}: expected equal ones of 4 axes (N, C, H, W)")
        made = cls(p.max_displacement, **cls._settings(p))
        fits = [
            n + 2 * (pad - margin) - made.kernel_size + 1
            for n, pad, margin in zip(shape[2:], *made.borders(), strict=True)
        ]
        if min(fits) < 1:
            raise LayerError(
                f"max_displacement {made.max_displacement} and kernel_size {made.kernel_size} do not fit planes of "
                f"{shape[2]} x {shape[3]} with pad {made.pad}: make them smaller, or the padding larger"
            )
        rows, columns = (-(-n // made.stride[0]) for n in fits)
        check_count((shape[0], len(made.down) * len(made.across), rows, columns), "the top")
        return made

    @classmethod
    def _settings(cls, p: Message) -> dict[str, Any]:
        return {
            "kernel_size": p.kernel_size,
            "pad": p.pad,
            "stride": (p.stride_1, p.stride_2),
            "subtract": enum_name(p, "correlation_type") == "SUBTRACT",
        }

    def borders(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Rows and columns, on each side: of zeros around both maps; and of the padded first that no window touches."""
        return (self.pad, self.pad), (self.max_displacement, self.max_displacement)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        (height, width), _ = self.borders()
        a, b = (F.pad(x, (width, width, height, height)) for x in (a, b))
        if not self.subtract:
            return self._compare(a, b)
        top = self._compare(a.detach(), b.detach())
        if not torch.is_grad_enabled() or not (a.requires_grad or b.requires_grad):
            return top
        sign = torch.where(a >= b, 1.0, -1.0).to(a.dtype)
        return with_gradient_of(top, self._products(a, sign) - self._products(sign, b))

    def _compare(self, a: Tensor, b: Tensor) -> Tensor:
        return self._windows(a, b, absolute=True) if self.subtract else self._products(a, b)

    def _products(self, a: Tensor, b: Tensor) -> Tensor:
        return self._windows(a, b, absolute=False)

    def _windows(self, a: Tensor, b: Tensor, *, absolute: bool) -> Tensor:
        """The top for padded maps: all pairs of one row of each at once, of which those displaced rightly are taken."""
        n, channels, height, width = a.shape
        _, (top, left) = self.borders()
        rows, columns = height - 2 * top, width - 2 * left
        lead = max(0, -(left + self.across[0]))
        centre = a[:, :, top : top + rows, left : left + columns].permute(0, 2, 3, 1).contiguous()
        other = F.pad(b, (lead, 0)).permute(0, 2, 3, 1).contiguous()
        place = torch.arange(columns, device=a.device)[:, None] + left + lead
        shifts = torch.arange(self.across.start, self.across.stop, self.across.step, device=a.device)
        place = (place + shifts).expand(n, rows, columns, len(self.across))
        maps = []
        for shift in self.down:
            row = other[:, top + shift : top + shift + rows]
            pairs = _distances(centre, row) if absolute else torch.matmul(centre, row.transpose(2, 3))
            maps.append(pairs.gather(3, place))
        found = torch.cat(maps, 3).permute(0, 3, 1, 2).contiguous() / channels
        if self.kernel_size == 1 and self.stride[0] == 1:
            return found
        return F.avg_pool2d(found, self.kernel_size, self.stride[0])

    def extra_repr(self) -> str:
        return (
            f"max_displacement={self.max_displacement}, kernel_size={self.kernel_size}, pad={self.pad}, "
            f"stride={self.stride}, subtract={self.subtract}"
        )


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """The sums of absolute differences of all rows of a and b; torch has none of half precision."""
    return torch.cdist(at_least_float32(a), at_least_float32(b), p=1.0).to(a.dtype)


@register("Correlation1D")
class Correlation1D(Correlation):
    """DispNet's: ``Correlation`` with displacements, padding and margins along the rows only.

    Channel o + r for displacements from -r to r; ``single_direction`` 1 has 0 to r, and -1 has -r - 1 to -1 (not 0). In
    the last case the first columns reach one displacement further left than any padded column: the fork reads the end
    of the row before there, zeros if ``pad`` is at least that far, as is required here.
    """

    def __init__(self, max_displacement: int, *, direction: int = 0, **settings: Any) -> None:
        """``direction``: 1 to the right, -1 to the left, 0 for both. The others are those of ``Correlation``."""
        super().__init__(max_displacement, **settings)
        if direction not in (-1, 0, 1):
            raise LayerError(f"single_direction is {direction}: expected -1 (left), 1 (right) or 0 (both)")
        reach, step = self.across[-1], self.stride[1]
        if direction:
            self.across = range(0, reach + 1, step) if direction > 0 else range(-reach - step, 0, step)
        self.down = range(1)
        self.direction = direction
        beyond = -(max_displacement + self.across[0])
        if beyond > self.pad:
            raise LayerError(
                f"pad is {self.pad}: with single_direction -1 and these settings expected at least {beyond}"
            )
        if direction < 0 and self.subtract:
            raise LayerError("single_direction -1 with correlation_type SUBTRACT is not supported: use MULTIPLY")

    @classmethod
    def _settings(cls, p: Message) -> dict[str, Any]:
        return {**super()._settings(p), "direction": p.single_direction}

    def borders(self) -> tuple[tuple[int, int], tuple[int, int]]:
        return (0, self.pad), (0, self.max_displacement)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, direction={self.direction}"


@register("FlowWarp")
class FlowWarp(Layer):
    """FlowNet2's: the first bottom (N, C, H, W) at each place moved by the flow (N, 2, H, W), x first, bilinearly.

    A place at or beyond the width or height, or below 0, or that is not a number, gets ``fill_value``; between the last
    row or column and the end the last one counts for both. Both bottoms get gradients.
    """

    bottoms = (2, 2)

    def __init__(self, fill_value: float = 0.0) -> None:
        super().__init__()
        self.fill_value = fill_value

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> FlowWarp:
        image, flow = bottom_shapes
        if len(image) != 4 or flow != (image[0], 2, *image[2:]):
            raise LayerError(
                f"the bottoms have shapes {image} and {flow}: expected an image (N, C, H, W) and a flow (N, 2, H, W)"
            )
        return cls(float("nan") if enum_name(layer.flow_warp_param, "fill_value") == "NOT_A_NUMBER" else 0.0)

    def forward(self, image: Tensor, flow: Tensor) -> Tensor:
        height, width = image.shape[2:]
        flow = at_least_float32(flow)  # places beyond 256 are no whole numbers of bfloat16
        x = flow[:, 0] + torch.arange(width, device=flow.device)
        y = flow[:, 1] + torch.arange(height, device=flow.device)[:, None]
        inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
        x, y = (torch.where(inside, place, 0.0) for place in (x, y))
        left, above = x.detach().long(), y.detach().long()
        right, below = (left + 1).clamp(max=width - 1), (above + 1).clamp(max=height - 1)
        alpha, beta = (x - left)[:, None], (y - above)[:, None]
        top = (1 - alpha) * (1 - beta) * _taken(image, above, left) + alpha * (1 - beta) * _taken(image, above, right)
        top = top + (1 - alpha) * beta * _taken(image, below, left) + alpha * beta * _taken(image, below, right)
        return torch.where(inside[:, None], top, self.fill_value).to(image.dtype)

    def extra_repr(self) -> str:
        return f"fill_value={self.fill_value:g}"


def _taken(image: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The values (N, C, H, W) of the image at rows and columns (N, H, W)."""
    place = (rows * image.shape[3] + columns).flatten(1)[:, None].expand(-1, image.shape[1], -1)
    return image.flatten(2).gather(2, place).reshape(image.shape)


@register("ChannelNorm")
class ChannelNorm(Layer):
    """FlowNet2's: the Euclidean norm over the channels of each place, (N, 1, H, W).

    Its gradient is x / (norm + 1e-9), 0 where the norm is.
    """

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> ChannelNorm:
        if len(bottom_shapes[0]) != 4:
            raise LayerError(f"the bottom has shape {bottom_shapes[0]}: expected 4 axes (N, C, H, W)")
        return cls()

    def forward(self, x: Tensor) -> Tensor:
        fixed = at_least_float32(x.detach())
        norm = fixed.square().sum(1, keepdim=True).sqrt()
        return with_slopes(norm.to(x.dtype), (x, (fixed / (norm + 1e-9)).to(x.dtype)))
