"""OpenCV's Caffe importer as a second opinion: it reads nets and weights with code of its own."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from caffe2torch import prototxt, schema
from caffe2torch.caffemodel import open_weights, write_caffemodel
from caffe2torch.errors import UnsupportedLayerError, UsageError
from caffe2torch.graph import Node
from caffe2torch.net import CaffeNet
from caffe2torch.verify.compare import Array
from caffe2torch.verify.dump import Dump
from caffe2torch.verify.randomness import random_nodes

_REFUSED = re.compile(r"Can't create layer \"(?P<name>.*)\" of type \"(?P<type>[^\"]*)\"")
PICTURE_SPREAD = 50.0
"""Standard deviation of a random picture; other inputs get 1."""


@dataclass(frozen=True)
class Opinion:
    """What OpenCV computed, and what it could not."""

    dump: Dump
    lacking: tuple[str, ...]
    """Layers that OpenCV lacks, that draw random values, or that need such a one, as ``'name' (Type)``."""


def random_inputs(net: CaffeNet) -> dict[str, Array]:
    """Normal random values for every input, the same in every run."""
    rng = np.random.RandomState(1)
    shapes = {blob: net.blob_shapes[blob] for blob in net.structure.graph.inputs}
    spread = {blob: PICTURE_SPREAD if len(shape) == 4 else 1.0 for blob, shape in shapes.items()}
    return {blob: (rng.standard_normal(shape) * spread[blob]).astype(np.float32) for blob, shape in shapes.items()}


def ask(net: CaffeNet, weights: Path | None, inputs: Mapping[str, Array]) -> Opinion:
    """Run the net's layers in OpenCV, without those it lacks and what depends on them.

    It reads the user's own weights file where that is a binary one; it knows no HDF5, so such weights are written anew.
    """
    cv2 = _opencv()
    nodes = _without(net.structure.graph.nodes, random_nodes(net))  # nobody else draws the same values
    with tempfile.TemporaryDirectory(prefix="caffe2torch-") as folder:
        model = Path(folder) / "weights.caffemodel"
        if weights is not None and _binary(weights):
            model = weights
        else:
            _write_weights(net, model)
        while nodes:
            text = Path(folder) / "net.prototxt"
            text.write_text(prototxt.to_text(_message(nodes, inputs)), encoding="utf-8")
            try:
                arrays = _forward(cv2, text, model, nodes, inputs)
                break
            except cv2.error as error:
                nodes = _without_refused(nodes, str(error))
        else:
            raise UnsupportedLayerError("OpenCV lacks every layer of this net, so there is nothing to compare")
    kept = {node.index for node in nodes}
    left = [node for node in net.structure.graph.nodes if node.index not in kept]
    return Opinion(Dump(inputs, _blobs(nodes, left, arrays)), tuple(f"{n.name!r} ({n.type})" for n in left))


def _opencv() -> Any:
    import cv2

    if not hasattr(cv2.dnn, "readNetFromCaffe"):
        raise UsageError(
            f"OpenCV {cv2.__version__} has no Caffe importer; install one that has: "
            "pip install 'opencv-python-headless<5'"
        )
    return cv2


def _binary(weights: Path) -> bool:
    with open_weights(weights) as file:
        return file.syntax != "HDF5"


def _write_weights(net: CaffeNet, target: Path) -> None:
    graph = net.structure.graph
    blobs = {
        node.name: [value.detach().numpy() for _, value in layer.blob_items()]
        for node, layer in net.built()
        if layer.blob_items()
    }
    write_caffemodel(target, _message(graph.nodes, {}), blobs)


def _message(nodes: Sequence[Node], inputs: Mapping[str, Array]) -> Any:
    """A deploy net of these layers: inputs of fixed shape, and no rules about phases."""
    message = schema.new("NetParameter")
    for blob, array in inputs.items():
        layer = message.layer.add(name=f"{blob} (input)", type="Input", top=[blob])
        layer.input_param.shape.add(dim=array.shape)
    for node in nodes:
        layer = message.layer.add()
        layer.ParseFromString(node.message.SerializeToString())  # its class may be of a fork's schema
        for field in ("include", "exclude", "phase", "loss_weight", "propagate_down", "param"):
            layer.ClearField(field)
    return message


def _forward(
    cv2: Any, text: Path, model: Path, nodes: Sequence[Node], inputs: Mapping[str, Array]
) -> list[list[Array]]:
    """The tops of each layer, as that layer leaves them."""
    oracle = cv2.dnn.readNetFromCaffe(str(text), str(model))
    oracle.enableFusion(False)
    read = {blob for node in nodes for blob in node.bottoms}
    for blob, array in inputs.items():
        if blob in read:
            oracle.setInput(array, blob)
    return [list(tops) for tops in oracle.forwardAndRetrieve([node.name for node in nodes])]


def _without_refused(nodes: Sequence[Node], reason: str) -> list[Node]:
    """The layers without those of the type OpenCV refuses and without all that need their blobs."""
    refused = _REFUSED.search(reason)
    out = [node for node in nodes if refused is not None and node.type == refused["type"]]
    if not out:
        raise UnsupportedLayerError(f"OpenCV cannot run this net: {' '.join(reason.split())}")
    return _without(nodes, out)


def _without(nodes: Sequence[Node], out: Sequence[Node]) -> list[Node]:
    """The layers without some and without all that need their blobs."""
    indices, lost = {node.index for node in out}, set[str]()
    kept = []
    for node in nodes:
        if node.index in indices or not lost.isdisjoint(node.bottoms):
            lost.update(node.writes)
        else:
            kept.append(node)
    return kept


def _blobs(nodes: Sequence[Node], left: Sequence[Node], arrays: Sequence[Sequence[Array]]) -> dict[str, Array]:
    """The final values of the blobs; of those that a missing layer would have changed in place there are none."""
    blobs: dict[str, Array] = {}
    for node, tops in zip(nodes, arrays, strict=True):
        values = dict(zip(node.tops, tops, strict=False))
        for blob, top in node.refreshed:
            if blob in blobs and top in values:
                values[blob] = values[top].reshape(blobs[blob].shape)
        blobs.update(values)
    changed = {blob for node in left for blob in node.writes}
    return {blob: value for blob, value in blobs.items() if blob not in changed}
