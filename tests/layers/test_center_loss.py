"""CenterLoss against loops over caffe-face's rule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from caffe2torch.build import build
from caffe2torch.errors import LayerError
from caffe2torch.graph import build_graph
from caffe2torch.layers.registry import Layer
from caffe2torch.loading import fill
from caffe2torch.net import CaffeNet
from caffe2torch.prototxt import parse

from .messages import layer

Array = NDArray[Any]


def center_loss(settings: str, *shapes: tuple[int, ...], training: bool = True) -> Layer:
    return layer(f'type: "CenterLoss" center_loss_param {{ {settings} }}', shapes, training=training).double()


def naive(x: Array, labels: Array, centers: Array) -> tuple[float, Array, Array]:
    """The loss, its gradient for the items (N, K), and what is in place of one for the centers."""
    loss, of_x, of_centers = 0.0, np.zeros(x.shape), np.zeros(centers.shape)
    for i, j in np.ndindex(*x.shape):
        away = x[i, j] - centers[int(labels[i]), j]
        loss += away**2
        of_x[i, j] = away / len(x)
    for n in range(len(centers)):
        of_class = [i for i in range(len(x)) if int(labels[i]) == n]
        of_centers[n] = sum(centers[n] - x[i] for i in of_class) / (len(of_class) + 1)
    return loss / len(x) / 2, of_x, of_centers


@pytest.mark.parametrize("training", [True, False], ids=["train", "test"])
@pytest.mark.parametrize("weight", [1.0, -0.008, 0.0])
@pytest.mark.parametrize(
    "settings, shape, labelled",
    [
        ("", (20, 3), (20,)),
        ("", (7, 2, 3, 2), (7, 1, 1, 1)),
        ("axis: 2", (5, 1, 3), (5, 1)),
        ("axis: -2", (1, 3), (1,)),
    ],
)
def test_a_pass_equals_its_definition(
    settings: str, shape: tuple[int, ...], labelled: tuple[int, ...], weight: float, training: bool
) -> None:
    random = np.random.RandomState(0)
    made = center_loss(f"num_output: 6 {settings}", shape, labelled, training=training)
    x = random.randn(*shape)
    labels = random.randint(5, size=labelled) + 0.9  # the class with no item is the last; labels lose their fraction
    items = x.reshape(shape[0], -1)
    loss, of_x, of_centers = naive(items, labels.ravel(), made.centers.detach().numpy())
    leaf = torch.from_numpy(x).requires_grad_()
    for number in (1, 2):
        top = made(leaf, torch.from_numpy(labels))
        assert top.shape == ()
        assert top.item() == pytest.approx(loss, rel=1e-12)
        (weight * top).backward()
        assert leaf.grad is not None
        np.testing.assert_allclose(leaf.grad.reshape(items.shape), number * weight * of_x, rtol=1e-12, atol=1e-15)
        assert made.centers.grad is not None
        np.testing.assert_allclose(made.centers.grad, number * of_centers, rtol=1e-12, atol=1e-15)
    assert not made.centers.grad[5].any()


def test_items_or_centers_may_be_frozen() -> None:
    made, x = center_loss("num_output: 2", (3, 2), (3,)), torch.rand(3, 2).double()
    labels = torch.tensor([0.0, 1.0, 1.0])
    made(x, labels).backward()
    assert made.centers.grad is not None
    made.centers.requires_grad_(False).grad = None
    assert not made(x, labels).requires_grad
    made(x.requires_grad_(), labels).backward()
    assert x.grad is not None
    assert made.centers.grad is None


def test_it_trains_compiled() -> None:
    x, labels = torch.rand(4, 3).double(), torch.tensor([0.0, 2.0, 2.0, 1.0])
    found = []
    for compiled in (False, True):
        made, leaf = center_loss("num_output: 3", (4, 3), (4,)), x.clone().requires_grad_()
        run = torch.compile(made, fullgraph=True, backend="aot_eager") if compiled else made
        (0.5 * run(leaf, labels)).backward()
        found.append((made.centers.grad, leaf.grad))
    torch.testing.assert_close(found[0], found[1])


def net(weight: str) -> CaffeNet:
    text = f"""
        layer {{ name: "in" type: "Input" top: "x" top: "label" }}
        layer {{
          name: "c" type: "CenterLoss" bottom: "x" bottom: "label" top: "c" {weight}
          center_loss_param {{ num_output: 2 center_filler {{ type: "constant" value: 1 }} }}
        }}
    """
    made = build(build_graph(parse(text), phase="train"), {"x": (2, 1), "label": (2,)})
    fill(made)
    return made


def test_loss_weight_leaves_the_gradient_of_the_centers_as_it_is() -> None:
    made = net("loss_weight: 0.5")
    outputs = made({"x": torch.tensor([[2.0], [4.0]]), "label": torch.tensor([0.0, 1.0])})
    assert made.loss(outputs).item() == pytest.approx(0.5 * (1 + 9) / 4)
    made.loss(outputs).backward()
    assert [p.grad.tolist() for p in made.parameters() if p.grad is not None] == [[[-0.5], [-1.5]]]


def test_without_loss_weight_it_is_no_part_of_a_nets_loss() -> None:
    assert net("").loss_weights == {}


@pytest.mark.parametrize("label", [-1.0, 2.0])
def test_a_label_without_a_center_is_refused(label: float) -> None:
    made = center_loss("num_output: 2", (3, 5), (3,))
    with pytest.raises(LayerError, match=r"1 of 3 labels are out of range: expected 0 to 1"):
        made(torch.rand(3, 5).double(), torch.tensor([0.0, label, 1.0]))


@pytest.mark.parametrize(
    "settings, shapes, reason",
    [
        ("", [(4, 3), (4,)], "num_output 0"),
        ("num_output: 5", [(4, 3), (3,)], "equal first dimensions"),
        ("num_output: 5", [(4, 3), (4, 2)], "one label an item"),
        ("num_output: 5", [(4, 3, 1, 1, 1), (4,)], "at most 4 axes"),
        ("num_output: 5 axis: 2", [(4, 3), (4,)], "center_loss_param.axis is 2"),
        ("num_output: 5 axis: 2", [(4, 2, 3), (4,)], "gives 3 values to each of the 4 items.*expected axis 1"),
        ("num_output: 5 axis: 0", [(4, 2, 3), (4,)], "gives 24 values to each of the 4 items"),
    ],
)
def test_impossible_center_losses_are_refused(settings: str, shapes: list[tuple[int, ...]], reason: str) -> None:
    with pytest.raises(LayerError, match=reason):
        center_loss(settings, *shapes)
