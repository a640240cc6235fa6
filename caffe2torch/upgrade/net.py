"""Bring nets and solvers of any generation to current form, message to message, by Caffe 1.0's rules in its order.

V0 to V1 (padding layers, string types), old transformation fields of V1 data layers, V1 to V2, ``input`` fields to an
Input layer, BatchNorm multipliers; for a solver its enum type. Where Caffe logs "unknown parameter" and goes on without
it, this stops: settings are never lost.
"""

from __future__ import annotations

from collections.abc import Sequence

from caffe2torch.errors import PrototxtError
from caffe2torch.schema import Message
from caffe2torch.upgrade.v0 import upgrade_v0_net
from caffe2torch.upgrade.v1 import move_transform_fields, upgrade_v1_layer

_SOLVER_TYPES = {
    "SGD": "SGD",
    "NESTEROV": "Nesterov",
    "ADAGRAD": "AdaGrad",
    "RMSPROP": "RMSProp",
    "ADADELTA": "AdaDelta",
    "ADAM": "Adam",
}


def syntax_of(net: Message) -> str:
    """The generation of a net's layers: "V0" (``layers { layer {``), "V1" (``layers {``) or "V2" (``layer {``)."""
    if any(layer.HasField("layer") for layer in net.layers):
        return "V0"
    return "V1" if net.layers else "V2"


def upgrade_net(net: Message, *, path: str = "<net>") -> Message:
    """A copy of ``net`` in V2 form, its blobs kept; upgrading it again changes nothing.

    Raises PrototxtError, naming ``path`` and the layer, for a setting that has no place in the new form.
    """
    upgraded = type(net)()
    upgraded.CopyFrom(net)
    if upgraded.layers and upgraded.layer:
        problem = f"both 'layers' ({len(net.layers)}, old syntax) and 'layer' ({len(net.layer)}) are given"
        raise PrototxtError(f"{problem}; expected one of them: Caffe would ignore the second", path=path)
    if syntax_of(upgraded) == "V0":
        upgrade_v0_net(upgraded, path)
    for old in upgraded.layers:
        move_transform_fields(old, path)
        upgrade_v1_layer(old, upgraded.layer.add(), path)
    upgraded.ClearField("layers")
    _inputs_to_layer(upgraded, path)
    _freeze_batch_norm(upgraded)
    return upgraded


def _inputs_to_layer(net: Message, path: str) -> None:
    """Turn ``input`` with ``input_shape`` or ``input_dim`` into an Input layer at the front."""
    if not net.input:
        return
    added = type(net)().layer.add(name="input", type="Input", top=net.input)
    added.input_param.SetInParent()
    for dims in _input_shapes(net, path):
        added.input_param.shape.add(dim=dims)
    net.layer.insert(0, added)
    for field in ("input", "input_shape", "input_dim"):
        net.ClearField(field)


def _input_shapes(net: Message, path: str) -> list[Sequence[int]]:
    """One shape for each ``input``; none where the file gives no sizes (the caller of the net then has to)."""
    count = len(net.input)
    shapes = [list(shape.dim) for shape in net.input_shape]
    dims = list(net.input_dim)
    if shapes and len(shapes) != count:
        problem = f"{count} 'input' but {len(shapes)} 'input_shape'"
        raise PrototxtError(f"{problem}, expected one shape for each input", path=path)
    if dims and len(dims) != 4 * count:
        problem = f"{count} 'input' but {len(dims)} 'input_dim'"
        raise PrototxtError(f"{problem}, expected four (num, channels, height, width) for each input", path=path)
    from_dims = [dims[4 * index : 4 * index + 4] for index in range(count)] if dims else []
    if shapes and dims and shapes != from_dims:
        raise PrototxtError("'input_shape' and 'input_dim' disagree; expected one of them", path=path)
    return [*(shapes or from_dims)]


def _freeze_batch_norm(net: Message) -> None:
    """Three ``param``s of a BatchNorm are from when users had to switch its learning rates off: off they are."""
    for layer in net.layer:
        if layer.type == "BatchNorm" and len(layer.param) == 3:
            for param in layer.param:
                param.lr_mult = 0.0
                param.decay_mult = 0.0


def upgrade_solver(solver: Message, *, path: str = "<solver>") -> Message:
    """A copy of ``solver`` with a ``type`` string for the old enum, and with the nets written inside it upgraded.

    Raises PrototxtError where both forms of the type are given. (That a missing ``snapshot_prefix`` comes from the
    solver file's name is not a matter of form; it is left to whoever writes snapshots.)
    """
    upgraded = type(solver)()
    upgraded.CopyFrom(solver)
    if upgraded.HasField("solver_type"):
        if upgraded.HasField("type"):
            raise PrototxtError("both 'solver_type' (old) and 'type' are given, expected one of them", path=path)
        names = upgraded.DESCRIPTOR.fields_by_name["solver_type"].enum_type.values_by_number
        old = names[upgraded.solver_type].name
        if old not in _SOLVER_TYPES:
            raise PrototxtError(f'the solver_type {old} has no current name; give it as type: "..."', path=path)
        upgraded.type = _SOLVER_TYPES[old]
        upgraded.ClearField("solver_type")
    for field in ("net_param", "train_net_param"):
        if upgraded.HasField(field):
            getattr(upgraded, field).CopyFrom(upgrade_net(getattr(upgraded, field), path=path))
    for test_net in upgraded.test_net_param:
        test_net.CopyFrom(upgrade_net(test_net, path=path))
    return upgraded
