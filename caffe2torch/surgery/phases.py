"""From the net one trains to the net one uses, and back."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from dataclasses import replace

from caffe2torch import prototxt
from caffe2torch.data.shapes import input_shapes
from caffe2torch.errors import GraphError, UsageError
from caffe2torch.graph import SOURCES, Graph, Node, build_graph
from caffe2torch.layers import registry
from caffe2torch.net_state import PHASES
from caffe2torch.schema import Message
from caffe2torch.surgery.cut import without_weights
from caffe2torch.surgery.model import Model, built, checked, states, with_layers
from caffe2torch.upgrade import upgrade_net


def deploy(model: Model, *, softmax: str = "", stages: Sequence[str] = ()) -> Model:
    """The net to use, of a net to train: the layers of the test phase, data layers as Input layers, no losses.

    Losses, Accuracy, DetectionEvaluate and what only they need (labels) are dropped; what they read first becomes an
    output. With ``softmax`` a Softmax of that name stands in the place of each SoftmaxWithLoss (``NAME_BLOB`` if there
    are several). The inputs have the shapes of the data layers, or those of ``model.input_shapes``.
    """
    graph = build_graph(model.net, phase="test", stages=stages)
    judges = [node for node in graph.nodes if _judges(node)]
    sources = {top for source in graph.sources for top in source.tops}
    read = [node.bottoms[0] for node in _aims(graph, judges) if node.bottoms[0] not in sources]
    judged = {top for node in judges for top in node.tops}
    wanted = dict.fromkeys([*read, *(blob for blob in graph.outputs if blob not in judged | sources)])
    if not wanted:
        raise GraphError(f"net {model.net.name!r} computes nothing but losses in its test phase")
    kept = [node for node in graph.needed(wanted) if node not in judges]
    layers = [_plain(node.message) for node in kept]
    bottoms = {blob for node in kept for blob in node.bottoms}
    shapes = _data_shapes(model, graph, bottoms)
    inputs = [_input(model.net, blob, shapes) for blob in graph.inputs if blob in bottoms]
    added = _softmaxes(judges, softmax, graph) if softmax else []
    net = with_layers(model.net, [*inputs, *layers, *added])
    net.ClearField("state")
    dropped = [node.name for node in (*graph.sources, *graph.nodes) if node not in kept]
    note = f"deploy: {len(inputs)} inputs ({', '.join(layer.top[0] for layer in inputs)}), dropped {', '.join(dropped)}"
    notes = [note, *(f"deploy: {layer.name} (Softmax) on {layer.bottom[0]}" for layer in added)]
    after = replace(without_weights(model, net), input_shapes={})
    return checked(model, after.with_notes(*notes))


def _judges(node: Node) -> bool:
    """Whether a layer says how good the net is, or hides a blob from the outputs."""
    cls = registry.find(node.type)
    return (
        (cls is not None and cls.loss) or node.type.endswith(("Loss", "Accuracy", "Evaluate")) or node.type == "Silence"
    )


def _aims(graph: Graph, judges: Sequence[Node]) -> list[Node]:
    """The losses and accuracies that compare with something given (labels): what they read first is the net's result.

    Others (K1 and K2 of SSDH) shape blobs that other layers read; they count only where there are no labels at all.
    """
    learned: set[str] = set()
    for node in graph.nodes:
        cls = registry.find(node.type)
        if learned.intersection(node.bottoms) or (cls is not None and cls.blobs):
            learned.update(node.tops)
    losses = [node for node in judges if node.type != "Silence" and node.bottoms]
    return [node for node in losses if not learned.issuperset(node.bottoms[1:])] or losses


def _data_shapes(model: Model, graph: Graph, wanted: Collection[str]) -> dict[str, tuple[int, ...]]:
    """The shapes of the wanted inputs; those of the labels need not be known."""
    given = {blob: model.input_shapes.get(blob, (1,)) for blob in graph.inputs if blob not in wanted}
    given.update({blob: shape for blob, shape in model.input_shapes.items() if blob in wanted})
    shapes, notes = input_shapes(graph.sources, model.folder, given)
    for note in notes:
        warnings.warn(f"net {graph.name!r}, {note}", stacklevel=3)
    return shapes


def _plain(layer: Message) -> Message:
    copy = type(layer)()
    copy.CopyFrom(layer)
    for field in ("include", "exclude", "phase", "loss_weight"):
        copy.ClearField(field)
    return copy


def _input(net: Message, blob: str, shapes: dict[str, tuple[int, ...]]) -> Message:
    layer = type(net)().layer.add(name=blob, type="Input", top=[blob])
    layer.input_param.shape.add(dim=shapes[blob])
    return layer


def _softmaxes(judges: Sequence[Node], name: str, graph: Graph) -> list[Message]:
    losses = {node.bottoms[0]: node for node in judges if node.type == "SoftmaxWithLoss"}
    if not losses:
        raise GraphError(f"net {graph.name!r} has no SoftmaxWithLoss to put a Softmax in the place of")
    layers = []
    for blob, node in losses.items():
        called = name if len(losses) == 1 else f"{name}_{blob}"
        if called in graph.blobs:
            raise GraphError(f"net {graph.name!r} has a blob {called!r} already; give the Softmax another name")
        layer = type(node.message)(name=called, type="Softmax", bottom=[blob], top=[called])
        if node.message.HasField("softmax_param"):
            layer.softmax_param.CopyFrom(node.message.softmax_param)
        layers.append(layer)
    return layers


def train(model: Model, data: str = "", *, label: str = "label") -> Model:
    """The net to train, of a net to use: a SoftmaxWithLoss in the place of each Softmax at its end, or behind a last
    InnerProduct or Convolution, and an Accuracy for the test phase.

    ``data`` is the prototxt of data layers, which take the place of the inputs they make and must make ``label``;
    without it the inputs stay, and ``label`` is one more.
    """
    state, graph = next(iter(states(model.net).items()))
    if label in graph.blobs and not data:
        raise GraphError(f"net {model.net.name!r} has a blob {label!r} already; it seems to be a net to train")
    ends = [layer for layer in model.net.layer if set(layer.top) & set(graph.outputs)]
    scores = [layer for layer in ends if layer.type in ("Softmax", "InnerProduct", "Convolution")]
    if not scores:
        found = ", ".join(f"{layer.name} ({layer.type})" for layer in ends)
        raise GraphError(
            f"net {model.net.name!r} ends in {found}, expected class scores: a Softmax, InnerProduct or Convolution; "
            "insert a classifier first"
        )
    layers = [layer for layer in model.net.layer if not (layer in scores and layer.type == "Softmax")]
    layers = _with_data(model, layers, data, label, built(model, state, graph).input_shapes)
    for layer in scores:
        layers += _losses(layer, label, alone=len(scores) == 1)
    after = without_weights(model, with_layers(model.net, layers))
    names = ", ".join(layer.bottom[0] if layer.type == "Softmax" else layer.top[0] for layer in scores)
    return checked(model, after.with_notes(f"train: SoftmaxWithLoss and Accuracy on {names}, labels in {label}"))


def _losses(scores: Message, label: str, *, alone: bool) -> list[Message]:
    blob = scores.bottom[0] if scores.type == "Softmax" else scores.top[0]
    ending = "" if alone else f"_{blob}"
    loss = type(scores)(name=f"loss{ending}", type="SoftmaxWithLoss", bottom=[blob, label], top=[f"loss{ending}"])
    accuracy = type(scores)(name=f"accuracy{ending}", type="Accuracy", bottom=[blob, label], top=[f"accuracy{ending}"])
    if scores.HasField("softmax_param"):
        loss.softmax_param.CopyFrom(scores.softmax_param)
        accuracy.accuracy_param.axis = scores.softmax_param.axis
    accuracy.include.add(phase=PHASES.index("test"))
    return [accuracy, loss]


def _with_data(
    model: Model, layers: list[Message], data: str, label: str, shapes: dict[str, tuple[int, ...]]
) -> list[Message]:
    if not data:
        first = next(iter(shapes.values()), ())
        labels = _input(model.net, label, {label: first[:1] or (1,)})
        places = [index for index, layer in enumerate(layers) if layer.type in SOURCES]
        return [*layers[: places[-1] + 1], labels, *layers[places[-1] + 1 :]]
    new = list(upgrade_net(prototxt.parse(data, path="<train>"), path="<train>").layer)
    made = {top for layer in new for top in layer.top}
    if not new or any(layer.bottom for layer in new) or label not in made:
        raise UsageError(f"train takes data layers, which have no bottoms and make {label!r}; they make {sorted(made)}")
    kept = [layer for layer in layers if layer.type not in SOURCES or not made.issuperset(layer.top)]
    return [*new, *kept]
