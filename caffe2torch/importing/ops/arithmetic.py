"""Sums, products, quotients, powers and maxima of blobs, constants and numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from caffe2torch.importing.builder import Builder
from caffe2torch.importing.lrn import joined_windows
from caffe2torch.importing.ops.activation import power
from caffe2torch.importing.ops.shape import reshape, tile_to
from caffe2torch.importing.registry import converts
from caffe2torch.importing.values import Operand, Refused, Shape, Value, number_of


@converts("add", "add_", "__add__", "__radd__", "__iadd__", takes=("window",))
def add(net: Builder, input: Operand, other: Operand, *, alpha: float = 1.0) -> Value:
    if any(isinstance(x, Value) and x.pending for x in (input, other)):
        return joined_windows(net, input, other, alpha)
    return _sum(net, input, other, alpha)


@converts("sub", "sub_", "__sub__", "__isub__", "subtract")
def sub(net: Builder, input: Operand, other: Operand, *, alpha: float = 1.0) -> Value:
    return _sum(net, input, other, -alpha)


@converts("rsub", "__rsub__")
def rsub(net: Builder, input: Operand, other: Operand, alpha: float = 1.0) -> Value:
    return _sum(net, other, input, -alpha)


@converts("mul", "mul_", "__mul__", "__rmul__", "__imul__", "multiply")
def mul(net: Builder, input: Operand, other: Operand) -> Value:
    if isinstance(input, Value) and isinstance(other, Value):
        return _product(net, input, other)
    x, c = (input, other) if isinstance(input, Value) else (other, input)
    assert isinstance(x, Value)
    number = _number(net, c)
    if number is not None:
        return power(net, x, scale=number)
    return _with_constant(net, "Scale", x, c, "scale_param")


@converts("addcmul", "addcmul_")
def addcmul(net: Builder, input: Operand, tensor1: Operand, tensor2: Operand, *, value: float = 1.0) -> Value:
    """input + value tensor1 tensor2: one Scale with its bias where both constants span the same axes of the blob."""
    constants = [x for x in (tensor1, tensor2) if isinstance(x, Tensor)]
    if value == 1.0 and len(constants) == 1 and isinstance(input, Tensor) and constants[0].shape == input.shape:
        x = tensor1 if isinstance(tensor1, Value) else tensor2
        assert isinstance(x, Value)
        return _with_constant(net, "Scale", x, constants[0], "scale_param", bias=input)
    if not (isinstance(tensor1, Value) or isinstance(tensor2, Value)):
        raise Refused("both its factors are constants; add their product instead")
    return _sum(net, input, mul(net, tensor1, tensor2), value)


@converts("div", "div_", "__truediv__", "__itruediv__", "__div__", "__idiv__", "true_divide", "divide")
def div(net: Builder, input: Operand, other: Operand, *, rounding_mode: str | None = None) -> Value:
    if rounding_mode is not None:
        raise Refused(f"rounding_mode is {rounding_mode!r}; Caffe does not round")
    if isinstance(other, Value):
        number = None if isinstance(input, Value) else _number(net, input)
        if number is not None:
            # c / x as (x / c) ^ -1
            return power(net, other, power=-1.0, scale=1.0 / number) if number else power(net, other, scale=0.0)
        return mul(net, input, power(net, other, power=-1.0, part="inverse"))
    number = _number(net, other)
    if number is not None:
        if number == 0.0:
            raise Refused("it divides by 0")
        return power(net, input, scale=1.0 / number)  # type: ignore[arg-type]
    assert isinstance(other, Tensor)
    return mul(net, input, 1.0 / other.detach())


@converts("__rdiv__", "__rtruediv__")
def rdiv(net: Builder, input: Operand, other: Operand) -> Value:
    return div(net, other, input)


@converts("pow", "pow_", "__pow__", "__ipow__", "float_power")
def pow(net: Builder, input: Operand, exponent: Operand) -> Value:
    if isinstance(input, Value):
        number = number_of(exponent)
        if number is None:
            raise Refused("its exponent is no number; Caffe's Power takes one number")
        return power(net, input, power=number)
    base = number_of(input)
    if base is None or base <= 0.0 or not isinstance(exponent, Value):
        raise Refused("its base is no positive number; Caffe's Exp takes one")
    return net.add("Exp", [exponent], exponent.shape, exp_param={"base": base})


@converts("__rpow__")
def rpow(net: Builder, input: Operand, other: Operand) -> Value:
    return pow(net, other, input)


@converts("maximum", "max", "fmax")
def maximum(net: Builder, input: Operand, other: Operand | None = None, **reduction: object) -> Value:
    a, b = _two_blobs(net, input, other, bool(reduction))
    return net.add("Eltwise", [a, b], a.shape, eltwise_param={"operation": "MAX"})


@converts("minimum", "min", "fmin")
def minimum(net: Builder, input: Operand, other: Operand | None = None, **reduction: object) -> Value:
    """-max(-a, -b)."""
    a, b = _two_blobs(net, input, other, bool(reduction))
    negative = [power(net, x, scale=-1.0, part=f"negative{index}") for index, x in enumerate((a, b))]
    top = net.add("Eltwise", negative, a.shape, part="max", eltwise_param={"operation": "MAX"})
    return power(net, top, scale=-1.0)


def _two_blobs(net: Builder, a: Operand, b: Operand | None, reduction: bool) -> tuple[Value, Value]:
    if reduction or b is None or isinstance(b, int):
        raise Refused("it takes the largest (or smallest) value along an axis; Caffe's Eltwise takes that of two blobs")
    if not isinstance(a, Value) or not isinstance(b, Value):
        raise Refused("it compares with a constant; use clamp, which is Caffe's Clip")
    if a.shape != b.shape:
        raise Refused(f"its inputs have the shapes {a.shape} and {b.shape}; Caffe's Eltwise takes equal shapes")
    return a, b


def _number(net: Builder, operand: Operand) -> float | None:
    """A constant that is one number and not learned."""
    if isinstance(operand, Tensor) and net.origin(operand).learned:
        return None
    return number_of(operand)


def _sum(net: Builder, a: Operand, b: Operand, factor: float) -> Value:
    """a + factor b."""
    if isinstance(a, Value) and isinstance(b, Value):
        return _sum_of_blobs(net, a, b, factor)
    if isinstance(a, Value):
        number = _number(net, b)
        if number is not None:
            return power(net, a, shift=factor * number)
        assert isinstance(b, Tensor)
        return _with_constant(net, "Bias", a, b if factor == 1.0 else b.detach() * factor, "bias_param")
    assert isinstance(b, Value)
    number = _number(net, a)
    if number is not None:
        return power(net, b, scale=factor, shift=number)
    scaled = power(net, b, scale=factor, part="scaled")
    return _with_constant(net, "Bias", scaled, a, "bias_param")


def _sum_of_blobs(net: Builder, a: Value, b: Value, factor: float) -> Value:
    if a.shape == b.shape:
        settings = {"coeff": [1.0, factor]} if factor != 1.0 else {}
        return net.add("Eltwise", [a, b], a.shape, eltwise_param=settings)
    scaled = power(net, b, scale=factor, part="scaled")
    return _spread(net, "Bias", a, scaled, "bias_param")


def _product(net: Builder, a: Value, b: Value) -> Value:
    if a.shape == b.shape:
        return net.add("Eltwise", [a, b], a.shape, eltwise_param={"operation": "PROD"})
    return _spread(net, "Scale", a, b, "scale_param")


def _spread(net: Builder, layer_type: str, a: Value, b: Value, field: str) -> Value:
    """Scale or Bias by a blob that spans some of the other's axes: the other way of Caffe to broadcast."""
    big, small = (a, b) if len(a.shape) > len(b.shape) or _count(a) >= _count(b) else (b, a)
    if len(small.shape) > len(big.shape):
        return _tiled(net, layer_type, a, b)
    aligned = (1,) * (len(big.shape) - len(small.shape)) + small.shape
    start, stop = 0, len(aligned)
    while start < stop and aligned[start] == 1 and big.shape[start] != 1:
        start += 1
    while stop > start and aligned[stop - 1] == 1 and big.shape[stop - 1] != 1:
        stop -= 1
    if aligned[start:stop] != big.shape[start:stop] or stop == start:
        return _tiled(net, layer_type, a, b)
    factor = reshape(net, small, aligned[start:stop], part="axes")
    return net.add(layer_type, [big, factor], big.shape, **_param(field, axis=start))


def _tiled(net: Builder, layer_type: str, a: Value, b: Value) -> Value:
    """The result where neither spans axes of the other: both are repeated to its shape, and an Eltwise joins them."""
    ndim = max(len(a.shape), len(b.shape))
    sides = [(1,) * (ndim - len(x.shape)) + x.shape for x in (a, b)]
    shape = tuple(m if n == 1 else n for n, m in zip(*sides, strict=True))
    whole = [tile_to(net, x, shape, part=f"input{index}") for index, x in enumerate((a, b))]
    settings = {"operation": "PROD"} if layer_type == "Scale" else {}
    return net.add("Eltwise", whole, shape, eltwise_param=settings)


def _count(x: Value) -> int:
    return torch.Size(x.shape).numel()


def _with_constant(
    net: Builder, layer_type: str, x: Value, c: Operand, field: str, *, bias: Tensor | None = None
) -> Value:
    """Scale or Bias with a constant that spans some axes of ``x``; a Scale may have a bias of the same axes."""
    assert isinstance(c, Tensor)
    shape = tuple(c.shape)
    extra = shape[: max(len(shape) - len(x.shape), 0)]
    if extra and set(extra) == {1}:
        raise Refused(f"a constant of shape {shape} adds axes to {x.shape}; give it at most as many")
    aligned = (1,) * (len(x.shape) - len(shape)) + shape
    if extra or any(n not in (1, m) for n, m in zip(aligned, x.shape, strict=True)):
        raise Refused(f"it broadcasts {x.shape} to a constant of shape {shape}; Caffe's blobs stay as they are")
    wide = [axis for axis, n in enumerate(aligned) if n != 1]
    start, stop = (wide[0], wide[-1] + 1) if wide else (0, 0)  # none: a learned number
    constants = [c] if bias is None else [c, bias]
    blobs = [_filled(net, blob, aligned[start:stop], x.shape[start:stop]) for blob in constants]
    settings = _param(field, axis=start, num_axes=stop - start)
    if bias is not None:
        settings[field]["bias_term"] = True
    return net.add(layer_type, [x], x.shape, blobs=blobs, **settings)


def _filled(net: Builder, c: Tensor, own: Shape, wanted: Sequence[int]) -> Tensor:
    """The constant over all the axes it spans, those between that it leaves out included."""
    blob = net.reshaped(c, own)
    return blob if own == tuple(wanted) else blob.expand(tuple(wanted)).contiguous()


def _param(field: str, **values: int) -> dict[str, Any]:
    """The settings of Scale or Bias, without their defaults, which are all 1."""
    return {field: {name: value for name, value in values.items() if value != 1}}
