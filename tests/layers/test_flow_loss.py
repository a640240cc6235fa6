"""L1Loss against a loop over FlowNet2's definition, with its gradients."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from caffe2torch.errors import LayerError

from .messages import layer

Array = NDArray[Any]
RNG = np.random.RandomState(0)


def l1(d: Array, *, per_location: bool, prescale: bool, by_entries: bool, epsilon: float, plateau: float) -> Any:
    """The loss of a difference and its gradient."""
    n, channels, height, width = d.shape
    known = ~np.isnan(d)
    count = known.sum() / channels if by_entries else n
    loss, gradient = 0.0, np.zeros(d.shape)
    if not per_location:
        for place in np.ndindex(*d.shape):
            if known[place] and not abs(d[place]) < plateau:
                sign = 1 if d[place] > 0 else -1
                loss += sign * d[place]
                gradient[place] = sign
        return loss / count, gradient / count
    share = 1 / channels if prescale else 1
    for item, i, j in np.ndindex(n, height, width):
        places = [(item, c, i, j) for c in range(channels) if known[item, c, i, j]]
        total = sum(share * d[place] ** 2 for place in places)
        flat = plateau > 0 and total < plateau**2
        root = math.sqrt((0 if flat else total) + epsilon)
        loss += root
        for place in places:
            gradient[place] = 0 if flat else share * d[place] / root
    return loss / count, gradient / count


@pytest.mark.parametrize("bottoms", [1, 2])
@pytest.mark.parametrize("plateau", [0, 0.5])
@pytest.mark.parametrize("per_location, prescale, by_entries", list(itertools.product([False, True], repeat=3)))
def test_l1_loss_equals_the_forks_loop(
    per_location: bool, prescale: bool, by_entries: bool, plateau: float, bottoms: int
) -> None:
    shape = (2, 3, 4, 5)
    d, target = RNG.randn(*shape), RNG.randn(*shape) if bottoms == 2 else np.zeros(shape)
    d[RNG.rand(*shape) < 0.2] = np.nan
    d[0, :, 0, 0] = np.nan
    d[0, :, 1, 1] = 0
    target[0, :, 1, 1] = 0  # so that the difference is 0 exactly
    x = d + target
    settings = {
        "per_location": per_location,
        "prescale": prescale,
        "by_entries": by_entries,
        "epsilon": 0.25,
        "plateau": plateau,
    }
    text = (
        f"l2_per_location: {str(per_location).lower()} l2_prescale_by_channels: {str(prescale).lower()} "
        f"normalize_by_num_entries: {str(by_entries).lower()} epsilon: 0.25 plateau: {plateau}"
    )
    built = layer(f'type: "L1Loss" l1_loss_param {{ {text} }}', [shape] * bottoms)
    inputs = [torch.from_numpy(value).requires_grad_() for value in (x, target)[:bottoms]]
    loss = built(*inputs)
    loss.backward()
    expected, gradient = l1(x - target, **settings)
    np.testing.assert_allclose(loss.detach(), expected, rtol=1e-12)
    for bottom, sign in zip(inputs, (1, -1), strict=False):
        np.testing.assert_allclose(bottom.grad, sign * gradient, rtol=0, atol=1e-12)


def test_defaults() -> None:
    built = layer('type: "L1Loss" l1_loss_param { l2_per_location: true }', [(1, 2, 1, 1)])
    loss = built(torch.tensor([3.0, 4.0]).reshape(1, 2, 1, 1))
    torch.testing.assert_close(loss, torch.tensor(25.01).sqrt())
    assert built.loss


@pytest.mark.parametrize("shapes", [[(1, 2, 3, 4), (1, 2, 3, 5)], [(1, 2)]])
def test_l1_loss_refuses(shapes: list[tuple[int, ...]]) -> None:
    with pytest.raises(LayerError, match="expected equal ones"):
        layer('type: "L1Loss"', shapes)
