"""Losses of scores and labels besides SoftmaxWithLoss."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from caffe2torch.errors import LayerError
from caffe2torch.layers.gradient import clamped, with_gradient_of
from caffe2torch.layers.labels import labels_in_range
from caffe2torch.layers.loss import Loss, NormalizedLoss, check_labels, targets
from caffe2torch.layers.registry import Message, Shape, canonical_axis, enum_name, register

LOG_THRESHOLD = 1e-20
"""Caffe's least probability in these losses."""


class _ItemLoss(Loss):
    """A loss with one label for each item, whose values are its scores in C order."""

    no_gradient = (1,)

    @classmethod
    def check_items(cls, shapes: Sequence[Shape]) -> None:
        """Raise LayerError unless there is one label an item."""
        cls.check_batch(shapes)
        if math.prod(shapes[1]) != shapes[1][0]:
            raise LayerError(f"the labels have shape {shapes[1]}: expected one for each of the {shapes[1][0]} items")

    @staticmethod
    def columns(labels: Tensor) -> Tensor:
        """The labels as indices (N, 1)."""
        return labels.detach().reshape(-1, 1).long()


@register("HingeLoss")
class HingeLoss(_ItemLoss):
    """The sum of max(0, 1 + score) over all labels but the item's own, which counts as max(0, 1 - score), over N.

    L2 sums the squares.
    """

    def __init__(self, norm: str = "L1") -> None:
        super().__init__()
        self.norm = norm

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> HingeLoss:
        cls.check_items(bottom_shapes)
        return cls(enum_name(layer.hinge_loss_param, "norm"))

    @labels_in_range
    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        scores = x.reshape(x.shape[0], -1)
        sign = torch.ones_like(scores).scatter(1, self.columns(labels), -1.0)
        margins = F.relu(1.0 + scores * sign)
        return (margins.square() if self.norm == "L2" else margins).sum() / x.shape[0]

    def extra_repr(self) -> str:
        return self.norm


@register("MultinomialLogisticLoss")
class MultinomialLogisticLoss(_ItemLoss):
    """-log of the probability the bottom gives the item's label, the mean over N.

    Probabilities count as at least 1e-20, but smaller ones get the gradient of that limit, as in Caffe.
    """

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> MultinomialLogisticLoss:
        cls.check_items(bottom_shapes)
        return cls()

    @labels_in_range
    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        given = x.reshape(x.shape[0], -1).gather(1, self.columns(labels))
        limited = given.detach().clamp(min=LOG_THRESHOLD)
        return with_gradient_of(-limited.log(), -given / limited).sum() / x.shape[0]


@register("InfogainLoss")
class InfogainLoss(NormalizedLoss):
    """-sum over the labels l of H[label, l] * log(softmax probability of l), along ``axis``.

    The matrix H (labels x labels) is the third bottom, or comes from the file ``infogain_loss_param.source``. A second
    top gives the probabilities. They count as at least 1e-20, but the gradient stays probability * sum of H's row - H
    there, as in Caffe.
    """

    bottoms = (2, 3)
    tops = (1, 2)
    no_gradient = (1, 2)
    default_normalization = "VALID"
    matrix: Tensor | None

    def __init__(
        self,
        normalization: str | None = None,
        ignore_label: int | None = None,
        *,
        axis: int = 1,
        labels: int | None = None,
        probabilities: bool = False,
    ) -> None:
        """``labels`` is the size of the layer's own ``matrix``; None: the third bottom is the matrix."""
        super().__init__(normalization, ignore_label)
        self.axis, self.probabilities = axis, probabilities
        self.register_buffer("matrix", None if labels is None else torch.full((labels, labels), math.nan))

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> InfogainLoss:
        cls.check_batch(bottom_shapes[:2])
        p, scores = layer.infogain_loss_param, bottom_shapes[0]
        axis = canonical_axis(p.axis, scores, "infogain_loss_param.axis")
        check_labels(bottom_shapes[:2], axis)
        if layer.loss_param.HasField("normalize"):
            raise LayerError("loss_param.normalize is not for InfogainLoss: give normalization instead")
        labels = None if len(bottom_shapes) > 2 else scores[axis]
        made = cls(*cls.read(layer), axis=axis, labels=labels, probabilities=len(layer.top) > 1)
        if labels is not None:
            if not p.source:
                raise LayerError("there is no matrix: give infogain_loss_param.source, or a third bottom")
            made.files = {"matrix": p.source}
        elif math.prod(bottom_shapes[2]) != scores[axis] ** 2:
            raise LayerError(
                f"the matrix has shape {bottom_shapes[2]}: expected {scores[axis]} x {scores[axis]} values"
            )
        return made

    @labels_in_range
    def forward(self, x: Tensor, labels: Tensor, matrix: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        matrix = self.matrix if matrix is None else matrix
        assert matrix is not None
        target, kept = targets(x, labels, self.axis, self.ignore_label)
        table = matrix.detach().reshape(x.shape[self.axis], -1)
        rows = F.embedding(target.squeeze(self.axis), table).movedim(-1, self.axis)  # takes no label below 0
        log_probabilities = torch.log_softmax(x, self.axis)
        limited = clamped(log_probabilities, least=math.log(LOG_THRESHOLD))
        loss = -(rows * limited).sum(self.axis, keepdim=True)
        if kept is not None:
            loss = torch.where(kept, loss, 0.0)
        top = self.normalized(loss, kept, math.prod(x.shape[: self.axis]))
        return (top, log_probabilities.detach().exp()) if self.probabilities else top
