"""CenterLoss: how far items are from the center of their class, which is learned with them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from caffe2torch.errors import LayerError
from caffe2torch.fillers import fill
from caffe2torch.layers.gradient import with_own_gradient
from caffe2torch.layers.labels import labels_in_range
from caffe2torch.layers.loss import Loss
from caffe2torch.layers.registry import Message, Shape, canonical_axis, parameter, register


@register("CenterLoss")
class CenterLoss(Loss):
    """caffe-face's sum of |x - center of its label|^2 over 2 N, N the batch size.

    Unlike other losses it has no weight unless ``loss_weight`` gives one. The blob holds the centers,
    (``num_output``, inputs). Their gradient, for a class with n of the items, is the sum of (center - x) over these
    items, over n + 1: whatever the gradient of the loss is, so that ``loss_weight`` does not change it.

    The gradients of several passes (``iter_size``) add up, as on the fork's CPU; on its GPU the last one counts.
    """

    loss = False  # the fork's setup does not give it the weight of 1
    blobs = ("centers",)
    no_gradient = (1,)

    def __init__(self, in_features: int, num_output: int) -> None:
        super().__init__()
        if num_output < 1 or in_features < 1:
            raise LayerError(f"{in_features} inputs and num_output {num_output}: expected at least 1 of each")
        self.classes = num_output
        self.centers = parameter((num_output, in_features))

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> CenterLoss:
        p, (items, labels) = layer.center_loss_param, bottom_shapes
        cls.check_batch(bottom_shapes)
        if len(items) > 4 or len(labels) > 4 or math.prod(labels) != labels[0]:
            raise LayerError(
                f"the bottoms have shapes {items} and {labels}: expected at most 4 axes and one label an item"
            )
        inputs = math.prod(items[canonical_axis(p.axis, items, "center_loss_param.axis") :])
        if items[0] * inputs != math.prod(items):
            raise LayerError(
                f"axis {p.axis} of items {items} gives {inputs} values to each of the {items[0]} items, which do not "
                "hold as many: expected axis 1"
            )
        return cls(inputs, p.num_output)

    def fill(self, layer: Message, generator: torch.Generator | None = None) -> None:
        fill(self.centers, layer.center_loss_param.center_filler, generator=generator)

    @labels_in_range
    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        index, centers = labels.detach().reshape(-1).long(), self.centers.detach()
        away = x.reshape(x.shape[0], -1) - centers.index_select(0, index)
        loss = away.square().sum() / (2 * x.shape[0])
        sums = torch.zeros_like(centers).index_add(0, index, -away.detach())
        items = sums.new_zeros(self.classes).index_add(0, index, sums.new_ones(x.shape[0]))
        return with_own_gradient(loss, self.centers, sums / (items + 1).unsqueeze(1))

    def extra_repr(self) -> str:
        return f"{tuple(self.centers.shape)}"
