"""V1 layers (enum types, ``blobs_lr`` lists) to V2 ones (type strings, one ``param`` message for each blob)."""

from __future__ import annotations

from typing import Any

from caffe2torch.errors import PrototxtError
from caffe2torch.schema import Message, is_repeated

# V1's enum names and V2's type strings
V2_TYPES = {
    "ABSVAL": "AbsVal",
    "ACCURACY": "Accuracy",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "CONCAT": "Concat",
    "CONTRASTIVE_LOSS": "ContrastiveLoss",
    "CONVOLUTION": "Convolution",
    "DATA": "Data",
    "DECONVOLUTION": "Deconvolution",
    "DROPOUT": "Dropout",
    "DUMMY_DATA": "DummyData",
    "ELTWISE": "Eltwise",
    "EUCLIDEAN_LOSS": "EuclideanLoss",
    "EXP": "Exp",
    "FLATTEN": "Flatten",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "HINGE_LOSS": "HingeLoss",
    "IM2COL": "Im2col",
    "IMAGE_DATA": "ImageData",
    "INFOGAIN_LOSS": "InfogainLoss",
    "INNER_PRODUCT": "InnerProduct",
    "LRN": "LRN",
    "MEMORY_DATA": "MemoryData",
    "MULTINOMIAL_LOGISTIC_LOSS": "MultinomialLogisticLoss",
    "MVN": "MVN",
    "POOLING": "Pooling",
    "POWER": "Power",
    "RELU": "ReLU",
    "SIGMOID": "Sigmoid",
    "SIGMOID_CROSS_ENTROPY_LOSS": "SigmoidCrossEntropyLoss",
    "SILENCE": "Silence",
    "SLICE": "Slice",
    "SOFTMAX": "Softmax",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "SPLIT": "Split",
    "TANH": "TanH",
    "THRESHOLD": "Threshold",
    "WINDOW_DATA": "WindowData",
}

# Data layers whose own message once held what is now transform_param
_DATA_MESSAGES = {"DATA": "data_param", "IMAGE_DATA": "image_data_param", "WINDOW_DATA": "window_data_param"}
_TRANSFORM_FIELDS = ("scale", "mean_file", "crop_size", "mirror")

# V1's lists by parameter blob, and the field of V2's ParamSpec each fills, in Caffe's order
_PARAM_LISTS = {"param": "name", "blob_share_mode": "share_mode", "blobs_lr": "lr_mult", "weight_decay": "decay_mult"}


def move_transform_fields(layer: Message, path: str) -> None:
    """Move scale, mean_file, crop_size and mirror of a V1 data layer to its transform_param, in place."""
    own = _DATA_MESSAGES.get(_type_name(layer))
    if own is None or not layer.HasField(own):
        return
    message = getattr(layer, own)
    for field in _TRANSFORM_FIELDS:
        if message.HasField(field):
            if layer.transform_param.HasField(field):
                problem = f"the layer {layer.name!r} has {field!r} in both {own} and transform_param"
                raise PrototxtError(f"{problem}, expected it in transform_param", path=path)
            setattr(layer.transform_param, field, getattr(message, field))
            message.ClearField(field)


def upgrade_v1_layer(old: Message, new: Message, path: str) -> None:
    """Fill the empty V2 layer ``new`` from the V1 layer ``old``."""
    name = _type_name(old)
    if name not in V2_TYPES:
        found = f"the type {name}" if old.HasField("type") else "no type"
        known = "one of Caffe's V1 types" if old.HasField("type") else "one such as CONVOLUTION"
        raise PrototxtError(f"the layer {old.name!r} has {found}, expected {known}", path=path)
    new.type = V2_TYPES[name]
    for field, value in old.ListFields():
        if field.name in _PARAM_LISTS or field.name == "type":
            continue
        target = new.DESCRIPTOR.fields_by_name.get(field.name)
        if target is None or _kind(target) != _kind(field):
            raise PrototxtError(f"{field.name!r} of the layer {old.name!r} has no place in current form", path=path)
        if is_repeated(field):
            getattr(new, field.name).extend(value)
        elif field.message_type:
            getattr(new, field.name).CopyFrom(value)
        else:
            setattr(new, field.name, value)
    for field_name, spec in _PARAM_LISTS.items():
        for index, item in enumerate(getattr(old, field_name)):
            while len(new.param) <= index:
                new.param.add()
            setattr(new.param[index], spec, item)


def _kind(field: Any) -> tuple[int, bool, str]:
    return field.type, is_repeated(field), field.message_type.full_name if field.message_type else ""


def _type_name(layer: Message) -> str:
    return str(layer.DESCRIPTOR.fields_by_name["type"].enum_type.values_by_number[layer.type].name)
