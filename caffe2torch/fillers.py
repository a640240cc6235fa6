"""Caffe's fillers: how a parameter blob starts when no weights file gives it.

The random ones draw from torch's generator, so they have Caffe's distributions but not its numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from caffe2torch.errors import LayerError

Message = Any  # a caffe.FillerParameter


@dataclass(frozen=True)
class Filler:
    """A ``FillerParameter`` in plain values, with Caffe's defaults."""

    type: str = "constant"
    value: float = 0.0
    min: float = 0.0
    max: float = 1.0
    mean: float = 0.0
    std: float = 1.0
    sparse: int = -1
    variance_norm: str = "FAN_IN"
    diagonal: tuple[float, ...] = ()


def from_caffe(message: Message) -> Filler:
    """The plain form of a ``FillerParameter``."""
    norm = message.DESCRIPTOR.fields_by_name["variance_norm"].enum_type
    if message.file:
        raise LayerError(f"a filler names the file {message.file!r}, as some forks do; load those values as weights")
    return Filler(
        type=message.type,
        value=message.value,
        min=message.min,
        max=message.max,
        mean=message.mean,
        std=message.std,
        sparse=message.sparse,
        variance_norm=norm.values_by_number[message.variance_norm].name,
        diagonal=tuple(message.diag_val),
    )


@torch.no_grad()
def fill(tensor: Tensor, filler: Filler | Message, *, generator: torch.Generator | None = None) -> Tensor:
    """Write a filler's values into ``tensor`` and return it; equal generators give equal values."""
    plain = filler if isinstance(filler, Filler) else from_caffe(filler)
    write = _FILLERS.get(plain.type)
    if write is None:
        raise LayerError(f"there is no filler of type {plain.type!r}: expected one of {', '.join(sorted(_FILLERS))}")
    if tensor.numel():
        write(tensor, plain, generator)
    return tensor


def _constant(tensor: Tensor, filler: Filler, generator: torch.Generator | None) -> None:
    tensor.fill_(filler.value)


def _uniform(tensor: Tensor, filler: Filler, generator: torch.Generator | None) -> None:
    if filler.min > filler.max:
        raise LayerError(f"the uniform filler has min {filler.min} above max {filler.max}: exchange them")
    if not filler.max - filler.min <= torch.finfo(tensor.dtype).max:
        raise LayerError(f"the uniform filler has min {filler.min} and max {filler.max}: expected a finite range")
    tensor.uniform_(filler.min, filler.max, generator=generator)


def _gaussian(tensor: Tensor, filler: Filler, generator: torch.Generator | None) -> None:
    """Normal values; with ``sparse`` each survives with probability sparse / (items along axis 0), the rest is 0."""
    _normal(tensor, filler.mean, filler.std, generator)
    if filler.sparse >= 0:
        if tensor.ndim < 1 or filler.sparse > tensor.shape[0]:
            raise LayerError(
                f"the gaussian filler has sparse {filler.sparse} for a blob of shape {tuple(tensor.shape)}: "
                "expected at most its first dimension"
            )
        kept = torch.empty_like(tensor).bernoulli_(filler.sparse / tensor.shape[0], generator=generator)
        tensor.mul_(kept)


def _positive_unitball(tensor: Tensor, filler: Filler, generator: torch.Generator | None) -> None:
    """Uniform values in [0, 1), each item along axis 0 divided by its sum."""
    tensor.uniform_(0.0, 1.0, generator=generator)
    items = tensor.view(tensor.shape[0] if tensor.ndim else 1, -1)
    items.div_(items.sum(1, keepdim=True))


def _xavier(tensor: Tensor, filler: Filler, generator: torch.Generator | None) -> None:
    limit = math.sqrt(3.0 / _fan(tensor, filler))
    tensor.uniform_(-limit, limit, generator=generator)


def _msra(tensor: Tensor, filler: Filler, generator: torch.Generator | None) -> None:
    _normal(tensor, 0.0, math.sqrt(2.0 / _fan(tensor, filler)), generator)


def _bilinear(tensor: Tensor, filler: Filler, generator: torch.Generator | None) -> None:
    """The interpolation kernel of a Deconvolution that enlarges by f = ceil(size / 2)."""
    if tensor.ndim != 4 or tensor.shape[2] != tensor.shape[3]:
        raise LayerError(
            f"the bilinear filler cannot fill a blob of shape {tuple(tensor.shape)}: "
            "expected 4 axes and a square kernel"
        )
    size = tensor.shape[3]
    factor = math.ceil(size / 2)
    centre = (size - 1) / (2.0 * factor)
    line = 1 - (torch.arange(size, dtype=torch.float64, device=tensor.device) / factor - centre).abs()
    tensor.copy_(line[:, None] * line[None, :])


def _diagonal(tensor: Tensor, filler: Filler, generator: torch.Generator | None) -> None:
    """FlowNet's: output n takes ``diag_val`` number n (1 where there is none) of the mean of input n's kernel."""
    tensor.zero_()
    if tensor.ndim < 2:
        raise LayerError(
            f"the diagonal filler cannot fill a blob of shape {tuple(tensor.shape)}: expected 2 or more axes"
        )
    for n in range(min(tensor.shape[:2])):
        tensor[n, n] = (filler.diagonal[n] if n < len(filler.diagonal) else 1.0) / max(tensor[n, n].numel(), 1)


def _normal(tensor: Tensor, mean: float, std: float, generator: torch.Generator | None) -> None:
    if not 0 <= std < math.inf:
        raise LayerError(f"a filler has std {std}: expected 0 or more")
    tensor.normal_(mean, std, generator=generator)


def _fan(tensor: Tensor, filler: Filler) -> float:
    """Caffe's fan: count / shape[0] inwards, count / shape[1] outwards (not out * kernel of other frameworks)."""
    count = tensor.numel()
    inwards = count / tensor.shape[0] if tensor.ndim else 1.0
    outwards = count / tensor.shape[1] if tensor.ndim > 1 else float(count)
    return {"FAN_IN": inwards, "FAN_OUT": outwards, "AVERAGE": (inwards + outwards) / 2}[filler.variance_norm]


_FILLERS: dict[str, Callable[[Tensor, Filler, torch.Generator | None], None]] = {
    "bilinear": _bilinear,
    "constant": _constant,
    "diagonal": _diagonal,
    "gaussian": _gaussian,
    "msra": _msra,
    "positive_unitball": _positive_unitball,
    "uniform": _uniform,
    "xavier": _xavier,
}
