"""Accuracy, SegAccuracy and ArgMax: what a classifier's scores say."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from caffe2torch.errors import LayerError
from caffe2torch.layers.labels import labels_in_range
from caffe2torch.layers.loss import check_labels, targets
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


@register("SegAccuracy")
class SegAccuracy(Layer):
    """DeepLab's measures of a segmentation, (1, 1, 1, 3): accuracy, mean recall and mean Jaccard index; no gradient.

    They come from the confusion matrix of scores (N, C, H, W) and labels (N, 1, H, W), without the places whose label
    is in ``ignore_label`` (any number): the share of right places; the mean over the classes that occur of the share of
    their places that is right; the mean over all classes of right places over those that have the class as label or as
    prediction (1 for a class that neither has). Of equal scores the last counts as the prediction; PSPNet's layer of
    this name takes the first. ``reset: false`` adds up the matrices of all passes.
    """

    bottoms = (2, 2)
    no_gradient = (0, 1)
    axis = 1
    confusion: Tensor
    """Labels x predictions."""

    def __init__(self, classes: int, *, ignore_labels: Sequence[int] = (), reset: bool = True) -> None:
        super().__init__()
        self.ignore_labels, self.reset = tuple(ignore_labels), reset
        self.register_buffer("confusion", torch.zeros(classes, classes, dtype=torch.int64), persistent=False)

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> SegAccuracy:
        p = layer.seg_accuracy_param
        scores, labels = bottom_shapes
        if len(scores) != 4 or labels != (scores[0], 1, *scores[2:]):
            raise LayerError(f"the bottoms have shapes {scores} and {labels}: expected (N, C, H, W) and (N, 1, H, W)")
        if scores[1] < 2:
            raise LayerError(
                "the scores have one channel, which DeepLab and PSPNet take differently: expected 2 or more"
            )
        return cls(scores[1], ignore_labels=p.ignore_label, reset=p.reset)

    @labels_in_range
    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        classes = x.shape[1]
        prediction = classes - 1 - x.detach().flip(1).argmax(1)
        target = labels.detach().squeeze(1).long()
        kept = torch.ones_like(target)
        for ignored in self.ignore_labels:
            kept = kept * (target != ignored)
        places = torch.where(kept > 0, target * classes + prediction, 0).flatten()
        matrix = kept.new_zeros(classes * classes).index_add(0, places, kept.flatten()).view(classes, classes)
        if not self.reset:
            matrix = matrix + self.confusion
            self.confusion.copy_(matrix)
        return _measures(matrix.double()).to(x.dtype).view(1, 1, 1, 3)

    def extra_repr(self) -> str:
        return f"{len(self.confusion)}, ignore_labels={self.ignore_labels}, reset={self.reset}"


def _measures(confusion: Tensor) -> Tensor:
    """Accuracy, mean recall and mean Jaccard index of a confusion matrix; the first two of an empty one are 0."""
    right, labels, predictions = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    accuracy = right.sum() / confusion.sum().clamp(min=1.0)
    recall = (right / labels.clamp(min=1.0)).sum() / labels.count_nonzero().clamp(min=1)
    either = labels + predictions - right
    jaccard = torch.where(right == either, 1.0, right / either.clamp(min=1.0)).mean()
    return torch.stack((accuracy, recall, jaccard))


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
