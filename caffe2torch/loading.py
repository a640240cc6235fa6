"""From a prototxt and its weights to a CaffeNet, with a strict account of what matched what."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from caffe2torch.binaryproto import read_blob
from caffe2torch.build import build, merge_multipliers
from caffe2torch.caffemodel import Blob, open_weights
from caffe2torch.data.shapes import input_shapes as find_input_shapes
from caffe2torch.errors import FormatError, GraphError, LayerError, UsageError
from caffe2torch.graph import SOURCES, Graph, build_graph
from caffe2torch.layers.imports import modules_from
from caffe2torch.layers.registry import Message, find, unregistered
from caffe2torch.matching import match_weights
from caffe2torch.net import CaffeNet, LoadReport
from caffe2torch.net_state import places
from caffe2torch.prototxt import UnknownField, read_net, refusal
from caffe2torch.schema import Schema


def load(
    prototxt: str | Path,
    weights: str | Path | None = None,
    *,
    phase: str = "test",
    level: int = 0,
    stages: Sequence[str] = (),
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    allow_missing: bool = False,
    ignore_extra: bool | Collection[str] = False,
    aliases: Mapping[str, str] | None = None,
    unknown_fields: list[UnknownField] | None = None,
    protos: Sequence[str | Path] = (),
    outputs: Sequence[str] | None = None,
    image_shape: Sequence[int] | None = None,
) -> CaffeNet:
    """Read a Caffe net (V0, V1 or V2) and its weights (``.caffemodel`` or ``.caffemodel.h5``) as a CaffeNet.

    Without ``weights`` the parameters come from the prototxt's fillers (torch's global generator). With weights every
    layer must match by name, number of blobs and shape: otherwise one WeightsError lists all differences.
    ``allow_missing`` fills layers the file lacks; ``ignore_extra`` (True, or the names to ignore) passes over layers
    the net lacks. ``aliases`` maps layer names of the net to their names in the file. ``input_shapes`` (blob -> shape)
    replaces the shapes of the prototxt and is needed for data layers whose files are not here; any layer without
    bottoms is fed from outside if the shape of its tops is given, a fork's data layer too. ``unknown_fields`` collects
    prototxt fields the schema lacks instead of raising; ``protos`` are ``.proto`` files of a fork that add fields to
    it. With ``outputs`` the net is that of ``select``, and only the layers that these blobs need (and the first layers
    that have the parameters these share) are built, loaded, and have to be known. ``image_shape`` is the shape of the
    one input for which neither ``input_shapes`` nor the prototxt gives one.
    ``net.report`` says what was loaded. A net with Python layers runs the modules they name.
    """
    path = Path(prototxt)
    schema = Schema(protos) if protos else None
    found: list[UnknownField] = [] if unknown_fields is None else unknown_fields
    if outputs is not None and (isinstance(outputs, str) or not outputs):
        raise UsageError(f"outputs is {outputs!r}: expected a list of blob names, one or more")
    with naming(path):
        message = read_net(path, unknown=found, schema=schema)
        refused = found if unknown_fields is None else ()
        in_state = partial(connected, message, refused, phase=phase, level=level, stages=stages)
        fed = set(input_shapes or ())
        whole = in_state(fed=fed)
        graph = whole if outputs is None else whole.only(outputs)
        if image_shape is not None and not graph.inputs:  # then the pictures come from a layer whose code is not here
            fed.update(_feeding(message))
            whole = in_state(fed=fed)
            graph = whole if outputs is None else whole.only(outputs)
        _refuse_unknown(refused, message, graph, fed, places(message, phase=phase, level=level, stages=stages))
        cut = set(whole.inputs).difference(graph.inputs)
        shapes = {blob: shape for blob, shape in (input_shapes or {}).items() if blob not in cut}
        net = build_net(graph, path.parent, shapes, image_shape)
        if weights is None:
            report = fill(net)
        else:
            report = load_weights(net, weights, allow_missing=allow_missing, ignore_extra=ignore_extra, aliases=aliases)
    net = net if outputs is None else net.select(*dict.fromkeys(outputs))
    net.report = report
    return net.to(device=device, dtype=dtype)


def connected(
    net: Message,
    found: Sequence[UnknownField],
    *,
    phase: str,
    level: int,
    stages: Sequence[str],
    fed: Collection[str],
) -> Graph:
    """``build_graph``; the unknown fields ``found`` are told before its error: a ``typ`` or ``tops`` may be why.

    Multipliers are merged here, because those that a layer states hold for its sharers even if it is cut afterwards.
    """
    try:
        return merge_multipliers(build_graph(net, phase=phase, level=level, stages=stages, fed=fed))
    except GraphError as error:
        if found:
            raise refusal(found, f"\n{error}") from error
        raise


def _feeding(net: Message) -> list[str]:
    """The tops of layers without bottoms whose code is not here, or may not be."""
    return [
        top
        for layer in net.layer
        if not layer.bottom and (layer.type == "Python" or not find(layer.type))
        for top in layer.top
    ]


def _refuse_unknown(
    found: Sequence[UnknownField], net: Message, graph: Graph, fed: Collection[str], kept: Sequence[int]
) -> None:
    """Raise PrototxtError unless the graph leaves out all layers of the ``net`` in which unknown fields were ``found``.

    What a layer of another phase says, or a source that is fed, does not change what runs; what the upgrade has made
    another layer of counts. ``kept`` are the places of the state's layers. The error names the layer types that nobody
    registered as well: often the fields are theirs.
    """
    sources = [node for node in graph.sources if node.type in SOURCES and not set(node.tops) <= set(fed)]
    run = {kept[node.index] for node in (*graph.nodes, *sources)}
    named: dict[str | None, list[int]] = {}
    for place, layer in enumerate(net.layer):
        named.setdefault(layer.name, []).append(place)
    refused = [field for field in found if (of := named.get(field.layer, [])[field.occurrence :]) == [] or of[0] in run]
    if refused:
        lines = unregistered([(node.name, node.type) for node in graph.nodes])
        types = "\nno class is registered for these layer types:\n" + "\n".join(lines) if lines else ""
        advice = (
            "\nWhere a fork of Caffe has these fields, give its .proto (protos, --proto), or pass over them "
            "(unknown_fields, --allow-unknown). What the wanted blobs do not need may have any (outputs, --blob)."
        )
        raise refusal(refused, types + advice)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put the prototxt's name before what its graph or its layers are refused for."""
    try:
        yield
    except (GraphError, LayerError) as error:
        raise type(error)(f"{path}: {error}") from error


def build_net(
    graph: Graph,
    folder: Path,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    image_shape: Sequence[int] | None = None,
) -> CaffeNet:
    """The net of a graph, its parameters uninitialised; relative paths of files are below ``folder``.

    The modules of its Python layers are looked for there too, after ``sys.path``. Shapes are given as to ``load``.
    """
    shapes, notes = find_input_shapes(graph.sources, folder, input_shapes or {}, image_shape)
    for note in notes:
        warnings.warn(f"net {graph.name!r}, {note}", stacklevel=3)
    python = any(node.type == "Python" for node in graph.nodes)
    with modules_from(folder) if python else nullcontext():
        net = build(graph, shapes)
    _read_files(net, folder)
    return net


def _read_files(net: CaffeNet, folder: Path) -> None:
    """Fill the buffers whose values come from files of the prototxt (the matrix of InfogainLoss)."""
    for node, layer in net.built():
        for attribute, name in layer.files.items():
            try:
                values, buffer = read_blob(folder / name), getattr(layer, attribute)
                if values.size != buffer.numel():
                    raise FormatError(
                        f"{folder / name}: has {values.size} values of shape {values.shape}, expected {buffer.numel()}"
                    )
            except FormatError as error:
                raise LayerError(f"layer {node.name!r} ({node.type}), its {attribute}: {error}") from error
            buffer.copy_(torch.from_numpy(values).reshape(buffer.shape))


def fill(net: CaffeNet, only: Collection[str] | None = None) -> LoadReport:
    """Initialise parameters with the prototxt's fillers: all layers, or ``only`` those named.

    Raises LayerError for a filler that is impossible, and for parameters that this machine cannot hold.
    """
    layers = [
        (node, layer) for node, layer in net.built() if layer.blob_items() and (only is None or node.name in only)
    ]
    _check_memory([value for _, layer in layers for _, value in layer.blob_items()])
    for node, layer in reversed(layers):  # a shared parameter belongs to its first layer, whose filler stands
        try:
            with torch.no_grad():
                layer.fill(node.message)
        except LayerError as error:
            raise type(error)(f"layer {node.name!r} ({node.type}): {error}") from error
    return LoadReport(filled=tuple(node.name for node, _ in layers))


def _check_memory(blobs: Sequence[Tensor]) -> None:
    """Memory is taken only when it is written: without a look beforehand a few lines of prototxt could take it all."""
    needed = sum(value.numel() * value.element_size() for value in {id(value): value for value in blobs}.values())
    if needed > _memory():
        raise LayerError(
            f"the parameters take {needed / 1e9:,.1f} GB, this machine has {_memory() / 1e9:,.1f} GB of memory; check "
            "num_output, the kernels and the input shape"
        )


def _memory() -> float:
    """Bytes of memory this machine has; infinite where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # no such function, or no such name
        return math.inf


def load_weights(
    net: CaffeNet,
    weights: str | Path,
    *,
    allow_missing: bool = False,
    ignore_extra: bool | Collection[str] = False,
    aliases: Mapping[str, str] | None = None,
) -> LoadReport:
    """Copy the weights of a file into the net, as :func:`load` does."""
    with open_weights(weights) as file:
        match = match_weights(net, file, allow_missing=allow_missing, ignore_extra=ignore_extra, aliases=aliases)
        # Fill first: what a layer shares with another must not be overwritten by its filler.
        fill(net, only=match.missing)
        for target, blob in match.copies:
            _copy(target, blob)
    return LoadReport(match.found, match.missing, match.extra)


def copy_weights(net: CaffeNet, weights: str | Path, *, aliases: Mapping[str, str] | None = None) -> LoadReport:
    """Copy what the file has for layers of the net, by name, and leave the others as they are: Caffe's ``-weights``.

    Raises WeightsError where a layer of that name has other blobs or shapes.
    """
    with open_weights(weights) as file:
        match = match_weights(net, file, allow_missing=True, ignore_extra=True, aliases=aliases)
        for target, blob in match.copies:
            _copy(target, blob)
    return LoadReport(match.found, match.missing, match.extra)


def _copy(target: Tensor, blob: Blob) -> None:
    value = target.detach()
    if isinstance(target, nn.Parameter) and value.dtype == torch.float32 and value.device.type == "cpu":
        # numpy asks for large memory pages, torch does not: reading 228 MB takes half the time. The parameter's own
        # memory was never touched, so it never took any.
        target.data = torch.from_numpy(blob.read()).reshape(value.shape)
    else:
        value.copy_(torch.from_numpy(blob.read()).reshape(value.shape))
