"""What surgery works on: a net with its weights; and the check that every operation ends with."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from caffe2torch.blobs import Array, LayerWeights
from caffe2torch.caffemodel import Blob, open_weights
from caffe2torch.errors import GraphError, UsageError, WeightsError
from caffe2torch.graph import Graph, build_graph, near
from caffe2torch.loading import build_net
from caffe2torch.matching import fits
from caffe2torch.net import CaffeNet
from caffe2torch.net_state import PHASES
from caffe2torch.prototxt import read_net
from caffe2torch.schema import Message, Schema

Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class State:
    """A net state: which rules hold."""

    phase: str
    level: int = 0
    stages: tuple[str, ...] = ()

    def __str__(self) -> str:
        more = [f"level {self.level}"] * bool(self.level) + [f"stage {name}" for name in self.stages]
        return f"phase {self.phase}" + "".join(f", {text}" for text in more)


@dataclass(frozen=True)
class Model:
    """A net in V2 form, whole with all its phases, and its weights. Operations return a new one.

    ``weights`` maps layer names to blobs of the shapes the layers have; None where the net is edited alone. ``folder``
    is where files the net names are looked for, ``input_shapes`` replaces shapes of its inputs. ``notes`` are lines on
    what was done to it.
    """

    net: Message
    weights: Mapping[str, tuple[Array, ...]] | None = None
    folder: Path = Path()
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def layer(self, name: str) -> list[tuple[int, Message]]:
        """Place and settings of every layer of this name (one for each phase, it may be); GraphError for none."""
        found = [(index, layer) for index, layer in enumerate(self.net.layer) if layer.name == name]
        if not found:
            known = [layer.name for layer in self.net.layer]
            raise GraphError(f"net {self.net.name!r} has no layer {name!r}{near(name, known)}")
        return found

    def with_notes(self, *notes: str) -> Model:
        """This model, its account longer by these lines."""
        return replace(self, notes=(*self.notes, *notes))


def read(
    net: str | os.PathLike[str],
    weights: str | os.PathLike[str] | None = None,
    *,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    allow_missing: bool = False,
    ignore_extra: bool = False,
    schema: Schema | None = None,
) -> Model:
    """Read a net and its weights for surgery. Comments of the prototxt are not kept by what is written later.

    The weights must belong to the net in one of its states: WeightsError names every layer that has other blobs, that
    the net lacks (``ignore_extra`` drops it) or the file lacks (``allow_missing`` leaves it without weights).
    """
    path = Path(net)
    message = read_net(path, schema=schema)
    model = Model(message, None, path.parent, dict(input_shapes or {}))
    inputs = {blob for graph in states(message).values() for blob in graph.inputs}
    for blob in model.input_shapes:
        if blob not in inputs:
            raise UsageError(f"an input shape is given for {blob!r}{near(blob, inputs)}, which is no input of the net")
    if weights is None:
        return model
    found, dropped = _read_weights(model, Path(weights), allow_missing=allow_missing, ignore_extra=ignore_extra)
    notes = [f"{weights}: dropped the weights of {', '.join(dropped)}, not in the net"] if dropped else []
    return replace(model, weights=found).with_notes(*notes)


def states(net: Message) -> dict[State, Graph]:
    """Every state of the net that can be built, with its graph; raises GraphError where there is none."""
    found: dict[State, Graph] = {}
    problem: GraphError | None = None
    for state in _candidates(net):
        try:
            found[state] = build_graph(net, phase=state.phase, level=state.level, stages=state.stages)
        except GraphError as error:
            problem = problem or error
    if not found:
        raise problem or GraphError(f"net {net.name!r} has no layers")
    return found


def _candidates(net: Message) -> list[State]:
    """The states that the rules of the net tell apart: phases, levels, and stages alone and all together."""
    rules = [rule for layer in net.layer for rule in (*layer.include, *layer.exclude)]
    levels = sorted({0, *(rule.min_level for rule in rules if rule.HasField("min_level"))})
    named = tuple(dict.fromkeys(name for rule in rules for name in (*rule.stage, *rule.not_stage)))
    stages = list(dict.fromkeys([(), *((name,) for name in named), named]))
    phases = sorted(PHASES)  # test first: the state that most operations ask about
    return [State(*each) for each in itertools.product(phases, levels, stages)]


def checked(before: Model, after: Model) -> Model:
    """``after``, if every state that could be built before still can; GraphError names all that dangles."""
    holds = 0
    for state in states(before.net):
        try:
            build_graph(after.net, phase=state.phase, level=state.level, stages=state.stages)
            holds += 1
        except GraphError as error:
            if not _empty(after.net, state):
                raise GraphError(_explain(after.net, state, error)) from error
    if not holds:
        raise GraphError("the edit leaves no layer of the net")
    return after


def _empty(net: Message, state: State) -> bool:
    """Whether no layer is left in a state, which the edit may well have meant."""
    probe = type(net)()
    probe.CopyFrom(net)
    for layer in probe.layer:
        del layer.bottom[:], layer.top[:], layer.loss_weight[:], layer.propagate_down[:]
    try:
        build_graph(probe, phase=state.phase, level=state.level, stages=state.stages)
    except GraphError as error:
        return "none of them in phase" in str(error) or "has no layers" in str(error)
    return False


def _explain(net: Message, state: State, error: GraphError) -> str:
    made: set[str] = set()
    loose = []
    for layer in net.layer:
        loose += [f"{blob!r} of layer {layer.name!r}" for blob in layer.bottom if blob not in made]
        made.update(layer.top)
    if not loose:
        return f"after the edit the net cannot be built ({state}): {error}"
    return f"the edit leaves bottoms that no layer makes: {', '.join(dict.fromkeys(loose))}"


def changed(net: Message, change: Callable[[Message], None]) -> Message:
    """A copy of a message, changed."""
    result = type(net)()
    result.CopyFrom(net)
    change(result)
    return result


def with_layers(net: Message, layers: Collection[Message]) -> Message:
    """The net with other layers."""
    result = type(net)()
    result.CopyFrom(net)
    result.ClearField("layer")
    result.layer.extend(layers)  # protobuf copies them
    return result


def built(model: Model, state: State, graph: Graph | None = None, *, meta: bool = True) -> CaffeNet:
    """The net of a state; on no memory with ``meta``, else with uninitialised parameters.

    Raises GraphError for inputs of unknown shape, LayerError for what is impossible.
    """
    graph = graph or build_graph(model.net, phase=state.phase, level=state.level, stages=state.stages)
    shapes = {blob: shape for blob, shape in model.input_shapes.items() if blob in graph.inputs}
    if not meta:
        return build_net(graph, model.folder, shapes)
    with torch.device("meta"):
        return build_net(graph, model.folder, shapes)


def layer_shapes(model: Model, given: Mapping[str, Shapes] | None = None) -> dict[str, Shapes]:
    """Layer name -> the shapes of its blobs, of all layers that have some in any state.

    ``given`` are the shapes in a weights file, which some layers go by; the model's own weights if None.
    """
    given = _shapes_of(model.weights or {}) if given is None else given
    found: dict[str, Shapes] = {}
    for state, graph in states(model.net).items():
        for node, layer in built(model, state, graph).built():
            layer.adapt(given.get(node.name, ()))
            shapes = tuple(tuple(value.shape) for _, value in layer.blob_items())
            if shapes and found.setdefault(node.name, shapes) != shapes:
                raise GraphError(
                    f"layer {node.name!r} has blobs of shapes {found[node.name]} in one state of the net and {shapes} "
                    "in another; weights can fit only one of them"
                )
    return found


def _shapes_of(weights: Mapping[str, Sequence[Array | Blob]]) -> dict[str, Shapes]:
    return {name: tuple(tuple(blob.shape) for blob in blobs) for name, blobs in weights.items()}


def check_weights(model: Model) -> None:
    """Raise WeightsError unless the model's weights have the shapes of its layers."""
    if model.weights is None:
        return
    shapes = layer_shapes(model)
    problems = [f"weights for layer {name!r}, which the net does not have" for name in model.weights.keys() - shapes]
    for name, blobs in model.weights.items():
        found = tuple(blob.shape for blob in blobs)
        if name in shapes and found != shapes[name]:
            problems.append(f"layer {name!r} has blobs of shapes {shapes[name]}, its weights {found}")
    if problems:
        raise WeightsError("the weights do not fit the net:" + "".join(f"\n  {line}" for line in sorted(problems)))


def _read_weights(
    model: Model, path: Path, *, allow_missing: bool, ignore_extra: bool
) -> tuple[dict[str, tuple[Array, ...]], list[str]]:
    """The weights of the net's layers, and the names of layers in the file that the net lacks."""
    weights: dict[str, dict[int, Array]] = {}
    problems: list[str] = []
    extra: list[str] = []
    with open_weights(path) as file:
        shapes = layer_shapes(model, _shapes_of({source.name: source.blobs for source in file.layers}))
        for source in file.layers:
            if source.blobs and source.name not in shapes:
                extra.append(source.name)
            elif source.blobs:
                problem = misfit(source, shapes[source.name], partial=file.syntax == "HDF5")
                problems += [f"layer {source.name!r}: {problem}"] if problem else []
                weights[source.name] = {} if problem else arrays_of(source, shapes[source.name])
    _lend(model.net, weights, shapes)
    bad = set() if not problems else set(weights)
    missing = [name for name, each in shapes.items() if name not in bad and len(weights.get(name, ())) != len(each)]
    if not allow_missing:
        problems += [f"no weights for layer {name!r}{near(name, extra)}" for name in missing]
    if not ignore_extra:
        problems += [f"weights for layer {name!r}, which the net does not have{near(name, missing)}" for name in extra]
    if problems or not weights:
        listed = "".join(f"\n  {problem}" for problem in problems or ["no layer of the net is in the file"])
        raise WeightsError(f"{path} does not fit net {model.net.name!r}:{listed}")
    whole = [name for name in shapes if name in weights and name not in missing]
    return {name: tuple(blob for _, blob in sorted(weights[name].items())) for name in whole}, extra


def misfit(source: LayerWeights, shapes: Shapes, *, partial: bool) -> str:
    """Why a layer of a file cannot go to blobs of these shapes; empty where it can."""
    if max(source.indices) >= len(shapes) or (len(source.blobs) != len(shapes) and not partial):
        return f"{len(source.blobs)} blobs in the file, {len(shapes)} in the net"
    wrong = [
        f"blob {index} is {'x'.join(map(str, blob.shape))} in the file, {'x'.join(map(str, shapes[index]))} in the net"
        for index, blob in zip(source.indices, source.blobs, strict=True)
        if not fits(blob, shapes[index])
    ]
    return "; ".join(wrong)


def arrays_of(source: LayerWeights, shapes: Shapes) -> dict[int, Array]:
    """The blobs of a layer by number, in the shapes of the net: float32, or float64 where that is stored."""
    return {
        index: blob.read(np.float64 if blob.dtype.itemsize == 8 else np.float32).reshape(shapes[index])
        for index, blob in zip(source.indices, source.blobs, strict=True)
    }


def _lend(net: Message, weights: dict[str, dict[int, Array]], shapes: Mapping[str, Shapes]) -> None:
    """Give layers what they share with others: an HDF5 file stores it once."""
    owners: dict[str, Array] = {}
    for layer, index, name in shared_blobs(net):
        own = weights.get(layer, {}).get(index)
        if own is not None:
            owners.setdefault(name, own)
    for layer, index, name in shared_blobs(net):
        if name in owners and index < len(shapes.get(layer, ())) and index not in weights.get(layer, {}):
            weights.setdefault(layer, {})[index] = owners[name].reshape(shapes[layer][index])


def shared_blobs(net: Message) -> Iterator[tuple[str, int, str]]:
    """Layer name, blob number and parameter name of every blob that has one: blobs of one name are one blob."""
    for layer in net.layer:
        for index, param in enumerate(layer.param):
            if param.name:
                yield layer.name, index, param.name
