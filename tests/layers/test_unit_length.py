"""Normalize as NormFace has it, against loops over its rule."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from caffe2torch.build import build
from caffe2torch.errors import LayerError
from caffe2torch.graph import build_graph
from caffe2torch.layers.registry import Layer
from caffe2torch.prototxt import parse

from .messages import layer

Array = NDArray[Any]
TWO = 'top: "a" top: "b"'


def normalize(settings: str, shape: tuple[int, ...], tops: str = "") -> Layer:
    return layer(f'type: "Normalize" {tops} normalize_param {{ {settings} }}', (shape,))


def naive(kind: str, x: Array, gradient: Array, of_length: Array) -> tuple[Array, Array, Array]:
    """Top, lengths and the gradient of x (N, C, places), given those of the top and of the lengths (N, places)."""
    top, lengths, of_x = np.zeros(x.shape), np.zeros(of_length.shape), np.zeros(x.shape)
    for n, s in np.ndindex(*of_length.shape):
        values = x[n, :, s]
        if kind == "L2":
            length = math.sqrt(sum(v * v for v in values) + 1e-6)
        else:
            length = sum(abs(v) for v in values) + 1e-6
        lengths[n, s] = length
        top[n, :, s] = values / length
        dot = sum(top[n, :, s] * gradient[n, :, s])
        for c, v in enumerate(values):
            turned = top[n, c, s] if kind == "L2" else np.sign(v)
            of_x[n, c, s] = (gradient[n, c, s] - turned * dot) / length + of_length[n, s] * turned
    return top, lengths, of_x


@pytest.mark.parametrize("bp_norm", [None, False, True])
@pytest.mark.parametrize("kind", ["L2", "L1"])
@pytest.mark.parametrize("shape", [(3, 5), (2, 4, 3), (2, 3, 4, 5)])
def test_tops_and_gradients_equal_their_definition(shape: tuple[int, ...], kind: str, bp_norm: bool | None) -> None:
    random = np.random.RandomState(0)
    items, channels, places = *shape[:2], math.prod(shape[2:])
    x, gradient = random.randn(items, channels, places), random.randn(items, channels, places)
    x[0, 0], x[1, :, 0] = 0, 0
    of_length = random.randn(items, places) if bp_norm else np.zeros((items, places))
    top, lengths, of_x = naive(kind, x, gradient, of_length)
    settings = f'normalize_type: "{kind}" ' + ("" if bp_norm is None else f"bp_norm: {bp_norm}".lower())
    made = normalize(settings, shape, "" if bp_norm is None else TWO)
    assert made.blob_items() == []
    leaf = torch.from_numpy(x.reshape(shape)).requires_grad_()
    tops = made(leaf)
    found = tops if bp_norm is None else tops[0]
    assert found.shape == (*shape, *(1,) * (4 - len(shape)))
    np.testing.assert_allclose(found.detach().reshape(x.shape), top, rtol=1e-12)
    total = (found * torch.from_numpy(gradient).reshape(found.shape)).sum()
    if bp_norm is not None:
        assert tops[1].shape == (items, 1, *found.shape[2:])
        assert tops[1].requires_grad == bp_norm
        np.testing.assert_allclose(tops[1].detach().reshape(lengths.shape), lengths, rtol=1e-12)
        total = total + (tops[1] * torch.from_numpy(of_length).reshape(tops[1].shape)).sum()
    total.backward()
    assert leaf.grad is not None
    np.testing.assert_allclose(leaf.grad.reshape(x.shape), of_x, rtol=1e-9, atol=1e-12)


def test_l2_is_the_default_of_bp_norm_alone() -> None:
    x = torch.tensor([[3.0, 4.0]])
    top, length = normalize("bp_norm: false", (1, 2), TWO)(x)
    torch.testing.assert_close(top.flatten(), torch.tensor([0.6, 0.8]))
    torch.testing.assert_close(length.flatten(), torch.tensor([5.0]))


def test_a_net_may_normalise_weights() -> None:
    text = """
        layer { name: "w" type: "Parameter" top: "w" parameter_param { shape { dim: 4 dim: 3 } } }
        layer {
          name: "n" type: "Normalize" bottom: "w" top: "n" top: "length"
          normalize_param { normalize_type: "L2" bp_norm: true }
        }
    """
    net = build(build_graph(parse(text)), {})
    with torch.no_grad():
        next(net.parameters()).fill_(2.0)
    found = net()
    torch.testing.assert_close(found["n"], torch.full((4, 3, 1, 1), 1 / math.sqrt(3)))
    torch.testing.assert_close(found["length"], torch.full((4, 1, 1, 1), math.sqrt(12)))


@pytest.mark.parametrize(
    "settings, tops, reason",
    [
        (
            'normalize_type: "L3"',
            "",
            "normalize_type is 'L3', given with nothing of SSD's Normalize: expected L2 or L1",
        ),
        ('normalize_type: "L2" across_spatial: false eps: 1', "", "'L2', given with across_spatial, eps of SSD's"),
        ("fix_gradient: true", "", "fix_gradient: True"),
        ('normalize_type: "L2"', TWO, "second top.*give bp_norm"),
        ("across_spatial: false", TWO, "second top.*give bp_norm"),
        ("", TWO, "second top.*give bp_norm"),
    ],
)
def test_impossible_settings_are_refused(settings: str, tops: str, reason: str) -> None:
    with pytest.raises(LayerError, match=reason):
        normalize(settings, (2, 3), tops)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("settings", ["across_spatial: false", 'normalize_type: "L2"', 'normalize_type: "L1"'])
def test_half_precision_has_lengths_of_0_and_of_squares_beyond_it(settings: str, dtype: torch.dtype) -> None:
    made = normalize(settings, (3, 4))
    for _, scale in made.blob_items():
        torch.nn.init.ones_(scale)
    x = torch.tensor([[0, 0, 0, 0], [300, -300, 300, 300], [30000, 0, 0, 0]], dtype=dtype)
    part = 0.25 if "L1" in settings else 0.5
    expected = [[0, 0, 0, 0], [part, -part, part, part], [1, 0, 0, 0]]
    assert torch.equal(made.to(dtype)(x).flatten(1), torch.tensor(expected, dtype=dtype))
