"""Values whose gradient is that of another expression: where Caffe's backward is not its forward's derivative."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def with_gradient_of(value: Tensor, surrogate: Tensor) -> Tensor:
    """``value`` exactly, with the gradient of ``surrogate`` (finite, of the same shape)."""
    if not surrogate.requires_grad:
        return value.detach()
    return value.detach() + (surrogate - surrogate.detach())


def clamped(x: Tensor, *, least: float | None = None, most: float | None = None) -> Tensor:
    """``x`` limited from below or above, with the gradient of ``x`` itself everywhere."""
    if not torch.is_grad_enabled():
        return x.clamp(least, most)
    result: Tensor = _Clamped.apply(x, least, most)  # type: ignore[no-untyped-call]
    return result


class _Clamped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, least: float | None, most: float | None) -> Tensor:
        return x.clamp(least, most)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0], None, None


def with_slopes(value: Tensor, *pairs: tuple[Tensor, Tensor]) -> Tensor:
    """``value`` exactly; the first tensor of each pair gets the gradient times the second, also where that is NaN."""
    tensors, slopes = zip(*pairs, strict=True)
    if not (torch.is_grad_enabled() and any(x.requires_grad for x in tensors)):
        return value.detach()
    result: Tensor = _WithSlopes.apply(value.detach(), *tensors, *slopes)  # type: ignore[no-untyped-call]
    return result


class _WithSlopes(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, *pairs: Tensor) -> Tensor:
        ctx.save_for_backward(*pairs[len(pairs) // 2 :])
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        slopes = ctx.saved_tensors
        return None, *(gradients[0] * slope for slope in slopes), *(None for _ in slopes)


def with_own_gradient(value: Tensor, x: Tensor, gradient: Tensor) -> Tensor:
    """``value`` with its own gradients, and ``gradient`` for ``x`` in every backward, whatever that of ``value`` is."""
    result: Tensor = _WithOwnGradient.apply(value, x, gradient)  # type: ignore[no-untyped-call]
    return result


class _WithOwnGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, x: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        return gradients[0], ctx.saved_tensors[0], None


@torch.compiler.disable  # type: ignore[untyped-decorator]
def with_backward(value: Tensor, x: Tensor, backward: Callable[[Tensor], Tensor]) -> Tensor:
    """``value`` exactly; ``backward`` turns its gradient into that of ``x``.

    ``torch.compile`` breaks its graph here: it would call ``backward`` at once, but it may need what comes later.
    """
    result: Tensor = _WithBackward.apply(x, value.detach(), backward)  # type: ignore[no-untyped-call]
    return result


class _WithBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, backward: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.step = backward
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return ctx.step(gradients[0]), None, None
