"""New names for layers, blobs and shared parameters."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from caffe2torch.errors import GraphError, UsageError
from caffe2torch.graph import near
from caffe2torch.schema import Message
from caffe2torch.surgery.model import Model, changed, checked


def rename(
    model: Model,
    names: Mapping[str, str] | None = None,
    *,
    layers: Mapping[str, str] | None = None,
    blobs: Mapping[str, str] | None = None,
    params: Mapping[str, str] | None = None,
) -> Model:
    """Rename (old name -> new name), all at once, so that two names can change places.

    ``names`` renames whatever is called so: layers, blobs and shared parameters. ``layers``, ``blobs`` and ``params``
    rename only these. A new name that another layer, blob or parameter keeps is refused (GraphError), so is an unknown
    old one. The weights follow their layers.
    """
    kinds: list[tuple[str, Mapping[str, str], Callable[[Message], Iterator[str]]]] = [
        ("layer", layers or {}, _layers),
        ("blob", blobs or {}, _blobs),
        ("shared parameter", params or {}, _params),
    ]
    known = {kind: set(of(model.net)) for kind, _, of in kinds}
    everything = set().union(*known.values())
    for old in names or {}:
        if old not in everything:
            raise GraphError(f"net {model.net.name!r} has nothing called {old!r}{near(old, everything)}")
    tables = []
    for kind, given, _ in kinds:
        table = {old: new for old, new in (names or {}).items() if old in known[kind]}
        for old, new in given.items():
            if old not in known[kind]:
                raise GraphError(f"net {model.net.name!r} has no {kind} {old!r}{near(old, known[kind])}")
            if table.setdefault(old, new) != new:
                raise UsageError(f"{kind} {old!r} shall become both {table[old]!r} and {new!r}; give one name")
        _check(kind, table, known[kind])
        tables.append(table)
    net = changed(model.net, lambda message: _apply(message, *tables))
    weights = model.weights
    if weights is not None:
        weights = {tables[0].get(name, name): blobs for name, blobs in weights.items()}
    kinds_named = zip(("layer", "blob", "shared parameter"), tables, strict=True)
    notes = [f"renamed {kind} {old} to {new}" for kind, table in kinds_named for old, new in table.items()]
    return checked(model, replace(model, net=net, weights=weights).with_notes(*notes))


def _layers(net: Message) -> Iterator[str]:
    return (layer.name for layer in net.layer)


def _blobs(net: Message) -> Iterator[str]:
    return (blob for layer in net.layer for blob in (*layer.bottom, *layer.top))


def _params(net: Message) -> Iterator[str]:
    return (param.name for layer in net.layer for param in layer.param if param.name)


def _check(kind: str, table: Mapping[str, str], known: Collection[str]) -> None:
    kept = set(known) - set(table)
    for old, new in table.items():
        if not new:
            raise UsageError(f"{kind} {old!r} needs a new name, found none")
        if new in kept or list(table.values()).count(new) > 1:
            raise GraphError(f"{kind} {old!r} cannot become {new!r}: another {kind} has that name")


def _apply(net: Message, layers: Mapping[str, str], blobs: Mapping[str, str], params: Mapping[str, str]) -> None:
    for layer in net.layer:
        layer.name = layers.get(layer.name, layer.name)
        for names in (layer.bottom, layer.top):
            _replace(names, blobs)
        for param in layer.param:
            if param.name in params:
                param.name = params[param.name]


def _replace(names: Sequence[str], table: Mapping[str, str]) -> None:
    new = [table.get(name, name) for name in names]
    names[:] = new  # type: ignore[index]
