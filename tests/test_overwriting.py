"""Gradients of in-place layers, against Caffe's loops over one buffer of values and one of gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from caffe2torch.build import build
from caffe2torch.graph import build_graph
from caffe2torch.loading import fill
from caffe2torch.net import CaffeNet
from caffe2torch.prototxt import parse

Array = npt.NDArray[Any]
Kind = tuple[str, Callable[[Array], None], Callable[[Array, Array], None]]
"""A layer's text, and its passes, which change the buffers they are given: forward the data, backward the diff."""


def power(scale: float, shift: float, exponent: float) -> Kind:
    def forward(data: Array) -> None:
        data[:] = (scale * data + shift) ** exponent

    def backward(data: Array, diff: Array) -> None:
        if exponent == 1:
            diff[:] = scale
        elif exponent == 2:
            diff[:] = 2 * scale * (scale * data + shift)
        else:
            diff[:] = exponent * scale * data / (scale * data + shift)
        diff *= diff  # both factors are this buffer

    return f'"Power" power_param {{ scale: {scale} shift: {shift} power: {exponent} }}', forward, backward


def elementwise(text: str, value: Callable[[Array], Array], slope: Callable[[Array], Array]) -> Kind:
    def forward(data: Array) -> None:
        data[:] = value(data)

    def backward(data: Array, diff: Array) -> None:
        diff *= slope(data)

    return text, forward, backward


def log_backward(data: Array, diff: Array) -> None:
    diff[:] = 1 / (data + 3)
    diff *= diff


RELU = elementwise('"ReLU"', lambda x: np.maximum(x, 0), lambda y: y > 0)
SIGMOID = elementwise('"Sigmoid"', lambda x: 1 / (1 + np.exp(-x)), lambda y: y * (1 - y))
TANH = elementwise('"TanH"', np.tanh, lambda y: 1 - y**2)
ELU = elementwise('"ELU"', lambda x: np.where(x > 0, x, np.expm1(x)), lambda y: np.where(y > 0, 1, 1 + y))
BNLL = elementwise('"BNLL"', lambda x: np.log1p(np.exp(x)), lambda y: 1 / (1 + np.exp(-y)))
EXP = elementwise('"Exp" exp_param { scale: 0.5 }', lambda x: np.exp(x / 2), lambda y: y / 2)
LOG: Kind = ('"Log" log_param { shift: 3 }', lambda x: np.copyto(x, np.log(x + 3)), log_backward)
CHAINS = [
    (RELU, power(0.7, -0.2, 1), SIGMOID),
    (TANH, RELU, EXP),
    (SIGMOID, TANH),
    (ELU, power(1, 0.5, 2)),
    (BNLL, RELU),
    (SIGMOID, power(1, 1, 3)),
    (LOG, TANH),
]


def net(*layers: str, phase: str = "test") -> CaffeNet:
    """An InnerProduct x -> c and these layers."""
    text = """layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
        layer { name: "h" type: "InnerProduct" bottom: "x" top: "c"
                inner_product_param { num_output: 3 bias_term: false weight_filler { type: "xavier" } } }"""
    graph = build_graph(parse(text + "".join(f"layer {{ {layer} }} " for layer in layers)), phase=phase)
    made = build(graph, {"x": (2, 3)})
    fill(made)
    return made


def gradient(made: CaffeNet, blob: str) -> tuple[Array, Array, Array, Array]:
    """A pass with random values: what the InnerProduct gave, the blob's value, its gradient, and the InnerProduct's."""
    x = torch.eye(3)[:2].requires_grad_()
    weight = made.layer("h").get_parameter("weight")
    y = made.select(blob)(x)[blob]
    given = torch.arange(6.0).reshape(2, 3) - 2
    y.backward(given.reshape(y.shape))
    assert weight.grad is not None
    # With unit vectors as input, the gradient of the InnerProduct's output is that of the weight's columns.
    return (
        weight.detach().double().numpy().T[:2],
        y.detach().numpy().reshape(2, 3),
        given.numpy(),
        weight.grad.numpy().T[:2],
    )


@pytest.mark.parametrize("chain", CHAINS)
def test_gradients_are_those_of_caffes_buffers(chain: tuple[Kind, ...]) -> None:
    torch.manual_seed(0)
    made = net(*(f'name: "l{i}" type: {text} bottom: "c" top: "c"' for i, (text, _, _) in enumerate(chain)))
    first, value, given, found = gradient(made, "c")
    data, diff = first.copy(), given.astype(np.float64)
    for _, forward, _ in chain:
        forward(data)
    for _, _, backward in reversed(chain):
        backward(data, diff)
    np.testing.assert_allclose(value, data, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found, diff, rtol=1e-4, atol=1e-6)


def test_a_top_that_is_overwritten_counts_although_its_layer_works_on_two_blobs() -> None:
    made = net('name: "t" type: "TanH" bottom: "c" top: "t"', 'name: "r" type: "ReLU" bottom: "t" top: "t"')
    _, value, given, found = gradient(made, "t")
    np.testing.assert_allclose(found, given * (value > 0) * (1 - value**2), rtol=1e-5)


def test_lrn_and_softmax_read_what_an_in_place_layer_made_of_their_tops() -> None:
    torch.manual_seed(0)
    made = net(
        'name: "v" type: "Reshape" bottom: "c" top: "v" reshape_param { shape { dim: 2 dim: 3 dim: 1 dim: 1 } }',
        'name: "n" type: "LRN" bottom: "v" top: "n" lrn_param { local_size: 3 alpha: 2 beta: 0.6 k: 1.5 }',
        'name: "r" type: "ReLU" bottom: "n" top: "n"',
        'name: "s" type: "Softmax" bottom: "n" top: "s"',
        'name: "g" type: "Sigmoid" bottom: "s" top: "s"',
    )
    x = torch.eye(3)[:2]
    weight = made.layer("h").get_parameter("weight")
    tops = made.select("n", "s")(x)
    given = np.arange(6.0).reshape(2, 3) - 2
    tops["s"].backward(torch.from_numpy(given).float().reshape(2, 3, 1, 1))
    assert weight.grad is not None
    n, s = (tops[blob].detach().double().numpy().reshape(2, 3) for blob in "ns")
    c = weight.detach().double().numpy().T[:2]
    diff = given * s * (1 - s)
    diff = s * (diff - (diff * s).sum(1, keepdims=True)) * (n > 0)
    around = [[0, 1], [0, 1, 2], [1, 2]]
    scale = 1.5 + 2 / 3 * np.stack([(c[:, near] ** 2).sum(1) for near in around], 1)
    pulled = np.stack([(diff * n / scale)[:, near].sum(1) for near in around], 1)
    expected = diff * scale**-0.6 - 2 * 2 * 0.6 / 3 * c * pulled
    np.testing.assert_allclose(weight.grad.numpy().T[:2], expected, rtol=1e-4, atol=1e-6)


def test_swish_in_place_keeps_its_sigmoid_and_reads_the_last_value() -> None:
    torch.manual_seed(0)
    made = net(
        'name: "w" type: "Swish" bottom: "c" top: "c" swish_param { beta: 1.5 }',
        'name: "p" type: "Power" bottom: "c" top: "c" power_param { power: 1 shift: -0.1 scale: 2 }',
        'name: "s" type: "Sigmoid" bottom: "c" top: "c"',
    )
    first, value, given, found = gradient(made, "c")
    sigmoid = 1 / (1 + np.exp(-1.5 * first))
    diff = np.full_like(given, 2.0) ** 2  # of Power in place: both factors are this buffer
    np.testing.assert_allclose(found, diff * (1.5 * value + sigmoid * (1 - 1.5 * value)), rtol=1e-4, atol=1e-6)


def test_mvn_in_place_keeps_its_deviation_and_reads_the_last_value() -> None:
    torch.manual_seed(0)
    made = net(
        'name: "v" type: "Reshape" bottom: "c" top: "v" reshape_param { shape { dim: 2 dim: 1 dim: 3 dim: 1 } }',
        'name: "m" type: "MVN" bottom: "v" top: "v" mvn_param { eps: 0.01 }',
        'name: "r" type: "ReLU" bottom: "v" top: "v"',
    )
    c, y, given, found = gradient(made, "v")
    diff = given * (y > 0)
    pulled = diff - (y * (y * diff).sum(1, keepdims=True) + diff.sum(1, keepdims=True)) / 3
    expected = pulled / (c.std(1, keepdims=True) + 0.01)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_the_usual_chain_keeps_to_autograd() -> None:
    in_place = ('name: "r" type: "ReLU" bottom: "c" top: "c"', 'name: "d" type: "Dropout" bottom: "c" top: "c"')
    made = net(*in_place, 'name: "s" type: "Sigmoid" bottom: "c" top: "s"', phase="train")
    assert not any(step.overwritten for step in made.plan)


def test_a_compiled_net_has_the_same_gradients() -> None:
    torch.manual_seed(0)
    made = net('name: "r" type: "ReLU" bottom: "c" top: "c"', 'name: "s" type: "Sigmoid" bottom: "c" top: "c"')
    *_, expected = gradient(made, "c")
    made.zero_grad()
    x = torch.eye(3)[:2].requires_grad_()
    torch.compile(made, backend="eager")(x)["c"].backward(torch.arange(6.0).reshape(2, 3) - 2)
    np.testing.assert_allclose(made.layer("h").get_parameter("weight").grad.numpy().T[:2], expected)  # type: ignore[union-attr]
