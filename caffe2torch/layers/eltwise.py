"""Eltwise: the sum, product or maximum of several bottoms."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from caffe2torch.errors import LayerError
from caffe2torch.layers.gradient import with_slopes
from caffe2torch.layers.larger import larger
from caffe2torch.layers.registry import Layer, Message, Shape, enum_name, register


@register("Eltwise")
class Eltwise(Layer):
    """SUM (with coefficients), PROD or MAX over any number of bottoms of one shape.

    MAX passes its gradient to one bottom only: of the first two the second wins a tie, later ones lose it. The gradient
    of PROD is the product of the others, or with ``stable_prod_grad: false`` top / bottom: NaN where that is 0 / 0. SUM
    also takes one bottom, as in FlowNet's Caffe (BVLC's wants two): its coefficient times it.
    """

    bottoms = (1, None)

    def __init__(
        self, operation: str = "SUM", coefficients: Sequence[float] = (), *, stable_gradient: bool = True
    ) -> None:
        super().__init__()
        self.operation, self.coefficients = operation, tuple(coefficients)
        self.stable_gradient = stable_gradient

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> Eltwise:
        p = layer.eltwise_param
        operation = enum_name(p, "operation")
        if len(bottom_shapes) < 2 and operation != "SUM":
            raise LayerError(f"{operation} of one bottom: expected at least 2")
        # Caffe accepts coefficients for MAX, and ignores them.
        if len(p.coeff) not in (0, len(bottom_shapes)) or (p.coeff and operation == "PROD"):
            raise LayerError(
                f"{len(p.coeff)} coeff for {operation} of {len(bottom_shapes)} bottoms: "
                "expected none, or for SUM one per bottom"
            )
        for shape in bottom_shapes:
            if shape != bottom_shapes[0]:
                raise LayerError(f"the bottoms have different shapes {bottom_shapes[0]} and {shape}")
        return cls(operation, tuple(p.coeff), stable_gradient=p.stable_prod_grad)

    def forward(self, *bottoms: Tensor) -> Tensor:
        if self.operation == "SUM":
            return self._sum(bottoms)
        if self.operation == "MAX":
            top = larger(bottoms[0], bottoms[1])
            for x in bottoms[2:]:
                top = larger(x, top)
            return top
        top = bottoms[0]
        for x in bottoms[1:]:
            top = top * x
        if not self.stable_gradient and top.requires_grad:
            top = top.detach()
            return with_slopes(top, *((x, top / x.detach()) for x in bottoms))
        return top

    def _sum(self, bottoms: Sequence[Tensor]) -> Tensor:
        coefficients = self.coefficients or (1.0,) * len(bottoms)
        top = bottoms[0] if coefficients[0] == 1.0 else bottoms[0] * coefficients[0]
        for x, coefficient in zip(bottoms[1:], coefficients[1:], strict=True):
            top = torch.add(top, x, alpha=coefficient)
        return top

    def extra_repr(self) -> str:
        return self.operation + (f", {self.coefficients}" if self.coefficients else "")
