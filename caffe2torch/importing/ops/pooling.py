"""Pooling, where torch's windows are Caffe's."""

from __future__ import annotations

import math
from typing import Any

from caffe2torch.importing.builder import Builder
from caffe2torch.importing.ops.indexing import cut
from caffe2torch.importing.ops.shape import reshape
from caffe2torch.importing.registry import converts
from caffe2torch.importing.values import Operand, Refused, Shape, Value, blob_of, per_axis


@converts("max_pool1d", "max_pool2d")
def max_pool(
    net: Builder,
    input: Operand,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Value:
    x, spatial = _bottom(net, input)
    if any(d != 1 for d in per_axis(dilation, spatial, "dilation")):
        raise Refused(f"dilation is {dilation}; Caffe's Pooling has none")
    if return_indices:
        raise Refused("it gives the indices of the maxima, which Caffe has in another form; use the values only")
    return _windows(net, x, spatial, "MAX", kernel_size, stride, padding, ceil_mode)


@converts("avg_pool1d", "avg_pool2d")
def avg_pool(
    net: Builder,
    input: Operand,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Value:
    x, spatial = _bottom(net, input)
    area = math.prod(per_axis(kernel_size, spatial, "kernel_size"))
    if divisor_override not in (None, area):
        raise Refused(f"divisor_override is {divisor_override}; Caffe divides by the window's size, here {area}")
    if any(per_axis(padding, spatial, "padding")) and not count_include_pad:
        raise Refused(
            f"padding {padding} with count_include_pad=False divides by the values inside the image; "
            "Caffe's average counts the padding"
        )
    return _windows(net, x, spatial, "AVE", kernel_size, stride, padding, ceil_mode)


@converts("adaptive_avg_pool1d", "adaptive_avg_pool2d")
def adaptive_avg_pool(net: Builder, input: Operand, output_size: Any) -> Value:
    return _adaptive(net, input, output_size, "AVE")


@converts("adaptive_max_pool1d", "adaptive_max_pool2d")
def adaptive_max_pool(net: Builder, input: Operand, output_size: Any, return_indices: bool = False) -> Value:
    if return_indices:
        raise Refused("it gives the indices of the maxima, which Caffe has in another form; use the values only")
    return _adaptive(net, input, output_size, "MAX")


def global_pooling(net: Builder, x: Value, method: str, *, part: str = "") -> Value:
    """One window over each plane of (N, C, H, W), to (N, C, 1, 1)."""
    settings = {"pool": method, "global_pooling": True}
    return net.add("Pooling", [x], (*x.shape[:2], 1, 1), part=part, pooling_param=settings)


def _bottom(net: Builder, input: Operand) -> tuple[Value, int]:
    """The input and its number of spatial axes."""
    x = blob_of(input)
    spatial = 1 if net.operation.endswith("1d") else 2
    if len(x.shape) != spatial + 2:
        raise Refused(f"its input has shape {x.shape}; expected a batch (N, C and {spatial} more axes)")
    return x, spatial


def _adaptive(net: Builder, input: Operand, output_size: Any, method: str) -> Value:
    x, spatial = _bottom(net, input)
    sizes = (output_size,) * spatial if isinstance(output_size, int) else tuple(output_size)
    target = tuple(
        n if size is None else size for n, size in zip(x.shape[2:], sizes * (spatial // len(sizes)), strict=True)
    )
    if any(n % t for n, t in zip(x.shape[2:], target, strict=True)):
        raise Refused(
            f"it makes {x.shape[2:]} to {target}, which does not divide: its windows have different sizes, and Caffe's "
            "have one; choose an input whose size divides"
        )
    kernel = tuple(n // t for n, t in zip(x.shape[2:], target, strict=True))
    if set(kernel) == {1}:
        return x
    if set(target) == {1} and spatial == 2:
        return global_pooling(net, x, method)
    return _windows(net, x, spatial, method, kernel, kernel, 0, False)


def _windows(
    net: Builder, x: Value, spatial: int, method: str, kernel: Any, stride: Any, padding: Any, ceil: bool
) -> Value:
    sizes = per_axis(kernel, spatial, "kernel_size")
    steps = per_axis(kernel if stride is None or stride == [] or stride == () else stride, spatial, "stride")
    pad = per_axis(padding, spatial, "padding")
    if spatial == 1:  # Caffe pools planes: a row is a plane of height 1
        plane = reshape(net, x, (*x.shape[:2], 1, x.shape[2]), part="plane")
        top = _plane(net, plane, method, (1, *sizes), (1, *steps), (0, *pad), ceil, part="pool")
        return reshape(net, top, (*top.shape[:2], top.shape[3]))
    return _plane(net, x, method, sizes, steps, pad, ceil)


def _plane(
    net: Builder, x: Value, method: str, kernel: Shape, stride: Shape, pad: Shape, ceil: bool, *, part: str = ""
) -> Value:
    """Pooling of (N, C, H, W). Caffe rounds up where torch rounds down, and has windows more: they are cut off.

    The windows that stay are the same, since the first begins at the same place.
    """
    # torch drops a last window that would begin in padding where it rounds up, Caffe where there is padding at all.
    found = _counts(x.shape[2:], kernel, stride, pad, ceil=ceil, drops=ceil)
    up, down = (_counts(x.shape[2:], kernel, stride, pad, ceil=mode, drops=any(pad)) for mode in (True, False))
    if any(f > u for f, u in zip(found, up, strict=True)):
        raise Refused(f"it makes {x.shape[2:]} to {found}, Caffe's Pooling only to {up}")
    settings: dict[str, Any] = {"pool": method}
    for field, values, default in (("kernel", kernel, 0), ("stride", stride, 1), ("pad", pad, 0)):
        if values[0] != values[1]:
            settings[f"{field}_h"], settings[f"{field}_w"] = values
        elif values[0] != default:
            settings["kernel_size" if field == "kernel" else field] = values[0]
    if found == up or (net.round_mode and found == down):
        if found != up:
            settings["round_mode"] = "FLOOR"
        return net.add("Pooling", [x], (*x.shape[:2], *found), part=part, pooling_param=settings)
    top = net.add("Pooling", [x], (*x.shape[:2], *up), part=part, pooling_param=settings)
    rows = cut(net, top, 2, 0, found[0], part="rows")
    return cut(net, rows, 3, 0, found[1], part="columns")


def _counts(sizes: Shape, kernel: Shape, stride: Shape, pad: Shape, *, ceil: bool, drops: bool) -> list[int]:
    """Windows along each axis; ``drops``: without a last one that would begin in the padding behind."""
    counts = []
    for n, k, s, p in zip(sizes, kernel, stride, pad, strict=True):
        span = n + 2 * p - k
        windows = (-(-span // s) if ceil else span // s) + 1
        counts.append(windows - 1 if drops and (windows - 1) * s >= n + p else windows)
    return counts
