"""Cutting a part out of a net, and removing layers from it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from caffe2torch.errors import GraphError, UsageError
from caffe2torch.graph import SOURCES
from caffe2torch.schema import Message
from caffe2torch.surgery.model import Model, built, checked, states, with_layers


def cut(model: Model, first: str = "", last: str = "") -> Model:
    """Keep the part of a net from layer ``first`` to layer ``last``; an empty name leaves that end open.

    Kept are the layers that ``last`` depends on (all, where it is open), none before ``first`` in the file. Blobs that
    this part reads and does not make become inputs, of the shapes they have in the whole net, in test phase where there
    is a choice. An in-place layer after ``last`` is not part of it: name it where its result is wanted.
    """
    if not first and not last:
        raise UsageError("cut needs the first layer of the part to keep, the last, or both")
    layers = model.net.layer
    start = model.layer(first)[0][0] if first else 0
    ends = [index for index, _ in model.layer(last)] if last else []
    if ends and ends[-1] < start:
        raise GraphError(f"layer {first!r} comes after {last!r} in the file; give the earlier one first")
    kept = _needed(layers, start, ends) if last else list(range(start, len(layers)))
    made: set[str] = set()
    missing: dict[str, None] = {}
    for index in kept:
        missing.update(dict.fromkeys(blob for blob in layers[index].bottom if blob not in made))
        made.update(layers[index].top)
    inputs = [_input(model, blob) for blob in missing]
    net = with_layers(model.net, [*inputs, *(layers[index] for index in kept)])
    note = f"kept {len(kept)} of {len(layers)} layers"
    after = without_weights(model, net)
    shapes = {blob: shape for blob, shape in model.input_shapes.items() if blob in made}
    note += f"; new inputs: {', '.join(missing)}" if missing else ""
    return checked(model, replace(after, input_shapes=shapes).with_notes(note))


def _needed(layers: Collection[Message], start: int, ends: Collection[int]) -> list[int]:
    """The layers from ``start`` to ``ends`` that these depend on, in-place layers on the way included."""
    messages = list(layers)
    alive: set[str] = set()
    kept = []
    for index in reversed(range(start, max(ends) + 1)):
        if index in ends or alive.intersection(messages[index].top):
            alive.update(messages[index].bottom)
            kept.append(index)
    return kept[::-1]


def _input(model: Model, blob: str) -> Message:
    """An Input layer for a blob that the net makes, with the shape it has there."""
    for state, graph in states(model.net).items():
        if blob in graph.blobs:
            shape = built(model, state, graph).blob_shapes[blob]
            layer = type(model.net)().layer.add(name=blob, type="Input", top=[blob])
            layer.input_param.shape.add(dim=shape)
            return layer
    raise GraphError(f"blob {blob!r} is made in no state of the net that can be built")


def remove(model: Model, *names: str) -> Model:
    """Remove layers and close the gaps: who read the only top of a layer then reads its only bottom.

    A range ``first..last`` names all layers of the file from one to the other. A layer with several bottoms or tops,
    or none, leaves its tops unmade: where another layer reads them that is refused (GraphError, naming them).
    """
    gone: set[int] = set()
    for name in names:
        gone.update(_range(model, name))
    if not gone:
        raise UsageError("remove needs the name of a layer")
    aliases: dict[str, str] = {}
    kept: list[Message] = []
    for index, layer in enumerate(model.net.layer):
        if index in gone:
            if len(layer.bottom) == len(layer.top) == 1 and layer.bottom[0] != layer.top[0]:
                aliases[layer.top[0]] = aliases.get(layer.bottom[0], layer.bottom[0])
            continue
        copy = type(layer)()
        copy.CopyFrom(layer)
        if layer.type not in SOURCES:
            tops = [aliases.get(b, b) if b in layer.bottom else b for b in layer.top]  # in place stays in place
            copy.bottom[:] = [aliases.get(blob, blob) for blob in layer.bottom]
            copy.top[:] = tops
        for top in layer.top:
            if top not in layer.bottom:
                aliases.pop(top, None)  # a layer of another phase makes it
        kept.append(copy)
    after = without_weights(model, with_layers(model.net, kept))
    removed = ", ".join(dict.fromkeys(model.net.layer[index].name for index in sorted(gone)))
    return checked(model, after.with_notes(f"removed {removed}"))


def _range(model: Model, name: str) -> Iterable[int]:
    known = {layer.name for layer in model.net.layer}
    first, dots, last = name.partition("..")
    if name in known or not dots:
        return [index for index, _ in model.layer(name)]
    start = model.layer(first)[0][0] if first else 0
    stop = model.layer(last)[-1][0] if last else len(model.net.layer) - 1
    if stop < start:
        raise GraphError(f"layer {first!r} comes after {last!r} in the file; give the earlier one first")
    return range(start, stop + 1)


def without_weights(model: Model, net: Message) -> Model:
    """The model with another net, and with the weights of the layers that it has."""
    names = {layer.name for layer in net.layer if layer.type not in SOURCES}
    weights = model.weights
    if weights is not None:
        weights = {name: blobs for name, blobs in weights.items() if name in names}
    inputs = {top for layer in net.layer if layer.type in SOURCES for top in layer.top}
    shapes = {blob: shape for blob, shape in model.input_shapes.items() if blob in inputs}
    return replace(model, net=net, weights=weights, input_shapes=shapes)
