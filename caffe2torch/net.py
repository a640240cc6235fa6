"""CaffeNet: a graph as a torch module, run as an ordered plan over a dictionary of blobs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from caffe2torch.errors import GraphError, UsageError
from caffe2torch.graph import Graph, Node, ParamSpec, near
from caffe2torch.layers.gradient import with_gradient_of
from caffe2torch.layers.registry import Layer, Shape
from caffe2torch.overwriting import overwritten, with_caffes_gradient
from caffe2torch.sharing import lenders


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
    overwritten: bool
    """Whether Caffe's backward of this layer finds values that an in-place layer has put in place of its own."""
    watched: tuple[str, ...]
    """Blobs written here whose last value such a layer reads."""
    free: tuple[str, ...]
    scale: str = ""
    """Attribute name of the Scale that the module, a BatchNorm, does the work of as well; "": none."""


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
    replaced: frozenset[str] = frozenset()
    """Losses whose own gradient is lost, because a later layer reads them: Caffe's backward overwrites it."""


class CaffeNet(nn.Module):
    """A Caffe net. Call it with its input blobs; it returns ``{blob: tensor}`` of its output blobs.

    ``net(x)`` feeds the inputs in order, ``net({"data": x})`` by name. Outputs are the blobs no layer consumes and
    those that carry a loss; ``net.select("fc7", ...)`` chooses others and computes only what they need.
    """

    def __init__(
        self, structure: Structure, modules: Mapping[str, Layer], outputs: Sequence[str], sinks: Collection[int] = ()
    ) -> None:
        super().__init__()
        self.structure = structure
        self.report = LoadReport()
        self.outputs = tuple(outputs)
        self.plan = _plan(structure, modules, structure.graph.needed(outputs, sinks), self.outputs)
        read = {b for step in self.plan for b in step.bottoms} | set(outputs)
        self.inputs = tuple(b for b in structure.graph.inputs if b in read)
        for attribute, module in modules.items():
            self.add_module(attribute, module)
        self.train(structure.graph.phase == "train")

    def forward(self, *inputs: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run the plan; every blob is dropped after its last use."""
        values = self._bind(inputs)
        last: dict[str, Tensor] = {}
        for step in self.plan:
            bottoms = [
                values[blob].detach() if cut else values[blob]
                for blob, cut in zip(step.bottoms, step.detached, strict=True)
            ]
            layer: Layer = self._modules[step.module]  # type: ignore[assignment]
            if step.scale:
                scale = self.get_submodule(step.scale)
                result = layer(*bottoms, scale.weight, scale.bias)
            else:
                result = layer(*bottoms)
            if step.overwritten:
                alone = step.tops != step.bottoms
                result = with_caffes_gradient(result, bottoms[0], layer, step.tops[0], last, alone)
            values.update(zip(step.tops, result if isinstance(result, tuple) else (result,), strict=True))
            for blob, top in step.refreshed:
                # The value is the in-place layer's; Caffe's gradient of this blob does not pass through that layer.
                values[blob] = with_gradient_of(values[top].reshape(values[blob].shape), values[blob])
            for blob in step.watched:
                last[blob] = values[blob].detach()
            for blob in step.free:
                del values[blob]
        return {blob: values[blob] for blob in self.outputs}

    def train(self, mode: bool = True) -> CaffeNet:
        """Switch to training or test mode, except layers that the prototxt gives another phase than the net's."""
        super().train(mode)
        for node, layer in self.built():
            if node.phase != self.phase:
                layer.train(node.phase == "train")
        return self

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
        run = [modules[self.structure.attributes[node.index]] for node in nodes]
        kept = {*run, *(lender for module in run for lender in lenders(module))}
        net = CaffeNet(self.structure, {n: m for n, m in modules.items() if m in kept}, blobs)
        net.train(self.training)
        return net

    def loss(self, outputs: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum of the loss blobs among ``outputs``, as Caffe's ForwardBackward returns it."""
        replaced = self.structure.replaced
        terms = [
            weight * (outputs[blob].detach() if blob in replaced else outputs[blob]).sum()
            for blob, weight in self.loss_weights.items()
            if blob in outputs
        ]
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


def _plan(
    structure: Structure, modules: Mapping[str, Layer], nodes: Sequence[Node], outputs: tuple[str, ...]
) -> tuple[Step, ...]:
    graph = structure.graph
    last: dict[str, int] = {}
    for index, node in enumerate(nodes):
        for blob in (*node.bottoms, *node.writes):
            last[blob] = index
    layers = [modules[structure.attributes[node.index]] for node in nodes]
    late = overwritten(nodes, layers)
    watched = {nodes[index].tops[0] for index in late}
    steps: list[Step] = []
    made: set[str] = set(graph.inputs)
    for index, (node, layer) in enumerate(zip(nodes, layers, strict=True)):
        made.update(node.tops)
        refreshed = tuple((b, t) for b, t in node.refreshed if b in made and (b in outputs or last[b] > index))
        steps.append(
            Step(
                module=structure.attributes[node.index],
                bottoms=node.bottoms,
                tops=node.tops,
                detached=detached(node, layer, forced=graph.force_backward),
                refreshed=refreshed,
                overwritten=index in late,
                watched=tuple(blob for blob in node.writes if blob in watched),
                free=tuple(
                    b for b in dict.fromkeys((*node.bottoms, *node.tops)) if last[b] == index and b not in outputs
                ),
            )
        )
    return tuple(steps)


def detached(node: Node, layer: Layer, *, forced: bool) -> tuple[bool, ...]:
    """Where Caffe propagates nothing: labels, and ``propagate_down: false`` unless ``force_backward`` overrides it."""
    asked = node.propagate_down or (True,) * len(node.bottoms)
    return tuple(i in layer.no_gradient or not (ask or forced) for i, ask in enumerate(asked))
