"""From an upgraded NetParameter to a frozen graph: how the blobs of the layers that a net state keeps connect.

The rules are those of Caffe's ``Net::Init``; anything Caffe refuses is refused here, with the layer's name and what to
do.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from caffe2torch import schema
from caffe2torch.errors import GraphError
from caffe2torch.net_state import PHASES, places
from caffe2torch.schema import Message

SOURCES = frozenset({"Input", "Data", "ImageData", "HDF5Data", "MemoryData", "WindowData", "AnnotatedData"})
"""Layer types whose tops are fed from outside: they become the inputs of the net."""

SHARING = frozenset({"Reshape", "Flatten", "Split"})
"""Layer types whose tops use the storage of their bottom, so that a later in-place layer changes both."""

SHARING_ALONE = frozenset({"Concat", "Slice"})
"""Layer types that do so when they have one bottom and one top."""


@dataclass(frozen=True)
class ParamSpec:
    """What a prototxt's ``param { }`` says about one parameter blob; ``name`` is empty when it is not shared."""

    name: str = ""
    lr_mult: float = 1.0
    decay_mult: float = 1.0
    strict: bool = True
    """Sharers must have the same shape (STRICT); False is PERMISSIVE: the same count is enough."""


@dataclass(frozen=True)
class Node:
    """One layer in the order of execution. A top named like the bottom at its index is computed in place."""

    index: int
    """Position among the layers of the net state; it identifies the node."""
    name: str
    type: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    params: tuple[ParamSpec, ...]
    loss_weight: tuple[float, ...]
    """One weight per top as written, or empty when the layer's default holds."""
    propagate_down: tuple[bool, ...]
    """One flag per bottom as written, or empty."""
    refreshed: tuple[tuple[str, str], ...]
    """(blob, top): blobs that share storage with an in-place top, so that they take its value afterwards."""
    message: Message = field(repr=False, compare=False)
    """The layer's own LayerParameter (V2) with ``phase`` set."""

    def __getstate__(self) -> dict[str, object]:
        """For pickle and deepcopy: the message's class is made at run time, so it travels as bytes."""
        return {**self.__dict__, "message": self.message.SerializeToString()}

    def __setstate__(self, state: dict[str, object]) -> None:
        message = schema.new("LayerParameter")
        message.ParseFromString(state["message"])
        self.__dict__.update(state, message=message)

    @property
    def phase(self) -> str:
        """The layer's own phase; that of the net unless the prototxt gives it another."""
        return PHASES[self.message.phase]

    @property
    def writes(self) -> tuple[str, ...]:
        """Every blob name that has a new value after this layer."""
        return self.tops + tuple(blob for blob, _ in self.refreshed)


@dataclass(frozen=True)
class Graph:
    """A net in one state. ``sources`` give the inputs, ``nodes`` compute, ``outputs`` are the blobs nobody consumes."""

    name: str
    phase: Literal["train", "test"]
    sources: tuple[Node, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]
    force_backward: bool
    cut: frozenset[str] = frozenset()
    """Names of layers of this state that ``only`` has left out."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Blobs that come from outside, in the order of their source layers."""
        return tuple(top for source in self.sources for top in source.tops)

    @property
    def blobs(self) -> tuple[str, ...]:
        """All blob names, in the order in which they first appear."""
        return tuple(dict.fromkeys(self.inputs + tuple(b for node in self.nodes for b in node.tops)))

    def with_tops(self, tops: Mapping[int, tuple[str, ...]]) -> Graph:
        """This graph with the tops of some nodes (by index) replaced; new blobs become outputs."""
        nodes = tuple(replace(n, tops=tops[n.index]) if n.index in tops else n for n in self.nodes)
        new = [b for n in nodes if n.index in tops for b in n.tops if b not in self.blobs]
        return replace(self, nodes=nodes, outputs=(*self.outputs, *new))

    def only(self, wanted: Sequence[str]) -> Graph:
        """This graph without the layers that the ``wanted`` blobs, its outputs, do not depend on.

        The first layer that has a shared parameter stays for those that share it, with what it depends on: its filler,
        its multipliers and its weights are theirs. Sources lose the tops behind the last that is read, so that nobody
        asks for the shape of labels.
        """
        nodes = self._with_owners(wanted)
        read = {blob for node in nodes for blob in node.bottoms}.union(wanted)
        sources = tuple(_first_tops(node, read) for node in self.sources if not read.isdisjoint(node.tops))
        kept = {node.name for node in (*nodes, *sources)}
        cut = frozenset(node.name for node in (*self.nodes, *self.sources)) - kept
        return replace(self, sources=sources, nodes=nodes, outputs=tuple(dict.fromkeys(wanted)), cut=cut)

    def _with_owners(self, wanted: Sequence[str]) -> tuple[Node, ...]:
        """The nodes that the ``wanted`` blobs need, and those that own the parameters of any of them."""
        owner: dict[str, int] = {}
        for node in self.nodes:
            for spec in node.params:
                owner.setdefault(spec.name, node.index)
        owners: set[int] = set()
        while True:
            nodes = self.needed(wanted, owners)
            found = {owner[spec.name] for node in nodes for spec in node.params if spec.name}
            if found <= owners:
                return nodes
            owners |= found

    def needed(self, wanted: Iterable[str], sinks: Collection[int] = ()) -> tuple[Node, ...]:
        """The nodes that the final values of the ``wanted`` blobs depend on, in order of execution.

        Nodes whose index is among ``sinks`` are kept as well, with what they depend on.
        """
        wanted = tuple(wanted)
        for blob in wanted:
            if blob not in self.blobs:
                hint = near(blob, self.blobs) or "; its last are " + ", ".join(map(repr, self.blobs[-6:]))
                raise GraphError(f"net {self.name!r} has no blob {blob!r}{hint}")
        alive, kept = set(wanted), []
        for node in reversed(self.nodes):
            if alive.isdisjoint(node.writes) and node.index not in sinks:
                continue
            refreshed = {blob for blob, _ in node.refreshed}
            alive -= set(node.tops)
            # A refreshed blob still needs its earlier value: only its shape, but it must exist.
            alive |= set(node.bottoms) | (alive & refreshed)
            kept.append(node)
        return tuple(reversed(kept))


def _first_tops(source: Node, read: Collection[str]) -> Node:
    count = max(index for index, top in enumerate(source.tops, 1) if top in read)
    if source.type == "Input" or count == len(source.tops):  # an Input has a shape for each
        return source
    message = type(source.message)()
    message.CopyFrom(source.message)
    del message.top[count:]
    return replace(source, tops=source.tops[:count], message=message)


def check_given(place: str, field: str, given: int, expected: int, each: str) -> None:
    """Raise GraphError unless a field of a layer is given never, or as often as it has bottoms or tops."""
    if given and given != expected:
        raise GraphError(f"{place}: {field} is given {given} times, expected none or {expected} (once per {each})")


def near(name: str, known: Collection[str]) -> str:
    """``; did you mean 'x'?`` for an unknown name, or the known names when there are only a few."""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    if close:
        return "; did you mean " + " or ".join(repr(c) for c in close) + "?"
    if 0 < len(known) <= 12:
        return "; it has " + ", ".join(repr(k) for k in known)
    return ""


def build_graph(
    net: Message, *, phase: str = "test", level: int = 0, stages: Sequence[str] = (), fed: Collection[str] = ()
) -> Graph:
    """The graph of an upgraded (V2) NetParameter in one net state.

    ``phase`` and ``level`` override the net's own ``state``; ``stages`` are added to the stages it names. A layer
    without bottoms that makes one of the blobs in ``fed`` is a source, whatever its type. Raises GraphError for layers
    that do not connect, and UsageError for an unknown phase.
    """
    name, phase = net.name, phase.lower()
    kept = places(net, phase=phase, level=level, stages=stages)
    if not kept:
        held = f"{len(net.layer)} layers, none of them in phase {phase}" if net.layer else "no layers"
        raise GraphError(f"net {name!r} has {held}")
    left_out = set(range(len(net.layer))).difference(kept)
    wiring = _Wiring(name, [net.layer[place] for place in sorted(left_out)])
    nodes = [wiring.connect(index, _with_phase(net.layer[place], phase)) for index, place in enumerate(kept)]
    sources = {n.index for n in nodes if n.type in SOURCES or (not n.bottoms and not set(n.tops).isdisjoint(fed))}
    return Graph(
        name=name,
        phase="train" if phase == "train" else "test",
        sources=tuple(n for n in nodes if n.index in sources),
        nodes=tuple(n for n in nodes if n.index not in sources),
        outputs=tuple(wiring.available),
        force_backward=net.force_backward,
    )


def _with_phase(layer: Message, phase: str) -> Message:
    if layer.HasField("phase"):
        return layer
    copy = type(layer)()
    copy.CopyFrom(layer)
    copy.phase = PHASES.index(phase)
    return copy


class _Wiring:
    """Connects layers one after the other, as Caffe's AppendBottom and AppendTop do."""

    def __init__(self, net_name: str, left_out: Sequence[Message]) -> None:
        self.net_name, self.left_out = net_name, left_out
        self.known: dict[str, str] = {}
        """blob -> the layer that produced its current value"""
        self.readers: dict[str, str] = {}
        """blob -> a layer that has already read its current value"""
        self.available: dict[str, None] = {}
        """blobs not consumed so far, in order: what is left at the end are the outputs"""
        self.storage: dict[str, int] = {}

    def connect(self, index: int, layer: Message) -> Node:
        """The node of the layer at this position; its tops become known, its bottoms consumed."""
        bottoms, tops = tuple(layer.bottom), tuple(layer.top)
        self._check_counts(layer)
        for place, blob in enumerate(bottoms):
            if blob not in self.known:
                why = self._elsewhere(blob) or near(blob, self.known) or "; layers run in the order of the file"
                raise GraphError(
                    f"{self._place(layer)}: bottom {place} is {blob!r}, which no layer before it makes{why}"
                )
        in_place = {top for top, bottom in zip(tops, bottoms, strict=False) if top == bottom}
        self._check_tops(layer, tops, in_place, bottoms)
        for blob in bottoms:
            self.available.pop(blob, None)
        refreshed = tuple(
            (other, top)
            for top in tops
            if top in in_place
            for other, where in self.storage.items()
            if other != top and where == self.storage[top]
        )
        for top in tops:
            self._make(layer, top, bottoms, in_place)
        for blob in bottoms:
            if blob not in in_place:
                self.readers[blob] = layer.name
        return Node(
            index=index,
            name=layer.name,
            type=layer.type,
            bottoms=bottoms,
            tops=tops,
            params=tuple(_param_spec(p) for p in layer.param),
            loss_weight=tuple(layer.loss_weight),
            propagate_down=tuple(layer.propagate_down),
            refreshed=refreshed,
            message=layer,
        )

    def _make(self, layer: Message, top: str, bottoms: tuple[str, ...], in_place: set[str]) -> None:
        self.known[top] = layer.name
        self.available[top] = None
        self.readers.pop(top, None)
        if top not in in_place:
            alone = layer.type in SHARING_ALONE and len(bottoms) == len(layer.top) == 1
            shares = (layer.type in SHARING and bottoms) or alone
            self.storage[top] = self.storage[bottoms[0]] if shares else len(self.storage)

    def _check_counts(self, layer: Message) -> None:
        if not layer.type:
            raise GraphError(f"{self._place(layer)}: it has no type")
        check_given(self._place(layer), "propagate_down", len(layer.propagate_down), len(layer.bottom), "bottom")
        if layer.top:  # otherwise it may be a loss whose top has no name, which is known when the layer is built
            check_given(self._place(layer), "loss_weight", len(layer.loss_weight), len(layer.top), "top")

    def _check_tops(self, layer: Message, tops: tuple[str, ...], in_place: set[str], bottoms: tuple[str, ...]) -> None:
        if len(set(tops)) != len(tops):
            raise GraphError(f"{self._place(layer)}: two of its tops have the same name: {', '.join(tops)}")
        for top in tops:
            if top in in_place and (top in self.readers or bottoms.count(top) > 1):
                raise GraphError(
                    f"{self._place(layer)}: it changes blob {top!r} in place, but layer "
                    f"{self.readers.get(top, layer.name)!r} reads that blob too; Caffe refuses such a net. "
                    "Give the top a name of its own"
                )
            if top not in in_place and top in self.known:
                raise GraphError(
                    f"{self._place(layer)}: top {top!r} is already made by layer {self.known[top]!r}; "
                    "give it another name, or list it as the bottom of the same index to work in place"
                )

    def _elsewhere(self, blob: str) -> str:
        """The rules of the layers that make ``blob`` in other net states, if there are any."""
        rules = (
            f"layer {layer.name!r}: {kind} {{ {' '.join(str(rule).split())} }}"
            for layer in self.left_out
            if blob in layer.top
            for kind in ("include", "exclude")
            for rule in getattr(layer, kind)
        )
        found = ", ".join(sorted(set(rules))[:4])
        return f"; it is made in another phase, level or stage only ({found})" if found else ""

    def _place(self, layer: Message) -> str:
        return f"net {self.net_name!r}, layer {layer.name!r} ({layer.type})"


def _param_spec(param: Message) -> ParamSpec:
    strict = param.share_mode == 0
    return ParamSpec(name=param.name, lr_mult=param.lr_mult, decay_mult=param.decay_mult, strict=strict)
