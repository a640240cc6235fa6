"""Stochastic pooling against its definition: exactly in test, by frequency in training."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from caffe2torch.layers.pooling import Pooling

from .messages import layer


@pytest.mark.parametrize("kernel, stride, plane", [(2, 2, (4, 6)), (3, 2, (6, 7)), (2, 3, (7, 8)), (1, 2, (5, 4))])
def test_in_test_values_are_weighted_by_themselves(kernel: int, stride: int, plane: tuple[int, int]) -> None:
    x = np.maximum(np.random.RandomState(0).randn(2, 3, *plane), 0.0)
    x[0, 0] = 0.0
    made = Pooling("STOCHASTIC", kernel=(kernel, kernel), stride=(stride, stride)).eval()
    rows, columns = (-(-(size - kernel) // stride) + 1 for size in plane)
    expected = np.zeros((2, 3, rows, columns))
    for n, c, i, j in np.ndindex(*expected.shape):
        window = x[n, c, i * stride : i * stride + kernel, j * stride : j * stride + kernel]
        expected[n, c, i, j] = (window**2).sum() / window.sum() if window.sum() > 0 else 0.0
    np.testing.assert_allclose(made(torch.from_numpy(x)).numpy(), expected, rtol=1e-12)


def test_in_training_a_value_is_drawn_by_its_share_and_gets_the_gradient() -> None:
    text = 'type: "Pooling" pooling_param { kernel_size: 2 stride: 2 pool: STOCHASTIC }'
    torch.manual_seed(0)
    window = torch.tensor([[1.0, 0.0], [3.0, 4.0]])
    x = window.repeat(40, 100)[None, None].requires_grad_()
    y = layer(text, [tuple(x.shape)], training=True)(x)
    share = [(y == value).float().mean().item() for value in (1, 0, 3, 4)]
    np.testing.assert_allclose(share, [0.125, 0.0, 0.375, 0.5], atol=0.03)
    y.sum().backward()
    assert x.grad is not None
    drawn = torch.nn.functional.max_pool2d(x.detach() * x.grad, 2)
    assert torch.equal(drawn, y.detach())
    assert x.grad.sum() == y.numel()


def test_windows_of_zeros_give_zero() -> None:
    made = Pooling("STOCHASTIC", kernel=None).train()
    assert made(torch.zeros(1, 2, 3, 3)).tolist() == [[[[0]], [[0]]]]
