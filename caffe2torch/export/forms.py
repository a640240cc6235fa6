"""The forms besides source and safetensors: a ``torch.export`` program and ONNX, and the check of each."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from caffe2torch.errors import Caffe2TorchError, MissingPackageError, OutputError
from caffe2torch.export.checking import Check, compare, example_inputs, reference_outputs
from caffe2torch.export.source import Source, namespace
from caffe2torch.files import atomic_path
from caffe2torch.net import CaffeNet

MOST_HALF = 65504.0
_KEPT = ("running_mean", "running_var", "num_batches_tracked", "mean")
"""Last parts of state dict keys that stay as they are in half precision: statistics, and the mean image."""
PICTURE = (48, 56)
"""Height and width of the example picture that a program is captured with."""
OPSET = 18


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


def module(source: Source, state: Mapping[str, Tensor], *, half: bool = False) -> nn.Module:
    """The written class with these values, in evaluation mode; in half precision but for its BatchNorm statistics."""
    made = namespace(source)().eval()
    made.load_state_dict(dict(state))
    if half:
        for part in made.modules():
            if not isinstance(part, nn.modules.batchnorm._BatchNorm):
                for name, value in part._parameters.items():
                    if value is not None:
                        part._parameters[name] = nn.Parameter(value.half(), requires_grad=False)
    return made.requires_grad_(False)


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


def _dynamic(source: Source, *, pictures: bool) -> list[dict[int, Any]]:
    """Per input the axes that may have any size."""
    batch = torch.export.Dim("batch", min=1)
    if not pictures:
        return [{0: batch} if source.batch.free else {} for _ in source.inputs]
    axes: dict[int, Any] = {0: batch} if source.batch.free else {}
    if source.picture is None:
        axes |= {1: torch.export.Dim("height", min=2), 2: torch.export.Dim("width", min=2)}
    return [axes]


def _shapes(source: Source) -> list[Tensor]:
    shapes = [source.batch.shapes[blob] for blob in source.inputs]
    return [torch.zeros((2, *shape[1:]) if source.batch.free else shape) for shape in shapes]


def captured(
    source: Source, state: Mapping[str, Tensor], *, half: bool, pictures: bool
) -> torch.export.ExportedProgram:
    """The written net as a program that holds its own weights; OutputError where torch cannot capture it."""
    net = Exported(module(source, state, half=half), half=half, pictures=pictures).eval()
    inputs = tuple(examples(source, _shapes(source), pictures=pictures))
    shapes = (tuple(_dynamic(source, pictures=pictures)),)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.export(net, inputs, dynamic_shapes=shapes)
    except Exception as error:  # torch raises classes of many modules here, some of them Exception itself
        raise OutputError(f"torch.export cannot capture the net: {_first_line(error)}") from error


def write_pt2(path: Path, source: Source, state: Mapping[str, Tensor], *, half: bool, pictures: bool) -> None:
    """A ``.pt2`` file for ``torch.export.load``."""
    program = captured(source, state, half=half, pictures=pictures)
    with atomic_path(path) as temporary:
        torch.export.save(program, temporary)


def write_onnx(path: Path, source: Source, state: Mapping[str, Tensor], *, half: bool, pictures: bool) -> None:
    """An ``.onnx`` file of one piece, with the names of the source's arguments and of the blobs."""
    _require_onnx()
    net = Exported(module(source, state, half=half), half=half, pictures=pictures).eval()
    inputs = tuple(examples(source, _shapes(source), pictures=pictures))
    names = ["images"] if pictures else list(source.arguments)
    outputs = [f"{name}_out" if name in names else name for name in source.results]
    axes = {
        n: {a: str(d.__name__) for a, d in dims.items()}
        for n, dims in zip(names, _dynamic(source, pictures=pictures), strict=True)
    }
    if source.batch.free:
        axes |= {name: {0: "batch"} for name in outputs}
    with atomic_path(path) as temporary:
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.onnx.export(
                    net,
                    inputs,
                    str(temporary),
                    input_names=names,
                    output_names=outputs,
                    dynamic_axes=axes,
                    opset_version=OPSET,
                    **_EXPORTER,
                )
        except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
            raise OutputError(f"torch.onnx cannot express the net: {_first_line(error)}") from error


_EXPORTER: dict[str, Any] = {} if torch.__version__ < "2.5" else {"dynamo": False}


def _require_onnx() -> None:
    try:
        import onnx
    except ImportError as error:
        raise MissingPackageError(
            "ONNX needs the package onnx, which is not installed: pip install 'caffe2torch[convert]'"
        ) from error
    assert onnx


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def check(form: str, path: Path, net: CaffeNet, source: Source, pictures: bool) -> Check | str:
    """How far one written file is from the CaffeNet, or why that is not known."""
    inputs = example_inputs(net, source.batch)
    given = examples(source, inputs, pictures=pictures and form in ("pt2", "onnx"))
    if given is not inputs and pictures and form in ("pt2", "onnx"):
        inputs = [module(source, source.state).preprocess(given[0])]  # type: ignore[operator]
    expected = reference_outputs(net, inputs)
    if form == "source":
        return compare(expected, _run(module(source, source.state), given))
    if form == "pt":
        state = torch.load(path, weights_only=True)
        return compare(expected, _run(module(source, state), given))
    if form == "safetensors":
        try:
            from safetensors.torch import load_file
        except ImportError:
            return "safetensors is not installed"
        return compare(expected, _run(module(source, load_file(path)), given))
    if form == "pt2":
        return compare(expected, _run(torch.export.load(path).module(), given))
    return _check_onnx(path, expected, given)


def _run(net: nn.Module, inputs: Sequence[Tensor]) -> list[Tensor]:
    with torch.no_grad():
        found = net(*inputs)
    if isinstance(found, dict):
        return list(found.values())
    return list(found) if isinstance(found, (tuple, list)) else [found]


def _check_onnx(path: Path, expected: list[Tensor], inputs: Sequence[Tensor]) -> Check | str:
    try:
        import onnxruntime
    except ImportError:
        return "onnxruntime is not installed"
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        names = [entry.name for entry in session.get_inputs()]
        found = session.run(None, {name: np.asarray(value) for name, value in zip(names, inputs, strict=True)})
    except Exception as error:  # onnxruntime's own classes, known only once it is imported
        raise Caffe2TorchError(f"{path}: onnxruntime cannot run it: {_first_line(error)}") from error
    return compare(expected, [torch.from_numpy(value) for value in found])
