"""FlowNet's loss: L1Loss, by value or by the length of the flow's error."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from caffe2torch.errors import LayerError
from caffe2torch.layers.registry import Layer, Message, Shape, register


@register("L1Loss")
class L1Loss(Layer):
    """FlowNet's: sum |d| / N, where d is the difference of the bottoms or the only bottom, and NaNs of d count as 0.

    With ``l2_per_location`` the sum is over places, of sqrt(sum d^2 + epsilon), the inner one over channels (with
    ``l2_prescale_by_channels`` their mean). ``normalize_by_num_entries`` divides by the number of values of d that are
    not NaN over the channels instead of N. Values, or with l2_per_location roots, below ``plateau`` count as 0 and
    have no gradient (such places still give sqrt(epsilon)). Where d is 0, sum |d| has the gradient of -d.
    """

    loss = True
    bottoms = (1, 2)

    def __init__(
        self,
        *,
        per_location: bool = False,
        prescale: bool = False,
        by_entries: bool = False,
        epsilon: float = 1e-2,
        plateau: float = 0.0,
    ) -> None:
        super().__init__()
        self.per_location, self.prescale, self.by_entries = per_location, prescale, by_entries
        self.epsilon, self.plateau = epsilon, plateau

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> L1Loss:
        p = layer.l1_loss_param
        if any(len(shape) != 4 or shape != bottom_shapes[0] for shape in bottom_shapes):
            raise LayerError(
                f"the bottoms have shapes {', '.join(map(str, bottom_shapes))}: expected equal ones (N, C, H, W)"
            )
        return cls(
            per_location=p.l2_per_location,
            prescale=p.l2_prescale_by_channels,
            by_entries=p.normalize_by_num_entries,
            epsilon=p.epsilon,
            plateau=p.plateau,
        )

    def forward(self, x: Tensor, target: Tensor | None = None) -> Tensor:
        difference = x if target is None else x - target
        known = ~difference.isnan()
        count = known.sum().to(x.dtype) / x.shape[1] if self.by_entries else x.shape[0]
        difference = torch.where(known, difference, 0.0)
        if self.per_location:
            squares = difference.square()
            length = squares.mean(1) if self.prescale else squares.sum(1)
            if self.plateau > 0:
                length = torch.where(length < self.plateau**2, 0.0, length)
            return (length + self.epsilon).sqrt().sum() / count
        if self.plateau > 0:
            known = known & ~(difference.abs() < self.plateau)
        sign = torch.where(difference > 0, 1.0, -1.0).to(x.dtype)
        return torch.where(known, difference * sign, 0.0).sum() / count

    def extra_repr(self) -> str:
        return (
            f"per_location={self.per_location}, prescale={self.prescale}, by_entries={self.by_entries}, "
            f"epsilon={self.epsilon:g}, plateau={self.plateau:g}"
        )
