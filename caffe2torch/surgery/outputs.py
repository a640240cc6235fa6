"""Another number of outputs: classes, or bits of the code."""

from __future__ import annotations

from dataclasses import replace

from caffe2torch.errors import GraphError, UsageError
from caffe2torch.schema import Message
from caffe2torch.surgery.model import Model, changed, checked
from caffe2torch.surgery.refill import refilled

_PARAMS = {"InnerProduct": "inner_product_param", "Convolution": "convolution_param"}
_CLASSIFYING = ("SoftmaxWithLoss", "Softmax", "HingeLoss", "SigmoidCrossEntropyLoss", "MultinomialLogisticLoss")
_THROUGH = ("Dropout", "ReLU", "BatchNorm", "Scale", "Split", "Pooling", "Flatten", "Reshape", "Softmax")
"""Layer types between the layer that decides a number of channels and the one that shows what they are."""


def set_outputs(model: Model, number: int, *layers: str, seed: int = 0) -> Model:
    """Give layers another ``num_output``. New weights, from the fillers, for them and for every layer whose blobs get
    other shapes by it (those that read them); all others are kept to the bit."""
    if number < 1:
        raise UsageError(f"{number} outputs, expected at least 1")
    for name in layers:
        for _, layer in model.layer(name):
            if layer.type not in _PARAMS:
                known = ", ".join(dict.fromkeys(x.name for x in model.net.layer if x.type in _PARAMS))
                raise GraphError(
                    f"layer {name!r} is a {layer.type}, which has no number of outputs to change; "
                    + (f"name one of {known}" if known else "the net has no layer that has one")
                )
    before = {layer.name: _count(layer) for layer in model.net.layer if layer.name in layers}

    def change(net: Message) -> None:
        for layer in net.layer:
            if layer.name in layers:
                getattr(layer, _PARAMS[layer.type]).num_output = number

    notes = [f"{name} has {number} outputs in place of {count}" for name, count in before.items()]
    after = checked(model, replace(model, net=changed(model.net, change)).with_notes(*notes))
    return refilled(model, after, seed=seed, anew=[name for name, count in before.items() if count != number])


def set_bits(model: Model, bits: int, layer: str = "", *, seed: int = 0) -> Model:
    """Another code length. The code layer is the one whose outputs go through a Sigmoid into the code; where there are
    several such or none, name it."""
    return set_outputs(model, bits, layer or code_layer(model.net), seed=seed)


def set_classes(model: Model, classes: int, layer: str = "", *, seed: int = 0) -> Model:
    """Another number of classes, for every classifier (GoogLeNet has three), or for the one named."""
    return set_outputs(model, classes, *([layer] if layer else classifiers(model.net)), seed=seed)


def code_layer(net: Message) -> str:
    """The layer that makes the code: before a Sigmoid; GraphError naming what there is where that is not one."""
    found = dict.fromkeys(
        maker for layer in net.layer if layer.type == "Sigmoid" for maker in _makers(net, layer) if maker
    )
    if len(found) != 1:
        listed = ", ".join(found) or "none"
        raise GraphError(
            f"net {net.name!r}: the layers whose outputs go into a Sigmoid are {listed}, expected one; name the layer "
            "of the code (--bits LAYER=N)"
        )
    return next(iter(found))


def classifiers(net: Message) -> list[str]:
    """The layers whose outputs are class scores: before a Softmax or a loss on labels, else those the net ends in."""
    found = dict.fromkeys(maker for layer in net.layer if layer.type in _CLASSIFYING for maker in _makers(net, layer))
    if not found:
        read = {blob for layer in net.layer for blob in layer.bottom}
        ends = (layer for layer in net.layer if layer.type in _PARAMS and read.isdisjoint(layer.top))
        found = dict.fromkeys(layer.name for layer in ends)
    counts = {_count(layer) for layer in net.layer if layer.name in found}
    if not found or len(counts) != 1:
        listed = ", ".join(found) or "none"
        raise GraphError(
            f"net {net.name!r}: the layers before a Softmax or a loss on labels, or at its end, are {listed}"
            + (f", with {', '.join(map(str, sorted(counts)))} outputs" if counts else "")
            + "; name the classifier (--classes LAYER=N)"
        )
    return list(found)


def _makers(net: Message, reader: Message) -> list[str]:
    """The InnerProduct or Convolution that the first bottom of ``reader`` comes from, through layers that keep the
    channels; empty where it comes from anything else."""
    layers = list(net.layer)
    place = next(index for index, layer in enumerate(layers) if layer is reader or layer == reader)
    blob = reader.bottom[0] if reader.bottom else ""
    for layer in reversed(layers[:place]):
        if blob not in layer.top:
            continue
        if layer.type in _PARAMS:
            return [layer.name]
        if layer.type not in _THROUGH or not layer.bottom:
            return []
        blob = layer.bottom[0]
    return []


def _count(layer: Message) -> int:
    return int(getattr(layer, _PARAMS[layer.type]).num_output)
