"""The written net as a module, in half precision or with its preprocessing, and as a ``torch.export`` program."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from caffe2torch.errors import OutputError
from caffe2torch.export.source import Source, namespace
from caffe2torch.files import atomic_path

MOST_HALF = 65504.0
_KEPT = ("running_mean", "running_var", "num_batches_tracked", "mean")
"""Last parts of state dict keys that stay as they are in half precision: statistics, and the mean image."""
PICTURE = (48, 56)
"""Height and width of the example picture that a program is captured with."""


def halved(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state with float16 weights, but for statistics and mean images; OutputError for values beyond float16."""
    made = {}
    for name, value in state.items():
        kept = name.rpartition(".")[2] in _KEPT
        if not kept and value.numel() and float(value.abs().max()) > MOST_HALF:
            raise OutputError(
                f"{name} holds {float(value.abs().max()):.3g}, and float16 ends at {MOST_HALF:.0f}; leave out --half"
            )
        made[name] = value if kept else value.half()
    return made


def module(
    source: Source, state: Mapping[str, Tensor], *, half: bool = False, replaced: Mapping[str, object] | None = None
) -> nn.Module:
    """The written class with these values, in evaluation mode; in half precision but for its BatchNorm statistics."""
    made = namespace(source, replaced)().eval()
    made.load_state_dict(dict(state))
    if half:
        own = dict(made._buffers)  # the mean image
        made.half()
        made._buffers.update(own)
        _widen(made, state)
    return made.requires_grad_(False)


class _Wide(nn.Module):
    """A batch normalisation in float32 amid float16: squares of its statistics would not fit."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner.float()

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.inner(x.float())
        return found.half()


def _widen(net: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give the batch normalisations of a net in half precision their statistics back as they were."""
    for name, part in list(net.named_modules()):
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            wide = _Wide(part)
            wide.inner.load_state_dict({k: state[f"{name}.{k}"] for k in part.state_dict()})
            parent, _, own = name.rpartition(".")
            setattr(net.get_submodule(parent), own, wide)


class Exported(nn.Module):
    """What is captured: the net, with its preprocessing before it or casts around it where they are asked for."""

    def __init__(self, net: nn.Module, *, half: bool = False, pictures: bool = False) -> None:
        super().__init__()
        self.net, self.half_, self.pictures = net, half, pictures

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        if self.pictures:
            inputs = (self.net.preprocess(inputs[0]),)  # type: ignore[operator]
        found = self.net(*(value.half() for value in inputs)) if self.half_ else self.net(*inputs)
        values = tuple(found.values()) if isinstance(found, dict) else (found,)
        return tuple(value.float() for value in values) if self.half_ else values


def examples(source: Source, net_inputs: Sequence[Tensor], *, pictures: bool) -> list[Tensor]:
    """The tensors to capture with."""
    if not pictures:
        return list(net_inputs)
    height, width = source.picture or PICTURE
    generator = torch.Generator().manual_seed(0)
    size = (len(net_inputs[0]), height, width, 3)
    return [torch.randint(0, 256, size, generator=generator, dtype=torch.uint8)]


def dynamic_axes(source: Source, *, pictures: bool) -> list[dict[int, Any]]:
    """Per input the axes that may have any size."""
    batch = torch.export.Dim("batch", min=1)
    if not pictures:
        return [{0: batch} if source.batch.free else {} for _ in source.inputs]
    axes: dict[int, Any] = {0: batch} if source.batch.free else {}
    if source.picture is None:
        axes |= {1: torch.export.Dim("height", min=2), 2: torch.export.Dim("width", min=2)}
    return [axes]


def blank_inputs(source: Source) -> list[Tensor]:
    shapes = [source.batch.shapes[blob] for blob in source.inputs]
    return [torch.zeros((2, *shape[1:]) if source.batch.free else shape) for shape in shapes]


def captured(
    source: Source, state: Mapping[str, Tensor], *, half: bool, pictures: bool
) -> torch.export.ExportedProgram:
    """The written net as a program that holds its own weights; OutputError where torch cannot capture it."""
    net = Exported(module(source, state, half=half), half=half, pictures=pictures).eval()
    inputs = tuple(examples(source, blank_inputs(source), pictures=pictures))
    shapes = (tuple(dynamic_axes(source, pictures=pictures)),) if inputs else None
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.export(net, inputs, dynamic_shapes=shapes, strict=False)
    except Exception as error:  # torch raises classes of many modules here, some of them Exception itself
        raise OutputError(f"torch.export cannot capture the net: {first_line(error)}") from error


def write_pt2(path: Path, source: Source, state: Mapping[str, Tensor], *, half: bool, pictures: bool) -> None:
    """A ``.pt2`` file for ``torch.export.load``; OutputError where torch cannot capture or write the net."""
    program = captured(source, state, half=half, pictures=pictures)
    with atomic_path(path) as temporary:
        try:
            torch.export.save(program, temporary)
        except ValueError as error:
            if source.inputs or state:
                raise
            raise OutputError(
                f"torch.export of torch {torch.__version__} cannot write a net that has neither inputs nor weights: "
                "use a later torch than 2.4, or another form"
            ) from error


def first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
