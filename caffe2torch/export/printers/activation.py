"""Layers that work on each value by itself."""

from __future__ import annotations

import math

from caffe2torch.export.names import number
from caffe2torch.export.printing import Call, printer
from caffe2torch.layers import activation as of
from caffe2torch.layers import mobile, swish
from caffe2torch.layers.registry import Layer


@printer(of.ReLU, nests=True)
def relu(layer: of.ReLU, call: Call) -> str:
    return f"F.leaky_relu({call.x}, {number(layer.negative_slope)})" if layer.negative_slope else f"F.relu({call.x})"


def _one_call(cls: type[Layer], expression: str) -> None:
    """Layers of a class without settings are one call; ``expression`` has {} for its bottom."""

    @printer(cls, nests=True)
    def write(layer: Layer, call: Call) -> str:
        return expression.format(call.x)


_one_call(of.Sigmoid, "torch.sigmoid({})")
_one_call(of.TanH, "torch.tanh({})")
_one_call(of.AbsVal, "torch.abs({})")
_one_call(of.BNLL, "F.softplus({}, threshold=50)")
_one_call(mobile.HSigmoid, "F.hardsigmoid({})")
_one_call(mobile.HSwish, "F.hardswish({})")


@printer(of.Dropout, nests=True)
def dropout(layer: of.Dropout, call: Call) -> str:
    if layer.drops:
        call.refuse("it drops values although the net is in its test phase")
    if not layer.scale_train:
        return f"torch.mul({call.x}, {number(1.0 - layer.ratio)})"
    return f"{call.module(f'nn.Dropout({number(layer.ratio)})')}({call.x})"


@printer(of.Power)
def power(layer: of.Power, call: Call) -> str:
    if layer.power * layer.scale == 0.0:
        if layer.power != 0.0 and layer.shift <= 0.0:
            call.refuse(f"it is the constant {layer.shift:g}^{layer.power:g}, whatever its input")
        return f"torch.full_like({call.x}, {number(1.0 if layer.power == 0.0 else layer.shift**layer.power)})"
    terms = call.x if layer.scale == 1.0 else f"{call.x} * {number(layer.scale)}"
    if layer.shift:
        sign, size = ("+", layer.shift) if layer.shift > 0 else ("-", -layer.shift)
        terms = f"{terms} {sign} {number(size)}"
    if layer.power == 1.0:
        return terms
    return f"torch.pow({terms}, {number(layer.power)})"


@printer(of.PReLU, nests=True)
def prelu(layer: of.PReLU, call: Call) -> str:
    count = layer.weight.numel()
    weight = "weight" if layer.weight.ndim else layer.weight.detach().reshape(1)
    return f"{call.module(f'nn.PReLU({count})', weight=weight)}({call.x})"


@printer(of.ELU, nests=True)
def elu(layer: of.ELU, call: Call) -> str:
    return f"F.elu({call.x}{'' if layer.alpha == 1.0 else f', {number(layer.alpha)}'})"


@printer(of.Exp)
def exp(layer: of.Exp, call: Call) -> str:
    inner = call.x if layer.inner == 1.0 else f"{call.x} * {number(layer.inner)}"
    return f"torch.exp({inner})" + ("" if layer.outer == 1.0 else f" * {number(layer.outer)}")


@printer(of.Log)
def log(layer: of.Log, call: Call) -> str:
    inner = call.x
    if (layer.scale, layer.shift) != (1.0, 0.0):
        inner = f"{call.x} * {number(layer.scale)} + {number(layer.shift)}"
    return f"torch.log({inner})" + ("" if layer.outer == 1.0 else f" * {number(layer.outer)}")


@printer(of.Threshold)
def threshold(layer: of.Threshold, call: Call) -> str:
    return f"({call.x} > {number(layer.threshold)}).to({call.x}.dtype)"


@printer(swish.Swish)
def silu(layer: swish.Swish, call: Call) -> str:
    if layer.beta == 1.0:
        return f"F.silu({call.x})"
    return f"{call.x} * torch.sigmoid({call.x} * {number(layer.beta)})"


@printer(swish.Clip, nests=True)
def clip(layer: swish.Clip, call: Call) -> str:
    return f"torch.clamp({call.x}, {number(layer.least)}, {number(layer.most)})"


@printer(mobile.ReLU6, nests=True)
def relu6(layer: mobile.ReLU6, call: Call) -> str:
    if layer.negative_slope == 0.0 and layer.threshold >= 0.0:
        return f"F.relu6({call.x})" if layer.threshold == 6.0 else f"F.hardtanh({call.x}, 0, {number(layer.threshold)})"
    inner = f"F.leaky_relu({call.x}, {number(layer.negative_slope)})"
    return f"torch.clamp({inner}, max={number(layer.threshold)})"


@printer(mobile.CReLU)
def crelu(layer: mobile.CReLU, call: Call) -> str:
    both = f"torch.cat([{call.x}, -{call.x}], {layer.axis})"
    return f"F.leaky_relu({both}, {number(layer.negative_slope)})" if layer.negative_slope else f"F.relu({both})"


@printer(mobile.ShuffleChannel, nests=True)
def shuffle(layer: mobile.ShuffleChannel, call: Call) -> str:
    return f"torch.flatten({call.x}.unflatten(1, ({layer.group}, -1)).transpose(1, 2), 1, 2)"


@printer(mobile.Axpy)
def axpy(layer: mobile.Axpy, call: Call) -> str:
    a, x, y = call.bottoms
    assert math.prod(call.shapes[0][2:]) == 1  # from_caffe has seen to it
    if len(call.shapes[0]) != len(call.shapes[1]):
        a = f"{a}.reshape(*{a}.shape[:2], {', '.join('1' * (len(call.shapes[1]) - 2))})"
    return f"torch.addcmul({y}, {a}, {x})"
