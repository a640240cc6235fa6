"""How far two nets are from each other on random input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from caffe2torch.errors import GraphError, LayerError
from caffe2torch.loading import fill
from caffe2torch.net import CaffeNet
from caffe2torch.surgery.model import Model, State, built, states


@dataclass(frozen=True)
class Difference:
    """The largest difference found, the blob it is in, and the largest magnitude of that blob's values."""

    largest: float
    blob: str
    magnitude: float

    def __str__(self) -> str:
        place = f"blob {self.blob}, values up to {self.magnitude:.3g}"
        return f"largest difference on random input {self.largest:.2g} ({place})"


def runnable(model: Model, state: State) -> CaffeNet:
    """The net of a state with the model's weights, and with fillers where it has none."""
    net = built(model, state, meta=False).eval()
    weights = model.weights or {}
    fill(net, only=[node.name for node, _ in net.built() if node.name not in weights])
    with torch.no_grad():
        for node, layer in net.built():
            blobs = weights.get(node.name, ())
            layer.adapt([tuple(blob.shape) for blob in blobs])
            for (_, value), blob in zip(layer.blob_items(), blobs, strict=False):
                value.copy_(torch.from_numpy(blob))
    return net


def measure(before: Model, after: Model, blobs: Sequence[str], *, seed: int = 0) -> Difference:
    """Run both nets in test phase on the same normal random input, one item where the net allows, and compare blobs."""
    state = next(iter(states(after.net)))
    nets = [_single(model, state).select(*blobs) for model in (before, after)]
    inputs = _inputs(nets[0], seed)
    with torch.no_grad():
        values = [net({blob: inputs[blob] for blob in net.inputs}) for net in nets]
    worst = Difference(0.0, blobs[-1], float(values[0][blobs[-1]].abs().max()))
    for blob in blobs:
        largest = float((values[0][blob] - values[1][blob]).abs().max())
        if not largest <= worst.largest:  # NaN is the worst of all
            worst = Difference(largest, blob, float(values[0][blob].abs().max()))
    return worst


def _single(model: Model, state: State) -> CaffeNet:
    shapes = built(model, state).input_shapes
    one = {blob: (1, *shape[1:]) for blob, shape in shapes.items() if shape}
    try:
        return runnable(replace(model, input_shapes={**model.input_shapes, **one}), state)
    except (GraphError, LayerError):  # a net whose layers fix the number of items
        return runnable(model, state)


def _inputs(net: CaffeNet, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    values = {blob: torch.randn(shape, generator=generator) for blob, shape in net.input_shapes.items()}
    for node, layer in net.built():
        for index, blob in enumerate(node.bottoms):
            if blob in values and index in layer.no_gradient:
                values[blob] = torch.zeros_like(values[blob])  # labels
    return values
