"""A project's nets, made from those of the zoo: other data, as many bits and classes as wanted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from caffe2torch import prototxt, schema
from caffe2torch.errors import ZooError
from caffe2torch.project.bases import Base
from caffe2torch.project.plan import Plan
from caffe2torch.schema import Message


@dataclass(frozen=True)
class Shape:
    """What a net has to have: a name, bits, classes (or labels, with ``several`` of them a picture)."""

    name: str
    bits: int
    classes: int
    several: bool
    root_folder: str
    channel_means: tuple[float, ...] | None
    """None: mean.binaryproto is subtracted."""


def train_val(base: Base, shape: Shape, plan: Plan) -> Message:
    """The net to train and to test with."""
    net = _read(base, base.entry.train_val)
    classifier = _classifier(base, net)
    layers = [layer for layer in net.layer if layer.type != "Data"]
    if shape.several:
        layers = _multi_label(layers, classifier)
    _resize(base, shape, layers, classifier.name)
    for layer in layers:
        if layer.type == "BatchNorm" and base.moving_average is not None:
            layer.batch_norm_param.moving_average_fraction = base.moving_average
    made = schema.new("NetParameter")
    made.name = shape.name
    made.layer.extend(_data(base, shape, plan) + layers)
    return made


def deploy(base: Base, shape: Shape, *, classifier: bool = False) -> Message:
    """The net from a picture to its code, or, with ``classifier``, on to the scores of the classes."""
    net = _read(base, base.entry.deploy)
    net.name = shape.name
    if classifier:
        net.layer.append(_bare(_classifier(base, _read(base, base.entry.train_val))))
    _resize(base, shape, list(net.layer), net.layer[-1].name if classifier else None)
    return net


def classifier_name(base: Base) -> str:
    """The layer whose output are the scores."""
    name: str = _classifier(base, _read(base, base.entry.train_val)).name
    return name


def _read(base: Base, path: Path | None) -> Message:
    if path is None:
        raise ZooError(f"{base.model}: its training net is not in the zoo; install caffe2torch again")
    return prototxt.read_net(path)


def _classifier(base: Base, net: Message) -> Message:
    """The layer that reads the classes from the code."""
    found = [x for x in net.layer if x.type == "InnerProduct" and list(x.bottom) == [base.entry.code_blob]]
    if len(found) != 1:
        raise ZooError(
            f"{base.entry.train_val}: {len(found)} InnerProduct layers read {base.entry.code_blob}, expected 1"
        )
    return found[0]


def _resize(base: Base, shape: Shape, layers: list[Message], classifier: str | None) -> None:
    """As many bits and classes as wanted; the mean over the bits (for K2) is over as many."""
    for layer in layers:
        if layer.name == base.entry.code_layer:
            layer.inner_product_param.num_output = shape.bits
        elif layer.name == classifier:
            layer.inner_product_param.num_output = shape.classes
        elif layer.type == "Pooling" and layer.pooling_param.kernel_w == base.entry.bits:
            layer.pooling_param.kernel_w = shape.bits


def _bare(layer: Message) -> Message:
    """The layer without what only training needs."""
    made = schema.new("LayerParameter")
    made.CopyFrom(layer)
    made.ClearField("param")
    for name in ("weight_filler", "bias_filler"):
        made.inner_product_param.ClearField(name)
    return made


def _multi_label(layers: list[Message], classifier: Message) -> list[Message]:
    """The losses and figures of several labels in place of those of one class."""
    scores, kept = classifier.top[0], []
    for layer in layers:
        if layer.type == "SoftmaxWithLoss":
            layer.type = "MultiLabelSigmoidLoss"
            layer.ClearField("loss_param")
        elif layer.type == "Accuracy":
            layer.type = "MultiLabelAccuracy"
            layer.bottom[0] = scores
            layer.ClearField("accuracy_param")
        elif layer.type == "Softmax":
            continue
        kept.append(layer)
    return kept


def _data(base: Base, shape: Shape, plan: Plan) -> list[Message]:
    """The data layers of both phases."""
    layers = []
    for phase, part, batch in ((0, "train", plan.batch), (1, "test", plan.test_batch)):
        pictures = _layer("ImageData", "data", ("data", "row" if shape.several else "label"), phase)
        p = pictures.image_data_param
        p.source, p.batch_size, p.root_folder = f"{part}.txt", batch, shape.root_folder
        p.new_height = p.new_width = base.size
        p.shuffle = part == "train" and not shape.several
        t = pictures.transform_param
        t.crop_size, t.mirror = base.crop, part == "train"
        if shape.channel_means is None:
            t.mean_file = "mean.binaryproto"
        else:
            t.mean_value.extend(shape.channel_means)
        if base.scale != 1.0:
            t.scale = base.scale
        layers.append(pictures)
        if shape.several:
            layers += _label_layers(part, phase, batch)
    return layers


def _label_layers(part: str, phase: int, batch: int) -> list[Message]:
    """Rows of labels, in step with the pictures; ImageData's own number of a picture is not used."""
    labels = _layer("HDF5Data", "labels", ("label",), phase)
    labels.hdf5_data_param.source = f"{part}_h5.txt"
    labels.hdf5_data_param.batch_size = batch
    silence = _layer("Silence", "row", (), phase)
    silence.bottom.append("row")
    return [labels, silence]


def _layer(kind: str, name: str, tops: tuple[str, ...], phase: int) -> Message:
    layer = schema.new("LayerParameter")
    layer.name, layer.type = name, kind
    layer.top.extend(tops)
    layer.include.add().phase = phase
    return layer


def solver(base: Base, plan: Plan, name: str, seed: int) -> Message:
    """The solver file."""
    made = schema.new("SolverParameter")
    made.net = "train_val.prototxt"
    made.test_iter.append(plan.test_iter)
    made.test_interval, made.max_iter, made.snapshot = plan.test_interval, plan.max_iter, plan.snapshot
    made.display = made.average_loss = plan.display
    for key, value in base.solver.items():
        setattr(made, key, value)
    if base.halve:
        made.lr_policy, made.gamma, made.stepsize = "step", 0.1, plan.rate_step()
    made.snapshot_prefix, made.random_seed = name, seed
    return made
