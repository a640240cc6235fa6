"""Putting a layer into a net, or another in the place of one."""

from __future__ import annotations

from dataclasses import replace

from caffe2torch import prototxt
from caffe2torch.errors import GraphError, UsageError
from caffe2torch.schema import Message
from caffe2torch.surgery.cut import without_weights
from caffe2torch.surgery.model import Model, checked, with_layers
from caffe2torch.surgery.refill import refilled
from caffe2torch.upgrade import upgrade_net


def insert(model: Model, after: str, layer: str | Message, *, seed: int = 0) -> Model:
    """Insert a layer behind layer ``after``; ``layer`` is its prototxt (``layer { ... }``) or message.

    Without ``bottom`` it reads the first top of ``after``. Without ``top`` it stands in the way: its top is named like
    the layer, and what read the blob behind ``after`` reads that. With ``top`` it is a branch, or, where the top is the
    bottom, works in place; nothing else is rewired. Its weights come from its fillers.
    """
    new = _one_layer(layer, "insert")
    if not new.name or any(new.name == old.name for old in model.net.layer):
        raise GraphError(f"the layer to insert is named {new.name!r}: expected a name no layer of the net has")
    place, neighbour = model.layer(after)[-1]
    if not new.bottom:
        if not neighbour.top:
            raise GraphError(f"layer {after!r} makes no blob to read; give the new layer a bottom")
        new.bottom.append(neighbour.top[0])
    layers = list(model.net.layer)
    rest = layers[place + 1 :]
    if not new.top:
        blob = new.bottom[0]
        if any(new.name in (*old.bottom, *old.top) for old in layers):
            raise GraphError(f"the net has a blob {new.name!r} already; give the new layer a top, or another name")
        new.top.append(new.name)
        rest = [_reading(old, blob, new.name) for old in rest]
    net = with_layers(model.net, [*layers[: place + 1], new, *rest])
    result = checked(model, replace(model, net=net).with_notes(f"inserted {new.name} ({new.type}) after {after}"))
    return refilled(model, result, seed=seed)


def replace_layer(model: Model, name: str, layer: str | Message, *, seed: int = 0) -> Model:
    """Put another layer in the place of layer ``name``; what its prototxt leaves out of name, bottom, top, include and
    exclude is the old one's.

    The weights stay where type, name and shapes are the same; else they come from the fillers. Tops that nobody makes
    any more are refused where they are read.
    """
    found = model.layer(name)
    if len(found) > 1:
        raise GraphError(f"net {model.net.name!r} has {len(found)} layers {name!r}; rename or deploy first")
    place, old = found[0]
    new = _one_layer(layer, "replace")
    for field in ("name", "type"):
        if not getattr(new, field):
            setattr(new, field, getattr(old, field))
    for field in ("bottom", "top"):
        if not getattr(new, field):
            getattr(new, field).extend(getattr(old, field))
    if not new.include and not new.exclude:
        new.include.extend(old.include)
        new.exclude.extend(old.exclude)
    if new.name != name and any(new.name == other.name for other in model.net.layer):
        raise GraphError(f"the layer in place of {name!r} is named {new.name!r}, as another layer of the net is")
    layers = list(model.net.layer)
    after = without_weights(model, with_layers(model.net, [*layers[:place], new, *layers[place + 1 :]]))
    result = checked(model, after.with_notes(f"replaced {name} ({old.type}) by {new.name} ({new.type})"))
    return refilled(model, result, seed=seed, anew=[new.name] if new.type != old.type else [])


def _one_layer(layer: str | Message, option: str) -> Message:
    if not isinstance(layer, str):
        copy = type(layer)()
        copy.CopyFrom(layer)
        return copy
    net = upgrade_net(prototxt.parse(layer, path=f"<{option}>"), path=f"<{option}>")
    if len(net.layer) != 1 or len(net.ListFields()) != 1:
        raise UsageError(f"{option} takes one layer, 'layer {{ ... }}', found {len(net.layer)}")
    if not net.layer[0].type and option == "insert":
        raise UsageError(f"the layer to {option} has no type")
    return net.layer[0]


def _reading(layer: Message, blob: str, other: str) -> Message:
    """The layer with all it reads and writes of a blob going to another."""
    copy = type(layer)()
    copy.CopyFrom(layer)
    for names in (copy.bottom, copy.top):
        names[:] = [other if name == blob else name for name in names]
    return copy
