"""Accuracy and ArgMax: what a classifier's scores say."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from caffe2torch.errors import LayerError
from caffe2torch.layers.loss import check_labels, labels_in_range, targets
from caffe2torch.layers.registry import Layer, Message, Shape, canonical_axis, register


@register("Accuracy")
class Accuracy(Layer):
    """The share of labels whose score is among the ``top_k`` highest along ``axis``; passes no gradient.

    An equal score of another class counts as higher. A second top gives the share for each class (0: it never occurs).
    """

    bottoms = (2, 2)
    tops = (1, 2)
    no_gradient = (0, 1)

    def __init__(
        self, top_k: int = 1, *, axis: int = 1, ignore_label: int | None = None, per_class: bool = False
    ) -> None:
        super().__init__()
        self.top_k, self.axis, self.ignore_label, self.per_class = top_k, axis, ignore_label, per_class

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> Accuracy:
        p = layer.accuracy_param
        axis = canonical_axis(p.axis, bottom_shapes[0], "accuracy_param.axis")
        check_labels(bottom_shapes, axis)
        if not 1 <= p.top_k <= bottom_shapes[0][axis]:
            raise LayerError(f"top_k is {p.top_k}: expected 1 to {bottom_shapes[0][axis]}, the number of classes")
        ignored = p.ignore_label if p.HasField("ignore_label") else None
        return cls(p.top_k, axis=axis, ignore_label=ignored, per_class=len(layer.top) > 1)

    @labels_in_range
    def forward(self, x: Tensor, labels: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        scores = x.detach()
        target, kept = targets(scores, labels, self.axis, self.ignore_label)
        own = scores.gather(self.axis, target)
        rivals = (scores >= own).sum(self.axis, keepdim=True) - 1
        counted = torch.ones_like(own) if kept is None else kept.to(x.dtype)
        correct = (rivals < self.top_k).to(x.dtype) * counted
        overall = correct.sum() / counted.sum().clamp(min=1.0)
        if not self.per_class:
            return overall
        empty = scores.new_zeros(x.shape[self.axis])
        hits = empty.index_add(0, target.flatten(), correct.flatten())
        seen = empty.index_add(0, target.flatten(), counted.flatten())
        return overall, hits / seen.clamp(min=1.0)

    def extra_repr(self) -> str:
        return f"top_k={self.top_k}, axis={self.axis}, ignore_label={self.ignore_label}"


@register("ArgMax")
class ArgMax(Layer):
    """Indices (or values) of the ``top_k`` largest values; of equal ones the later index comes first.

    With ``axis`` along it, else over everything but the batch: (N, 1, top_k), and (N, 2, top_k) with indices and
    values where ``values`` is set.
    """

    no_gradient = (0,)

    def __init__(self, top_k: int = 1, *, axis: int | None = None, values: bool = False) -> None:
        super().__init__()
        self.top_k, self.axis, self.values = top_k, axis, values

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> ArgMax:
        p, shape = layer.argmax_param, bottom_shapes[0]
        axis = canonical_axis(p.axis, shape, "argmax_param.axis") if p.HasField("axis") else None
        candidates = math.prod(shape[1:]) if axis is None else shape[axis]
        if not 1 <= p.top_k <= candidates:
            raise LayerError(f"top_k is {p.top_k}: expected 1 to {candidates}")
        return cls(p.top_k, axis=axis, values=p.out_max_val)

    def forward(self, x: Tensor) -> Tensor:
        axis = 1 if self.axis is None else self.axis
        blob = x.detach().reshape(x.shape[0], -1) if self.axis is None else x.detach()
        values, places = _first_of_the_largest(blob.flip(axis), axis, self.top_k)
        indices = (blob.shape[axis] - 1 - places).to(x.dtype)
        if self.axis is not None:
            return values if self.values else indices
        top = torch.stack((indices, values), 1) if self.values else indices.unsqueeze(1)
        return top.reshape(*top.shape, *(1,) * (x.ndim - 3)) if x.ndim > 3 else top


def _first_of_the_largest(x: Tensor, axis: int, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` largest values, and where they are: of equal ones the earlier first, which topk does not say."""
    if count == 1:
        values, places = x.max(axis, keepdim=True)
        return values, places
    values, places = x.sort(dim=axis, descending=True, stable=True)
    return values.narrow(axis, 0, count), places.narrow(axis, 0, count)
