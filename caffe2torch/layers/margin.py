"""InnerProduct layers that make the score of an item's own label harder to reach."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from caffe2torch.errors import LayerError
from caffe2torch.fillers import fill
from caffe2torch.layers.gradient import with_gradient_of, with_slopes
from caffe2torch.layers.inner_product import flattened
from caffe2torch.layers.labels import labels_in_range
from caffe2torch.layers.registry import Layer, Message, Shape, canonical_axis, parameter, register

EPSILON = 1e-9
"""What the fork of L-Softmax adds to the lengths that it divides by."""


class _Margin(Layer):
    """Scores x w^T of items of which that of the item's label is another; and lambda, (1).

    Lambda falls with every pass, in both phases; the passes are counted and not stored.
    """

    bottoms = (2, 2)
    tops = (2, 2)
    blobs = ("weight",)
    no_gradient = (1,)
    iteration: Tensor

    def __init__(
        self,
        in_features: int,
        num_output: int,
        *,
        margin: int = 1,
        axis: int = 1,
        base: float = 1.0,
        gamma: float = 0.0,
        power: float = 1.0,
        lambda_min: float = 0.0,
        iteration: int = 0,
    ) -> None:
        super().__init__()
        if num_output < 1 or in_features < 1:
            raise LayerError(f"{in_features} inputs and num_output {num_output}: expected at least 1 of each")
        self.margin, self.axis = margin, axis
        self.base, self.gamma, self.power, self.lambda_min = base, gamma, power, lambda_min
        self.classes = num_output
        self.weight = parameter((num_output, in_features))
        self.register_buffer("iteration", torch.tensor([iteration]), persistent=False)

    @classmethod
    def settings(cls, layer: Message) -> Message:
        """The layer's own message."""
        raise NotImplementedError

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> _Margin:
        p, (items, labels) = cls.settings(layer), bottom_shapes
        axis = canonical_axis(p.axis, items, f"{p.DESCRIPTOR.name}.axis")
        if len(items) > 4 or items[:1] != labels[:1] or math.prod(items[:axis]) != math.prod(labels):
            raise LayerError(
                f"the bottoms have shapes {items} and {labels}: expected at most 4 axes, equal first dimensions and "
                f"{math.prod(items[:axis])} labels, one for each item before axis {axis}"
            )
        return cls(
            math.prod(items[axis:]),
            p.num_output,
            margin=p.type + 1,
            axis=axis,
            base=p.base,
            gamma=p.gamma,
            power=p.power,
            lambda_min=p.lambda_min,
            iteration=p.iteration,
        )

    def fill(self, layer: Message, generator: torch.Generator | None = None) -> None:
        fill(self.weight, self.settings(layer).weight_filler, generator=generator)

    @labels_in_range
    def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        x = flattened(self, x, self.axis, self.weight.shape[1])
        with torch.no_grad():
            self.iteration.add_(1)
        weight = self.weights()
        scores, strength = F.linear(x, weight), self._lambda(x)
        if self.margin > 1:
            columns = labels.detach().reshape(*x.shape[:-1], 1).long()
            own = self.own_score(x, weight[columns.squeeze(-1)], scores.gather(-1, columns), strength)
            scores = scores.scatter(-1, columns, own.to(scores.dtype))  # autocast has the product in another one
        return scores, strength

    def weights(self) -> Tensor:
        """The weights of this pass."""
        return self.weight

    def own_score(self, x: Tensor, weight: Tensor, score: Tensor, strength: Tensor) -> Tensor:
        """The scores (..., 1) of the labels in place of ``score`` = x w, where w is ``weight`` (..., inputs)."""
        raise NotImplementedError

    def _lambda(self, x: Tensor) -> Tensor:
        passes = self.iteration.to(torch.promote_types(x.dtype, torch.float32))
        strength = self.base * (1.0 + self.gamma * passes) ** -self.power
        return strength.clamp(min=self.lambda_min).to(x.dtype)

    def extra_repr(self) -> str:
        return (
            f"{tuple(self.weight.shape)}, margin={self.margin}, axis={self.axis}, base={self.base:g}, "
            f"gamma={self.gamma:g}, power={self.power:g}, lambda_min={self.lambda_min:g}"
        )


@register("MarginInnerProduct")
class MarginInnerProduct(_Margin):
    """SphereFace's scores x w^T, with w of length 1, and a margin for the label; then lambda, (1).

    Bottoms: items as for InnerProduct, and a label for each. With c = cos(x, w) the label's score x w becomes
    (|x| psi(c) + lambda x w) / (1 + lambda), where psi(c) = (-1)^k cos(m theta) - 2 k falls from 1 to 1 - 2 m: the
    ``type`` SINGLE is m = 1, which leaves it as it is, DOUBLE m = 2, TRIPLE m = 3, QUADRUPLE m = 4.

    Lambda is ``base`` (1 + ``gamma`` i)^-``power``, at least ``lambda_min``; i is ``iteration`` and one more with every
    pass, in both phases, and is not stored. Every pass, in both phases, also gives the stored weights length 1.

    The gradients are the fork's. The weights' is that of x w^T, for the label too. The bottom's has, in place of the
    derivative psi' w + (psi - c psi') / |x| x of |x| psi(c), that with its two factors divided by their length.
    Not captured by torch.export because every pass changes its weights, which not every torch can capture.
    """

    @classmethod
    def settings(cls, layer: Message) -> Message:
        return layer.margin_inner_product_param

    def weights(self) -> Tensor:
        with torch.no_grad():
            self.weight.mul_(self.weight.square().sum(1, keepdim=True).sqrt().reciprocal())
        return self.weight.clone()  # the next pass changes the parameter, maybe before this one's backward

    def own_score(self, x: Tensor, weight: Tensor, score: Tensor, strength: Tensor) -> Tensor:
        items, share = x.detach(), (1.0 + strength).reciprocal()
        weight = weight.detach()
        length = items.square().sum(-1, keepdim=True).sqrt()
        cosine = score.detach() * length.reciprocal()
        psi, slope = with_slope(cosine, self.margin)
        value = (length * psi + strength * score.detach()) * share
        of_x = (psi - cosine * slope) / length
        direction = (slope * weight + of_x * items) / (slope.square() + of_x.square()).sqrt()
        # F.linear gives x the gradient w.
        return with_gradient_of(value, score + (x * ((direction - weight) * share)).sum(-1, keepdim=True))


@register("LargeMarginInnerProduct")
class LargeMarginInnerProduct(_Margin):
    """L-Softmax's scores x w^T with a margin for the label; then lambda, (1).

    Like MarginInnerProduct with weights of any length: the label's score x w becomes
    (n psi(c) + lambda x w) / (1 + lambda), where n = |x| |w| + 1e-9 and c = x w / n. Psi, ``type`` and lambda, which
    counts every pass in both phases, are the same.

    Bottom and weights get its derivative, psi' w + (psi - c psi') (|w| + 1e-9) / |x| x and
    psi' x + (psi - c psi') |x| / (|w| + 1e-9) w for n psi(c), so the bottom's is NaN for an item of zeros. That is the
    fork's rule on the CPU since 2017; on the GPU it has no 1e-9, and such an item no score. Weights as a third bottom,
    as caffe-windows has them, are not supported.
    """

    @classmethod
    def settings(cls, layer: Message) -> Message:
        return layer.largemargin_inner_product_param

    def own_score(self, x: Tensor, weight: Tensor, score: Tensor, strength: Tensor) -> Tensor:
        items, rows, product, share = x.detach(), weight.detach(), score.detach(), (1.0 + strength).reciprocal()
        of_items, of_rows = (v.square().sum(-1, keepdim=True).sqrt() for v in (items, rows))
        length = of_items * of_rows + EPSILON
        cosine = product / length
        psi, slope = with_slope(cosine, self.margin)
        value = (length * psi + strength * product) * share
        turn, of_rows = psi - cosine * slope, of_rows + EPSILON
        of_x = (slope + strength) * share * rows + turn * (of_rows / of_items) * share * items
        of_weight = (slope + strength) * share * items + turn * (of_items / of_rows) * share * rows
        return with_slopes(value, (x, of_x), (weight, of_weight))


def with_slope(c: Tensor, margin: int) -> tuple[Tensor, Tensor]:
    """psi(c) of margin 2, 3 or 4, and its derivative."""
    sign = c.sign()
    if margin == 2:
        return 2 * sign * c**2 - 1, 4 * sign * c
    if margin == 3:
        part = (c.abs() - 0.5).sign()
        return part * (4 * c**3 - 3 * c) + sign * (1 + part) - 2, part * (12 * c**2 - 3)
    part = sign * (2 * c**2 - 1).sign()
    return part * (8 * c**4 - 8 * c**2 + 1) + 2 * sign + part - 3, part * (32 * c**3 - 16 * c)
