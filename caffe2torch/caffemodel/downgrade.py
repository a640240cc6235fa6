"""Layers of today as V1 layers, for files that an old Caffe shall read: the inverse of the upgrade."""

from __future__ import annotations

from caffe2torch import schema
from caffe2torch.caffemodel.types import V1_NUMBERS
from caffe2torch.errors import WeightsError

# Fields that need more than copying. `phase` is what Caffe notes in a running net; V1 has no place for it.
_SPECIAL = {"type", "param", "blobs", "phase"}


def downgrade_net(net: schema.Message) -> schema.Message:
    """A NetParameter with V1 ``layers`` for the V2 ``layer`` messages of ``net``; a net in V1 form is copied.

    Input layers become ``input`` fields with ``input_dim`` (``input_shape`` where a shape has not four axes).
    Raises WeightsError for a layer that V1 cannot express.
    """
    result = schema.new("NetParameter")
    result.CopyFrom(net)
    if net.layers and net.layer:
        raise WeightsError("the net has layers of the old and the new kind, expected one of them")
    if net.layers:
        return result
    result.ClearField("layer")
    for layer in net.layer:
        if layer.type == "Input":
            _downgrade_input(layer, result)
        else:
            _downgrade(layer, result.layers.add())
    if all(len(shape.dim) == 4 for shape in result.input_shape):
        for shape in result.input_shape:
            result.input_dim.extend(shape.dim)
        result.ClearField("input_shape")
    return result


def _downgrade_input(layer: schema.Message, net: schema.Message) -> None:
    """An Input layer becomes the net's own input fields, the only form V1 nets have."""
    shapes = layer.input_param.shape
    if len(shapes) not in (1, len(layer.top)):
        raise WeightsError(f"layer {layer.name!r} (Input) has {len(shapes)} shapes for {len(layer.top)} tops")
    if layer.include or layer.exclude:
        raise WeightsError(f"layer {layer.name!r}: V1 inputs cannot be included or excluded; write syntax V2")
    for index, top in enumerate(layer.top):
        net.input.append(top)
        net.input_shape.add().CopyFrom(shapes[min(index, len(shapes) - 1)])


def _downgrade(layer: schema.Message, old: schema.Message) -> None:
    if layer.type not in V1_NUMBERS:
        raise WeightsError(f"layer {layer.name!r}: the V1 syntax has no layer type {layer.type!r}; write syntax V2")
    old.type = V1_NUMBERS[layer.type]
    known = {field.name for field in old.DESCRIPTOR.fields}
    for field, value in layer.ListFields():
        if field.name in _SPECIAL:
            continue
        if field.name not in known:
            raise WeightsError(f"layer {layer.name!r}: the V1 syntax has no field {field.name!r}; write syntax V2")
        if field.message_type is None and not hasattr(value, "extend"):
            setattr(old, field.name, value)
        elif hasattr(value, "extend"):
            getattr(old, field.name).extend(value)
        else:
            getattr(old, field.name).CopyFrom(value)
    _downgrade_params(layer, old)


def _downgrade_params(layer: schema.Message, old: schema.Message) -> None:
    """``param`` messages become four parallel lists, each as long as its last entry needs."""
    lists = {
        "lr_mult": old.blobs_lr,
        "decay_mult": old.weight_decay,
        "name": old.param,
        "share_mode": old.blob_share_mode,
    }
    for field, values in lists.items():
        used = [index for index, param in enumerate(layer.param) if param.HasField(field)]
        for param in layer.param[: used[-1] + 1] if used else ():
            values.append(getattr(param, field))
