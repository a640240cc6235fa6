"""Weights after an edit: kept where a layer still has the same blobs, new from its fillers where it does not."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np
import torch

from caffe2torch.blobs import Array
from caffe2torch.loading import fill
from caffe2torch.surgery.model import Model, Shapes, built, layer_shapes, states


def refilled(before: Model, after: Model, *, seed: int = 0, anew: Collection[str] = ()) -> Model:
    """``after`` with the weights its layers need; those that fit are kept, to the bit.

    Layers with other blobs than their weights, new layers, and those ``anew`` names start from their fillers, which
    draw from torch's generator with ``seed``. A layer that had no weights before (``allow_missing``) still has none.
    """
    if after.weights is None:
        return after
    shapes = layer_shapes(after)
    old = layer_shapes(before)
    kept: dict[str, tuple[Array, ...]] = {}
    new: list[str] = []
    for name, wanted in shapes.items():
        blobs = after.weights.get(name)
        if blobs is not None and name not in anew and tuple(blob.shape for blob in blobs) == wanted:
            kept[name] = blobs
        elif blobs is not None or name in anew or old.get(name) != wanted:
            new.append(name)
    filled = _filled(after, new, seed)
    notes = [_note(name, shapes[name], filled[name]) for name in new]
    order = {name: kept.get(name) or filled.get(name) for name in shapes}
    weights = {name: blobs for name, blobs in order.items() if blobs is not None}
    return replace(after, weights=weights).with_notes(*notes)


def _filled(model: Model, names: Collection[str], seed: int) -> dict[str, tuple[Array, ...]]:
    found: dict[str, tuple[Array, ...]] = {}
    if not names:
        return found
    for state, graph in states(model.net).items():
        if all(name in found for name in names):
            break
        net = built(model, state, graph, meta=False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            fill(net, only=names)
        for node, layer in net.built():
            if node.name in names and node.name not in found:
                found[node.name] = tuple(value.detach().numpy().copy() for _, value in layer.blob_items())
    return found


def _note(name: str, shapes: Shapes, blobs: tuple[Array, ...]) -> str:
    sizes = ", ".join("x".join(map(str, shape)) or "scalar" for shape in shapes)
    note = f"new weights from the fillers for layer {name} ({sizes})"
    first = blobs[0]
    if first.size > 1 and bool(np.all(first == first.flat[0])):
        note += f"; its weight_filler makes all of them {float(first.flat[0]):g}: name another before training"
    return note
