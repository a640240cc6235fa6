"""V0 nets (``layers { layer { name type ... } bottom top }``) to V1.

A V0 layer has one flat message for all types; here each field goes to the message of its type. A ``padding`` layer
becomes the ``pad`` of the convolution or pooling that reads it.
"""

from __future__ import annotations

import warnings
from typing import Any

from caffe2torch.errors import PrototxtError
from caffe2torch.schema import Message, is_repeated

# V0's type strings and V1's enum names
V0_TYPES = {
    "accuracy": "ACCURACY",
    "bnll": "BNLL",
    "concat": "CONCAT",
    "conv": "CONVOLUTION",
    "data": "DATA",
    "dropout": "DROPOUT",
    "euclidean_loss": "EUCLIDEAN_LOSS",
    "flatten": "FLATTEN",
    "hdf5_data": "HDF5_DATA",
    "hdf5_output": "HDF5_OUTPUT",
    "im2col": "IM2COL",
    "images": "IMAGE_DATA",
    "infogain_loss": "INFOGAIN_LOSS",
    "innerproduct": "INNER_PRODUCT",
    "lrn": "LRN",
    "multinomial_logistic_loss": "MULTINOMIAL_LOGISTIC_LOSS",
    "pool": "POOLING",
    "relu": "RELU",
    "sigmoid": "SIGMOID",
    "softmax": "SOFTMAX",
    "softmax_loss": "SOFTMAX_LOSS",
    "split": "SPLIT",
    "tanh": "TANH",
    "window_data": "WINDOW_DATA",
}

_CONV, _INNER = "convolution_param", "inner_product_param"
_DATA, _HDF5, _IMAGES, _WINDOWS = "data_param", "hdf5_data_param", "image_data_param", "window_data_param"
_LRN = {"lrn": "lrn_param"}
_LINEAR = {"conv": _CONV, "innerproduct": _INNER}
_SLIDING = {"conv": _CONV, "pool": "pooling_param"}
_SOURCES = {"data": _DATA, "hdf5_data": _HDF5, "images": _IMAGES, "window_data": _WINDOWS}
_WINDOW = {"window_data": _WINDOWS}

# V0 field: its V1 name, and for each layer type that may have it the V1 message it moves to
_MOVES: dict[str, tuple[str, dict[str, str]]] = {
    "num_output": ("num_output", _LINEAR),
    "biasterm": ("bias_term", _LINEAR),
    "weight_filler": ("weight_filler", _LINEAR),
    "bias_filler": ("bias_filler", _LINEAR),
    "pad": ("pad", _SLIDING),
    "kernelsize": ("kernel_size", _SLIDING),
    "group": ("group", {"conv": _CONV}),
    "stride": ("stride", _SLIDING),
    "pool": ("pool", {"pool": "pooling_param"}),
    "dropout_ratio": ("dropout_ratio", {"dropout": "dropout_param"}),
    "local_size": ("local_size", _LRN),
    "alpha": ("alpha", _LRN),
    "beta": ("beta", _LRN),
    "k": ("k", _LRN),
    "source": ("source", {**_SOURCES, "infogain_loss": "infogain_loss_param"}),
    "batchsize": ("batch_size", _SOURCES),
    "rand_skip": ("rand_skip", {"data": _DATA, "images": _IMAGES}),
    "shuffle_images": ("shuffle", {"images": _IMAGES}),
    "new_height": ("new_height", {"images": _IMAGES}),
    "new_width": ("new_width", {"images": _IMAGES}),
    "concat_dim": ("concat_dim", {"concat": "concat_param"}),
    "det_fg_threshold": ("fg_threshold", _WINDOW),
    "det_bg_threshold": ("bg_threshold", _WINDOW),
    "det_fg_fraction": ("fg_fraction", _WINDOW),
    "det_context_pad": ("context_pad", _WINDOW),
    "det_crop_mode": ("crop_mode", _WINDOW),
}
# Moved whatever the layer's type, as Caffe does
_TRANSFORM = {"scale": "scale", "meanfile": "mean_file", "cropsize": "crop_size", "mirror": "mirror"}
_PLAIN = ("name", "blobs", "blobs_lr", "weight_decay")
# Window settings that V0 files carry along on other data layers, which never read them; Caffe logs and drops them
_CARRIED = {name for name, (_, takers) in _MOVES.items() if takers is _WINDOW}


def upgrade_v0_net(net: Message, path: str) -> None:
    """Turn the V0 ``layers`` of ``net`` into V1 ones, in place."""
    folded = _fold_padding(net, path)
    net.ClearField("layers")
    for old in folded:
        _upgrade_layer(old, net.layers.add(), path)


def _fold_padding(net: Message, path: str) -> list[Message]:
    """The layers without padding layers; their readers have ``pad`` set and read the padding's bottom."""
    makers: dict[str, Message | None] = dict.fromkeys(net.input)
    kept = []
    for original in net.layers:
        layer = type(original)()
        layer.CopyFrom(original)
        if not layer.HasField("layer"):
            problem = f"the layer {layer.name!r} is in V1 form, but others are in V0 form ('layers {{ layer {{')"
            raise PrototxtError(f"{problem}; expected one form", path=path)
        for index, blob in enumerate(original.bottom):
            if blob not in makers:
                raise PrototxtError(f"{_where(layer)} reads the blob {blob!r}, which no layer before makes", path=path)
            maker = makers[blob]
            if maker is not None and maker.layer.type == "padding":
                _take_padding(layer, index, maker, path)
        if layer.layer.type != "padding":
            kept.append(layer)
        makers.update(dict.fromkeys(original.top, original))
    return kept


def _take_padding(layer: Message, index: int, padding: Message, path: str) -> None:
    if layer.layer.type not in ("conv", "pool") or len(layer.bottom) != 1:
        problem = f"{_where(layer)} (type {layer.layer.type!r}) reads the padding layer {padding.layer.name!r}"
        raise PrototxtError(f"{problem}, expected a conv or pool with this one bottom", path=path)
    if len(padding.bottom) != 1 or len(padding.top) != 1:
        problem = f"{_where(padding)} pads {len(padding.bottom)} bottoms into {len(padding.top)} tops"
        raise PrototxtError(f"{problem}, expected one into one", path=path)
    if layer.layer.pad:
        problem = f"{_where(layer)} has pad: {layer.layer.pad} and reads the padding layer {padding.layer.name!r}"
        raise PrototxtError(f"{problem}; Caffe would forget one of them, expected one", path=path)
    layer.layer.pad = padding.layer.pad
    layer.bottom[index] = padding.bottom[0]


def _upgrade_layer(old: Message, new: Message, path: str) -> None:
    flat = old.layer
    lost = [field.name for field, _ in old.ListFields() if field.name not in ("layer", "bottom", "top")]
    if lost:
        problem = f"{_where(old)} has {', '.join(lost)} beside its inner 'layer'"
        raise PrototxtError(f"{problem}, expected only bottom and top there in V0 form", path=path)
    if flat.type not in V0_TYPES:
        known = ", ".join(sorted(V0_TYPES))
        found = f"the type {flat.type!r}" if flat.HasField("type") else "no type"
        raise PrototxtError(f"{_where(old)} has {found}, expected a V0 type: {known}, padding", path=path)
    new.bottom.extend(old.bottom)
    new.top.extend(old.top)
    enum = new.DESCRIPTOR.fields_by_name["type"].enum_type
    new.type = enum.values_by_name[V0_TYPES[flat.type]].number
    carried = [field.name for field, _ in flat.ListFields() if field.name in _CARRIED]
    if flat.type not in _SOURCES or flat.type == "window_data":
        carried = []
    if carried:
        problem = f"{', '.join(carried)} of {_where(old)} mean nothing to a {flat.type!r} layer and are left out"
        warnings.warn(f"{path}: {problem}, as Caffe does", stacklevel=4)
    for field, value in flat.ListFields():
        if field.name != "type" and field.name not in carried:
            _move(field.name, value, flat.type, new, f"{path}: {_where(old)}")


def _move(name: str, value: Any, layer_type: str, new: Message, where: str) -> None:
    """Put the value of one V0 field where V1 has it."""
    if name in _PLAIN:
        _assign(new, name, value)
    elif name in _TRANSFORM:
        _assign(new.transform_param, _TRANSFORM[name], value)
    elif name == "hdf5_output_param" and layer_type == "hdf5_output":
        new.hdf5_output_param.CopyFrom(value)
    elif name in _MOVES and layer_type in _MOVES[name][1]:
        target, owners = _MOVES[name]
        _assign(getattr(new, owners[layer_type]), target, value)
    else:
        takers = sorted(_MOVES.get(name, ("", {}))[1])
        expected = f"; {' and '.join(takers)} layers have it" if takers else ""
        raise PrototxtError(f"{name!r} has no meaning for the type {layer_type!r}{expected}", path=where)


def _assign(message: Message, name: str, value: Any) -> None:
    """Set a field; a single V0 value becomes the one element of a repeated V1 field."""
    field = message.DESCRIPTOR.fields_by_name[name]
    if not is_repeated(field):
        if field.message_type:
            getattr(message, name).CopyFrom(value)
        else:
            setattr(message, name, value)
    elif isinstance(value, int | float):
        getattr(message, name).append(value)
    else:
        getattr(message, name).extend(value)


def _where(layer: Message) -> str:
    return f"the layer {layer.layer.name!r}" if layer.layer.name else f"a layer (tops {', '.join(layer.top)})"
