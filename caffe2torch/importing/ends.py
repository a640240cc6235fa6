"""The two ends of a module: the tensors it is given, under the names of blobs, and those it returns."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from caffe2torch.errors import UsageError


@dataclass(frozen=True)
class Inputs:
    """Example inputs; ``keys`` are forward's parameter names, or None for arguments by position."""

    examples: dict[str, Tensor]
    """Blob -> tensor."""
    keys: tuple[str, ...] | None

    def call(self, module: nn.Module, values: Mapping[str, Tensor]) -> Any:
        """What the module makes of these values (blob -> tensor)."""
        if self.keys is None:
            return module(*values.values())
        return module(**dict(zip(self.keys, values.values(), strict=True)))


def read_inputs(module: nn.Module, given: Any, names: Sequence[str] | None) -> Inputs:
    """The example inputs under the names of blobs: those given, the mapping's keys, or forward's parameter names."""
    if isinstance(given, Tensor):
        given = (given,)
    keys = tuple(map(str, given)) if isinstance(given, Mapping) else None
    tensors = list(given.values()) if isinstance(given, Mapping) else list(given)
    if not tensors:
        raise UsageError("to_caffe needs at least one example input")
    default = keys or (("data",) if len(tensors) == 1 else _parameters(module, len(tensors)))
    blobs = list(default if names is None else names)
    if len(blobs) != len(tensors) or len(set(blobs)) != len(blobs) or not all(blobs):
        raise UsageError(f"input_names are {blobs}: expected {len(tensors)} different names")
    for blob, tensor in zip(blobs, tensors, strict=True):
        _check(blob, tensor)
    return Inputs({blob: tensor.detach() for blob, tensor in zip(blobs, tensors, strict=True)}, keys)


def _check(blob: str, tensor: Any) -> None:
    if not isinstance(tensor, Tensor):
        raise UsageError(f"example input {blob!r} is a {type(tensor).__name__}, expected a tensor")
    if tensor.dtype.is_complex or (tensor.dtype.is_floating_point and tensor.dtype != torch.float32):
        raise UsageError(
            f"example input {blob!r} is {tensor.dtype}; a Caffe blob is float32: give x.float() and module.float()"
        )
    if tensor.device.type == "meta" or not tensor.numel() or not tensor.ndim:
        raise UsageError(
            f"example input {blob!r} has shape {tuple(tensor.shape)} on {tensor.device}: expected values in a batch"
        )


def _parameters(module: nn.Module, count: int) -> tuple[str, ...]:
    """The names of forward's first parameters; ``data0``, ... where it takes any number."""
    named = [
        p.name
        for p in inspect.signature(module.forward).parameters.values()
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    return tuple(named[:count]) if len(named) >= count else tuple(f"data{index}" for index in range(count))


def flat(result: Any, name: str = "") -> list[tuple[str, Tensor]]:
    """The tensors of a result, each with the name it has in a mapping or a named tuple (empty in a plain one)."""
    if isinstance(result, Tensor):
        return [(name, result)]
    if result is None:
        return []
    if isinstance(result, Mapping):
        pairs = [(str(key), value) for key, value in result.items()]
    elif isinstance(result, tuple) and hasattr(result, "_fields"):
        pairs = list(zip(result._fields, result, strict=True))
    elif isinstance(result, list | tuple):
        pairs = [("", value) for value in result]
    else:
        raise UsageError(f"the module returns a {type(result).__name__}; expected tensors, alone or in a tuple or dict")
    return [found for key, value in pairs for found in flat(value, f"{name}.{key}" if name and key else key or name)]
