"""BatchNorm and Scale folded into the convolution or inner product before them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from caffe2torch.blobs import Array
from caffe2torch.errors import GraphError, UsageError, WeightsError
from caffe2torch.schema import Message
from caffe2torch.surgery.cut import without_weights
from caffe2torch.surgery.measure import measure
from caffe2torch.surgery.model import Model, check_weights, checked, with_layers

_FOLDABLE = {
    "Convolution": "convolution_param",
    "Deconvolution": "convolution_param",
    "InnerProduct": "inner_product_param",
}


@dataclass(frozen=True)
class _Chain:
    """Places of a product layer, of the BatchNorm behind it, and of the Scale behind that, if any."""

    product: int
    norm: int
    scale: int | None


class _Unfoldable(Exception):
    """Why a BatchNorm cannot be folded; the message ends a sentence that begins with its name."""


def fold_batchnorm(model: Model, *, where_possible: bool = False, seed: int = 0) -> Model:
    """The net without its BatchNorm layers and the Scale layers behind them: their statistics, weight and bias go into
    the weights before them, computed in float64 and rounded once.

    The result computes what the net computes in test phase, up to rounding; ``notes`` tell the largest difference
    found on random input. In training its statistics no longer move. A BatchNorm that cannot be folded (what is before
    it is no Convolution, Deconvolution or InnerProduct, or somebody else reads that too, or shares its weights) is
    refused with all others, or, with ``where_possible``, left and listed.
    """
    if model.weights is None:
        raise UsageError("folding BatchNorm needs the weights of the net")
    check_weights(model)
    layers = list(model.net.layer)
    norms = [index for index, layer in enumerate(layers) if layer.type == "BatchNorm"]
    if not norms:
        raise GraphError(f"net {model.net.name!r} has no BatchNorm layers")
    chains: list[_Chain] = []
    left: list[str] = []
    for index in norms:
        try:
            chains.append(_chain(layers, index))
        except _Unfoldable as reason:
            left.append(f"{layers[index].name}: {reason}")
    if left and not (where_possible and chains):
        listed = "".join(f"\n  {line}" for line in left)
        raise GraphError(f"these BatchNorm layers cannot be folded:{listed}\n(where_possible leaves them)")
    after, blobs = _fold(model, layers, chains)
    difference = measure(model, after, blobs, seed=seed)
    notes = [f"folded {len(chains)} BatchNorm layers; {difference}"]
    return after.with_notes(*notes, *(f"not folded: {line}" for line in left))


def _fold(model: Model, layers: Sequence[Message], chains: Sequence[_Chain]) -> tuple[Model, list[str]]:
    weights = dict(model.weights or {})
    gone = {chain.norm for chain in chains} | {chain.scale for chain in chains if chain.scale is not None}
    new: dict[int, Message] = {}
    for chain in chains:
        product = type(layers[chain.product])()
        product.CopyFrom(layers[chain.product])
        end = layers[chain.norm if chain.scale is None else chain.scale]
        product.top[0] = end.top[0]
        getattr(product, _FOLDABLE[product.type]).ClearField("bias_term")  # true is the default
        norm, scale = layers[chain.norm], None if chain.scale is None else layers[chain.scale]
        weights[product.name] = _folded(product, norm, scale, weights)
        new[chain.product] = product
    kept = [new.get(index, layer) for index, layer in enumerate(layers) if index not in gone]
    after = without_weights(model, with_layers(model.net, kept))
    names = {layer.name for layer in kept}
    result = checked(model, replace(after, weights={name: b for name, b in weights.items() if name in names}))
    check_weights(result)
    outputs = _ends(kept)
    return result, list(dict.fromkeys([*(layer.top[0] for layer in new.values()), *outputs]))


def _ends(layers: Sequence[Message]) -> list[str]:
    """Blobs that nobody reads and that do not depend on labels: not those of losses."""
    read = {blob for layer in layers for blob in layer.bottom}
    ends = [(layer, top) for layer in layers for top in layer.top if top not in read]
    return [
        top
        for layer, top in ends
        if not layer.include and not layer.exclude and len(layer.bottom) == 1 and not layer.type.endswith("Loss")
    ]


def _chain(layers: Sequence[Message], norm: int) -> _Chain:
    layer = layers[norm]
    _check_norm(layer)
    product = _maker(layers, norm)
    if product is None or layers[product].type not in _FOLDABLE:
        made = "the input" if product is None else f"{layers[product].name} ({layers[product].type})"
        raise _Unfoldable(f"it follows {made}, expected a Convolution, Deconvolution or InnerProduct")
    _check_product(layers[product])
    others = [layers[i].name for i in _readers(layers, product, layers[product].top[0]) if i != norm]
    if others:
        raise _Unfoldable(f"{layers[product].top[0]!r} is read by {', '.join(others)} too")
    readers = _readers(layers, norm, layer.top[0])
    scale = readers[0] if len(readers) == 1 and _is_plain_scale(layers[readers[0]]) else None
    places = [product, norm] + ([] if scale is None else [scale])
    _check_alike(layers, places)
    return _Chain(product, norm, scale)


def _check_norm(layer: Message) -> None:
    p = layer.batch_norm_param
    if p.HasField("use_global_stats") and not p.use_global_stats:
        raise _Unfoldable("it uses the statistics of each batch (use_global_stats: false)")
    if p.scale_bias or p.HasField("scale_filler") or p.HasField("bias_filler"):
        raise _Unfoldable("it is NVCaffe's layer with five blobs")


def _check_product(layer: Message) -> None:
    if len(layer.bottom) != 1 or len(layer.top) != 1:
        raise _Unfoldable(f"{layer.name} has {len(layer.bottom)} bottoms and {len(layer.top)} tops, expected one each")
    axis = getattr(layer, _FOLDABLE[layer.type]).axis
    if axis != 1:
        raise _Unfoldable(f"{layer.name} has its channels at axis {axis}, BatchNorm at axis 1")


def _check_alike(layers: Sequence[Message], places: Sequence[int]) -> None:
    """One layer takes the place of several: their rules must be the same, and nobody may share their weights."""
    chain = [layers[place] for place in places]
    for layer in chain:
        if sum(other.name == layer.name for other in layers) > 1:
            raise _Unfoldable(f"{layer.name} stands there for several phases; make a deploy net first")
        if list(layer.include) != list(chain[0].include) or list(layer.exclude) != list(chain[0].exclude):
            raise _Unfoldable(f"{layer.name} and {chain[0].name} have different include or exclude rules")
        for name in {param.name for param in layer.param if param.name}:
            if sum(param.name == name for other in layers for param in other.param) > 1:
                raise _Unfoldable(f"{layer.name} shares the parameter {name!r} with another layer")


def _maker(layers: Sequence[Message], reader: int) -> int | None:
    """The layer that wrote what a layer reads, in-place layers counted."""
    blob = layers[reader].bottom[0]
    return next((i for i in reversed(range(reader)) if blob in layers[i].top), None)


def _readers(layers: Sequence[Message], maker: int, blob: str) -> list[int]:
    """Who reads the value that ``maker`` gives the blob: all until one of them, working in place, replaces it."""
    readers = []
    for index in range(maker + 1, len(layers)):
        if blob in layers[index].bottom:
            readers.append(index)
        if blob in layers[index].top:
            break
    return readers


def _is_plain_scale(layer: Message) -> bool:
    p = layer.scale_param
    return layer.type == "Scale" and len(layer.bottom) == 1 and p.axis == 1 and p.num_axes == 1


def _folded(
    product: Message, norm: Message, scale: Message | None, weights: Mapping[str, Sequence[Array]]
) -> tuple[Array, Array]:
    """Weight and bias that do the work of all: y = ((W x + b) - mean) / sqrt(variance + eps) * weight + bias."""
    for layer in (product, norm, *([scale] if scale is not None else [])):
        if layer.name not in weights:
            raise WeightsError(f"layer {layer.name!r} ({layer.type}) has no weights to fold")
    mean, variance, factor = (np.asarray(blob, np.float64) for blob in weights[norm.name])
    unit = 0.0 if factor.flat[0] == 0 else 1.0 / factor.flat[0]  # Caffe's rule
    with np.errstate(invalid="ignore", divide="ignore"):
        gain = 1.0 / np.sqrt(variance * unit + norm.batch_norm_param.eps)
    shift = -mean * unit * gain
    if scale is not None:
        blobs = [np.asarray(blob, np.float64) for blob in weights[scale.name]]
        gain, shift = gain * blobs[0], shift * blobs[0] + (blobs[1] if len(blobs) > 1 else 0.0)
    old = weights[product.name]
    dtype = old[0].dtype
    weight = _times(np.asarray(old[0], np.float64), gain, product)
    bias = shift + (gain * np.asarray(old[1], np.float64) if len(old) > 1 else 0.0)
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise WeightsError(f"layers {product.name!r} and {norm.name!r}: folded, their weights are not finite")
    return weight.astype(dtype), bias.astype(dtype)


def _times(weight: Array, gain: Array, layer: Message) -> Array:
    """The weight with each output channel multiplied by its gain."""
    if layer.type == "Deconvolution":  # (in, out / group, ...): input channels stand by groups
        group = int(layer.convolution_param.group)
        grouped = weight.reshape(group, -1, *weight.shape[1:])
        gains = gain.reshape(group, 1, -1, *(1,) * (weight.ndim - 2))
        result: Array = (grouped * gains).reshape(weight.shape)
        return result
    transposed = layer.type == "InnerProduct" and layer.inner_product_param.transpose
    product: Array = weight * (gain if transposed else gain.reshape(-1, *(1,) * (weight.ndim - 1)))
    return product
