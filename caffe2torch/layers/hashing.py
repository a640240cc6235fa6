"""The multi-label layers of the deep hashing fork (SSDH): labels are 1 (has it), -1 (has it not) and 0 (unknown)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from caffe2torch.errors import LayerError
from caffe2torch.layers.loss import Loss
from caffe2torch.layers.registry import Layer, Message, Shape, register


class _MultiLabelLoss(Loss):
    """A loss of scores and labels of the same shape, summed over the known labels and divided by the batch size."""

    no_gradient = (1,)

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> _MultiLabelLoss:
        check_same(bottom_shapes)
        return cls()


@register("MultiLabelSigmoidLoss")
class MultiLabelSigmoidLoss(_MultiLabelLoss):
    """Cross entropy of sigmoid(x) with the signs of the labels (1: positive, 0: negative); label 0 counts nothing."""

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        label = labels.detach().reshape(x.shape)
        loss = F.binary_cross_entropy_with_logits(x, (label > 0).to(x.dtype), reduction="none")
        return torch.where(label != 0, loss, 0.0).sum() / x.shape[0]


@register("MultiLabelL2SVMLoss")
class MultiLabelL2SVMLoss(_MultiLabelLoss):
    """Half the squared hinge max(1 - x sign(label), 0)^2; label 0 counts nothing."""

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        sign = labels.detach().reshape(x.shape).sign()
        loss = (1.0 - x * sign).clamp(min=0.0).square()
        return torch.where(sign != 0, loss, 0.0).sum() / (2 * x.shape[0])


@register("MultiLabelAccuracy")
class MultiLabelAccuracy(Layer):
    """Five figures of scores against labels, of shape (1, 5, 1, 1); a score of 0 or more is a yes.

    Sensitivity, specificity, their harmonic mean, precision, F1. Labels are cut to whole numbers first. As in the
    fork, the harmonic mean is not a number where one kind of label does not occur, unless neither does.
    """

    bottoms = (2, 2)
    no_gradient = (0, 1)

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> MultiLabelAccuracy:
        check_same(bottom_shapes)
        return cls()

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        label, yes = labels.detach().reshape(x.shape).trunc(), x.detach() >= 0
        no = x.detach() < 0  # not the contrary of yes: neither holds for a score that is not a number
        positives, true_positives, false_negatives = (
            (kind & (label > 0)).sum().to(x.dtype) for kind in (torch.ones_like(yes), yes, no)
        )
        negatives, true_negatives, false_positives = (
            (kind & (label < 0)).sum().to(x.dtype) for kind in (torch.ones_like(yes), no, yes)
        )
        mean = 2.0 / (positives / true_positives + negatives / true_negatives)
        figures = (
            true_positives / positives.clamp(min=1.0),
            true_negatives / negatives.clamp(min=1.0),
            torch.where(positives + negatives > 0, mean, 0.0),
            torch.where(true_positives > 0, true_positives / (true_positives + false_positives), 0.0),
            torch.where(
                true_positives > 0, 2 * true_positives / (2 * true_positives + false_positives + false_negatives), 0.0
            ),
        )
        return torch.stack(figures).reshape(1, 5, 1, 1)


def check_same(shapes: Sequence[Shape]) -> None:
    """Raise LayerError unless both bottoms have the same shape, but for trailing ones."""
    a, b = (tuple(shape) + (1,) * (4 - len(shape)) for shape in shapes)
    if a != b or not shapes[0]:
        raise LayerError(f"the bottoms have shapes {shapes[0]} and {shapes[1]}: expected a label for each score")
