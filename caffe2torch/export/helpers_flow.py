"""Helpers of FlowNet2's layers, as ``helpers``."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def correlation(
    x: Tensor,
    other: Tensor,
    pad: tuple[int, int],
    margin: tuple[int, int],
    down: range,
    across: range,
    kernel: int = 1,
    stride: int = 1,
) -> Tensor:
    """FlowNet's correlation of two maps (N, C, H, W): a channel for each displacement of ``other``, rows first.

    Each is the mean over channels and a window of the products. ``pad`` and ``margin``, of rows and columns, are zeros
    around both maps and places of the padded first one without a window.
    """
    x, other = (F.pad(maps, (pad[1], pad[1], pad[0], pad[0])) for maps in (x, other))
    n, channels, height, width = x.shape
    rows, columns = height - 2 * margin[0], width - 2 * margin[1]
    lead = max(0, -(margin[1] + across.start))
    centre = x[:, :, margin[0] : margin[0] + rows, margin[1] : margin[1] + columns].permute(0, 2, 3, 1).contiguous()
    lines = F.pad(other, (lead, 0)).permute(0, 2, 3, 1).contiguous()
    shifts = torch.arange(across.start, across.stop, across.step, device=x.device)
    place = torch.arange(columns, device=x.device)[:, None] + margin[1] + lead + shifts
    place = place.expand(n, rows, columns, len(across))
    maps = []
    for shift in down:
        line = lines[:, margin[0] + shift : margin[0] + shift + rows]
        maps.append(torch.matmul(centre, line.transpose(2, 3)).gather(3, place))
    found = torch.cat(maps, 3).permute(0, 3, 1, 2).contiguous() / channels
    return found if kernel == stride == 1 else F.avg_pool2d(found, kernel, stride)


def flow_warp(image: Tensor, flow: Tensor, fill: float = 0.0) -> Tensor:
    """FlowNet2's: ``image`` (N, C, H, W) at each place moved by ``flow`` (N, 2, H, W); ``fill`` from outside."""
    height, width = image.shape[2:]
    x = flow[:, 0] + torch.arange(width, device=flow.device)
    y = flow[:, 1] + torch.arange(height, device=flow.device)[:, None]
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    x, y = (torch.where(inside, place, 0.0) for place in (x, y))
    left, above = x.long(), y.long()
    right, below = (left + 1).clamp(max=width - 1), (above + 1).clamp(max=height - 1)
    a, b = (x - left)[:, None], (y - above)[:, None]
    top = (1 - a) * (1 - b) * values_at(image, above, left) + a * (1 - b) * values_at(image, above, right)
    top = top + (1 - a) * b * values_at(image, below, left) + a * b * values_at(image, below, right)
    return torch.where(inside[:, None], top, fill)


def values_at(image: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The values (N, C, H, W) of the image at rows and columns (N, H, W)."""
    place = (rows * image.shape[3] + columns).flatten(1)[:, None].expand(-1, image.shape[1], -1)
    return image.flatten(2).gather(2, place).reshape(image.shape)


def resample(x: Tensor, height: int, width: int, kind: str = "linear", antialias: bool = True) -> Tensor:
    """FlowNet's: planes of another size by "nearest", "linear" or "cubic"; the offset of each axis is the other's."""
    fy, fx = x.shape[2] / height, x.shape[3] / width
    y = torch.arange(height, device=x.device, dtype=torch.float32) * fy + fx / 2 - 0.5
    x_ = torch.arange(width, device=x.device, dtype=torch.float32) * fx + fy / 2 - 0.5
    if kind == "nearest":
        rows, columns = (round_half_up(at).long().clamp(max=n - 1) for at, n in zip((y, x_), x.shape[2:], strict=True))
        return x.index_select(2, rows).index_select(3, columns)
    wide = antialias and max(fx, fy) > 1
    x = resample_columns(x, x_, fx, fx if wide else 1.0, kind)
    return resample_columns(x.transpose(2, 3), y, fy, fy if wide else 1.0, kind).transpose(2, 3).contiguous()


def resample_columns(x: Tensor, at: Tensor, factor: float, width: float, kind: str) -> Tensor:
    """Columns at the places ``at``: weighted sums of those around, by a kernel ``width`` times as wide."""
    size = x.shape[3]
    reach = 2 if factor < 1 else math.ceil((4 if kind == "cubic" else 2) * width)
    place = round_half_up(at)[:, None] + torch.arange(-reach, reach + 1, device=at.device)
    inside = (place >= 0) & (place < size)
    d = (at[:, None] - place).abs() * (1 / width)
    if kind == "cubic":
        far = torch.where(d < 2, d * (d * (-0.5 * d + 2.5) - 4) + 2, 0.0)
        weight = torch.where(d <= 1, d * d * (1.5 * d - 2.5) + 1, far)
    else:
        weight = (1 - d).clamp(min=0)
    weight = torch.where(inside, weight, 0.0)
    total = weight.sum(1, keepdim=True)
    weight = torch.where(total == 0, 0.0, weight / total)
    values = F.pad(x, (0, 1)).index_select(3, torch.where(inside, place, size).long().flatten())
    return (values.reshape(*values.shape[:3], *place.shape) * weight.to(x.dtype)).sum(-1)


def round_half_up(x: Tensor) -> Tensor:
    """Round to whole numbers, also just below a half, where x + 0.5 may already be whole."""
    whole = x.floor()
    return torch.where(x - whole >= 0.5, whole + 1, whole)
