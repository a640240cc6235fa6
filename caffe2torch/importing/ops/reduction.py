"""Sums, means, maxima and lengths over some of the axes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from caffe2torch.importing.builder import Builder
from caffe2torch.importing.lrn import channel_sums
from caffe2torch.importing.ops.activation import power
from caffe2torch.importing.ops.pooling import global_pooling
from caffe2torch.importing.ops.shape import permute, reshape, spans
from caffe2torch.importing.registry import converts
from caffe2torch.importing.values import PENDING, Operand, Refused, Value, axis_of, blob_of


def reduced(net: Builder, x: Value, operation: str, axis: int, *, part: str = "") -> Value:
    """Reduction over the axes from ``axis`` on."""
    settings: dict[str, Any] = {"operation": operation} if operation != "SUM" else {}
    if axis:
        settings["axis"] = axis
    return net.add("Reduction", [x], x.shape[:axis], part=part, reduction_param=settings)


def _axes(x: Value, dim: Any) -> tuple[int, ...]:
    if dim is None or dim == () or dim == []:
        return tuple(range(len(x.shape)))
    return tuple(sorted(axis_of(d, len(x.shape)) for d in ((dim,) if isinstance(dim, int) else dim)))


def over(net: Builder, x: Value, operation: str, dim: Any, *, keepdim: bool, root: bool = False) -> Value:
    """A Reduction over any axes: they are moved to the end where they are not there; ``root`` takes the square root."""
    axes = _axes(x, dim)
    if not axes:
        raise Refused("its input is a single number")
    rest = [axis for axis in range(len(x.shape)) if axis not in axes]
    shape = tuple(1 if a in axes else n for a, n in enumerate(x.shape)) if keepdim else tuple(x.shape[a] for a in rest)
    moved = x if spans(x.shape, axes) else permute(net, x, (*rest, *axes), part="last")
    again = shape != tuple(x.shape[a] for a in rest)
    if again and not rest:
        raise Refused(f"it reduces {x.shape} to one number and keeps its axes; leave keepdim away")
    top = reduced(net, moved, operation, len(rest), part="sum" if root else "reduced" if again else "")
    if root:
        top = power(net, top, power=0.5, part="length" if again else "")
    return reshape(net, top, shape)


@converts("mean")
def mean(net: Builder, input: Operand, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Value:
    """Over the plane of (N, C, H, W) as global pooling, which every runtime knows; otherwise a Reduction."""
    x = blob_of(input)
    return _plane(net, x, "AVE", dim, keepdim=keepdim) or over(net, x, "MEAN", dim, keepdim=keepdim)


@converts("amax")
def amax(net: Builder, input: Operand, dim: Any = (), keepdim: bool = False) -> Value:
    x = blob_of(input)
    top = _plane(net, x, "MAX", dim, keepdim=keepdim)
    if top is None:
        raise Refused(f"it takes the maximum over the axes {dim} of {x.shape}; Caffe does over the plane (2, 3) only")
    return top


def _plane(net: Builder, x: Value, method: str, dim: Any, *, keepdim: bool) -> Value | None:
    if len(x.shape) != 4 or _axes(x, dim) != (2, 3):
        return None
    top = global_pooling(net, x, method, part="" if keepdim else "pool")
    return top if keepdim else reshape(net, top, x.shape[:2])


@converts("sum", takes=("windows",))
def total(net: Builder, input: Operand, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Value:
    x = blob_of(input)
    if not x.pending:
        return over(net, x, "SUM", dim, keepdim=keepdim)
    if _axes(x, dim) != (len(x.shape) - 1,) or keepdim:
        raise Refused(PENDING[x.pending])
    return channel_sums(net, replace(x, shape=x.shape[:-1], pending="", amounts=()), x.amounts[0])


@converts("norm")
def norm(
    net: Builder,
    input: Operand,
    p: Any = "fro",
    dim: Any = None,
    keepdim: bool = False,
    out: Any = None,
    dtype: Any = None,
) -> Value:
    return vector_norm(net, input, 2 if p in (None, "fro") else p, dim, keepdim)


@converts("linalg_vector_norm")
def vector_norm(
    net: Builder,
    x: Operand,
    ord: Any = 2,
    dim: Any = None,
    keepdim: bool = False,
    *,
    dtype: Any = None,
    out: Any = None,
) -> Value:
    value = blob_of(x)
    if ord not in (1, 2):
        raise Refused(f"it is of order {ord}; only lengths of order 1 and 2 are converted")
    return over(net, value, "ASUM" if ord == 1 else "SUMSQ", dim, keepdim=keepdim, root=ord == 2)
