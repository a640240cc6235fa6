"""FocalLoss: the softmax loss, with less weight for what is already right."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from caffe2torch.errors import LayerError
from caffe2torch.layers.gradient import with_gradient_of
from caffe2torch.layers.labels import labels_in_range
from caffe2torch.layers.loss import FLT_MIN, NormalizedLoss, check_labels, targets
from caffe2torch.layers.registry import Message, Shape, canonical_axis, refuse, register


@register("FocalLoss")
class FocalLoss(NormalizedLoss):
    """-alpha (1 - p)^gamma log p, p the softmax probability of the label; a second top gives the probabilities.

    Along the ``axis`` of ``softmax_param``; normalized as SoftmaxWithLoss is. In log p, a p below FLT_MIN counts as
    FLT_MIN, but the gradient is that of log p itself.

    This is the rule that several public forks share (zimenglan-sysu-512's Focal-Loss, as it last was, and those of
    MobileNet-SSD and of caffe-tea). Others have a FocalLoss of sigmoids, with a label for every score, and its rules
    differ from each other: that is refused, and so is the ``type`` LINEAR, which no fork has been seen to compute.
    ``alpha`` must be given, as the forks' defaults differ.
    """

    tops = (1, 2)
    default_normalization = "VALID"

    def __init__(
        self,
        normalization: str | None = None,
        ignore_label: int | None = None,
        *,
        alpha: float,
        gamma: float = 2.0,
        axis: int = 1,
        probabilities: bool = False,
    ) -> None:
        super().__init__(normalization, ignore_label)
        if not (alpha > 0 and gamma >= 0):
            raise LayerError(f"alpha is {alpha:g} and gamma {gamma:g}: expected alpha above 0, and gamma not below 0")
        self.alpha, self.gamma, self.axis, self.probabilities = alpha, gamma, axis, probabilities

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> FocalLoss:
        cls.check_batch(bottom_shapes)
        p, (scores, labels) = layer.focal_loss_param, bottom_shapes
        refuse(p, "type", "beta")
        axis = canonical_axis(layer.softmax_param.axis, scores, "softmax_param.axis")
        if math.prod(scores) == math.prod(labels):
            raise LayerError(
                f"the bottoms have shapes {scores} and {labels}, a label for each score: a FocalLoss of sigmoids, of "
                "which every fork has its own rule, is not supported; register a class of your own for the layer"
            )
        if not p.HasField("alpha"):
            raise LayerError("focal_loss_param has no alpha, which is 0.25, 0.75 or 1 by default in the forks: give it")
        check_labels(bottom_shapes, axis)
        return cls(*cls.read(layer), alpha=p.alpha, gamma=p.gamma, axis=axis, probabilities=len(layer.top) > 1)

    @labels_in_range
    def forward(self, x: Tensor, labels: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        index, kept = targets(x, labels, self.axis, self.ignore_label)
        rows = torch.log_softmax(x, self.axis)
        log_p = rows.gather(self.axis, index)
        p, limited = log_p.detach().exp(), log_p.detach().clamp(min=math.log(FLT_MIN))
        factor = self.alpha * (1 - p) ** self.gamma
        least = max(1e-10, torch.finfo(x.dtype).tiny)  # in half precision 1e-10 is 0, as 1 - p often is
        slope = factor - self.gamma * factor / (1 - p).clamp(min=least) * p * limited
        losses = with_gradient_of(-factor * limited, -log_p * slope)
        if kept is not None:
            losses = torch.where(kept, losses, 0.0)
        top = self.normalized(losses, kept, math.prod(x.shape[: self.axis]))
        return (top, rows.detach().exp()) if self.probabilities else top

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, alpha={self.alpha:g}, gamma={self.gamma:g}, axis={self.axis}"
