"""CaffeNet: a graph as a torch module, run as an ordered plan over a dictionary of blobs."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from caffe2torch.errors import GraphError, LayerError, UsageError
from caffe2torch.graph import Graph, Node, ParamSpec, near
from caffe2torch.layers import registry
from caffe2torch.layers.registry import Layer, Shape
from caffe2torch.sharing import tie


@dataclass(frozen=True)
class Step:
    """One layer in the plan: which module reads and writes which blobs, and which blobs are dropped after it."""

    module: str
    """Attribute name of the layer in the net."""
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    detached: tuple[bool, ...]
    """Per bottom: whether Caffe propagates no gradient to it."""
    refreshed: tuple[tuple[str, str], ...]
    free: tuple[str, ...]


@dataclass(frozen=True)
class LoadReport:
    """What happened to every layer with weights: which were loaded, which were filled, which of the file's ignored."""

    loaded: tuple[str, ...] = ()
    filled: tuple[str, ...] = ()
    """Layers that were initialised by their fillers because no weights were given for them."""
    ignored: tuple[str, ...] = ()
    """Layers of the weights file that the net does not have."""


@dataclass(frozen=True)
class Structure:
    """What the layers of a net were built into: everything a plan needs besides the modules themselves."""

    graph: Graph
    attributes: Mapping[int, str]
    """Index of the node -> attribute name of its module."""
    input_shapes: Mapping[str, Shape]
    blob_shapes: Mapping[str, Shape]
    """The shape of every blob after the whole pass, for the net's own input shapes."""
    loss_weights: Mapping[str, float]
    """Blob -> weight, for every blob that is part of the loss."""


class CaffeNet(nn.Module):
    """A Caffe net. Call it with its input blobs; it returns ``{blob: tensor}`` of its output blobs.

    ``net(x)`` feeds the inputs in order, ``net({"data": x})`` by name. Outputs are the blobs no layer consumes and
    those that carry a loss; ``net.select("fc7", ...)`` chooses others and computes only what they need.
    """

    def __init__(self, structure: Structure, modules: Mapping[str, Layer], outputs: Sequence[str]) -> None:
        super().__init__()
        self.structure = structure
        self.report = LoadReport()
        self.outputs = tuple(outputs)
        self.plan = _plan(structure, structure.graph.needed(outputs), self.outputs)
        read = {b for step in self.plan for b in step.bottoms} | set(outputs)
        self.inputs = tuple(b for b in structure.graph.inputs if b in read)
        for attribute, module in modules.items():
            self.add_module(attribute, module)
        self.train(structure.graph.phase == "train")

    def forward(self, *inputs: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run the plan; every blob is dropped after its last use."""
        values = self._bind(inputs)
        for step in self.plan:
            bottoms = [
                values[blob].detach() if cut else values[blob]
                for blob, cut in zip(step.bottoms, step.detached, strict=True)
            ]
            result = self._modules[step.module](*bottoms)  # type: ignore[misc]
            values.update(zip(step.tops, result if isinstance(result, tuple) else (result,), strict=True))
            for blob, top in step.refreshed:
                values[blob] = values[top].reshape(values[blob].shape)
            for blob in step.free:
                del values[blob]
        return {blob: values[blob] for blob in self.outputs}

    def _bind(self, inputs: tuple[Tensor | Mapping[str, Tensor], ...]) -> dict[str, Tensor]:
        if len(inputs) == 1 and isinstance(inputs[0], Mapping):
            given: dict[str, Tensor] = dict(inputs[0])
            unknown = [b for b in given if b not in self.structure.graph.inputs]
            missing = [b for b in self.inputs if b not in given]
            if unknown or missing:
                raise UsageError(
                    f"the net takes the inputs {', '.join(self.inputs)}"
                    + (f"; missing: {', '.join(missing)}" if missing else "")
                    + (f"; unknown: {', '.join(unknown)}" if unknown else "")
                )
            return given
        if len(inputs) != len(self.inputs):
            names = ", ".join(self.inputs) or "none"
            raise UsageError(f"the net takes {len(self.inputs)} inputs ({names}), {len(inputs)} were given")
        return dict(zip(self.inputs, inputs, strict=True))  # type: ignore[arg-type]

    def select(self, *blobs: str) -> CaffeNet:
        """A net that shares these layers and returns the named blobs, pruned to what they depend on."""
        if not blobs:
            raise UsageError("select needs at least one blob name")
        modules = {name: module for name, module in self.named_children() if isinstance(module, Layer)}
        nodes = self.structure.graph.needed(blobs)
        lost = [node.name for node in nodes if self.structure.attributes[node.index] not in modules]
        if lost:
            raise GraphError(f"{', '.join(blobs)} needs the layers {', '.join(lost)}, which an earlier select cut off")
        kept = {self.structure.attributes[node.index] for node in nodes}
        net = CaffeNet(self.structure, {n: m for n, m in modules.items() if n in kept}, blobs)
        net.train(self.training)
        return net

    def loss(self, outputs: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum of the loss blobs among ``outputs``, as Caffe's ForwardBackward returns it."""
        terms = [weight * outputs[blob].sum() for blob, weight in self.loss_weights.items() if blob in outputs]
        if not terms:
            raise UsageError(f"net {self.structure.graph.name!r} has no loss among its outputs")
        return torch.stack(terms).sum()

    @property
    def phase(self) -> str:
        """The phase the net was built for: ``train`` or ``test``."""
        return self.structure.graph.phase

    @property
    def input_shapes(self) -> dict[str, Shape]:
        """The shapes the prototxt (or the caller) gives the inputs; other batch sizes work as well."""
        return {blob: self.structure.input_shapes[blob] for blob in self.inputs}

    @property
    def blob_shapes(self) -> dict[str, Shape]:
        """The shape of every blob of the whole net at ``input_shapes``."""
        return dict(self.structure.blob_shapes)

    @property
    def loss_weights(self) -> dict[str, float]:
        """Blob -> loss weight, for every blob that is part of the loss."""
        return dict(self.structure.loss_weights)

    def layer(self, name: str) -> Layer:
        """The module of the layer with this Caffe name."""
        layers = self.layers()
        if name not in layers:
            raise GraphError(f"net {self.structure.graph.name!r} has no layer {name!r}{near(name, layers)}")
        return layers[name]

    def layers(self) -> dict[str, Layer]:
        """Caffe layer name -> module, in order of execution."""
        return {node.name: module for node, module in self.built()}

    def built(self) -> Iterator[tuple[Node, Layer]]:
        """Every layer of this net with its node, in order of execution."""
        for node in self.structure.graph.nodes:
            module = self._modules.get(self.structure.attributes[node.index])
            if isinstance(module, Layer):
                yield node, module

    def parameter_specs(self) -> dict[str, ParamSpec]:
        """Name in ``named_parameters()`` -> what the prototxt says about it (lr_mult, decay_mult, sharing)."""
        specs: dict[str, ParamSpec] = {}
        seen: set[int] = set()
        for node, layer in self.built():
            for index, (name, value) in enumerate(layer.blob_items()):
                if isinstance(value, nn.Parameter) and id(value) not in seen:
                    seen.add(id(value))
                    spec = node.params[index] if index < len(node.params) else ParamSpec()
                    specs[f"{self.structure.attributes[node.index]}.{name}"] = spec
        return specs


def build(graph: Graph, input_shapes: Mapping[str, Shape]) -> CaffeNet:
    """Build the layers of a graph, find all shapes by running each once on meta tensors, and return the whole net.

    Parameters are uninitialised memory until they are loaded or filled. Raises UnsupportedLayerError naming every
    unknown type, and LayerError (with the layer's name) for parameters or shapes that are impossible.
    """
    registry.require([(node.name, node.type) for node in graph.nodes])
    attributes = _attribute_names(graph)
    modules: dict[str, Layer] = {}
    shapes: dict[str, Shape] = {blob: tuple(input_shapes[blob]) for blob in graph.inputs}
    automatic: dict[int, tuple[str, ...]] = {}
    losses: dict[str, float] = {}
    for node in graph.nodes:
        layer, top_shapes = _build_layer(node, [shapes[b] for b in node.bottoms], training=graph.phase == "train")
        tops = _all_tops(node, layer, len(top_shapes), {*graph.blobs, *shapes})
        if tops != node.tops:
            automatic[node.index] = tops
        shapes.update(zip(tops, top_shapes, strict=True))
        losses.update(_losses(node, layer, tops))
        modules[attributes[node.index]] = layer
    graph = graph.with_tops(automatic)
    _share(graph, attributes, modules)
    structure = Structure(graph, attributes, {b: shapes[b] for b in graph.inputs}, shapes, losses)
    return CaffeNet(structure, modules, tuple(dict.fromkeys((*graph.outputs, *losses))))


def _build_layer(node: Node, bottom_shapes: Sequence[Shape], *, training: bool) -> tuple[Layer, list[Shape]]:
    """The layer, and the shapes of its tops found with a twin that lives on the meta device."""
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
        with torch.device("meta"), torch.no_grad():
            twin = cls.from_caffe(node.message, bottom_shapes).train(training)
            result = twin(*[torch.empty(shape) for shape in bottom_shapes])
    except LayerError as error:
        raise type(error)(f"{place}: {error}") from error
    except (RuntimeError, IndexError, ValueError) as error:
        sizes = ", ".join("x".join(map(str, s)) or "scalar" for s in bottom_shapes)
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise LayerError(f"{place} cannot take bottoms of shape {sizes}: {reason}") from error
    layer.caffe_name = node.name
    results = result if isinstance(result, tuple) else (result,)
    return layer, [tuple(r.shape) for r in results]


def _all_tops(node: Node, layer: Layer, made: int, taken: set[str]) -> tuple[str, ...]:
    """The named tops, plus the one Caffe adds for itself when a loss layer names none (AutoTopBlobs)."""
    if len(node.tops) == made:
        return node.tops
    if layer.loss and not node.tops and made == 1:
        name = node.name
        while name in taken:
            name += "_loss"
        return (name,)
    raise LayerError(f"layer {node.name!r} ({node.type}) makes {made} tops, {len(node.tops)} are named")


def _losses(node: Node, layer: Layer, tops: tuple[str, ...]) -> dict[str, float]:
    weights = node.loss_weight or ((1.0,) + (0.0,) * (len(tops) - 1) if layer.loss else ())
    return {top: weight for top, weight in zip(tops, weights, strict=False) if weight}


def _plan(structure: Structure, nodes: Sequence[Node], outputs: tuple[str, ...]) -> tuple[Step, ...]:
    graph = structure.graph
    last: dict[str, int] = {}
    for index, node in enumerate(nodes):
        for blob in (*node.bottoms, *node.writes):
            last[blob] = index
    steps: list[Step] = []
    made: set[str] = set(graph.inputs)
    for index, node in enumerate(nodes):
        made.update(node.tops)
        refreshed = tuple((b, t) for b, t in node.refreshed if b in made and (b in outputs or last[b] > index))
        steps.append(
            Step(
                module=structure.attributes[node.index],
                bottoms=node.bottoms,
                tops=node.tops,
                detached=_detached(node, graph),
                refreshed=refreshed,
                free=tuple(
                    b for b in dict.fromkeys((*node.bottoms, *node.tops)) if last[b] == index and b not in outputs
                ),
            )
        )
    return tuple(steps)


def _detached(node: Node, graph: Graph) -> tuple[bool, ...]:
    """Where Caffe propagates nothing: labels, and ``propagate_down: false`` unless ``force_backward`` overrides it."""
    cls = registry.find(node.type)
    assert cls is not None
    cut = []
    for index in range(len(node.bottoms)):
        asked = not node.propagate_down or node.propagate_down[index]
        forced = graph.force_backward and index not in cls.no_gradient
        cut.append(not forced and (not asked or index in cls.no_gradient))
    return tuple(cut)


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


_RESERVED = frozenset(dir(nn.Module)) | frozenset(dir(CaffeNet)) | {"structure", "outputs", "plan", "inputs"}


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
