"""What the tracing knows of a tensor: the blob it is in the net."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

Shape: TypeAlias = tuple[int, ...]


class Refused(Exception):
    """Caffe has no counterpart for a call; the tracer adds which call it was and where."""


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor that depends on the inputs, as a blob of the net."""

    blob: str
    shape: Shape
    pending: str = ""
    """What is still to be done to the blob, and counted in ``shape`` already: ``pad`` (zeros around the axes after the
    channels, as many before as after), ``channels`` (zeros around the channels), ``windows`` (of neighbouring
    channels, on a last axis) or ``window`` (some neighbouring values of each of them, added up); each is a part of some
    layer of Caffe's, and none by itself."""
    amounts: Shape = ()
    """How many zeros, for each axis; how long the windows are, and which values of theirs are added up (from, to)."""
    lost: bool = False
    """It comes from something that was refused: what uses it is passed over, so that all problems are told at once."""


PENDING = {
    "pad": "its input is padded with zeros, which Caffe does inside a convolution only",
    "channels": "its input has channels of zeros added, which Caffe does inside LRN only",
    "windows": "its input is windows of channels, which Caffe has inside LRN only",
    "window": "its input is a part of windows of channels, which Caffe has inside LRN only",
}
"""Why a value that something is pending for cannot be used."""


Operand: TypeAlias = "Value | Tensor | float"
"""What a call may be given: a blob, a constant tensor or a number."""


def lost(shape: Sequence[int]) -> Value:
    """The value of a call that was refused."""
    return Value("", tuple(shape), lost=True)


def axis_of(dim: int, ndim: int) -> int:
    """The axis counted from the front."""
    return dim % ndim if ndim else 0


def constant(operand: Any, what: str) -> Tensor:
    """A tensor that must not depend on the input."""
    if isinstance(operand, Value):
        raise Refused(f"its {what} is computed from the input; in Caffe it is a constant")
    if not isinstance(operand, Tensor):
        raise Refused(f"its {what} is a {type(operand).__name__}, expected a tensor")
    return operand


def blob_of(operand: Any, what: str = "input") -> Value:
    """A tensor that must depend on the input."""
    if not isinstance(operand, Value):
        raise Refused(f"its {what} does not depend on the module's input; expected one that does")
    return operand


def number_of(operand: Operand) -> float | None:
    """The number that a constant is everywhere; None where it differs from place to place, or for a blob."""
    if isinstance(operand, bool | int | float):
        return float(operand)
    if isinstance(operand, Tensor) and operand.numel() and not operand.is_complex():
        first = operand.reshape(-1)[0]
        if bool((operand == first).all()):
            return float(first)
    return None


def per_axis(value: Any, count: int, what: str) -> tuple[int, ...]:
    """One number for each of ``count`` axes from torch's forms: a number, or a sequence of one or ``count``."""
    values = (value,) if isinstance(value, int) else tuple(int(v) for v in value)
    if len(values) == 1:
        values *= count
    if len(values) != count:
        raise Refused(f"its {what} is {value}, expected {count} numbers")
    return values


def is_whole(dtype: torch.dtype) -> bool:
    """Whether values of this type are whole numbers, which a blob holds as floats."""
    return not (dtype.is_floating_point or dtype.is_complex)
