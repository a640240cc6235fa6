"""What torch.nn lacks: functions and modules whose very text goes into the programs that need them.

Each must read well by itself, import nothing but torch (``torch``, ``nn``, ``F``, ``Tensor``, ``math``) and use only
others of its file. ``source.py`` takes their text with ``inspect`` and finds out which ones they use.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def lrn(x: Tensor, size: int, alpha: float, beta: float, k: float = 1.0) -> Tensor:
    """Local response normalisation over ``size`` neighbouring channels: x / (k + alpha / size * sum of squares)^beta.

    The same as F.local_response_norm, several times faster. The sum runs from the first channel to the last.
    """
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    half = min(size // 2, x.shape[1])
    first, *others = F.pad(wide * wide, (0, 0, 0, 0, half, half)).unfold(1, 2 * half + 1, 1).unbind(-1)
    total = sum(others, first)
    return (wide * inverse_power(total * (alpha / size) + k, beta)).to(x.dtype)


def lrn_within_channel(x: Tensor, size: int, alpha: float, beta: float) -> Tensor:
    """x / (1 + alpha / size^2 * sum of squares)^beta, the sum over a size x size square of the plane."""
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    half = min(size // 2, max(x.shape[2:]))
    width = 2 * half + 1
    mean = F.avg_pool2d(wide * wide, width, 1, half)
    return (wide * inverse_power(mean * (alpha * (width / size) ** 2) + 1.0, beta)).to(x.dtype)


def inverse_power(x: Tensor, beta: float) -> Tensor:
    """x ^ -beta; square roots are several times faster than pow."""
    if beta == 0.75:
        root = x.rsqrt()
        return root * root.sqrt()
    if beta == 0.5:
        return x.rsqrt()
    return x.reciprocal() if beta == 1.0 else x.pow(-beta)


def pool_windows(size: int, kernel: int, stride: int, pad: int, ceil: bool) -> int:
    """How many windows Caffe's pooling has along an axis of ``size`` values."""
    span = size + 2 * pad - kernel
    windows = (span + (stride - 1 if ceil else 0)) // stride + 1
    return windows - 1 if pad and (windows - 1) * stride >= size + pad else windows


def pool_padded(
    x: Tensor, kernel: tuple[int, int], stride: tuple[int, int], pad: tuple[int, int], ceil: bool, value: float
) -> Tensor:
    """``x`` with padding written out, so that plain pooling without padding has just the windows Caffe's has."""
    edges: list[int] = []
    for size, k, s, p in zip(x.shape[:1:-1], kernel[::-1], stride[::-1], pad[::-1], strict=True):
        edges += [p, (pool_windows(size, k, s, p, ceil) - 1) * s + k - size - p]
    return F.pad(x, edges, value=value)


def max_pool(
    x: Tensor, kernel: tuple[int, int], stride: tuple[int, int], pad: tuple[int, int], ceil: bool = True
) -> Tensor:
    """Caffe's max pooling where torch has no such windows: those beyond the edge, and pad > kernel / 2."""
    lowest = max(-torch.finfo(torch.float32).max, torch.finfo(x.dtype).min)
    return F.max_pool2d(pool_padded(x, kernel, stride, pad, ceil, lowest), kernel, stride)


def max_pool_with_mask(
    x: Tensor, kernel: tuple[int, int], stride: tuple[int, int], pad: tuple[int, int], ceil: bool = True
) -> tuple[Tensor, Tensor]:
    """Max pooling, and the index in its plane of each maximum as a float; -1 where the window holds no value."""
    lowest = max(-torch.finfo(torch.float32).max, torch.finfo(x.dtype).min)
    padded = pool_padded(x, kernel, stride, pad, ceil, lowest)
    top, index = F.max_pool2d(padded, kernel, stride, return_indices=True)
    row, column = index // padded.shape[3] - pad[0], index % padded.shape[3] - pad[1]
    inside = (row >= 0) & (row < x.shape[2]) & (column >= 0) & (column < x.shape[3])
    return top, torch.where(inside, row * x.shape[3] + column, -1).to(x.dtype)


def avg_pool(
    x: Tensor, kernel: tuple[int, int], stride: tuple[int, int], pad: tuple[int, int], ceil: bool = True
) -> Tensor:
    """Caffe's average pooling where torch has no such windows; each divides by its area inside the padded image."""
    total = window_sums(pool_padded(x, kernel, stride, pad, ceil, 0.0), kernel, stride)
    lengths = []
    for axis in (0, 1):
        size, k, s, p = x.shape[2 + axis], kernel[axis], stride[axis], pad[axis]
        start = torch.arange(total.shape[2 + axis], dtype=x.dtype, device=x.device) * s - p
        lengths.append((start + k).clamp(max=size + p) - start)
    return total / (lengths[0][:, None] * lengths[1])


def window_sums(x: Tensor, kernel: tuple[int, int], stride: tuple[int, int]) -> Tensor:
    """The sum of each window."""
    return F.avg_pool2d(x, kernel, stride, divisor_override=1)


def stochastic_pool(x: Tensor, kernel: tuple[int, int], stride: tuple[int, int], ceil: bool = True) -> Tensor:
    """Stochastic pooling in test: each window's sum of squares over its sum; 0 where that is not positive."""
    windows = pool_padded(x, kernel, stride, (0, 0), ceil, 0.0)
    windows = windows.unfold(2, kernel[0], stride[0]).unfold(3, kernel[1], stride[1]).flatten(4)
    total = windows.sum(-1)
    positive = total > 0
    return torch.where(positive, windows.square().sum(-1) / torch.where(positive, total, 1.0), 0.0)


class Scale(nn.Module):
    """x * weight + bias; both span the axes of x from ``axis`` on."""

    def __init__(self, *shape: int, axis: int = 1, bias: bool = True) -> None:
        super().__init__()
        self.axis = axis
        self.weight = nn.Parameter(torch.ones(shape))
        self.bias = nn.Parameter(torch.zeros(shape)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        weight = spread(self.weight, x, self.axis)
        return x * weight if self.bias is None else torch.addcmul(spread(self.bias, x, self.axis), x, weight)


class Bias(nn.Module):
    """x + bias; the bias spans the axes of x from ``axis`` on."""

    def __init__(self, *shape: int, axis: int = 1) -> None:
        super().__init__()
        self.axis = axis
        self.bias = nn.Parameter(torch.zeros(shape))

    def forward(self, x: Tensor) -> Tensor:
        return x + spread(self.bias, x, self.axis)


def spread(values: Tensor, x: Tensor, axis: int) -> Tensor:
    """``values`` with axes of size 1 after it, so that it meets ``x`` from ``axis`` on."""
    values = values.to(x.dtype)
    return values.reshape(*values.shape, *(1,) * (x.ndim - axis - values.ndim)) if values.ndim else values


class ScaleShift(nn.Module):
    """x * weight + bias for every channel: SegNet's BN with its statistics merged in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape, *(1,) * (4 - x.ndim)) * self.weight + self.bias


class Normalize(nn.Module):
    """SSD's x / sqrt(eps + sum of squares) * scale, the sum over channels, or over everything but the batch."""

    def __init__(self, *shape: int, across_spatial: bool = False, eps: float = 1e-10) -> None:
        super().__init__()
        self.across_spatial, self.eps = across_spatial, eps
        self.scale = nn.Parameter(torch.ones(shape))

    def forward(self, x: Tensor) -> Tensor:
        axes = tuple(range(1, x.ndim)) if self.across_spatial else (1,)
        norm = (x.square().sum(axes, keepdim=True) + self.eps).sqrt()
        return x / norm * (self.scale.reshape(-1, *(1,) * (x.ndim - 2)) if self.scale.ndim else self.scale)


def unit_length(x: Tensor, norm: str = "L2") -> tuple[Tensor, Tensor]:
    """x over the length of its channels at each place, and that length; both have four axes."""
    x = x.reshape(*x.shape, *(1,) * (4 - x.ndim))
    sums = (x.square() if norm == "L2" else x.abs()).sum(1, keepdim=True) + 1e-6
    length = sums.sqrt() if norm == "L2" else sums
    return x / length, length


def larger(a: Tensor, b: Tensor) -> Tensor:
    """``a`` where a > b, elsewhere ``b``; torch.maximum would keep the NaN of either."""
    return torch.where(a > b, a, b)


def mvn(x: Tensor, variance: bool = True, across_channels: bool = False, eps: float = 1e-9) -> Tensor:
    """(x - mean) / (deviation + eps) of each plane, or of each item; the result has four axes."""
    shape = (*x.shape, *(1,) * (4 - x.ndim))
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    groups = wide.reshape(shape).flatten(1 if across_channels else 2)
    groups = groups - groups.mean(-1, keepdim=True)
    if variance:
        length = torch.linalg.vector_norm(groups, dim=-1, keepdim=True)
        groups = groups / (length / math.sqrt(groups.shape[-1]) + eps)
    return groups.reshape(shape).to(x.dtype)


def argmax(x: Tensor, top_k: int = 1, axis: int | None = None, values: bool = False) -> Tensor:
    """Caffe's ArgMax: the places of the largest values as floats, of equal ones the last; their values if asked for.

    Without ``axis`` over everything but the batch: (N, 1, top_k), and (N, 2, top_k) with the values too.
    """
    along = 1 if axis is None else axis
    flipped = (x.flatten(1) if axis is None else x).flip(along)
    found, places = largest(flipped, top_k, along)
    indices = (flipped.shape[along] - 1 - places).to(x.dtype)
    if axis is not None:
        return found if values else indices
    top = torch.stack((indices, found), 1) if values else indices.unsqueeze(1)
    return top.reshape(*top.shape, *(1,) * (x.ndim - 3))


def largest(x: Tensor, count: int, axis: int) -> tuple[Tensor, Tensor]:
    """The largest values along an axis and their places; of equal values the first comes first."""
    found, places = x.sort(dim=axis, descending=True, stable=True)
    return found.narrow(axis, 0, count), places.narrow(axis, 0, count)


def reorg(x: Tensor, stride: int, reverse: bool = False) -> Tensor:
    """Darknet's reorganisation of (C, H, W) into (C s^2, H / s, W / s), or back."""
    n, channels, height, width = x.shape
    s, fewer = stride, channels // stride**2
    if reverse:
        spread = x.reshape(n, s, s, fewer, height, width).permute(0, 3, 4, 1, 5, 2)
        return spread.reshape(n, fewer, height * s, width * s)
    gathered = x.reshape(n, fewer, height, s, width, s).permute(0, 3, 5, 1, 2, 4)
    return gathered.reshape(n, channels * s**2, height // s, width // s)


def unpool(x: Tensor, mask: Tensor, height: int, width: int) -> Tensor:
    """SegNet's Upsample: puts every value at the place in its plane that the mask names; the rest is 0."""
    planes = x.new_zeros((*x.shape[:2], height * width))
    return planes.scatter(2, mask.flatten(2).long(), x.flatten(2)).reshape(*x.shape[:2], height, width)


def prior_boxes(
    x: Tensor,
    image: tuple[int, int],
    sizes: tuple[tuple[float, float], ...],
    variances: tuple[float, ...],
    step: tuple[float, float] | None = None,
    offset: float = 0.5,
    clip: bool = False,
) -> Tensor:
    """SSD's default boxes (1, 2, boxes x 4) of every place of ``x``: corners over the image size, and variances.

    ``sizes``: (height, width) in pixels of each box of a place.
    """
    (height, width), (rows, columns) = image, x.shape[2:]
    step_h, step_w = step or (height / rows, width / columns)
    y = ((torch.arange(rows, device=x.device, dtype=torch.float32) + offset) * step_h).double()
    x_ = ((torch.arange(columns, device=x.device, dtype=torch.float32) + offset) * step_w).double()
    half = torch.tensor(sizes, device=x.device, dtype=torch.float32).double() / 2
    top, bottom = ((y[:, None] + sign * half[:, 0]) / height for sign in (-1, 1))
    left, right = ((x_[:, None] + sign * half[:, 1]) / width for sign in (-1, 1))
    shape = (rows, columns, len(sizes))
    corners = (left[None], top[:, None], right[None], bottom[:, None])
    boxes = torch.stack([corner.expand(shape) for corner in corners], -1).to(x.dtype)
    if clip:
        boxes = boxes.clamp(0.0, 1.0)
    spreads = torch.tensor(variances, device=x.device, dtype=x.dtype).expand(boxes.shape)
    return torch.stack((boxes.reshape(-1), spreads.reshape(-1))).unsqueeze(0)


def lstm_step(c: Tensor, gates: Tensor, cont: Tensor) -> tuple[Tensor, Tensor]:
    """One step of Caffe's LSTM: c = cont f c + i g and h = o tanh(c), the gates in the order i, f, o, g."""
    size = c.shape[-1]
    i, f, o = gates[..., : 3 * size].sigmoid().chunk(3, -1)
    c = torch.addcmul(f * cont.unsqueeze(-1) * c, i, gates[..., 3 * size :].tanh())
    return c, o * c.tanh()


class LSTM(nn.Module):
    """Caffe's LSTM over x (T, N, ...): the state goes on where ``cont`` (T, N) is 1 and starts anew where it is 0.

    ``static`` (N, ...) is seen at every step. ``h`` and ``c`` (1, N, D) are the first states, 0 unless given; the
    outputs are all h (T, N, D), the last h and the last c. Gates come in the order i, f, o, g.
    """

    def __init__(self, inputs: int, outputs: int, static: int = 0) -> None:
        super().__init__()
        self.W_xc = nn.Parameter(torch.zeros(4 * outputs, inputs))
        self.b_c = nn.Parameter(torch.zeros(4 * outputs))
        self.W_xc_static = nn.Parameter(torch.zeros(4 * outputs, static)) if static else None
        self.W_hc = nn.Parameter(torch.zeros(4 * outputs, outputs))

    def forward(
        self, x: Tensor, cont: Tensor, static: Tensor | None = None, h: Tensor | None = None, c: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        gates = F.linear(x.flatten(2), self.W_xc, self.b_c)
        if static is not None and self.W_xc_static is not None:
            gates = gates + F.linear(static.flatten(1), self.W_xc_static)
        zeros = x.new_zeros(x.shape[1], self.W_hc.shape[1])
        hidden, cell = (zeros if state is None else state[0] for state in (h, c))
        steps = []
        for step, marker in zip(gates.unbind(0), cont.unbind(0), strict=True):
            total = torch.addmm(step, hidden * marker.unsqueeze(1), self.W_hc.t())
            cell, hidden = lstm_step(cell, total, marker)
            steps.append(hidden)
        return torch.stack(steps), hidden.unsqueeze(0), cell.unsqueeze(0)


class RNN(nn.Module):
    """Caffe's RNN over x (T, N, ...): h = tanh(W_hh cont h + W_xh x + b_h), o = tanh(W_ho h + b_o).

    ``static`` (N, ...) is seen at every step. ``h`` (1, N, D) is the first state, 0 unless given; the outputs are all o
    (T, N, D) and the last h.
    """

    def __init__(self, inputs: int, outputs: int, static: int = 0) -> None:
        super().__init__()
        self.W_xh = nn.Parameter(torch.zeros(outputs, inputs))
        self.b_h = nn.Parameter(torch.zeros(outputs))
        self.W_xh_static = nn.Parameter(torch.zeros(outputs, static)) if static else None
        self.W_hh = nn.Parameter(torch.zeros(outputs, outputs))
        self.W_ho = nn.Parameter(torch.zeros(outputs, outputs))
        self.b_o = nn.Parameter(torch.zeros(outputs))

    def forward(
        self, x: Tensor, cont: Tensor, static: Tensor | None = None, h: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        inputs = F.linear(x.flatten(2), self.W_xh, self.b_h)
        if static is not None and self.W_xh_static is not None:
            inputs = inputs + F.linear(static.flatten(1), self.W_xh_static)
        hidden = x.new_zeros(x.shape[1], self.W_hh.shape[1]) if h is None else h[0]
        steps = []
        for step, marker in zip(inputs.unbind(0), cont.unbind(0), strict=True):
            hidden = torch.addmm(step, hidden * marker.unsqueeze(1), self.W_hh.t()).tanh()
            steps.append(hidden)
        return F.linear(torch.stack(steps), self.W_ho, self.b_o).tanh(), hidden.unsqueeze(0)


def imresize(x: Tensor, height: int, width: int) -> Tensor:
    """MATLAB's imresize(..., [height width], 'bilinear') of planes (N, C, H, W): antialiased, edges mirrored."""
    rows, columns = (
        imresize_weights(size, result).to(x) for size, result in zip(x.shape[2:], (height, width), strict=True)
    )
    return rows @ x @ columns.T


def imresize_weights(size: int, result: int) -> Tensor:
    """(result, size): a triangle around each output's place, as wide as its share of the input; edges mirror."""
    scale = torch.full((), result, dtype=torch.float64) / size
    centre = torch.arange(1, result + 1, dtype=torch.float64) / scale + 0.5 * (1 - 1 / scale)
    place = torch.ones(size, dtype=torch.float64).cumsum(0)  # 1, 2, ... size
    narrow = scale.clamp(max=1.0)
    weights = torch.zeros(())
    for mirrored in (place, 1 - place, 2 * size + 1 - place):
        weights = weights + (1 - narrow * (centre[:, None] - mirrored).abs()).clamp(min=0.0)
    return weights / weights.sum(1, keepdim=True)


def resize_linear(x: Tensor, height: int, width: int) -> Tensor:
    """pycaffe's resize of planes (N, C, H, W): two neighbours without antialias; 0 beyond the edges."""
    rows, columns = (
        linear_weights(size, result).to(x) for size, result in zip(x.shape[2:], (height, width), strict=True)
    )
    return rows @ x @ columns.T


def linear_weights(size: int, result: int) -> Tensor:
    """(result, size): each output's share of its two neighbours."""
    centre = (torch.arange(result, dtype=torch.float64) + 0.5) * (size / result) - 0.5
    return (1 - (centre[:, None] - torch.arange(size, dtype=torch.float64)).abs()).clamp(min=0.0)
