"""Functions of each value by itself, softmax and dropout."""

from __future__ import annotations

import math
from typing import Any

import torch

from caffe2torch.importing.builder import Builder
from caffe2torch.importing.registry import converts
from caffe2torch.importing.values import Operand, Refused, Value, axis_of, blob_of, constant, number_of

FLT_MAX = torch.finfo(torch.float32).max


def power(
    net: Builder, x: Value, *, power: float = 1.0, scale: float = 1.0, shift: float = 0.0, part: str = ""
) -> Value:
    """(shift + scale x) ^ power."""
    settings = {
        name: value
        for name, value, default in (("power", power, 1.0), ("scale", scale, 1.0), ("shift", shift, 0.0))
        if value != default
    }
    if any(not math.isfinite(value) or abs(value) > FLT_MAX for value in settings.values()):
        raise Refused(f"its constant is {list(settings.values())}, expected finite numbers of float32")
    if not settings:
        return x
    return net.add("Power", [x], x.shape, part=part, power_param=settings)


def clip(net: Builder, x: Value, least: float, most: float, *, part: str = "") -> Value:
    """Values below ``least`` become ``least``, those above ``most`` ``most``."""
    limits = {"min": max(least, -FLT_MAX), "max": min(most, FLT_MAX)}
    return net.add("Clip", [x], x.shape, part=part, clip_param=limits)


def _becomes(layer_type: str, *names: str, **settings: Any) -> None:
    """Calls of functions of these names become one layer of this type; ``settings`` are fields of LayerParameter."""

    # Not all of them take ``inplace``: torch itself has refused it where it is wrong, since it runs first.
    @converts(*names)
    def one_layer(net: Builder, input: Operand, inplace: bool = False) -> Value:
        x = blob_of(input)
        return net.add(layer_type, [x], x.shape, **settings)


_becomes("ReLU", "relu", "relu_")
_becomes("ReLU6", "relu6")
_becomes("Sigmoid", "sigmoid", "sigmoid_", "special_expit")
_becomes("TanH", "tanh", "tanh_")
_becomes("HSwish", "hardswish")
_becomes("HSigmoid", "hardsigmoid")
_becomes("Swish", "silu")
_becomes("AbsVal", "abs", "abs_", "absolute", "__abs__")
_becomes("Exp", "exp", "exp_")
_becomes("Log", "log", "log_")
_becomes("Power", "sqrt", "sqrt_", power_param={"power": 0.5})
_becomes("Power", "rsqrt", "rsqrt_", power_param={"power": -0.5})
_becomes("Power", "square", "square_", power_param={"power": 2.0})
_becomes("Power", "reciprocal", "reciprocal_", power_param={"power": -1.0})
_becomes("Power", "neg", "neg_", "negative", "__neg__", power_param={"scale": -1.0})


@converts("leaky_relu", "leaky_relu_")
def leaky_relu(net: Builder, input: Operand, negative_slope: float = 0.01, inplace: bool = False) -> Value:
    x = blob_of(input)
    return net.add("ReLU", [x], x.shape, relu_param={"negative_slope": negative_slope})


@converts("prelu")
def prelu(net: Builder, input: Operand, weight: Operand) -> Value:
    x, slope = blob_of(input), constant(weight, "weight")
    if len(x.shape) < 2:
        raise Refused(f"its input has shape {x.shape}; Caffe's PReLU needs channels on the second axis")
    shared = slope.numel() == 1
    blob = net.reshaped(slope, () if shared else (slope.numel(),))
    settings = {"channel_shared": True} if shared else {}
    return net.add("PReLU", [x], x.shape, blobs=[blob], prelu_param=settings)


@converts("elu", "elu_")
def elu(
    net: Builder,
    input: Operand,
    alpha: float = 1.0,
    scale: float = 1.0,
    input_scale: float = 1.0,
    inplace: bool = False,
) -> Value:
    if scale != 1.0 or input_scale != 1.0:
        raise Refused(f"scale {scale} and input_scale {input_scale}; Caffe's ELU has alpha only")
    x = blob_of(input)
    return net.add("ELU", [x], x.shape, elu_param={"alpha": alpha})


@converts("selu", "selu_")
def selu(net: Builder, input: Operand, inplace: bool = False) -> Value:
    x = blob_of(input)
    # The two constants of the paper (Klambauer et al. 2017), as torch has them.
    y = net.add("ELU", [x], x.shape, part="elu", elu_param={"alpha": 1.6732632423543772848170429916717})
    return power(net, y, scale=1.0507009873554804934193349852946)


@converts("hardtanh", "hardtanh_")
def hardtanh(net: Builder, input: Operand, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Value:
    x = blob_of(input)
    if (min_val, max_val) == (0, 6):  # what torch.nn.ReLU6 calls
        return net.add("ReLU6", [x], x.shape)
    return clip(net, x, min_val, max_val)


@converts("clamp", "clamp_", "clip", "clip_")
def clamp(net: Builder, input: Operand, min: Operand | None = None, max: Operand | None = None) -> Value:
    limits = [number_of(limit) if limit is not None else None for limit in (min, max)]
    if any(limit is not None and number is None for limit, number in zip((min, max), limits, strict=True)):
        raise Refused("its limits differ from place to place; Caffe's Clip has one pair of numbers")
    least, most = limits
    x = blob_of(input)
    if least == 0.0 and most is None:
        return net.add("ReLU", [x], x.shape)
    return clip(net, x, -math.inf if least is None else least, math.inf if most is None else most)


@converts("clamp_min", "clamp_min_")
def clamp_min(net: Builder, input: Operand, min: Operand) -> Value:
    return clamp(net, input, min)


@converts("clamp_max", "clamp_max_")
def clamp_max(net: Builder, input: Operand, max: Operand) -> Value:
    return clamp(net, input, None, max)


@converts("softplus")
def softplus(net: Builder, input: Operand, beta: float = 1.0, threshold: float = 20.0) -> Value:
    if threshold < 20.0:
        raise Refused(f"threshold is {threshold}; below 20 torch's softplus differs from Caffe's BNLL")
    x = blob_of(input)
    if beta == 1.0:
        return net.add("BNLL", [x], x.shape)
    y = power(net, x, scale=beta, part="times_beta")
    return power(net, net.add("BNLL", [y], x.shape, part="bnll"), scale=1.0 / beta)


@converts("log1p", "log1p_")
def log1p(net: Builder, input: Operand) -> Value:
    raise Refused("Caffe's Log rounds 1 + x first, so that small values are lost; use log if that is meant")


@converts("gt", "__gt__", "greater")
def gt(net: Builder, input: Operand, other: Operand) -> Value:
    x, threshold = blob_of(input), number_of(other)
    if threshold is None:
        raise Refused("it compares with something else than a number; Caffe's Threshold takes one number")
    return net.add("Threshold", [x], x.shape, threshold_param={"threshold": threshold})


@converts("softmax")
def softmax(net: Builder, input: Operand, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Value:
    x = blob_of(input)
    if dim is None:
        dim = 0 if len(x.shape) in (0, 1, 3) else 1  # what torch takes, with a warning
    axis = axis_of(dim, len(x.shape))
    if not x.shape:
        raise Refused("its input is a single number")
    return net.add("Softmax", [x], x.shape, softmax_param={"axis": axis} if axis != 1 else {})


@converts("dropout", "dropout_")
def dropout(
    net: Builder,
    input: Operand,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    train: bool | None = None,
) -> Value:
    x = blob_of(input)
    if training if train is None else train:
        raise Refused("it drops values although the module is in evaluation mode; pass training=self.training")
    if p >= 1.0:
        raise Refused("p is 1: Caffe's Dropout keeps some values")
    return net.add("Dropout", [x], x.shape, dropout_param={"dropout_ratio": p}) if p else x


@converts("dropout1d", "dropout2d", "dropout3d", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
def channel_dropout(
    net: Builder, input: Operand, p: float = 0.5, training: bool = False, inplace: bool = False
) -> Value:
    if training:
        raise Refused("it drops values although the module is in evaluation mode; pass training=self.training")
    net.note(f"{net.operation} does nothing in evaluation, and Caffe has none in training; left out")
    return blob_of(input)
