"""Crop, BatchReindex and Filter against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from .messages import layer


def image(*shape: int) -> torch.Tensor:
    return torch.arange(float(np.prod(shape))).reshape(shape)


@pytest.mark.parametrize(
    "settings, window, expected",
    [
        ("", (2, 3, 4, 5), np.s_[:, :, 0:4, 0:5]),
        ("offset: 2", (1, 1, 4, 3), np.s_[:, :, 2:6, 2:5]),
        ("offset: [1, 3]", (2, 3, 4, 5), np.s_[:, :, 1:5, 3:8]),
        ("axis: 1 offset: [1, 2, 0]", (2, 2, 3, 4), np.s_[:, 1:3, 2:5, 0:4]),
        ("axis: 0 offset: [1, 0, 0, 4]", (1, 3, 6, 4), np.s_[1:2, :, :, 4:8]),
        ("axis: -1 offset: 3", (9, 9, 9, 5), np.s_[:, :, :, 3:8]),
        ("axis: 3 offset: 1", (1, 1, 1, 2, 7), np.s_[:, :, :, 1:3]),
    ],
)
def test_crop_equals_its_definition(settings: str, window: tuple[int, ...], expected: tuple[slice, ...]) -> None:
    x = image(2, 3, 6, 8)
    found = layer(f'type: "Crop" crop_param {{ {settings} }}', [(2, 3, 6, 8), window])(x, torch.zeros(window))
    np.testing.assert_array_equal(found.numpy(), x.numpy()[expected])


def test_crop_takes_the_size_of_the_window_it_is_given() -> None:
    made = layer('type: "Crop" crop_param { offset: 1 }', [(1, 1, 6, 6), (1, 1, 2, 2)])
    assert made(image(1, 1, 9, 9), torch.zeros(1, 1, 4, 7)).shape == (1, 1, 4, 7)


def test_batch_reindex_repeats_items_and_adds_up_their_gradients() -> None:
    made = layer('type: "BatchReindex"', [(3, 2), (4,)])
    x = image(3, 2).requires_grad_()
    y = made(x, torch.tensor([2.0, 0.0, 2.9, 2.0]))
    y.sum().backward()
    assert y.tolist() == [[4, 5], [0, 1], [4, 5], [4, 5]]
    assert x.grad is not None
    assert x.grad.tolist() == [[1, 1], [0, 0], [3, 3]]


@pytest.mark.parametrize(
    "selector, kept", [([1, 0, -0.5, 0], [0, 2]), ([1, 2, 3, 4], [0, 1, 2, 3]), ([0, 0, 0, 0], []), ([0, 0, 0, 7], [3])]
)
def test_filter_keeps_the_items_whose_selector_is_not_zero(selector: list[float], kept: list[int]) -> None:
    made = layer('type: "Filter" top: "a" top: "b"', [(4, 2), (4, 3, 1), (4, 1, 1)])
    x, y = image(4, 2).requires_grad_(), image(4, 3, 1)
    a, b = made(x, y, torch.tensor(selector).reshape(4, 1, 1))
    assert torch.equal(a, x[kept])
    assert torch.equal(b, y[kept])
    a.sum().backward()
    assert x.grad is not None
    assert x.grad[:, 0].tolist() == [float(i in kept) for i in range(4)]
