"""Power's gradient by Caffe's formula, power * scale * y / (shift + scale x), also where that is 0 / 0."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from .messages import layer

X = np.array([-2.0, -0.5, 0.0, 0.25, 1.0, 3.0])


@pytest.mark.parametrize("power", [3.0, 0.5, -1.0, 2.0, 1.0, 0.0])
@pytest.mark.parametrize("scale, shift", [(1.0, 0.0), (2.0, -0.5), (-1.0, 1.0)])
def test_values_and_gradients_are_caffes(power: float, scale: float, shift: float) -> None:
    made = layer(f'type: "Power" power_param {{ power: {power} scale: {scale} shift: {shift} }}', [(6,)])
    x = torch.from_numpy(X).requires_grad_()
    y = made(x)
    y.backward(torch.arange(1.0, 7.0, dtype=torch.float64))
    base = shift + scale * X
    with np.errstate(all="ignore"):
        value = base**power
        slope = {0.0: 0 * base, 1.0: 0 * base + scale, 2.0: 2 * scale * base}.get(power, power * scale * value / base)
    assert x.grad is not None
    np.testing.assert_allclose(y.detach().numpy(), value, rtol=1e-12)
    np.testing.assert_allclose(x.grad.numpy(), np.arange(1, 7) * slope, rtol=1e-12)
    with torch.no_grad():
        np.testing.assert_allclose(made(x).numpy(), value, rtol=1e-12)
