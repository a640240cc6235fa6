"""From a graph to a CaffeNet: build every layer, find all shapes, tie shared parameters, name the modules."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import nn

from caffe2torch.errors import GraphError, LayerError
from caffe2torch.graph import Graph, Node, ParamSpec, check_given
from caffe2torch.layers import registry
from caffe2torch.layers.registry import Layer, Shape
from caffe2torch.net import CaffeNet, Structure, detached
from caffe2torch.sharing import tie

AUTOMATIC = "(automatic)"
"""Caffe's name for the top of a loss layer that names none."""


def is_automatic(blob: str) -> bool:
    """Whether a blob is the top of a loss layer that names none."""
    return blob.startswith(AUTOMATIC)


def build(graph: Graph, input_shapes: Mapping[str, Shape]) -> CaffeNet:
    """Build the layers of a graph, find all shapes by running each once on meta tensors, and return the whole net.

    Parameters are uninitialised memory until they are loaded or filled. Raises UnsupportedLayerError naming every
    unknown type, and LayerError (with the layer's name) for parameters or shapes that are impossible.
    """
    feeding = [top for node in graph.nodes if not node.bottoms and not registry.find(node.type) for top in node.tops]
    registry.require([(node.name, node.type) for node in graph.nodes], _feeding_hint(feeding))
    graph = merge_multipliers(graph)
    attributes = _attribute_names(graph)
    modules: dict[str, Layer] = {}
    shapes: dict[str, Shape] = {blob: tuple(input_shapes[blob]) for blob in graph.inputs}
    automatic: dict[int, tuple[str, ...]] = {}
    losses: dict[str, float] = {}
    taken = set(graph.blobs)
    for node in graph.nodes:
        layer, top_shapes = _build_layer(node, [shapes[b] for b in node.bottoms])
        tops = _all_tops(node, layer, len(top_shapes), taken)
        if tops != node.tops:
            automatic[node.index] = tops
            taken.update(tops)
        shapes.update(zip(tops, top_shapes, strict=True))
        losses.update(_losses(node, layer, tops))
        modules[attributes[node.index]] = layer
    graph = graph.with_tops(automatic)
    _share(graph, attributes, modules)
    _freeze(graph, attributes, modules)
    structure = Structure(
        graph,
        attributes,
        {b: shapes[b] for b in graph.inputs},
        shapes,
        losses,
        _replaced(graph, [modules[attributes[node.index]] for node in graph.nodes], losses),
    )
    sinks = [node.index for node in graph.nodes if modules[attributes[node.index]].sink]
    return CaffeNet(structure, modules, tuple(dict.fromkeys((*graph.outputs, *losses))), sinks)


def _feeding_hint(tops: Sequence[str]) -> str:
    """How a net is built without the layers that make these ``tops`` from nothing; "" where there are none."""
    if not tops:
        return ""
    shapes = ", ".join(f"{top!r}: (batch, ...)" for top in tops)
    options = " ".join(f"--input {top}=N,..." for top in tops)
    return (
        "\nOutside of training a layer without bottoms need not run; give the shapes of what it makes: "
        f"input_shapes={{{shapes}}} ({options})"
    )


def _build_layer(node: Node, bottom_shapes: Sequence[Shape]) -> tuple[Layer, list[Shape]]:
    """The layer, and the shapes of its tops, found with a twin on the meta device unless the layer itself knows."""
    cls = registry.find(node.type)
    assert cls is not None  # registry.require has seen to it
    place = f"layer {node.name!r} ({node.type})"
    for what, given, (least, most) in (("bottoms", node.bottoms, cls.bottoms), ("tops", node.tops, cls.tops)):
        least = 0 if what == "tops" and cls.loss else least
        if len(given) < least or (most is not None and len(given) > most):
            expected = f"{least}" if least == most else f"{least} to {most if most is not None else 'any number'}"
            raise LayerError(f"{place} has {len(given)} {what} ({', '.join(given) or 'none'}), expected {expected}")
    try:
        layer = cls.from_caffe(node.message, bottom_shapes)
        known = layer.top_shapes(bottom_shapes)
        shapes = _run_on_meta(node, cls, bottom_shapes) if known is None else known
    except LayerError as error:
        hint = _feeding_hint(node.tops) if node.type == "Python" and not node.bottoms else ""
        raise type(error)(f"{place}: {error}{hint}") from error
    except (RuntimeError, IndexError, ValueError) as error:
        sizes = ", ".join("x".join(map(str, s)) or "scalar" for s in bottom_shapes)
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise LayerError(f"{place} cannot take bottoms of shape {sizes}: {reason}") from error
    layer.caffe_name = node.name
    for shape in shapes:
        registry.check_count(shape, f"a top of {place}, a blob")
    return layer, shapes


def _run_on_meta(node: Node, cls: type[Layer], bottom_shapes: Sequence[Shape]) -> list[Shape]:
    with torch.device("meta"), torch.no_grad():
        twin = cls.from_caffe(node.message, bottom_shapes).train(node.phase == "train")
        result = twin(*[torch.empty(shape) for shape in bottom_shapes])
    return [tuple(r.shape) for r in (result if isinstance(result, tuple) else (result,))]


def _all_tops(node: Node, layer: Layer, made: int, taken: set[str]) -> tuple[str, ...]:
    """The named tops, plus the one Caffe adds for itself when a loss layer names none (AutoTopBlobs)."""
    if len(node.tops) == made:
        return node.tops
    if layer.loss and not node.tops and made == 1:
        name = AUTOMATIC
        while name in taken:
            name += f" {node.name}"
        return (name,)
    raise LayerError(f"layer {node.name!r} ({node.type}) makes {made} tops, {len(node.tops)} are named")


def _losses(node: Node, layer: Layer, tops: tuple[str, ...]) -> dict[str, float]:
    check_given(f"layer {node.name!r} ({node.type})", "loss_weight", len(node.loss_weight), len(tops), "top")
    weights = node.loss_weight or ((1.0,) + (0.0,) * (len(tops) - 1) if layer.loss else ())
    return {top: weight for top, weight in zip(tops, weights, strict=False) if weight}


def _replaced(graph: Graph, layers: Sequence[Layer], losses: Mapping[str, float]) -> frozenset[str]:
    """Loss blobs of no stated weight whose gradient of 1 Caffe loses, because another layer reads them.

    A reader that leads to a loss puts its gradient in its place. If no reader of any top does, Caffe skips the
    backward of the loss layer. (A stated ``loss_weight`` counts as a reader of its own, and stays.)
    """
    leads: set[str] = set(losses)
    """Blobs from which a loss is reached."""
    carried: set[str] = set()
    read: set[str] = set()
    found: set[str] = set()
    for node, layer in reversed(list(zip(graph.nodes, layers, strict=True))):
        skipped = carried.isdisjoint(node.tops) and read.issuperset(node.tops)
        if layer.loss and not node.loss_weight and (node.tops[0] in carried or skipped):
            found.add(node.tops[0])
        contributes = not leads.isdisjoint(node.tops)
        cut = detached(node, layer, forced=graph.force_backward)
        for blob, no in zip(node.bottoms, cut, strict=True):
            if blob in node.tops:
                continue
            read.add(blob)
            if contributes:
                leads.add(blob)
                carried |= set() if no else {blob}
    return frozenset(found)


def _share(graph: Graph, attributes: Mapping[int, str], modules: Mapping[str, Layer]) -> None:
    """Tie the parameters that carry one name, to the first layer that has it, as Caffe's AppendParam does."""
    owners: dict[str, tuple[Node, Layer, str]] = {}
    for node in graph.nodes:
        layer = modules[attributes[node.index]]
        names = [name for name, _ in layer.blob_items()]
        if len(node.params) > len(names):
            raise LayerError(
                f"layer {node.name!r} ({node.type}) has {len(node.params)} param {{ }} entries, but {len(names)} blobs"
            )
        for spec, name in zip(node.params, names, strict=False):
            if not spec.name:
                continue
            if spec.name not in owners:
                owners[spec.name] = (node, layer, name)
                continue
            owner_node, owner, owner_name = owners[spec.name]
            mine, theirs = tuple(getattr(layer, name).shape), tuple(getattr(owner, owner_name).shape)
            count = getattr(layer, name).numel() == getattr(owner, owner_name).numel()
            if mine != theirs and (spec.strict or not count):
                raise GraphError(
                    f"parameter {spec.name!r} has shape {mine} in layer {node.name!r} and {theirs} in "
                    f"{owner_node.name!r}; shared parameters need equal shapes (share_mode: PERMISSIVE: equal counts)"
                )
            tie(layer, name, owner, owner_name)


def merge_multipliers(graph: Graph) -> Graph:
    """Give every sharer of a parameter the multipliers that any of them states, as Caffe's AppendParam does."""
    stated: dict[tuple[str, str], tuple[float, Node]] = {}
    for node in graph.nodes:
        for param in node.message.param:
            for field in ("lr_mult", "decay_mult"):
                if not param.name or not param.HasField(field):
                    continue
                value, first = stated.setdefault((param.name, field), (getattr(param, field), node))
                if value != getattr(param, field):
                    raise GraphError(
                        f"parameter {param.name!r} has {field} {value:g} in layer {first.name!r} and "
                        f"{getattr(param, field):g} in {node.name!r}; give all sharers the same, or only one of them"
                    )

    def merged(spec: ParamSpec) -> ParamSpec:
        lr, decay = (stated.get((spec.name, field)) for field in ("lr_mult", "decay_mult"))
        return replace(spec, lr_mult=lr[0] if lr else spec.lr_mult, decay_mult=decay[0] if decay else spec.decay_mult)

    return replace(graph, nodes=tuple(replace(n, params=tuple(map(merged, n.params))) for n in graph.nodes))


def _freeze(graph: Graph, attributes: Mapping[int, str], modules: Mapping[str, Layer]) -> None:
    """Ask for no gradient where ``lr_mult`` is 0: Caffe computes none there unless ``force_backward`` is set."""
    for node in graph.nodes:
        for spec, (_, blob) in zip(node.params, modules[attributes[node.index]].blob_items(), strict=False):
            if spec.lr_mult == 0 and isinstance(blob, nn.Parameter) and not graph.force_backward:
                blob.requires_grad_(False)


_RESERVED = (
    frozenset(dir(nn.Module())) | frozenset(dir(CaffeNet)) | {"structure", "report", "outputs", "plan", "inputs"}
)


def attribute_name(layer_name: str) -> str:
    """A Python attribute name for a layer name: other characters become ``_``; reserved names get one more ``_``."""
    name = re.sub(r"\W", "_", layer_name, flags=re.ASCII) or "layer"
    if name[0].isdigit():
        name = "layer_" + name
    if name in _RESERVED or keyword.iskeyword(name) or name.startswith("__"):
        name += "_"
    return name


def _attribute_names(graph: Graph) -> dict[int, str]:
    """Node index -> unique attribute name; two names that map to one attribute are told apart by a number."""
    taken: set[str] = set()
    names: dict[int, str] = {}
    for node in graph.nodes:
        base = attribute_name(node.name or node.type)
        name, number = base, 2
        while name in taken:
            name, number = f"{base}_{number}", number + 1
        taken.add(name)
        names[node.index] = name
    return names
