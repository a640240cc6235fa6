"""Back to Caffe: a CaffeNet as a NetParameter and arrays, and both as files.

A weights file that Caffe wrote holds more than a net knows: layers of other phases, Split layers, four-axis headers,
doubles. ``save(..., like=FILE)`` takes all that from FILE and only the numbers from the net, so that a file that was
loaded and saved again is the same to the byte.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from caffe2torch import schema
from caffe2torch.blobs import Array
from caffe2torch.build import build
from caffe2torch.caffemodel import write_caffemodel
from caffe2torch.caffemodel.downgrade import downgrade_net
from caffe2torch.errors import GraphError, LayerError, OutputError, UsageError, WeightsError
from caffe2torch.files import atomic_path
from caffe2torch.graph import Graph, Node, build_graph
from caffe2torch.layers.registry import Layer
from caffe2torch.net import CaffeNet
from caffe2torch.net_state import PHASES
from caffe2torch.prototxt import to_text
from caffe2torch.saving_like import write_like
from caffe2torch.schema import Message

SYNTAXES = ("V1", "V2")
_HDF5 = {".h5", ".hdf5"}
_COUNTS = {
    "Convolution": "convolution_param",
    "Deconvolution": "convolution_param",
    "InnerProduct": "inner_product_param",
}
"""Layer types whose num_output and bias_term follow from their blobs, and the message that says them."""


@dataclass(frozen=True)
class SaveReport:
    """What a weights file got from the net, and which layers it kept from the file it was made like."""

    saved: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()


def save(
    net: CaffeNet,
    prototxt: str | os.PathLike[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    *,
    syntax: str | None = None,
    like: str | os.PathLike[str] | None = None,
    aliases: Mapping[str, str] | None = None,
    allow_missing: bool = False,
    force: bool = False,
) -> SaveReport:
    """Write a net as Caffe's files: its prototxt, its weights, or both; ``load`` and Caffe read them back.

    ``weights`` ending in ``.h5`` is written as HDF5. ``syntax`` is "V2" (the default) or "V1" for an old Caffe, and
    holds for both files. The prototxt is the net in its one state (phase, level, stages), without rules.

    ``like`` is the weights file the net came from (``aliases`` as for ``load``): the new one has its form in every
    byte (syntax, settings, order, layers the net lacks, headers, stored types), and the net's numbers. A value that
    the net has not changed keeps the file's own bits, also of a double. Layers of the net that this file lacks are
    refused unless ``allow_missing`` leaves them out.

    Raises OutputError for files that are there already (``force`` replaces them), WeightsError and LayerError for a net
    whose modules no longer fit its settings.
    """
    targets = [Path(path) for path in (prototxt, weights) if path is not None]
    if not targets:
        raise UsageError("save needs a path for the prototxt, for the weights, or for both")
    if like is not None and (weights is None or (syntax is not None and prototxt is None)):
        raise UsageError("like gives the form of the weights file: it needs weights, and takes no syntax of its own")
    check_absent(targets, force=force)
    message, arrays = to_caffe(net)
    text = prototxt_text(state_message(net), syntax or "V2") if prototxt is not None else ""
    with nullcontext() if prototxt is None else text_file(Path(prototxt), text):
        if weights is not None and like is not None:
            done = write_like(Path(like), Path(weights), arrays, aliases=aliases, allow_missing=allow_missing)
            return SaveReport(*done)
        if weights is not None:
            write_weights(Path(weights), message, arrays, syntax=syntax or "V2")
            return SaveReport(saved=tuple(arrays))
    return SaveReport()


def to_caffe(net: CaffeNet) -> tuple[Message, dict[str, list[Array]]]:
    """The NetParameter of a net, as Caffe notes it in a weights file, and layer name -> arrays.

    ``num_output`` and ``bias_term`` are taken from the blobs of a Convolution, Deconvolution or InnerProduct, so that
    such a layer may have been put in the place of another. Any other change that the settings do not tell of is
    refused: LayerError for a module of another class or other plain attributes, WeightsError for other blobs.
    """
    _check(net)
    return net_message(net), weights_of(net)


def net_message(net: CaffeNet) -> Message:
    """The NetParameter of a built net, as Caffe writes it: the layers of its state, each with its phase.

    A loss that names no weight has 1, and the statistics of a BatchNorm a learning rate of 0. Only the Split layers are
    missing that Caffe puts in where several layers read a blob. Of a net pruned by ``select`` there are the layers that
    are left, and the sources they read.
    """
    message = _message(net)
    layers = {node.index: layer for node, layer in net.built()}
    for settings, node in zip(message.layer, _nodes(net), strict=True):
        layer = layers.get(node.index)
        if layer is not None and layer.loss and len(settings.top) == 1 and not settings.loss_weight:
            settings.loss_weight.append(1.0)
        if node.type == "BatchNorm" and layer is not None:
            for _ in range(len(settings.param), min(3, len(layer.blob_items()))):
                settings.param.add(lr_mult=0.0)
    return message


def weights_of(net: CaffeNet) -> dict[str, list[Array]]:
    """Layer name -> its blobs, as a weights file holds them: float32, and float64 of a net in double precision."""
    return {
        node.name: [_array(value) for _, value in layer.blob_items()]
        for node, layer in net.built()
        if layer.blob_items()
    }


def state_message(net: CaffeNet) -> Message:
    """The net as a prototxt of its one state: without the rules that led to it, and without the phase of each layer."""
    message = _message(net)
    if net.structure.graph.force_backward:
        message.force_backward = True
    for layer in message.layer:
        for field in ("include", "exclude", "blobs"):
            layer.ClearField(field)
        if layer.phase == PHASES.index(net.phase):
            layer.ClearField("phase")
    return message


def prototxt_text(message: Message, syntax: str = "V2") -> str:
    """The text of a V2 net message in one of the two syntaxes; WeightsError for a layer that V1 cannot say."""
    if syntax not in SYNTAXES:
        raise UsageError(f"syntax {syntax!r}, expected 'V1' or 'V2'")
    return to_text(downgrade_net(message) if syntax == "V1" else message)


@contextmanager
def text_file(path: Path, text: str) -> Iterator[None]:
    """Write a text file that is there once the block has come to its end; not where the block raises."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, "utf-8")
        yield


def is_hdf5_name(path: Path) -> bool:
    """Whether a weights file of this name is written as HDF5."""
    return path.suffix.lower() in _HDF5


def write_weights(path: Path, message: Message, arrays: Mapping[str, Sequence[Array]], *, syntax: str = "V2") -> None:
    """Write a weights file: HDF5 for a name ending in ``.h5``, else binary in one of the two syntaxes."""
    if syntax not in SYNTAXES:
        raise UsageError(f"syntax {syntax!r}, expected 'V1' or 'V2'")
    if not is_hdf5_name(path):
        write_caffemodel(path, message, arrays, syntax="V1" if syntax == "V1" else "V2")
        return
    from caffe2torch.hdf5 import write_hdf5  # h5py takes a tenth of a second to import

    write_hdf5(path, message, arrays)


def check_absent(targets: Collection[Path], *, force: bool) -> None:
    """Raise OutputError for files that are there already, unless they may be replaced, and for a path given twice."""
    if len({os.path.realpath(path) for path in targets}) < len(targets):
        raise UsageError(f"the prototxt and the weights would be the same file: {', '.join(map(str, targets))}")
    there = [str(path) for path in targets if os.path.lexists(path)]
    if there and not force:
        raise OutputError(f"{', '.join(there)}: already there; give another name, or force (--force) to replace")


def _array(value: Tensor) -> Array:
    kept = value.detach().cpu()
    array: Array = (kept if kept.dtype == torch.float64 else kept.float()).numpy()
    return array


def _message(net: CaffeNet) -> Message:
    message = schema.new("NetParameter")
    message.name = net.structure.graph.name
    for node in _nodes(net):
        _settle(message.layer.add(), node, net._modules.get(net.structure.attributes.get(node.index, "")))
    return message


def _nodes(net: CaffeNet) -> list[Node]:
    """The nodes whose module is in the net, and their sources, in the order of the file."""
    kept = _kept(net)
    return sorted((*_sources(net.structure.graph, kept), *kept), key=lambda node: node.index)


def _kept(net: CaffeNet) -> list[Node]:
    """The nodes whose module is in the net; refuses modules that Caffe has no settings for."""
    kept = []
    for node in net.structure.graph.nodes:
        module = net._modules.get(net.structure.attributes[node.index])
        if module is None:
            continue
        if not isinstance(module, Layer):
            found = f"{type(module).__module__}.{type(module).__name__}"
            raise LayerError(
                f"layer {node.name!r} ({node.type}) was replaced by a {found}, which has no settings in Caffe; put a "
                "caffe2torch.layers class there, or edit the net with caffe2torch.surgery"
            )
        kept.append(node)
    return kept


def _sources(graph: Graph, nodes: Sequence[Node]) -> list[Node]:
    if len(nodes) == len(graph.nodes):
        return list(graph.sources)
    read = {blob for node in nodes for blob in node.bottoms}
    return [source for source in graph.sources if read.intersection(source.tops)]


def _settle(message: Message, node: Node, module: nn.Module | None) -> None:
    """Fill ``message`` with the node's settings, their counts as the module has them."""
    message.CopyFrom(node.message)
    if node.type not in _COUNTS or not isinstance(module, Layer):
        return
    param = getattr(message, _COUNTS[node.type])
    blobs = dict(module.blob_items())
    if "weight" not in blobs:
        return
    count = _num_output(node, module, blobs["weight"])
    if count is not None and count != param.num_output:
        param.num_output = count
    if ("bias" in blobs) != param.bias_term:
        param.bias_term = "bias" in blobs


def _num_output(node: Node, layer: Layer, weight: Tensor) -> int | None:
    if node.type == "Deconvolution":
        return weight.shape[1] * int(getattr(layer, "group", 1)) if weight.ndim > 1 else None
    transposed = node.type == "InnerProduct" and bool(getattr(layer, "transpose", False))
    return int(weight.shape[1 if transposed else 0]) if weight.ndim > 1 else None


def _check(net: CaffeNet) -> None:
    """Build the net again from its settings, on no memory, and compare the layers."""
    state = state_message(net)
    try:
        graph = build_graph(state, phase=net.phase)
        # What a Python layer does is not in its settings, and its module may no longer be found.
        if any(node.type == "Python" for node in graph.nodes):
            return
        shapes = {blob: net.structure.input_shapes[blob] for blob in graph.inputs}
        with torch.device("meta"):
            twin = build(graph, shapes)
    except (GraphError, LayerError) as error:
        raise type(error)(f"the net as it is now cannot be built from Caffe's settings: {error}") from error
    problems: list[str] = []
    for (node, made), (_, layer) in zip(twin.built(), net.built(), strict=True):
        place = f"layer {node.name!r} ({node.type})"
        problems += [f"{place}{problem}" for problem in _blob_changes(made, layer)]
        changes = _attribute_changes(made, layer)
        if changes:
            raise LayerError(f"{place}: {'; '.join(changes)}; change the prototxt instead (caffe2torch.surgery)")
    if problems:
        listed = "".join(f"\n  {problem}" for problem in problems)
        raise WeightsError(f"the blobs of net {net.structure.graph.name!r} do not fit its settings:{listed}")


def _blob_changes(made: Layer, layer: Layer) -> list[str]:
    theirs = [tuple(value.shape) for _, value in layer.blob_items()]
    made.adapt(theirs)
    ours = [tuple(value.shape) for _, value in made.blob_items()]
    return [] if ours == theirs else [f" should have blobs of shapes {ours} and has {theirs}"]


def _attribute_changes(made: Layer, layer: Layer) -> list[str]:
    """Plain attributes that differ: what the layer computes is then not what its settings say."""
    if made.caffe_type != layer.caffe_type:
        return [f"its module is a {layer.caffe_type}"]
    ours, theirs = vars(made), vars(layer)
    return [
        f"its {name} is {theirs[name]!r}, and {value!r} in its settings"
        for name, value in ours.items()
        if not name.startswith("_")
        and name not in ("training", "caffe_name")
        and name in theirs
        and (value is None or isinstance(value, bool | int | float | str | tuple))
        and theirs[name] != value
    ]
