"""Losses; each returns its unweighted value as a scalar, ``loss_weight`` belongs to the net."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from caffe2torch.errors import LayerError
from caffe2torch.layers.gradient import clamped, with_gradient_of
from caffe2torch.layers.labels import labels_in_range
from caffe2torch.layers.registry import Layer, Message, Shape, canonical_axis, enum_name, refuse, register

NO_LABEL = -(2**40) - 1
"""A label to ignore that float32 cannot hold: torch's own choice, -100, would pass unnoticed."""

FLT_MIN = torch.finfo(torch.float32).tiny


class Loss(Layer):
    """A loss of two bottoms with equal first dimension."""

    loss = True
    bottoms = (2, 2)

    @classmethod
    def check_batch(cls, shapes: Sequence[Shape]) -> None:
        """Raise LayerError unless all bottoms have the same first dimension."""
        if any(not shape or shape[0] != shapes[0][0] for shape in shapes):
            raise LayerError(f"the bottoms have shapes {', '.join(map(str, shapes))}: expected equal first dimensions")


class NormalizedLoss(Loss):
    """A loss with ``loss_param``: values to ignore, and what the sum is divided by (at least 1).

    FULL: all values; VALID: those not ignored; BATCH_SIZE: the items; NONE: 1.
    """

    no_gradient: tuple[int, ...] = (1,)
    default_normalization: ClassVar[str]

    def __init__(self, normalization: str | None = None, ignore_label: int | None = None) -> None:
        super().__init__()
        self.normalization = normalization or self.default_normalization
        self.ignore_label = ignore_label

    @classmethod
    def read(cls, layer: Message) -> tuple[str, int | None]:
        """Normalization and ignored label of a ``LossParameter``; ``normalize`` is its older form."""
        p = layer.loss_param
        cls.refuse_weights(p)
        if p.HasField("normalization"):
            normalization = enum_name(p, "normalization")
        elif p.HasField("normalize"):
            normalization = "VALID" if p.normalize else "BATCH_SIZE"
        else:
            normalization = cls.default_normalization
        return normalization, p.ignore_label if p.HasField("ignore_label") else None

    @classmethod
    def refuse_weights(cls, p: Message) -> None:
        """Raise LayerError for weights of the classes: SegNet has them for SoftmaxWithLoss alone."""
        refuse(p, "weight_by_label_freqs", "class_weighting")

    def normalized(self, losses: Tensor, kept: Tensor | None, items: int) -> Tensor:
        """The sum of ``losses`` (zero where not ``kept``) over the divisor; ``items`` is the batch size."""
        return losses.sum() / self.divisor(kept, losses.numel(), items)

    def divisor(self, kept: Tensor | None, values: int, items: int) -> Tensor | int:
        """What the sum of ``values`` losses, or of those ``kept``, is divided by."""
        if self.normalization == "VALID" and kept is not None:
            return kept.count_nonzero().clamp(min=1)
        return {"FULL": values, "VALID": values, "BATCH_SIZE": items, "NONE": 1}[self.normalization]

    def extra_repr(self) -> str:
        ignored = "" if self.ignore_label is None else f", ignore_label={self.ignore_label}"
        return self.normalization + ignored


@register("SoftmaxWithLoss")
class SoftmaxWithLoss(NormalizedLoss):
    """-log of the softmax probability of the label, along ``axis``; a second top gives the probabilities.

    Probabilities count as at least FLT_MIN, but the gradient stays probability - one-hot there, as in Caffe.

    ``weight_by_label_freqs`` (SegNet) multiplies the loss of each place, and its gradient, by ``class_weighting`` of
    the label; what the sum is divided by does not change. Without it ``class_weighting`` does nothing, as in SegNet.
    """

    tops = (1, 2)
    default_normalization = "VALID"
    class_weights: Tensor | None

    def __init__(
        self,
        normalization: str | None = None,
        ignore_label: int | None = None,
        *,
        axis: int = 1,
        probabilities: bool = False,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(normalization, ignore_label)
        self.axis, self.probabilities = axis, probabilities
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> SoftmaxWithLoss:
        cls.check_batch(bottom_shapes)
        axis = canonical_axis(layer.softmax_param.axis, bottom_shapes[0], "softmax_param.axis")
        check_labels(bottom_shapes, axis)
        weights = _class_weights(layer.loss_param, bottom_shapes[0], axis)
        return cls(*cls.read(layer), axis=axis, probabilities=len(layer.top) > 1, class_weights=weights)

    @classmethod
    def refuse_weights(cls, p: Message) -> None:
        """Nothing: they are supported here."""

    @labels_in_range
    def forward(self, x: Tensor, labels: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        target, shape = labels.long(), x.shape[: self.axis] + x.shape[self.axis + 1 :]
        rows = torch.log_softmax(x, self.axis)
        probabilities = rows.detach().exp() if self.probabilities else None
        if self.axis != 1:  # torch has the classes there
            rows = rows.flatten(0, self.axis - 1) if self.axis else rows.unsqueeze(0)
            shape = rows.shape[:1] + rows.shape[2:]
        if target.shape != shape:
            target = target.reshape(shape)
        ignored = NO_LABEL if self.ignore_label is None else self.ignore_label
        losses = _limited(F.nll_loss(rows, target, reduction="none", ignore_index=ignored))
        kept = None if self.ignore_label is None else target != self.ignore_label
        if self.class_weights is not None:
            losses = losses * self.class_weights[target if kept is None else torch.where(kept, target, 0)]
        top = self.normalized(losses, kept, math.prod(x.shape[: self.axis]))
        return top if probabilities is None else (top, probabilities)


def _class_weights(p: Message, shape: Shape, axis: int) -> list[float] | None:
    """SegNet's weight of each class, or None."""
    if not p.weight_by_label_freqs:
        return None
    if axis != 1 or len(p.class_weighting) != shape[1]:
        raise LayerError(
            f"weight_by_label_freqs with {len(p.class_weighting)} class_weighting and scores {shape}, classes on axis "
            f"{axis}: expected the classes on axis 1 and one class_weighting for each of them"
        )
    return list(p.class_weighting)


def _limited(losses: Tensor) -> Tensor:
    """nll_loss's result, no value above -log(FLT_MIN); the gradient as if it were not so.

    It is written over: nll_loss's backward does not read it.
    """
    most = -math.log(FLT_MIN)
    if torch.compiler.is_compiling():  # a compiled graph would lose the gradient of what is changed without one
        return clamped(losses, most=most)
    (losses.data if losses.requires_grad else losses).clamp_(max=most)
    return losses


@register("SigmoidCrossEntropyLoss")
class SigmoidCrossEntropyLoss(NormalizedLoss):
    """Cross entropy of sigmoid(x) and targets between 0 and 1; a target whose integer part is the label is ignored."""

    default_normalization = "BATCH_SIZE"

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> SigmoidCrossEntropyLoss:
        cls.check_batch(bottom_shapes)
        check_counts(bottom_shapes)
        return cls(*cls.read(layer))

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        target = target.detach().reshape(x.shape).to(x.dtype)
        loss = F.binary_cross_entropy_with_logits(x, target, reduction="none")
        kept = None
        if self.ignore_label is not None:
            kept = target.trunc() != self.ignore_label
            loss = torch.where(kept, loss, 0.0)
        return self.normalized(loss, kept, x.shape[0])


@register("EuclideanLoss")
class EuclideanLoss(Loss):
    """Sum of squared differences over 2 N, N the batch size; both bottoms get gradients."""

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> EuclideanLoss:
        cls.check_batch(bottom_shapes)
        check_counts(bottom_shapes)
        return cls()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        difference = a - b.reshape(a.shape)
        return difference.square().sum() / (2 * a.shape[0])


class _HalfwayLoss(Loss):
    """sign * sum((a - 0.5)^2) / (2 count): how far sigmoid outputs are from 0.5.

    The second bottom is a formality, yet its gradient equals the first's: reading one blob twice without
    ``propagate_down: false`` doubles it.
    """

    sign: ClassVar[float]

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> _HalfwayLoss:
        cls.check_batch(bottom_shapes)
        check_counts(bottom_shapes)
        return cls()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        distance = a - 0.5
        share = self.sign / a.numel()
        loss = distance.square().sum() * (share / 2)
        again = (distance.detach() * b.reshape(a.shape)).sum() * share
        return loss + (again - again.detach())


@register("K1_EuclideanLoss")
class K1EuclideanLoss(_HalfwayLoss):
    """SSDH's first loss: pushes every bit away from 0.5."""

    sign = -1.0


@register("K2_EuclideanLoss")
class K2EuclideanLoss(_HalfwayLoss):
    """SSDH's second loss: pulls the mean of the bits of an item to 0.5."""

    sign = 1.0


@register("ContrastiveLoss")
class ContrastiveLoss(Loss):
    """Similar pairs (label not 0): d^2; others: max(margin - d, 0)^2; summed over 2 N.

    ``legacy``: max(margin - d^2, 0) for the others, as Caffe had it at first. Caffe's gradient divides by d + 1e-4.
    """

    bottoms = (3, 3)
    no_gradient = (2,)

    def __init__(self, margin: float = 1.0, *, legacy: bool = False) -> None:
        super().__init__()
        self.margin, self.legacy = margin, legacy

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> ContrastiveLoss:
        cls.check_batch(bottom_shapes)
        a, b, labels = bottom_shapes
        if len(a) < 2 or a[:2] != b[:2] or any(d != 1 for d in (*a[2:], *b[2:], *labels[1:])):
            raise LayerError(f"the bottoms have shapes {a}, {b}, {labels}: expected (N, C), (N, C) and N labels")
        p = layer.contrastive_loss_param
        return cls(p.margin, legacy=p.legacy_version)

    def forward(self, a: Tensor, b: Tensor, similar: Tensor) -> Tensor:
        squared = (a.flatten(1) - b.flatten(1)).square().sum(1)
        if self.legacy:
            apart = F.relu(self.margin - squared)  # clamp would pass the gradient at 0
        else:
            distance = squared.detach().sqrt()
            gap = (self.margin - distance).clamp(min=0.0)
            apart = with_gradient_of(gap.square(), squared * (-gap / (distance + 1e-4)))
        loss = torch.where(similar.detach().reshape(-1).trunc() != 0, squared, apart)
        return loss.sum() / (2 * a.shape[0])

    def extra_repr(self) -> str:
        return f"margin={self.margin:g}, legacy={self.legacy}"


def check_counts(shapes: Sequence[Shape]) -> None:
    """Raise LayerError unless both bottoms have the same number of values."""
    if math.prod(shapes[0]) != math.prod(shapes[1]):
        raise LayerError(f"the bottoms have shapes {shapes[0]} and {shapes[1]}: expected equally many values")


def check_labels(shapes: Sequence[Shape], axis: int) -> None:
    """Raise LayerError unless the second bottom has one label for each place of the first beside ``axis``."""
    scores, labels = shapes
    places = scores[:axis] + scores[axis + 1 :]
    if math.prod(labels) != math.prod(places):
        raise LayerError(
            f"scores {scores} with classes on axis {axis} need {math.prod(places)} labels, found {labels}: "
            "give one label for each place"
        )


def targets(x: Tensor, labels: Tensor, axis: int, ignore_label: int | None) -> tuple[Tensor, Tensor | None]:
    """Labels as indices along ``axis`` (ignored ones 0), and where they are kept (None: everywhere)."""
    index = labels.detach().reshape(*x.shape[:axis], 1, *x.shape[axis + 1 :]).long()
    if ignore_label is None:
        return index, None
    kept = index != ignore_label
    return torch.where(kept, index, 0), kept
