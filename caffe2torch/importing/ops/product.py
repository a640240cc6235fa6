"""Products with constant matrices: InnerProduct."""

from __future__ import annotations

from typing import Any

from caffe2torch.importing.builder import Builder
from caffe2torch.importing.ops.shape import reshape
from caffe2torch.importing.registry import converts
from caffe2torch.importing.values import Operand, Refused, Value, blob_of, constant


@converts("linear")
def linear(net: Builder, input: Operand, weight: Operand, bias: Operand | None = None) -> Value:
    return _product(net, blob_of(input), constant(weight, "weight"), bias, transpose=False)


@converts("matmul", "mm", "__matmul__")
def matmul(net: Builder, input: Operand, other: Operand) -> Value:
    if not isinstance(input, Value):
        raise Refused("a constant stands before the blob; Caffe's InnerProduct multiplies a blob by a constant")
    if isinstance(other, Value):
        raise Refused("it multiplies two matrices that both depend on the input; Caffe has no layer for that")
    matrix = constant(other, "other")
    if matrix.ndim == 1:
        column = _product(net, input, net.reshaped(matrix, (-1, 1)), None, transpose=True, part="column")
        return reshape(net, column, input.shape[:-1])
    if matrix.ndim != 2:
        raise Refused(f"its constant has shape {tuple(matrix.shape)}; Caffe's InnerProduct takes a matrix")
    return _product(net, input, matrix, None, transpose=True)


@converts("addmm")
def addmm(
    net: Builder, input: Operand, mat1: Operand, mat2: Operand, *, beta: float = 1.0, alpha: float = 1.0
) -> Value:
    bias = constant(input, "input")
    if (beta, alpha) != (1, 1) or bias.ndim != 1:
        raise Refused(f"beta {beta}, alpha {alpha} and a bias of shape {tuple(bias.shape)}; expected 1, 1 and a vector")
    return _product(net, blob_of(mat1, "mat1"), constant(mat2, "mat2"), bias, transpose=True)


def _product(net: Builder, x: Value, weight: Any, bias: Operand | None, *, transpose: bool, part: str = "") -> Value:
    if weight.ndim != 2:
        raise Refused(f"its weight has shape {tuple(weight.shape)}; expected a matrix")
    count = weight.shape[1 if transpose else 0]
    axis = len(x.shape) - 1
    settings: dict[str, Any] = {"num_output": count}
    if bias is None:
        settings["bias_term"] = False
    if axis != 1:
        settings["axis"] = axis
    if transpose:
        settings["transpose"] = True
    blobs = [weight]
    if bias is not None:
        given = constant(bias, "bias")
        blobs.append(given if tuple(given.shape) == (count,) else given.detach().expand(count).contiguous())
    return net.add("InnerProduct", [x], (*x.shape[:-1], count), part=part, blobs=blobs, inner_product_param=settings)
