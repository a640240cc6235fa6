"""Values whose gradient is that of another expression: where Caffe's backward is not its forward's derivative."""

from __future__ import annotations

from torch import Tensor


def with_gradient_of(value: Tensor, surrogate: Tensor) -> Tensor:
    """``value`` exactly, with the gradient of ``surrogate`` (finite, of the same shape)."""
    if not surrogate.requires_grad:
        return value.detach()
    return value.detach() + (surrogate - surrogate.detach())
