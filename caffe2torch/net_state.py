"""Which layers of a net a state keeps: phase, level and stages against ``include`` and ``exclude`` rules.

The rules are those of Caffe's ``Net::FilterNet``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from caffe2torch.errors import GraphError, UsageError
from caffe2torch.schema import Message

PHASES = ("train", "test")


@dataclass(frozen=True)
class _State:
    phase: int
    level: int
    stages: frozenset[str]


def places(net: Message, *, phase: str, level: int = 0, stages: Sequence[str] = ()) -> list[int]:
    """The places in ``net.layer`` of the layers that a net state keeps: a node's ``index`` is one in this list.

    ``stages`` are added to those of the net's own state. Raises UsageError for an unknown phase, and GraphError for a
    layer with both kinds of rules.
    """
    phase = phase.lower()
    if phase not in PHASES:
        raise UsageError(f"phase is {phase!r}, expected 'train' or 'test'")
    state = _State(phase=PHASES.index(phase), level=level, stages=frozenset(stages) | frozenset(net.state.stage))
    return [place for place, layer in enumerate(net.layer) if _included(layer, state)]


def _included(layer: Message, state: _State) -> bool:
    if layer.include and layer.exclude:
        raise GraphError(f"layer {layer.name!r} has both include and exclude rules; Caffe allows only one kind")
    if layer.include:
        return any(_meets(rule, state) for rule in layer.include)
    return not any(_meets(rule, state) for rule in layer.exclude)


def _meets(rule: Message, state: _State) -> bool:
    """Caffe's ``Net::StateMeetsRule``: every condition the rule names must hold."""
    return (
        (not rule.HasField("phase") or rule.phase == state.phase)
        and (not rule.HasField("min_level") or state.level >= rule.min_level)
        and (not rule.HasField("max_level") or state.level <= rule.max_level)
        and state.stages.issuperset(rule.stage)
        and state.stages.isdisjoint(rule.not_stage)
    )
