"""What DHN and HashNet learn hash codes with: losses over the pairs of a batch, and a TanH that grows steeper."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from caffe2torch.errors import LayerError
from caffe2torch.layers.gradient import with_slopes
from caffe2torch.layers.loss import Loss
from caffe2torch.layers.registry import Layer, Message, Shape, canonical_axis, register

_DHN = frozenset({"engine", "axis", "l_threshold", "q_threshold", "l_lambda", "q_gamma"})
_HASHNET = frozenset({"class_num", "sigmoid_param", "continous_similarity"})


@register("PairwiseLoss")
class PairwiseLoss(Loss):
    """Cross entropy of sigmoid(code_i . code_j) with whether i and j share a label, over all N^2 ordered pairs.

    Bottoms: codes (N, ...) and labels (N, L), 0 or 1 for each of L classes; i and j are similar if the inner product s
    of their labels is positive. A pair's loss is log(1 + exp(p)) - [similar] p with p the product of the codes; from a
    threshold of 0 or more on, p >= threshold, it is p for pairs that are not similar and 0 for the others.
    The absolute losses are added and divided by the number of pairs. The fields and bottoms tell three rules apart:

    ``threshold`` (DHN in hash-caffe): this, and its gradient. (TAH has another rule with the very same fields.)

    ``l_threshold``, ``q_threshold``, ``l_lambda`` or ``q_gamma``, two bottoms (DHN in dhn-caffe): pairs with s < 0 or
    s >= L are unknown and not counted. If q_gamma is positive, QuantizationLoss with q_threshold is added, and the
    pairs count only if l_lambda is. These two are factors of the gradient alone, and ``loss_weight`` is not one.

    Four bottoms, codes and labels of items i and then of items j (HashNet): unknown pairs, l_threshold, l_lambda and
    loss_weight as in dhn-caffe; p is multiplied by ``sigmoid_param``, and similar pairs, their number too, count
    ``class_num`` times. The gradients are the fork's: that of the loss by p is doubled, and sigmoid_param is in the
    first N values alone of each N x C. ``continous_similarity`` multiplies it by 4 s_ij^2 / (s_ii s_jj), or 1 where
    s_ij is 0. Without ``class_num`` the layer is refused, for DPH gives the other fields too, but has another rule.
    """

    bottoms = (2, 4)
    no_gradient = (1, 3)

    def __init__(
        self,
        threshold: float = -1.0,
        *,
        unknown: bool = False,
        l_lambda: float = 1.0,
        q_threshold: float = -1.0,
        q_gamma: float = 0.0,
        class_num: float = 1.0,
        sigmoid_param: float = 1.0,
        continuous: bool = False,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.threshold, self.unknown, self.l_lambda = threshold, unknown, l_lambda
        self.q_threshold, self.q_gamma = q_threshold, q_gamma
        self.class_num, self.sigmoid_param, self.continuous = class_num, sigmoid_param, continuous
        self.loss_weight = loss_weight
        """What the gradient that arrives holds, and the fork's does not."""

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> PairwiseLoss:
        cls.check_batch(bottom_shapes)
        _check_pairs(bottom_shapes)
        p = layer.pairwise_param
        if _rule(p, len(bottom_shapes)) == "hash-caffe":
            return cls(p.threshold)
        if canonical_axis(p.axis, bottom_shapes[0], "pairwise_param.axis") != 1:
            raise LayerError(f"pairwise_param.axis is {p.axis}: the fork computes nothing sensible but for axis 1")
        weight = layer.loss_weight[0] if layer.loss_weight else 1.0
        weight = weight or 1.0  # nothing is propagated then
        if len(bottom_shapes) == 2:
            return cls(
                p.l_threshold,
                unknown=True,
                l_lambda=p.l_lambda,
                q_threshold=p.q_threshold,
                q_gamma=p.q_gamma,
                loss_weight=weight,
            )
        return cls(
            p.l_threshold,
            unknown=True,
            l_lambda=p.l_lambda,
            class_num=p.class_num,
            sigmoid_param=p.sigmoid_param,
            continuous=p.continous_similarity,
            loss_weight=weight,
        )

    def forward(self, a: Tensor, labels: Tensor, b: Tensor | None = None, others: Tensor | None = None) -> Tensor:
        codes, rows = _rows(a), _rows(labels)
        codes_b, rows_b = codes if b is None else _rows(b), rows if others is None else _rows(others)
        shared = rows @ rows_b.T
        product = codes @ codes_b.T * self.sigmoid_param
        similar = (shared > 0).to(a.dtype)
        number = torch.where(shared > 0, self.class_num, torch.ones_like(product))
        losses, slopes = self._losses(product, similar) * number, (torch.sigmoid(product) - similar) * number
        if self.unknown:
            known = (shared >= 0) & (shared < rows.shape[1])
            losses, slopes, number = (torch.where(known, x, 0.0) for x in (losses, slopes, number))
        total = number.abs().sum()
        total = torch.where(total > 0, total, 1.0)
        value = losses.abs().sum() / total * (self.l_lambda > 0)
        slopes = slopes * (2.0 * self.l_lambda / self.loss_weight / total)
        if self.continuous:
            slopes = slopes * _similarity(shared, rows, rows_b)
        slope = self._scaled(slopes @ codes_b)
        if b is not None:
            # Without a gradient for the first codes the fork's backward does nothing.
            b = b if a.requires_grad else b.detach()
            slope_b = self._scaled(slopes.T @ codes).reshape(b.shape)
            return with_slopes(value, (a, slope.reshape(a.shape)), (b, slope_b))
        if self.q_gamma:
            loss, further = quantization(codes, self.q_threshold)
            value, slope = value + loss * (self.q_gamma > 0), slope + further * (self.q_gamma / self.loss_weight)
        return with_slopes(value, (a, slope.reshape(a.shape)))

    def _losses(self, product: Tensor, similar: Tensor) -> Tensor:
        # The fork's own formula, which is infinite where exp is.
        losses = torch.log(1.0 + torch.exp(product)) - similar * product
        if self.threshold < 0:
            return losses
        return torch.where(product >= self.threshold, product * (1.0 - similar), losses)

    def _scaled(self, slope: Tensor) -> Tensor:
        """The gradient (N, C) with ``sigmoid_param`` where the fork has it: in the first N of its N C values."""
        if self.sigmoid_param == 1.0:
            return slope
        items = slope.shape[0]
        place = torch.arange(slope.numel(), device=slope.device).reshape(slope.shape)
        return torch.where(place < items, slope * self.sigmoid_param, slope)

    def extra_repr(self) -> str:
        names = (
            "threshold",
            "unknown",
            "l_lambda",
            "q_threshold",
            "q_gamma",
            "class_num",
            "sigmoid_param",
            "continuous",
        )
        return ", ".join(f"{name}={getattr(self, name):g}" for name in names)


@register("QuantizationLoss")
class QuantizationLoss(Layer):
    """DHN's log(cosh(|x| - 1)), which is smallest for values of 1 and -1: the mean of its absolute values.

    From a positive ``threshold`` on, |x| - 1 > threshold, it is |x| - 1 - log(2). The gradient is the fork's (that of
    hash-caffe): sign(x) tanh(|x| - 1) over the items N, not over all values; the sign of 0 is 1.
    Without a ``quantization_param`` the layer is refused, for DHH has another one of this name. (That of TAH has the
    same field and another gradient.)
    """

    loss = True

    def __init__(self, threshold: float = -1.0) -> None:
        super().__init__()
        self.threshold = threshold

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> QuantizationLoss:
        if not layer.HasField("quantization_param"):
            raise LayerError(
                "no quantization_param, so this may be another layer of the same name: give quantization_param "
                "{ threshold: -1 } if it is DHN's, or register a class of your own for the layer"
            )
        if not bottom_shapes[0]:
            raise LayerError("the bottom is a scalar: expected codes (N, ...)")
        return cls(layer.quantization_param.threshold)

    def forward(self, x: Tensor) -> Tensor:
        value, slope = quantization(_rows(x), self.threshold)
        return with_slopes(value, (x, slope.reshape(x.shape)))

    def extra_repr(self) -> str:
        return f"threshold={self.threshold:g}"


@register("ScaleTanH")
class ScaleTanH(Layer):
    """HashNet's tanh(scale x), with a scale that grows from pass to pass.

    The scale is ``init_scale`` at first, and init_scale (1 + ``gamma`` i)^``power`` from every pass on whose number i
    is a multiple of ``step_size``. The first pass has i = 2; passes are counted in both phases, and not stored.
    A gamma without power is refused: dhn-caffe, which has no power, multiplies the scale by gamma.
    """

    backward_reads = frozenset({"top"})
    iteration: Tensor

    def __init__(
        self, init_scale: float = 1.0, *, step_size: int = 200, gamma: float = 1.0, power: float = 0.0
    ) -> None:
        super().__init__()
        if step_size < 1:
            raise LayerError(f"scale_tanh_param.step_size is {step_size}: expected 1 or more")
        self.init_scale, self.step_size, self.gamma, self.power = init_scale, step_size, gamma, power
        # Caffe counts its Reshape, which runs once before the first pass.
        self.register_buffer("iteration", torch.ones(1, dtype=torch.int64), persistent=False)

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> ScaleTanH:
        p = layer.scale_tanh_param
        if p.gamma != 1.0 and not p.HasField("power"):
            raise LayerError(
                f"scale_tanh_param has gamma {p.gamma:g} and no power: HashNet's scale is then constant, but that of "
                "dhn-caffe is multiplied by gamma, which is not supported; give power: 0 if it is HashNet's"
            )
        return cls(p.init_scale, step_size=p.step_size, gamma=p.gamma, power=p.power)

    def forward(self, x: Tensor) -> Tensor:
        self.iteration.add_(1)
        return torch.tanh(x * self._scale(x.dtype))

    def caffe_backward(self, gradient: Tensor, bottom: Tensor, top: Tensor) -> Tensor:
        return gradient * self._scale(top.dtype) * (1.0 - top * top)

    def _scale(self, dtype: torch.dtype) -> Tensor:
        passes = self.iteration // self.step_size * self.step_size
        base = 1.0 + self.gamma * passes.to(torch.promote_types(dtype, torch.float32))
        return torch.where(passes > 0, self.init_scale * base**self.power, self.init_scale).to(dtype)

    def extra_repr(self) -> str:
        return f"init_scale={self.init_scale:g}, step_size={self.step_size}, gamma={self.gamma:g}, power={self.power:g}"


def quantization(codes: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """QuantizationLoss of codes (N, C), and the gradient that its fork gives them."""
    beyond = codes.abs() - 1.0
    losses = torch.log(torch.cosh(beyond))
    if threshold > 0:
        losses = torch.where(beyond > threshold, beyond - math.log(2.0), losses)
    slope = torch.where(codes >= 0, 1.0, -1.0) * torch.tanh(beyond) / codes.shape[0]
    return losses.abs().mean(), slope


def _rows(x: Tensor) -> Tensor:
    """One row for each item, without gradient."""
    return x.detach().reshape(x.shape[0], -1)


def _similarity(shared: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """HashNet's factor of a pair's gradient, from its inner product and the labels of both sides."""
    own_a, own_b = a.square().sum(1, keepdim=True), b.square().sum(1)
    cosine = shared.square() / (torch.where(own_a == 0, 1.0, own_a) * torch.where(own_b == 0, 1.0, own_b))
    return 4.0 * torch.where(cosine == 0, 0.25, cosine)


def _check_pairs(shapes: Sequence[Shape]) -> None:
    """Raise LayerError unless the bottoms are codes and labels, or two of each that fit."""
    if len(shapes) == 3:
        raise LayerError("3 bottoms: expected codes and labels (DHN), or codes, labels, codes and labels (HashNet)")
    if len(shapes) == 4 and [math.prod(s) for s in shapes[:2]] != [math.prod(s) for s in shapes[2:]]:
        raise LayerError(
            f"the bottoms have shapes {', '.join(map(str, shapes))}: expected two times codes (N, C) and labels (N, L)"
        )


def _rule(p: Message, bottoms: int) -> str:
    """The fork whose layer this is; LayerError where the fields and the number of bottoms do not tell."""
    given = {field.name for field, _ in p.ListFields()}
    names = ", ".join(sorted(given)) or "nothing"
    if bottoms == 4 and "class_num" in given and "threshold" not in given:
        return "HashNet"
    if bottoms == 2 and given == {"threshold"}:
        return "hash-caffe"
    if bottoms == 2 and given and given <= _DHN:
        return "dhn-caffe"
    if bottoms == 4 and "threshold" not in given:
        raise LayerError(
            f"pairwise_param gives {names} and no class_num: this is HashNet's layer or that of DPH, which differs and "
            "is not supported; give class_num: 1 if it is HashNet's"
        )
    raise LayerError(
        f"pairwise_param gives {names}, with {bottoms} bottoms, which is no fork's layer that is known here: expected "
        "threshold with 2 bottoms (hash-caffe), l_threshold, q_threshold, l_lambda or q_gamma with 2 (dhn-caffe), or "
        f"{', '.join(sorted(_HASHNET))} with 4 (HashNet)"
    )
