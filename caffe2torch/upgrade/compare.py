"""Whether two nets mean the same: one form for all the ways to write a net, and the differences between two.

``canonical`` upgrades, then drops what the schema would supply anyway, and joins the few pairs of fields Caffe itself
treats as one. It never renames layers or blobs, reorders layers, or touches anything that could change what a net
computes or how it trains.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from caffe2torch.schema import Message, is_repeated
from caffe2torch.upgrade.net import upgrade_net

_SPATIAL = ("convolution_param", "pooling_param")
_PAIRS = {"kernel_size": "kernel", "stride": "stride", "pad": "pad"}
_IMPLIED = {"stride": 1, "pad": 0, "dilation": 1}
# Old name of `axis` in these messages; both default to 1
_AXES = {"concat_param": "concat_dim", "slice_param": "slice_dim"}
# Fields whose presence alone means something to Caffe: explicit VALID is not SigmoidCrossEntropyLoss's default, and
# pad_h goes with pad_w
_PRESENCE = {"normalization", "pad_h", "pad_w"}
# Fillers that read the same absent and as constant 0; a PReLU or Scale without one starts at 0.25 or 1
_ZERO_FILLERS = {"weight_filler", "bias_filler"}


def canonical(net: Message, *, path: str = "<net>") -> Message:
    """A copy of ``net`` in V2 form in which equal meaning is equal content.

    - Single fields set to the schema's default, and messages that then are empty, are dropped, except where Caffe looks
      at their presence (``loss_param.normalization``, ``filler``, rules, fields without a default).
    - ``kernel_h`` equal to ``kernel_w`` becomes ``kernel_size`` (likewise stride and pad), equal values per axis become
      one, and a stride, pad or dilation of 1, 0, 1 goes.
    - ``concat_dim`` and ``slice_dim`` become ``axis``.
    - Trailing ``param``s without a setting go, since Caffe adds them; so do unnamed ones of BatchNorm, which never
      learns its statistics.
    """
    result = upgrade_net(net, path=path)
    for layer in result.layer:
        for name in _SPATIAL:
            if layer.HasField(name):
                _join_spatial(getattr(layer, name))
        for name, old in _AXES.items():
            if layer.HasField(name):
                _rename_axis(getattr(layer, name), old)
    _drop_defaults(result)
    for layer in result.layer:
        _drop_params(layer)
    return result


def differences(ours: Message, theirs: Message) -> list[str]:
    """Every field in which two messages differ, as ``layer[3] 'conv1'.convolution_param.pad: 1, not 2``."""
    return list(_differences(ours, theirs, ""))


def _rename_axis(message: Message, old: str) -> None:
    if message.HasField(old) and not message.HasField("axis"):
        message.axis = getattr(message, old)
        message.ClearField(old)


def _drop_params(layer: Message) -> None:
    if layer.type == "BatchNorm":
        if all(param.lr_mult == 0 and not param.name for param in layer.param):
            layer.ClearField("param")
        return
    while layer.param and not layer.param[-1].ListFields():
        del layer.param[-1]


def _join_spatial(message: Message) -> None:
    for whole, stem in _PAIRS.items():
        high, wide = f"{stem}_h", f"{stem}_w"
        if message.HasField(high) and message.HasField(wide) and getattr(message, high) == getattr(message, wide):
            value = getattr(message, high)
            if _values(message, whole):
                continue  # both forms: an error in Caffe, left for the layer to report
            message.ClearField(high)
            message.ClearField(wide)
            _set(message, whole, value)
    for whole in (*_PAIRS, "dilation"):
        values = _values(message, whole)
        if values and len(set(values)) == 1:
            message.ClearField(whole)
            if values[0] != _IMPLIED.get(whole):
                _set(message, whole, values[0])


def _values(message: Message, name: str) -> list[Any]:
    field = message.DESCRIPTOR.fields_by_name.get(name)
    if field is None:
        return []
    value = getattr(message, name)
    return list(value) if is_repeated(field) else [value] * message.HasField(name)


def _set(message: Message, name: str, value: Any) -> None:
    if is_repeated(message.DESCRIPTOR.fields_by_name[name]):
        getattr(message, name).append(value)
    else:
        setattr(message, name, value)


def _drop_defaults(message: Message) -> None:
    """Clear, innermost first, what reads the same when absent."""
    for field, value in message.ListFields():
        if is_repeated(field):
            if field.message_type:
                for item in value:
                    _drop_defaults(item)
        elif field.message_type:
            _drop_defaults(value)
            is_filler = field.message_type.name == "FillerParameter" and field.name not in _ZERO_FILLERS
            if not value.ListFields() and not is_filler:
                message.ClearField(field.name)
        elif field.has_default_value and value == field.default_value and field.name not in _PRESENCE:
            message.ClearField(field.name)


def _differences(ours: Message, theirs: Message, path: str) -> Iterator[str]:
    for field in ours.DESCRIPTOR.fields:
        where = f"{path}.{field.name}" if path else field.name
        left, right = _present(ours, field), _present(theirs, field)
        if field.message_type and len(left) == len(right):
            for index, (one, other) in enumerate(zip(left, right, strict=True)):
                place = f"{where}[{index}]{_named(one)}" if is_repeated(field) else where
                yield from _differences(one, other, place)
        elif field.message_type:
            yield f"{where}: {_count(left, right)}, not {_count(right, left)}"
        elif left != right:
            yield f"{where}: {_show(field, left)}, not {_show(field, right)}"


def _present(message: Message, field: Any) -> list[Any]:
    value = getattr(message, field.name)
    if is_repeated(field):
        return list(value)
    return [value] if message.HasField(field.name) else []


def _named(message: Message) -> str:
    return f" {message.name!r}" if "name" in message.DESCRIPTOR.fields_by_name and message.name else ""


def _count(messages: list[Message], others: list[Message]) -> str:
    """How many, and which names the other side has not."""
    known = {_named(message) for message in others}
    extra = [named.strip() for message in messages if (named := _named(message)) and named not in known]
    return f"{len(messages)}{' with ' if extra else ''}{', '.join(extra)}"


def _show(field: Any, values: list[Any]) -> str:
    if not values:
        return "absent"
    if field.enum_type:
        return ", ".join(field.enum_type.values_by_number[value].name for value in values)
    return ", ".join(repr(value) if isinstance(value, str) else str(value) for value in values)
