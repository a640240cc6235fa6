"""ONNX files, and running them with onnxruntime.

torch has two exporters. The one by tracing is used here: it is there from torch 2.4 to 2.13, needs no package but
``onnx``, is five times as fast as the one by ``torch.export`` and gives the same results to rounding.
"""

from __future__ import annotations

import inspect
import io
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.onnx import symbolic_helper

from caffe2torch.errors import Caffe2TorchError, MissingPackageError, OutputError
from caffe2torch.export import helpers
from caffe2torch.export.checking import Check, compare
from caffe2torch.export.forms import Exported, blank_inputs, dynamic_axes, examples, first_line, module
from caffe2torch.export.source import Source
from caffe2torch.files import atomic_path

OPSET = 18
_BY_TRACING: dict[str, Any] = {"dynamo": False}  # torch 2.4 knows no other way, and not the argument


class _LRN(torch.autograd.Function):
    """ONNX has an operator of its own for this, which the exporter cannot see in the sum over windows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
        return helpers.lrn(x, size, alpha, beta, k)

    @staticmethod
    def symbolic(g: Any, x: Any, size: int, alpha: float, beta: float, k: float) -> Any:
        made = g.op("LRN", x, size_i=size, alpha_f=alpha, beta_f=beta, bias_f=k)
        made.setType(x.type())
        return made


def _lrn(x: Tensor, size: int, alpha: float, beta: float, k: float = 1.0) -> Tensor:
    """The helper of that name, as the exporter understands it."""
    wide = _LRN.apply(x.float(), size, float(alpha), float(beta), float(k))  # type: ignore[no-untyped-call]
    found: Tensor = wide.to(x.dtype)
    return found


def _window_sums(x: Tensor, kernel: tuple[int, int], stride: tuple[int, int]) -> Tensor:
    """The helper of that name: the exporter passes over ``divisor_override``."""
    return F.avg_pool2d(x, kernel, stride) * float(kernel[0] * kernel[1])


def _max_pool_with_mask(
    x: Tensor, kernel: tuple[int, int], stride: tuple[int, int], pad: tuple[int, int], ceil: bool = True
) -> tuple[Tensor, Tensor]:
    """The helper of that name, with padding just above the lowest number.

    onnxruntime, at least from 1.18 to 1.28, finds no place in a window of nothing but the lowest one, and the exporter
    counts places from that of the first corner.
    """
    info = torch.finfo(x.dtype)
    lowest = max(-torch.finfo(torch.float32).max, info.min)
    padded = helpers.pool_padded(x, kernel, stride, pad, ceil, lowest * (1 - info.eps))
    top, index = F.max_pool2d(padded, kernel, stride, return_indices=True)
    row, column = index // padded.shape[3] - pad[0], index % padded.shape[3] - pad[1]
    inside = (row >= 0) & (row < x.shape[2]) & (column >= 0) & (column < x.shape[3])
    mask = torch.where(inside, row * x.shape[3] + column, -1).to(x.dtype)
    return torch.where(inside, top, lowest), mask


def _largest(x: Tensor, count: int, axis: int) -> tuple[Tensor, Tensor]:
    """The helper of that name: ONNX's TopK also takes the first of equal values."""
    found = x.topk(count, axis)
    return found.values, found.indices


def _addcmul(g: Any, total: Any, a: Any, b: Any, value: Any = None) -> Any:
    """x + a * b: the exporter's own has a float32 factor in it, which makes float32 of all that follows."""
    product = g.op("Mul", a, b)
    if value is not None and float(symbolic_helper._parse_arg(value, "f")) != 1.0:
        raise NotImplementedError("addcmul with a factor")
    return g.op("Add", total, product)


@contextmanager
def _own_symbolics() -> Iterator[None]:
    torch.onnx.register_custom_op_symbolic("aten::addcmul", _addcmul, OPSET)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.onnx.unregister_custom_op_symbolic("aten::addcmul", OPSET)  # type: ignore[attr-defined]


_REPLACED = {
    "lrn": _lrn,
    "largest": _largest,
    "window_sums": _window_sums,
    "max_pool_with_mask": _max_pool_with_mask,
}
"""What stands for helpers of the source that the exporter cannot say, or says wrongly."""


def write_onnx(path: Path, source: Source, state: Mapping[str, Tensor], *, half: bool, pictures: bool) -> None:
    """An ``.onnx`` file of one piece, ends named as in the source; OutputError where torch cannot express it."""
    require_onnx()
    written = module(source, state, half=half, replaced=_REPLACED)
    net = Exported(written, half=half, pictures=pictures).eval()
    names, outputs, axes = _ends(source, pictures=pictures)
    with atomic_path(path) as temporary:
        try:
            with torch.no_grad(), warnings.catch_warnings(), redirect_stdout(io.StringIO()), _own_symbolics():
                warnings.simplefilter("ignore")
                torch.onnx.export(
                    net,
                    tuple(examples(source, blank_inputs(source), pictures=pictures)),
                    str(temporary),
                    input_names=names,
                    output_names=outputs,
                    dynamic_axes=axes,
                    opset_version=OPSET,
                    **(_BY_TRACING if _takes_dynamo() else {}),
                )
        except (RuntimeError, ValueError, TypeError, NotImplementedError, torch.onnx.errors.OnnxExporterError) as error:
            raise OutputError(f"torch.onnx cannot express the net: {first_line(error)}") from error


def _ends(source: Source, *, pictures: bool) -> tuple[list[str], list[str], dict[str, dict[int, str]]]:
    """Names of the inputs and outputs, and the names of their axes that may have any size."""
    names = input_names(source, pictures=pictures)
    outputs = [f"{name}_out" if name in names else name for name in source.results]
    dynamic = dynamic_axes(source, pictures=pictures)
    axes = {n: {a: str(d.__name__) for a, d in dims.items()} for n, dims in zip(names, dynamic, strict=True) if dims}
    if source.batch.free:
        axes |= {name: {0: "batch"} for name in outputs}
    return names, outputs, axes


def input_names(source: Source, *, pictures: bool) -> list[str]:
    """The names of the file's inputs; an input that nothing is computed of is not in the file."""
    return ["images"] if pictures else list(source.arguments)


def _takes_dynamo() -> bool:
    return "dynamo" in inspect.signature(torch.onnx.export).parameters


def require_onnx() -> None:
    """Raise MissingPackageError where the package is not there."""
    try:
        import onnx
    except ImportError as error:
        raise MissingPackageError(
            "ONNX needs the package onnx, which is not installed: pip install 'caffe2torch[convert]'"
        ) from error
    assert onnx


def check(path: Path, expected: list[Tensor], inputs: Mapping[str, Tensor]) -> Check | str:
    """How far the file is from the expected values on these inputs, by name; or why that is not known."""
    try:
        import onnxruntime
    except ImportError:
        return "onnxruntime is not installed"
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        found = session.run(None, {entry.name: np.asarray(inputs[entry.name]) for entry in session.get_inputs()})
    except Exception as error:  # onnxruntime's own classes, known only once it is imported
        raise Caffe2TorchError(f"{path}: onnxruntime cannot run it: {first_line(error)}") from error
    return compare(expected, [torch.from_numpy(value) for value in found])
