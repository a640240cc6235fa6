"""Convolutions, their transposes, zero padding before them, and nearest enlarging."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from caffe2torch.importing.builder import Builder
from caffe2torch.importing.registry import converts
from caffe2torch.importing.values import Operand, Refused, Shape, Value, blob_of, constant, per_axis


@converts("conv1d", "conv2d", "conv3d", takes=("pad",))
def conv(
    net: Builder,
    input: Operand,
    weight: Operand,
    bias: Operand | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Value:
    x, kernels = blob_of(input), constant(weight, "weight")
    spatial = kernels.ndim - 2
    _batched(x, spatial)
    steps, spread = per_axis(stride, spatial, "stride"), per_axis(dilation, spatial, "dilation")
    kernel = tuple(kernels.shape[2:])
    pad = _padding(padding, kernel, spread)
    size = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, p, d, k, s in zip(x.shape[2:], pad, spread, kernel, steps, strict=True)
    ]
    if x.pending:
        pad = tuple(p + more for p, more in zip(pad, x.amounts, strict=True))
    settings = _settings(kernels.shape[0], kernel, steps, pad, spread, groups, bias is not None)
    blobs = [kernels] if bias is None else [kernels, constant(bias, "bias")]
    shape = (x.shape[0], kernels.shape[0], *size)
    return net.add("Convolution", [x], shape, blobs=blobs, convolution_param=settings)


@converts("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def conv_transpose(
    net: Builder,
    input: Operand,
    weight: Operand,
    bias: Operand | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Value:
    x, kernels = blob_of(input), constant(weight, "weight")
    spatial = kernels.ndim - 2
    _batched(x, spatial)
    if any(per_axis(output_padding, spatial, "output_padding")):
        raise Refused(f"output_padding is {output_padding}; Caffe's Deconvolution has none")
    steps, spread = per_axis(stride, spatial, "stride"), per_axis(dilation, spatial, "dilation")
    pad, kernel = per_axis(padding, spatial, "padding"), tuple(kernels.shape[2:])
    channels = kernels.shape[1] * groups
    size = [
        s * (n - 1) + d * (k - 1) + 1 - 2 * p
        for n, p, d, k, s in zip(x.shape[2:], pad, spread, kernel, steps, strict=True)
    ]
    settings = _settings(channels, kernel, steps, pad, spread, groups, bias is not None)
    blobs = [kernels] if bias is None else [kernels, constant(bias, "bias")]
    return net.add("Deconvolution", [x], (x.shape[0], channels, *size), blobs=blobs, convolution_param=settings)


@converts("pad", "constant_pad_nd", takes=("pad",))
def pad(net: Builder, input: Operand, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Value:
    """Zeros around the plane are left to the convolution that reads it: Caffe has no other place for them."""
    x = blob_of(input)
    if not any(pad):
        return x
    if mode != "constant" or value not in (None, 0, 0.0):
        raise Refused(f"it pads with mode {mode!r}, value {value}; Caffe pads with zeros only")
    sides = [(pad[i], pad[i + 1]) for i in range(0, len(pad), 2)][::-1]  # torch begins with the last axis
    spatial = len(x.shape) - 2
    if len(sides) == spatial + 1 and not any(map(any, sides[1:])) and sides[0][0] == sides[0][1] and not x.pending:
        (count, _), (batch, channels, *plane) = sides[0], x.shape
        return replace(x, shape=(batch, channels + 2 * count, *plane), pending="channels", amounts=(count,))
    if len(sides) > spatial or spatial < 1:
        raise Refused(f"it pads {len(sides)} axes of {x.shape}; Caffe pads the axes after the channels only")
    sides = [(0, 0)] * (spatial - len(sides)) + sides
    if any(before != after or before < 0 for before, after in sides):
        raise Refused(f"it pads {list(pad)}, more on one side than on the other; Caffe's pad is the same on both")
    total = tuple(before + old for (before, _), old in zip(sides, x.amounts or (0,) * spatial, strict=True))
    shape = (*x.shape[:2], *(n + 2 * p for n, (p, _) in zip(x.shape[2:], sides, strict=True)))
    return replace(x, shape=shape, pending="pad", amounts=total)


@converts("interpolate", "upsample")
def interpolate(
    net: Builder,
    input: Operand,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Value:
    """Repeating every value is a Deconvolution of each channel by itself with ones; Caffe's own way to enlarge."""
    x = blob_of(input)
    spatial = len(x.shape) - 2
    if mode != "nearest" or spatial < 1:
        raise Refused(
            f"mode is {mode!r}; of Caffe's layers only a Deconvolution enlarges, and that exactly for 'nearest'"
        )
    if size is not None:
        target = per_axis(size, spatial, "size")
    else:
        factors = (scale_factor,) * spatial if isinstance(scale_factor, int | float) else tuple(scale_factor)
        target = tuple(int(n * f) for n, f in zip(x.shape[2:], factors, strict=True))
    if any(t % n for t, n in zip(target, x.shape[2:], strict=True)):
        raise Refused(f"it makes {x.shape[2:]} to {target}; only whole factors are exact in Caffe")
    kernel = tuple(t // n for t, n in zip(target, x.shape[2:], strict=True))
    if set(kernel) == {1}:
        return x
    channels = x.shape[1]
    ones = torch.ones(channels, 1, *kernel)
    settings = _settings(channels, kernel, kernel, (0,) * spatial, (1,) * spatial, channels, bias=False)
    return net.add("Deconvolution", [x], (*x.shape[:2], *target), blobs=[ones], convolution_param=settings)


def _batched(x: Value, spatial: int) -> None:
    if len(x.shape) != spatial + 2:
        raise Refused(f"its input has shape {x.shape}; expected a batch (N, C and {spatial} more axes)")


def _padding(padding: Any, kernel: Shape, dilation: Shape) -> Shape:
    if padding == "valid":
        return (0,) * len(kernel)
    if padding != "same":
        return per_axis(padding, len(kernel), "padding")
    total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    if any(n % 2 for n in total):
        raise Refused(
            f"padding 'same' of the even kernel {kernel} puts more on one side; Caffe's pad is the same on both"
        )
    return tuple(n // 2 for n in total)


def _settings(
    num_output: int, kernel: Shape, stride: Shape, pad: Shape, dilation: Shape, group: int, bias: bool
) -> dict[str, Any]:
    """ConvolutionParameter as a person writes it: defaults left out, one number where all axes have the same."""
    settings: dict[str, Any] = {"num_output": num_output}
    if not bias:
        settings["bias_term"] = False
    for field, short, values, default in (
        ("kernel_size", "kernel", kernel, None),
        ("stride", "stride", stride, 1),
        ("pad", "pad", pad, 0),
        ("dilation", None, dilation, 1),
    ):
        if all(value == default for value in values):
            continue
        if len(set(values)) == 1:
            settings[field] = [values[0]]
        elif len(values) == 2 and short:
            settings[f"{short}_h"], settings[f"{short}_w"] = values
        else:
            settings[field] = list(values)
    if group != 1:
        settings["group"] = group
    return settings
