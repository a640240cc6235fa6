"""Normalisation: of batches by stored statistics, across channels, and by length."""

from __future__ import annotations

from typing import Any

import torch

from caffe2torch.importing.builder import Builder
from caffe2torch.importing.ops.activation import FLT_MAX, clip, power
from caffe2torch.importing.ops.reduction import reduced
from caffe2torch.importing.ops.shape import permute, reshape
from caffe2torch.importing.registry import converts
from caffe2torch.importing.values import Operand, Refused, Value, axis_of, blob_of, constant


@converts("batch_norm")
def batch_norm(
    net: Builder,
    input: Operand,
    running_mean: Operand | None,
    running_var: Operand | None,
    weight: Operand | None = None,
    bias: Operand | None = None,
    training: bool = False,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Value:
    """BatchNorm with a factor of 1, so that its blobs are the statistics themselves, and Scale for weight and bias."""
    x = blob_of(input)
    if len(x.shape) < 2:
        raise Refused(f"its input has shape {x.shape}; expected channels on the second axis")
    channels = x.shape[1]
    settings: dict[str, Any] = {"eps": eps} if eps != 1e-5 else {}
    if momentum is not None and abs(momentum - 0.001) > 1e-9:
        settings["moving_average_fraction"] = 1.0 - momentum
    if training:
        # Statistics of the batch itself, also in evaluation (track_running_stats=False).
        settings["use_global_stats"] = False
        blobs = [torch.zeros(channels), torch.zeros(channels), torch.zeros(1)]
    else:
        blobs = [constant(running_mean, "running_mean"), constant(running_var, "running_var"), torch.ones(1)]
    y = net.add("BatchNorm", [x], x.shape, blobs=blobs, batch_norm_param=settings)
    if weight is None and bias is None:
        return y
    if weight is None:
        return net.add("Bias", [y], x.shape, part="bias", blobs=[constant(bias, "bias")])
    both = [constant(weight, "weight")] + ([] if bias is None else [constant(bias, "bias")])
    return net.add("Scale", [y], x.shape, part="scale", blobs=both, scale_param={"bias_term": bias is not None})


@converts("local_response_norm")
def local_response_norm(
    net: Builder, input: Operand, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Value:
    """In both the sum of squares is divided by the size, also where the window overlaps the border."""
    x = blob_of(input)
    if size % 2 == 0:
        raise Refused(f"size is {size}; Caffe's local_size is odd")
    if len(x.shape) != 4:
        raise Refused(f"its input has shape {x.shape}; Caffe's LRN takes 4 axes")
    settings = {
        name: value
        for name, value, default in (
            ("local_size", size, 5),
            ("alpha", alpha, 1.0),
            ("beta", beta, 0.75),
            ("k", k, 1.0),
        )
        if value != default
    }
    return net.add("LRN", [x], x.shape, lrn_param=settings)


@converts("normalize")
def normalize(net: Builder, input: Operand, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: Any = None) -> Value:
    """x / max(length, eps): Reduction, two Powers and a Scale by what they give."""
    x = blob_of(input)
    if p != 2.0 or out is not None:
        raise Refused(f"p is {p}; only the Euclidean length is converted")
    ndim = len(x.shape)
    axis = axis_of(dim, ndim)
    order = (*(a for a in range(ndim) if a != axis), axis)
    moved = permute(net, x, order, part="last")
    total = reduced(net, moved, "SUMSQ", ndim - 1, part="sum")
    length = power(net, total, power=0.5, part="length")
    if eps > 0:
        length = clip(net, length, eps, FLT_MAX, part="least")
    inverse = power(net, length, power=-1.0, part="inverse")
    top = net.add(
        "Scale", [moved, inverse], moved.shape, part="" if axis == ndim - 1 else "scaled", scale_param={"axis": 0}
    )
    back = [order.index(a) for a in range(ndim)]
    return permute(net, top, back)


@converts("pairwise_distance")
def pairwise_distance(
    net: Builder, x1: Operand, x2: Operand, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Value:
    """The length of x1 - x2 + eps."""
    a, b = blob_of(x1, "x1"), blob_of(x2, "x2")
    if p != 2.0 or a.shape != b.shape:
        raise Refused(f"p is {p}, shapes {a.shape} and {b.shape}; expected p 2 and equal shapes")
    difference = net.add("Eltwise", [a, b], a.shape, part="difference", eltwise_param={"coeff": [1.0, -1.0]})
    if eps:
        difference = power(net, difference, shift=eps, part="eps")
    total = reduced(net, difference, "SUMSQ", len(a.shape) - 1, part="sum")
    distance = power(net, total, power=0.5, part="distance" if keepdim else "")
    return reshape(net, distance, (*a.shape[:-1], 1)) if keepdim else distance
