"""Eltwise where values are equal, zero, infinite or no numbers, against Caffe's rules written out."""

from __future__ import annotations

import math

import pytest
import torch

from caffe2torch.layers.eltwise import Eltwise

VALUES = (-math.inf, -1.0, 0.0, 2.0, math.inf, math.nan)


@pytest.mark.parametrize("gradient", [False, True])
def test_maximum_takes_the_second_of_two_unless_the_first_is_larger(gradient: bool) -> None:
    pairs = [(a, b) for a in VALUES for b in VALUES]
    a, b = (torch.tensor(column, requires_grad=gradient) for column in zip(*pairs, strict=True))
    expected = torch.tensor([a if a > b else b for a, b in pairs])
    torch.testing.assert_close(Eltwise("MAX")(a, b), expected, equal_nan=True, rtol=0, atol=0)


def test_maximum_of_three_changes_no_bottom() -> None:
    bottoms = [torch.tensor([3.0, math.nan, 1.0]), torch.tensor([2.0, 2.0, 1.0]), torch.tensor([5.0, 1.0, math.nan])]
    before = [x.clone() for x in bottoms]
    with torch.no_grad():
        top = Eltwise("MAX")(*bottoms)
    assert top.tolist() == [5.0, 2.0, 1.0]
    for x, old in zip(bottoms, before, strict=True):
        torch.testing.assert_close(x, old, equal_nan=True, rtol=0, atol=0)


@pytest.mark.parametrize("gradient", [False, True])
def test_the_unstable_gradient_of_a_product_is_top_over_bottom(gradient: bool) -> None:
    columns = zip(*[(a, b, c) for a in (0.0, 2.0, -0.5) for b in (0.0, -3.0) for c in (1.5, 0.0)], strict=True)
    bottoms = [torch.tensor(column, requires_grad=gradient) for column in columns]
    top = Eltwise("PROD", stable_gradient=False)(*bottoms)
    expected = bottoms[0].detach() * bottoms[1].detach() * bottoms[2].detach()
    torch.testing.assert_close(top.detach(), expected, rtol=0, atol=0)
    if gradient:
        given = torch.arange(1.0, 13.0)
        top.backward(given)
        for x in bottoms:
            torch.testing.assert_close(x.grad, given * (expected / x.detach()), equal_nan=True)


def test_a_sum_of_one_bottom_scales_it() -> None:
    x = torch.tensor([1.0, -2.0, 3.0], requires_grad=True)
    top = Eltwise("SUM", [0.5])(x)
    assert top.tolist() == [0.5, -1.0, 1.5]
    top.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.5] * 3
