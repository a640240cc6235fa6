"""PairwiseLoss, QuantizationLoss and ScaleTanH against loops over the rules of DHN and HashNet."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import caffe2torch
from caffe2torch.errors import LayerError
from caffe2torch.layers.registry import Layer

from .messages import layer

Array = NDArray[Any]
HASH_CAFFE, DHN, HASHNET = "threshold: 15", "l_threshold: 15 q_threshold: 15 q_gamma: 0.3", "class_num: 3"


def quantization(x: Array, threshold: float) -> tuple[float, Array]:
    """DHN's second loss of codes (N, C), and the gradient that its layer writes."""
    total, gradient = 0.0, np.zeros(x.shape)
    for place, value in np.ndenumerate(x):
        beyond = abs(value) - 1
        total += abs(beyond - math.log(2) if 0 < threshold < beyond else math.log(math.cosh(beyond)))
        gradient[place] = (1 if value >= 0 else -1) * math.tanh(beyond) / len(x)
    return total / x.size, gradient


def pair_loss(p: float, similar: bool, threshold: float) -> float:
    if 0 <= threshold <= p:
        return 0.0 if similar else p
    return math.log(1 + math.exp(p)) - similar * p


def naive(
    x: Array,
    labels: Array,
    y: Array,
    others: Array,
    *,
    threshold: float,
    unknown: bool = True,
    l_lambda: float = 1.0,
    class_num: float = 1.0,
    sigmoid: float = 1.0,
    continuous: bool = False,
) -> tuple[float, Array, Array]:
    """The pairs' loss of codes x against codes y, and what the layers write into the gradients of both."""
    total, count = 0.0, 0.0
    of_x, of_y = np.zeros(x.shape), np.zeros(y.shape)
    for i in range(len(x)):
        for j in range(len(y)):
            shared = sum(labels[i] * others[j])
            if unknown and not 0 <= shared < labels.shape[1]:
                continue
            similar = bool(shared > 0)
            p = sigmoid * sum(x[i] * y[j])
            weight = class_num if similar else 1.0
            total += abs(weight * pair_loss(p, similar, threshold))
            count += abs(weight)
            slope = 2 * weight * l_lambda * (1 / (1 + math.exp(-p)) - similar)
            if continuous:
                own = (sum(labels[i] ** 2) or 1.0) * (sum(others[j] ** 2) or 1.0)
                slope *= 4 * (shared**2 / own or 0.25)
            of_x[i] += slope * y[j]
            of_y[j] += slope * x[i]
    count = count or 1.0
    for gradient in (of_x, of_y):
        gradient /= count
        gradient.reshape(-1)[: len(x)] *= sigmoid  # the fork scales as many values as there are items
    return total / count * (l_lambda > 0), of_x, of_y


def made(settings: str, *shapes: tuple[int, ...], text: str = "") -> Layer:
    return layer(f'type: "PairwiseLoss" {text} pairwise_param {{ {settings} }}', shapes)


def run(module: Layer, x: Array, labels: Array, *more: Array) -> tuple[float, list[Array]]:
    """The loss, and the gradients of the codes."""
    bottoms = [torch.from_numpy(bottom.copy()) for bottom in (x, labels, *more)]
    codes = [bottom.requires_grad_() for bottom in bottoms[::2]]
    loss = module(*bottoms)
    loss.backward()
    assert loss.shape == ()
    return loss.item(), [bottom.grad.numpy() for bottom in codes if bottom.grad is not None]


def batch(seed: int, *, items: int = 6, bits: int = 4, classes: int = 3, scale: float = 1.5) -> tuple[Array, Array]:
    """Codes, and labels that hold none of the classes, some and all of them, and one that is negative."""
    random = np.random.RandomState(seed)
    labels = random.randint(0, 2, (items, classes)).astype(np.float64)
    labels[0], labels[1], labels[2, 0] = 0, 1, -1
    return random.randn(items, bits) * scale, labels


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("threshold", [-1.0, 0.0, 2.0, 15.0])
def test_the_loss_of_hash_caffe_equals_its_definition(threshold: float, dtype: type) -> None:
    x, labels = (array.astype(dtype) for array in batch(1))
    x64 = x.astype(np.float64)
    value, gradient, _ = naive(x64, labels, x64, labels, threshold=threshold, unknown=False)
    found, (slope,) = run(made(f"threshold: {threshold}", x.shape, labels.shape), x, labels)
    tolerance = 1e-5 if dtype is np.float32 else 1e-12
    assert found == pytest.approx(value, rel=tolerance)
    np.testing.assert_allclose(slope, gradient, atol=tolerance)


def test_the_gradient_of_hash_caffe_is_that_of_its_loss() -> None:
    x, labels = (torch.from_numpy(array) for array in batch(2))
    module = made("threshold: -1", (6, 4), (6, 3))
    assert torch.autograd.gradcheck(lambda codes: module(codes, labels), x.requires_grad_())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("l_lambda", [1.0, 0.5, 0.0, -1.0])
@pytest.mark.parametrize("q_gamma", [0.3, 0.0, -0.3])
@pytest.mark.parametrize("thresholds", [(-1.0, -1.0), (0.0, 0.1), (2.0, 0.5)], ids=str)
def test_the_loss_of_dhn_caffe_equals_its_definition(
    thresholds: tuple[float, float], q_gamma: float, l_lambda: float, dtype: type
) -> None:
    x, labels = (array.astype(dtype) for array in batch(3))
    x64 = x.astype(np.float64)
    value, gradient, _ = naive(x64, labels, x64, labels, threshold=thresholds[0], l_lambda=l_lambda)
    quantized, further = quantization(x64, thresholds[1])
    settings = f"l_threshold: {thresholds[0]} q_threshold: {thresholds[1]} l_lambda: {l_lambda} q_gamma: {q_gamma}"
    found, (slope,) = run(made(settings, x.shape, labels.shape), x, labels)
    tolerance = 1e-5 if dtype is np.float32 else 1e-7  # the settings are float32
    assert found == pytest.approx(value + quantized * (q_gamma > 0), rel=tolerance)
    np.testing.assert_allclose(slope, gradient + q_gamma * further, atol=tolerance)


def test_the_defaults_of_dhn_caffe_are_no_thresholds_and_factors_of_1() -> None:
    x, labels = batch(4)
    found, (slope,) = run(made("axis: 1", x.shape, labels.shape), x, labels)
    value, gradient, _ = naive(x, labels, x, labels, threshold=-1)
    quantized, further = quantization(x, -1)
    assert found == pytest.approx(value + quantized)
    np.testing.assert_allclose(slope, gradient + further)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize(
    "sigmoid, class_num, l_lambda, threshold",
    [(1.0, 1.0, 1.0, -1.0), (0.2, 5.0, 1.0, 15.0), (2.0, -3.0, 0.5, 1.0), (0.5, 0.0, -1.0, 0.0)],
)
def test_the_loss_of_hashnet_equals_its_definition(
    sigmoid: float, class_num: float, l_lambda: float, threshold: float, continuous: bool, dtype: type
) -> None:
    (x, labels), (y, others) = ((a.astype(dtype), b.astype(dtype)) for a, b in (batch(5), batch(6)))
    value, of_x, of_y = naive(
        x.astype(np.float64),
        labels,
        y.astype(np.float64),
        others,
        threshold=threshold,
        l_lambda=l_lambda,
        class_num=class_num,
        sigmoid=sigmoid,
        continuous=continuous,
    )
    settings = (
        f"l_threshold: {threshold} q_threshold: 15 l_lambda: {l_lambda} class_num: {class_num} "
        f"sigmoid_param: {sigmoid} continous_similarity: {str(continuous).lower()}"
    )
    found, (first, second) = run(made(settings, *(a.shape for a in (x, labels, y, others))), x, labels, y, others)
    tolerance = 1e-5 if dtype is np.float32 else 1e-7  # the settings are float32
    assert found == pytest.approx(value, rel=tolerance)
    np.testing.assert_allclose(first, of_x, atol=tolerance)
    np.testing.assert_allclose(second, of_y, atol=tolerance)


def test_hashnet_scales_the_gradient_of_its_first_values_alone() -> None:
    """As many as there are items: here the first of the two codes, which have two bits."""
    x, labels = np.ones((2, 2)), np.array([[1.0, 0.0], [1.0, 0.0]])
    _, (slope, _) = run(made("class_num: 1 sigmoid_param: 0.5", (2, 2), (2, 2), (2, 2), (2, 2)), x, labels, x, labels)
    full = 2 * (1 / (1 + math.exp(-1)) - 1) * 2 / 4
    np.testing.assert_allclose(slope, [[full / 2, full / 2], [full, full]])


def test_hashnet_gives_the_second_codes_a_gradient_only_with_the_first() -> None:
    x, y = torch.ones(2, 3), torch.ones(2, 3, requires_grad=True)
    labels = torch.zeros(2, 2)
    module = made(HASHNET, (2, 3), (2, 2), (2, 3), (2, 2))
    assert not module(x, labels, y, labels).requires_grad
    module(x.requires_grad_(), labels, y, labels).backward()
    assert y.grad is not None


@pytest.mark.parametrize("labels", [(1.0, 1.0, 1.0), (-1.0, 0.0, 0.0)], ids=["all", "negative"])
def test_pairs_that_are_all_unknown_have_no_loss(labels: tuple[float, ...]) -> None:
    """A pair that shares all classes is as unknown to the forks as one that shares less than none."""
    x, mine, his = np.full((1, 2), 9.0), np.array([labels]), np.abs([labels])
    found, slopes = run(made(HASHNET, (1, 2), (1, 3), (1, 2), (1, 3)), x, mine, x, his)
    assert found == 0
    assert not np.any(slopes)


def test_an_unknown_pair_is_none_also_where_its_loss_would_be_infinite() -> None:
    x, labels = np.full((1, 2), 99.0), np.array([[1.0]])
    found, (slope,) = run(made("l_lambda: 1 q_gamma: 0", (1, 2), (1, 1)), x, labels)
    assert found == 0
    assert slope.tolist() == [[0.0, 0.0]]


def test_large_products_overflow_without_a_threshold_and_not_with_one() -> None:
    x, labels = np.full((1, 1), 10.0, np.float32), np.zeros((1, 2), np.float32)
    assert run(made("threshold: -1", (1, 1), (1, 2)), x, labels)[0] == math.inf
    found, (slope,) = run(made("threshold: 15", (1, 1), (1, 2)), x, labels)
    assert found == 100
    assert slope.tolist() == [[20.0]]


@pytest.mark.parametrize(
    "settings, factor", [(HASH_CAFFE, 2.0), (DHN, 1.0), (HASHNET, 1.0)], ids=["hash-caffe", "dhn-caffe", "HashNet"]
)
def test_loss_weight_reaches_the_gradient_in_hash_caffe_alone(settings: str, factor: float) -> None:
    x, labels = batch(7)
    bottoms = (x, labels, *batch(8)) if settings == HASHNET else (x, labels)
    shapes = [bottom.shape for bottom in bottoms]
    _, plain = run(made(settings, *shapes), *bottoms)
    weighted = made(settings, *shapes, text="loss_weight: 2")
    leaves = [torch.from_numpy(bottom) for bottom in bottoms]
    codes = [leaf.requires_grad_() for leaf in leaves[::2]]
    (2 * weighted(*leaves)).backward()  # as the net weighs it
    for leaf, expected in zip(codes, plain, strict=True):
        assert leaf.grad is not None
        np.testing.assert_allclose(leaf.grad.numpy(), factor * expected)


@pytest.mark.parametrize("settings", [DHN, HASHNET], ids=["dhn-caffe", "HashNet"])
def test_a_loss_weight_of_0_is_allowed(settings: str) -> None:
    shapes = ((2, 3), (2, 2)) * (2 if settings == HASHNET else 1)
    bottoms = [torch.ones(shape) for shape in shapes]
    assert made(settings, *shapes, text="loss_weight: 0")(*bottoms) == made(settings, *shapes)(*bottoms)


def test_codes_and_labels_may_have_more_axes() -> None:
    x, labels = batch(9)
    found, (slope,) = run(
        made("threshold: 15", (6, 2, 2), (6, 3, 1, 1)), x.reshape(6, 2, 2), labels.reshape(6, 3, 1, 1)
    )
    value, (expected,) = run(made("threshold: 15", (6, 4), (6, 3)), x, labels)
    assert found == value
    assert np.array_equal(slope.reshape(6, 4), expected)


@pytest.mark.parametrize(
    "settings, bottoms",
    [
        ("", 2),  # dhn-caffe adds a quantization, hash-caffe does not
        ("threshold: 15 l_lambda: 1", 2),
        ("threshold: 15 axis: 1", 2),
        ("class_num: 1", 2),
        ("l_lambda: 1 sigmoid_param: 1", 2),
        ("threshold: 15", 4),
        ("threshold: 15 class_num: 1", 4),
    ],
    ids=str,
)
def test_settings_of_no_fork_are_refused(settings: str, bottoms: int) -> None:
    with pytest.raises(LayerError, match=r"no fork's layer.*expected threshold with 2 bottoms"):
        made(settings, *((2, 3), (2, 2)) * (bottoms // 2))


def test_the_layer_of_dph_is_refused() -> None:
    with pytest.raises(LayerError, match=r"DPH.*give class_num: 1"):
        made("l_threshold: 15 l_lambda: 1 sigmoid_param: 0.2 continous_similarity: false", *((2, 3), (2, 2)) * 2)


@pytest.mark.parametrize(
    "settings, shapes, reason",
    [
        (HASH_CAFFE, ((2, 3), (3, 2)), "equal first dimensions"),
        (HASHNET, ((2, 3), (2, 2), (2, 3)), "3 bottoms"),
        (HASHNET, ((2, 3), (2, 2), (2, 4), (2, 2)), "two times codes"),
        (HASHNET, ((2, 3), (2, 2), (2, 3), (2, 1)), "two times codes"),
        (DHN + " axis: 0", ((2, 3), (2, 2)), "axis is 0"),
        (DHN, ((2,), (2, 2)), "expected -1 to 0"),
    ],
)
def test_other_shapes_are_refused(settings: str, shapes: tuple[tuple[int, ...], ...], reason: str) -> None:
    with pytest.raises(LayerError, match=reason):
        made(settings, *shapes)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("threshold", [-1.0, 0.0, 0.1, 15.0])
@pytest.mark.parametrize("shape", [(4, 5), (3, 2, 2), (4,)], ids=str)
def test_quantization_equals_its_definition(shape: tuple[int, ...], threshold: float, dtype: type) -> None:
    x = (np.random.RandomState(4).randn(*shape) * 2).astype(dtype)
    x.flat[:3] = (0, 1.2, -1)  # 1.2 is beyond 0.1, where 0.2 - log(2) is negative
    value, gradient = quantization(x.astype(np.float64).reshape(len(x), -1), threshold)
    codes = torch.from_numpy(x).requires_grad_()
    module = layer(f'type: "QuantizationLoss" quantization_param {{ threshold: {threshold} }}', (shape,))
    loss = module(codes)
    loss.backward()
    tolerance = 1e-6 if dtype is np.float32 else 1e-12
    assert loss.item() == pytest.approx(value, rel=tolerance)
    assert codes.grad is not None
    np.testing.assert_allclose(codes.grad.numpy(), gradient.reshape(shape), atol=tolerance)


def test_quantization_of_large_values_overflows_without_a_threshold_and_not_with_one() -> None:
    x = torch.full((1, 1), 101.0)
    assert layer('type: "QuantizationLoss" quantization_param { }', ((1, 1),))(x).item() == math.inf
    found = layer('type: "QuantizationLoss" quantization_param { threshold: 15 }', ((1, 1),))(x)
    assert found.item() == pytest.approx(100 - math.log(2))


def test_quantization_that_may_be_of_another_fork_is_refused() -> None:
    with pytest.raises(LayerError, match="no quantization_param"):
        layer('type: "QuantizationLoss"', ((2, 3),))


def scale_tanh(settings: str) -> Layer:
    return layer(f'type: "ScaleTanH" scale_tanh_param {{ {settings} }}', ((2, 3),))


@pytest.mark.parametrize("training", [False, True])
def test_the_scale_grows_with_every_step(training: bool) -> None:
    module = scale_tanh("init_scale: 1.5 step_size: 3 gamma: 0.5 power: 0.7").train(training).double()
    scale, count = 1.5, 1
    for _ in range(10):
        count += 1
        if count % 3 == 0:
            scale = 1.5 * (1 + 0.5 * count) ** 0.7
        x = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(2, 3).requires_grad_()
        top = module(x)
        top.sum().backward()
        expected = np.tanh(scale * x.detach().numpy())
        np.testing.assert_allclose(top.detach().numpy(), expected, rtol=1e-6)  # power is a float32
        assert x.grad is not None
        np.testing.assert_allclose(x.grad.numpy(), scale * (1 - expected**2), rtol=1e-5)
        again = module.caffe_backward(torch.ones_like(top), x, top).detach()
        np.testing.assert_allclose(again.numpy(), x.grad.numpy(), rtol=1e-12)


def test_passes_are_not_stored() -> None:
    assert not scale_tanh("").state_dict()


def test_without_power_the_scale_stays() -> None:
    module = scale_tanh("init_scale: 2 step_size: 1")
    for _ in range(3):
        assert module(torch.full((2, 3), 0.25)).tolist() == torch.full((2, 3), 0.5).tanh().tolist()


@pytest.mark.parametrize("settings, reason", [("gamma: 0.5", "dhn-caffe"), ("step_size: 0", "step_size is 0")])
def test_scales_that_cannot_be_told_are_refused(settings: str, reason: str) -> None:
    with pytest.raises(LayerError, match=reason):
        scale_tanh(settings)


NET = """
layer {{ name: "d1" type: "ImageData" top: "x1" top: "l1" image_data_param {{ source: "a" label_dim: 3 }} }}
layer {{ name: "d2" type: "MultiLabelData" top: "x2" top: "l2" multi_label_data_param {{ source: "a" }} }}
layer {{ name: "both" type: "Concat" bottom: "x1" bottom: "x2" top: "x" concat_param {{ axis: 0 }} }}
layer {{ name: "code" type: "InnerProduct" bottom: "x" top: "code" inner_product_param {{ num_output: 4
  weight_filler {{ type: "gaussian" }} }} }}
layer {{ name: "steep" type: "ScaleTanH" bottom: "code" top: "code"
  scale_tanh_param {{ step_size: 2 gamma: 0.005 power: 0.5 }} }}
layer {{ name: "halves" type: "Slice" bottom: "code" top: "c1" top: "c2" slice_param {{ axis: 0 }} }}
layer {{ name: "loss" type: "PairwiseLoss" bottom: "c1" bottom: "l1" bottom: "c2" bottom: "l2" top: "loss" {weight}
  pairwise_param {{ class_num: 2 sigmoid_param: 0.5 l_threshold: 15 }} }}
"""


def test_a_training_net_as_that_of_hashnet_learns_whatever_its_loss_weight(tmp_path: Path) -> None:
    """Its data layers, one of an unknown type and one with an unknown field, are fed from outside."""
    gradients = []
    for weight in ("", "loss_weight: 4"):
        path = tmp_path / "train.prototxt"
        path.write_text(NET.format(weight=weight), encoding="utf-8")
        shapes = {"x1": (3, 5), "l1": (3, 3), "x2": (3, 5), "l2": (3, 3)}
        torch.manual_seed(0)
        net = caffe2torch.load(path, phase="train", input_shapes=shapes)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for blob in net.parameters():
                blob.normal_(generator=generator)
        inputs = {blob: torch.rand(shape, generator=generator).round() for blob, shape in shapes.items()}
        net.loss(net(inputs)).backward()
        gradients.append(torch.cat([blob.grad.flatten() for blob in net.parameters() if blob.grad is not None]))
    assert gradients[0].abs().max() > 0.01
    torch.testing.assert_close(*gradients)
