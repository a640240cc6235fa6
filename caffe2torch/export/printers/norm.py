"""Normalisations, and Scale and Bias that follow them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from torch import Tensor

from caffe2torch.export import helpers
from caffe2torch.export.names import number
from caffe2torch.export.printing import Call, printer
from caffe2torch.layers.lrn import LRN
from caffe2torch.layers.mvn import MVN
from caffe2torch.layers.norm import BatchNorm, FusedBatchNorm
from caffe2torch.layers.scale import Bias, Scale
from caffe2torch.layers.segmentation import BN, PSPNetBN
from caffe2torch.layers.ssd import Normalize, UnitLength

_TRAINING = "it is in its training phase although the net is in its test phase"


@printer(LRN, nests=True)
def lrn(layer: LRN, call: Call) -> str:
    if layer.within_channel:
        half = min(layer.size // 2, max(call.shape[2:]))
        share = ((2 * half + 1) / layer.size) ** 2
        alpha = _kept(layer.alpha, lambda value: value * share)
        name = call.helper(helpers.lrn_within_channel)
        return f"{name}({call.x}, {layer.size}, {alpha}, {number(layer.beta)})"
    alpha = _kept(layer.alpha, lambda value: value / layer.size)
    k = "" if layer.k == 1.0 else f", k={number(layer.k)}"
    settings = f"size={layer.size}, alpha={alpha}, beta={number(layer.beta)}{k}"
    return f"{call.helper(helpers.lrn)}({call.x}, {settings})"


def _kept(value: float, use: Callable[[float], float]) -> str:
    """The short text of a number, or its full one where what is computed of it would be another float32."""
    short = number(value)
    return short if np.float32(use(float(short))) == np.float32(use(value)) else repr(value)


def _module(call: Call) -> str:
    axes = len(call.shape)
    if axes not in (2, 3, 4, 5):
        call.refuse(f"torch's batch normalisation takes 2 to 5 axes, its bottom has {axes}")
    return f"nn.BatchNorm{max(axes - 2, 1)}d"


@printer(BatchNorm, FusedBatchNorm, nests=True)
def batch_norm(layer: BatchNorm, call: Call) -> str:
    if layer.training:
        call.refuse(_TRAINING)
    if layer.use_global_stats is False:
        text = ", ".join([str(layer.mean.numel()), *_eps(layer.eps), "affine=False", "track_running_stats=False"])
        call.note("it normalises by the statistics of each batch, as use_global_stats: false says")
        module = call.module(f"{_module(call)}({text})")
        return f"{module}({call.x})"
    factor = layer.scale_factor.reciprocal().nan_to_num(math.nan, 0.0, 0.0)
    settings = [*_eps(layer.eps), *_momentum(layer.fraction)]
    return _by_stored(call, layer.mean * factor, layer.variance * factor, settings)


@printer(PSPNetBN, nests=True)
def pspnet(layer: PSPNetBN, call: Call) -> str:
    if layer.training and not layer.frozen:
        call.refuse(_TRAINING)
    settings = [*_eps(layer.eps), *_momentum(layer.momentum)]
    return _by_stored(call, layer.mean.reshape(-1), layer.variance.reshape(-1), settings)


def _by_stored(call: Call, mean: Tensor, variance: Tensor, settings: list[str]) -> str:
    """A torch module of batch normalisation by these statistics, and by the layer's weight and bias if it has them."""
    affine = {name: blob.reshape(-1) for name, blob in call.layer.blob_items() if name in ("weight", "bias")}
    text = ", ".join([str(mean.numel()), *settings] + ["affine=False"] * (not affine))
    statistics = {"running_mean": mean, "running_var": variance, "num_batches_tracked": mean.new_zeros(()).long()}
    module = call.module(f"{_module(call)}({text})", **affine, **statistics)
    return f"{module}({call.x})"


def _eps(eps: float) -> list[str]:
    return [] if number(eps) == "1e-05" else [f"eps={number(eps)}"]


def _momentum(fraction: float) -> list[str]:
    """torch's momentum is the share of the new value, Caffe's fraction that of the old one."""
    momentum = number(round(1.0 - fraction, 6))
    return [] if momentum == "0.1" else [f"momentum={momentum}"]


@printer(BN)
def segnet(layer: BN, call: Call) -> str:
    if layer.learn:
        call.refuse("bn_mode: LEARN computes the statistics of each batch; merge them (INFERENCE) with SegNet's tool")
    name = call.helper(helpers.ScaleShift)
    module = call.module(f"{name}({layer.weight.shape[1]})", weight="weight", bias="bias")
    return f"{module}({call.x})"


@printer(Scale, nests=True)
def scale(layer: Scale, call: Call) -> str:
    if layer.weight is None:
        weight = _spread(call, call.bottoms[1], call.shapes[1], layer.axis)
        if layer.bias is None:
            return f"{call.x} * {weight}"
        bias = _spread(call, call.parameter("bias"), tuple(layer.bias.shape), layer.axis)
        return f"torch.addcmul({bias}, {call.x}, {weight})"
    settings = [str(dim) for dim in layer.weight.shape]
    settings += [f"axis={layer.axis}"] * (layer.axis != 1) + ["bias=False"] * (layer.bias is None)
    blobs = {"weight": "weight"} if layer.bias is None else {"weight": "weight", "bias": "bias"}
    module = call.module(f"{call.helper(helpers.Scale)}({', '.join(settings)})", **blobs)
    return f"{module}({call.x})"


@printer(Bias, nests=True)
def bias(layer: Bias, call: Call) -> str:
    if layer.bias is None:
        return f"{call.x} + {_spread(call, call.bottoms[1], call.shapes[1], layer.axis)}"
    settings = [str(dim) for dim in layer.bias.shape] + [f"axis={layer.axis}"] * (layer.axis != 1)
    module = call.module(f"{call.helper(helpers.Bias)}({', '.join(settings)})", bias="bias")
    return f"{module}({call.x})"


def _spread(call: Call, value: str, shape: tuple[int, ...], axis: int) -> str:
    """A blob of ``shape`` with the axes of size 1 that it needs to meet the first bottom from ``axis`` on."""
    ones = len(call.shape) - axis - len(shape)
    return f"{value}[{', '.join(['...'] + ['None'] * ones)}]" if shape and ones else value


@printer(MVN)
def mvn(layer: MVN, call: Call) -> str:
    settings = ["variance=False"] * (not layer.normalize_variance) + ["across_channels=True"] * layer.across_channels
    settings += [f"eps={number(layer.eps)}"] * (number(layer.eps) != "1e-09")
    return f"{call.helper(helpers.mvn)}({', '.join([call.x, *settings])})"


@printer(Normalize)
def normalize(layer: Normalize, call: Call) -> str:
    settings = [str(dim) for dim in layer.scale.shape] + ["across_spatial=True"] * layer.across_spatial
    settings += [f"eps={number(layer.eps)}"] * (number(layer.eps) != "1e-10")
    name = call.helper(helpers.Normalize)
    module = call.module(f"{name}({', '.join(settings)})", scale="scale")
    return f"{module}({call.x})"


@printer(UnitLength)
def unit_length(layer: UnitLength, call: Call) -> str:
    norm = f', "{layer.normalize_type}"' * (layer.normalize_type != "L2")
    return f"{call.helper(helpers.unit_length)}({call.x}{norm}){'' if layer.lengths else '[0]'}"
