"""Losses and accuracy against loops over every value, for all normalizations, axes and ignored labels."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from caffe2torch.errors import LayerError
from caffe2torch.layers.accuracy import Accuracy, ArgMax
from caffe2torch.layers.loss import (
    ContrastiveLoss,
    K1EuclideanLoss,
    K2EuclideanLoss,
    SigmoidCrossEntropyLoss,
    SoftmaxWithLoss,
)

MODES = ["FULL", "VALID", "BATCH_SIZE", "NONE"]


def divisor(mode: str, places: int, kept: int, items: int) -> int:
    return max(1, {"FULL": places, "VALID": kept, "BATCH_SIZE": items, "NONE": 1}[mode])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("ignored", [None, 1, 77])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_softmax_loss_equals_its_definition(mode: str, ignored: int | None, axis: int) -> None:
    random = np.random.RandomState(0)
    x = (random.randn(3, 4, 5) * 3).astype(np.float32)
    places = [n for i, n in enumerate(x.shape) if i != axis]
    labels = random.randint(0, 3, places).astype(np.float32)
    total, kept, gradient = 0.0, 0, np.zeros(x.shape)
    for place in np.ndindex(*places):
        column = (*place[:axis], slice(None), *place[axis:])
        probabilities = np.exp(x[column].astype(np.float64))
        probabilities /= probabilities.sum()
        label = int(labels[place])
        if label == ignored:
            continue
        kept += 1
        total -= math.log(probabilities[label])
        gradient[column] = probabilities - np.eye(len(probabilities))[label]
    over = divisor(mode, math.prod(places), kept, math.prod(x.shape[:axis]))
    bottom = torch.from_numpy(x).requires_grad_()
    loss = SoftmaxWithLoss(mode, ignored, axis=axis)(bottom, torch.from_numpy(labels))
    assert isinstance(loss, torch.Tensor)
    loss.backward()
    assert loss.item() == pytest.approx(total / over, rel=1e-5)
    assert bottom.grad is not None
    np.testing.assert_allclose(bottom.grad.numpy(), gradient / over, atol=1e-6)


def test_softmax_loss_second_top_is_the_probabilities_without_gradient() -> None:
    x = torch.tensor([[0.0, math.log(3.0)]], requires_grad=True)
    result = SoftmaxWithLoss(probabilities=True)(x, torch.tensor([0.0]))
    assert isinstance(result, tuple)
    assert result[1].tolist() == [pytest.approx([0.25, 0.75])]
    assert not result[1].requires_grad


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("ignored", [None, 0, 1])
def test_sigmoid_cross_entropy_equals_its_definition(mode: str, ignored: int | None) -> None:
    random = np.random.RandomState(1)
    x = (random.randn(3, 7) * 3).astype(np.float32)
    targets = np.where(random.rand(3, 7) < 0.5, random.randint(0, 2, (3, 7)), random.rand(3, 7)).astype(np.float32)
    total, kept, gradient = 0.0, 0, np.zeros(x.shape)
    for place in np.ndindex(*x.shape):
        if int(targets[place]) == ignored:
            continue
        kept += 1
        p, t = 1 / (1 + math.exp(-x[place])), float(targets[place])
        total -= t * math.log(p) + (1 - t) * math.log(1 - p)
        gradient[place] = p - t
    over = divisor(mode, x.size, kept, len(x))
    bottom = torch.from_numpy(x).requires_grad_()
    loss = SigmoidCrossEntropyLoss(mode, ignored)(bottom, torch.from_numpy(targets))
    loss.backward()
    assert loss.item() == pytest.approx(total / over, rel=1e-5)
    assert bottom.grad is not None
    np.testing.assert_allclose(bottom.grad.numpy(), gradient / over, atol=1e-6)


def test_sigmoid_cross_entropy_of_huge_values_is_finite() -> None:
    loss = SigmoidCrossEntropyLoss("NONE")(torch.tensor([[1e4, -1e4]]), torch.tensor([[0.0, 1.0]]))
    assert loss.item() == 2e4


@pytest.mark.parametrize("layer, sign", [(K1EuclideanLoss(), -1), (K2EuclideanLoss(), 1)])
def test_hashing_losses_give_both_bottoms_the_first_ones_gradient(layer: torch.nn.Module, sign: int) -> None:
    a = torch.tensor([[0.0, 1.0], [0.75, 0.5]], requires_grad=True)
    b = torch.full((2, 2), 9.0, requires_grad=True)
    loss = layer(a, b)
    loss.backward()
    assert loss.item() == sign * (0.25 + 0.25 + 0.0625) / 8
    assert a.grad is not None
    assert b.grad is not None
    np.testing.assert_allclose(a.grad.numpy(), sign * np.array([[-0.5, 0.5], [0.25, 0.0]]) / 4)
    assert torch.equal(a.grad, b.grad)


def test_a_blob_read_twice_by_a_hashing_loss_gets_twice_the_gradient() -> None:
    a = torch.tensor([[0.0, 1.0]], requires_grad=True)
    K2EuclideanLoss()(a, a).backward()
    assert a.grad is not None
    assert a.grad.tolist() == [[-0.5, 0.5]]


def test_contrastive_gradient_of_equal_dissimilar_items_is_zero() -> None:
    a, b = torch.ones(1, 3, requires_grad=True), torch.ones(1, 3, requires_grad=True)
    loss = ContrastiveLoss()(a, b, torch.zeros(1))
    loss.backward()
    assert loss.item() == 0.5
    assert a.grad is not None
    assert a.grad.tolist() == [[0.0, 0.0, 0.0]]


def test_legacy_contrastive_gradient_at_the_margin_itself_is_zero() -> None:
    a, b = torch.tensor([[2.0, 0.0]], requires_grad=True), torch.zeros(1, 2)
    ContrastiveLoss(4.0, legacy=True)(a, b, torch.zeros(1)).backward()
    assert a.grad is not None
    assert a.grad.tolist() == [[0.0, 0.0]]


def test_contrastive_gradient_divides_by_the_distance_and_a_little() -> None:
    a, b = torch.tensor([[0.01]], requires_grad=True), torch.zeros(1, 1)
    ContrastiveLoss()(a, b, torch.zeros(1)).backward()
    assert a.grad is not None
    assert a.grad.item() == pytest.approx(-(1 - 0.01) / (0.01 + 1e-4) * 0.01, rel=1e-5)


@pytest.mark.parametrize("top_k", [1, 2, 3])
@pytest.mark.parametrize("ignored", [None, 2])
@pytest.mark.parametrize("axis", [1, 2])
def test_accuracy_equals_its_definition(top_k: int, ignored: int | None, axis: int) -> None:
    random = np.random.RandomState(2)
    x = random.randint(0, 3, (4, 5, 5)).astype(np.float32)  # many equal scores
    labels = random.randint(0, 4, (4, 5))
    correct, seen = np.zeros(5), np.zeros(5)
    for i, j in itertools.product(range(4), range(5)):
        scores = x[i, :, j] if axis == 1 else x[i, j]
        label = labels[i, j]
        if label == ignored:
            continue
        seen[label] += 1
        others = sum(1 for c, score in enumerate(scores) if c != label and score >= scores[label])
        correct[label] += others < top_k
    layer = Accuracy(top_k, axis=axis, ignore_label=ignored, per_class=True)
    result = layer(torch.from_numpy(x), torch.from_numpy(labels).float())
    assert result[0].item() == pytest.approx(correct.sum() / seen.sum())
    np.testing.assert_allclose(result[1].numpy(), correct / np.maximum(seen, 1), rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.uint8])
def test_labels_may_have_any_type(dtype: torch.dtype) -> None:
    x, labels = torch.eye(3), torch.arange(3).to(dtype)
    assert Accuracy()(x, labels).item() == 1.0
    assert SoftmaxWithLoss()(x, labels).item() == pytest.approx(math.log(1 + 2 / math.e))


def test_argmax_of_equal_values_takes_the_later_index_first() -> None:
    assert ArgMax(2, axis=1)(torch.tensor([[1.0, 3.0, 3.0, 2.0]])).tolist() == [[2.0, 1.0]]


@pytest.mark.parametrize("top_k", [1, 2, 5])
def test_argmax_lists_the_later_of_equal_values_first(top_k: int) -> None:
    x = torch.randint(0, 3, (8, 6), generator=torch.Generator().manual_seed(0)).float()
    expected = [sorted(range(6), key=lambda i: (row[i], i), reverse=True)[:top_k] for row in x.tolist()]
    assert ArgMax(top_k)(x).squeeze(1).tolist() == expected


def test_softmax_loss_refuses_a_label_that_torch_would_ignore() -> None:
    with pytest.raises(LayerError, match="label -100"):
        SoftmaxWithLoss()(torch.zeros(1, 3), torch.tensor([-100.0]))
