"""The net as a person would have written it: needless layers away, layers in place, weights shared by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from caffe2torch.importing.builder import MadeLayer, Origin
from caffe2torch.importing.values import Shape

IN_PLACE = frozenset({"ReLU", "Dropout", "BatchNorm", "Scale"})
"""Layer types that commonly work in place."""

OVERWRITABLE = frozenset(
    {"Convolution", "Deconvolution", "InnerProduct", "BatchNorm", "Scale", "Bias", "Eltwise", "Concat", "Pooling"}
)
"""Layer types whose backward pass in Caffe does not read their top, so that the next may overwrite it."""


def prune(layers: Sequence[MadeLayer], outputs: Collection[str]) -> tuple[list[MadeLayer], list[str]]:
    """The layers that the outputs depend on, and the names of those left out; inputs stay."""
    needed, kept, away = set(outputs), [], []
    for layer in reversed(layers):
        message = layer.message
        if message.type != "Input" and needed.isdisjoint(message.top):
            away.append(message.name)
            continue
        needed.update(message.bottom)
        kept.append(layer)
    return kept[::-1], away[::-1]


def join_flatten(layers: Sequence[MadeLayer], outputs: Collection[str]) -> list[MadeLayer]:
    """Without a Flatten that only InnerProduct layers read: they flatten their bottom themselves."""
    kept = []
    for layer in layers:
        message = layer.message
        readers = _readers(layers, message.top[0]) if message.top else []
        alone = all(r.message.type == "InnerProduct" and r.message.inner_product_param.axis == 1 for r in readers)
        whole = message.type == "Flatten" and (message.flatten_param.axis, message.flatten_param.end_axis) == (1, -1)
        if not whole or not readers or not alone or message.top[0] in outputs:
            kept.append(layer)
            continue
        for reader in readers:
            reader.message.bottom[:] = [message.bottom[0]]
    return kept


def shorten(layers: Sequence[MadeLayer]) -> dict[str, str]:
    """Name a layer after its module where that makes no other: ``gate`` for ``gate.mul``; returns the new names."""
    made = Counter(layer.path for layer in layers)
    names = {name for layer in layers for name in (layer.message.name, *layer.message.top)}
    renamed: dict[str, str] = {}
    for layer in layers:
        message = layer.message
        if layer.path and made[layer.path] == 1 and layer.path not in names and list(message.top) == [message.name]:
            renamed[message.name] = layer.path
            message.name = layer.path
            message.top[:] = [layer.path]
        message.bottom[:] = [renamed.get(blob, blob) for blob in message.bottom]
    return renamed


def silence(layers: list[MadeLayer], outputs: Collection[str], unique: str) -> None:
    """Add one Silence layer that reads every blob nobody wants, which would be an output of the net otherwise."""
    read = {blob for layer in layers for blob in layer.message.bottom}
    idle = [top for layer in layers for top in layer.message.top if top not in read and top not in outputs]
    if idle:
        message = type(layers[0].message)(name=unique, type="Silence", bottom=idle)
        layers.append(MadeLayer(message))


def work_in_place(layers: Sequence[MadeLayer], outputs: Collection[str]) -> dict[str, str]:
    """Let activations overwrite a bottom that nobody else reads and whose maker does not need it again.

    Returns the blobs that are gone, each with the one that has its values now.
    """
    made = {top: layer for layer in layers for top in layer.message.top}
    readers = Counter(blob for layer in layers for blob in layer.message.bottom)
    kept = set(outputs)
    renamed: dict[str, str] = {}
    for layer in layers:
        message = layer.message
        message.bottom[:] = [renamed.get(blob, blob) for blob in message.bottom]
        if message.type not in IN_PLACE or len(message.bottom) != 1:
            continue
        (top,), (bottom,) = message.top, message.bottom
        source = made[bottom].message
        if source.type not in OVERWRITABLE or len(source.top) > 1 or bottom in kept or readers[bottom] != 1:
            continue
        message.top[:] = [bottom]
        renamed[top] = bottom
        readers[bottom] = readers[top]
        made[bottom] = layer
        if top in kept:
            kept.add(bottom)
    return renamed


def share(layers: Sequence[MadeLayer]) -> tuple[str, ...]:
    """Name the parameters that several layers have, keep constants from being learned; returns the names."""
    uses: Counter[tuple[str, Shape]] = Counter()
    # Caffe drops what a net says of BatchNorm's three blobs.
    layers = [layer for layer in layers if layer.message.type != "BatchNorm"]
    for layer in layers:
        uses.update({_key(o, b.shape) for o, b in zip(layer.origins, layer.blobs, strict=True) if o.path})
    for layer in layers:
        settings = []
        for origin, blob in zip(layer.origins, layer.blobs, strict=True):
            own: dict[str, object] = {}
            if origin.path and uses[_key(origin, blob.shape)] > 1:
                own["name"] = origin.path
            if not origin.learned:
                own.update(lr_mult=0.0, decay_mult=0.0)
            settings.append(own)
        while settings and not settings[-1]:
            settings.pop()
        for own in settings:
            layer.message.param.add(**own)
    return tuple(sorted({path for (path, _), count in uses.items() if count > 1}))


def rename(layers: Sequence[MadeLayer], names: Mapping[str, str], taken: Collection[str] = ()) -> None:
    """Give blobs other names; a blob that has one of these by chance makes room."""
    blobs = {blob for layer in layers for blob in (*layer.message.bottom, *layer.message.top)}
    full = dict(names)
    used = blobs | set(names.values()) | set(taken)
    for blob in blobs - set(names):
        if blob in names.values():
            number = 2
            while f"{blob}_{number}" in used:
                number += 1
            full[blob] = f"{blob}_{number}"
            used.add(full[blob])
    layer_names = {layer.message.name for layer in layers}
    for layer in layers:
        message = layer.message
        new = full.get(message.name, "")
        # A layer named after its blob stays so, unless its name tells where its weights come from.
        if new and list(message.top) == [message.name] and not layer.blobs and new not in layer_names:
            layer_names.add(new)
            message.name = new
        for field in (message.bottom, message.top):
            field[:] = [full.get(blob, blob) for blob in field]


def _readers(layers: Sequence[MadeLayer], blob: str) -> list[MadeLayer]:
    return [layer for layer in layers if blob in layer.message.bottom]


def _key(origin: Origin, shape: Shape) -> tuple[str, Shape]:
    return origin.path, tuple(shape)
