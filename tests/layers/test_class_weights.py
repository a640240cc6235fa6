"""SegNet's weights of the classes in SoftmaxWithLoss, against loops over every place."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from .messages import layer

WEIGHTS = [0.25, 1.5, 0.0, 7.3]


def weighted(settings: str) -> str:
    given = " ".join(f"class_weighting: {weight}" for weight in WEIGHTS)
    return f'type: "SoftmaxWithLoss" loss_param {{ weight_by_label_freqs: true {given} {settings} }}'


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("ignored", [None, 1, 255])
@pytest.mark.parametrize("mode", ["", "normalize: false", "normalization: FULL", "normalization: NONE"])
def test_class_weights_multiply_the_loss_and_gradient_of_each_place(
    mode: str, ignored: int | None, dtype: type
) -> None:
    random = np.random.RandomState(0)
    x, labels = (random.randn(3, 4, 5, 2) * 3).astype(dtype), random.randint(0, 4, (3, 5, 2))
    x[0, 0, 0, 0] = -200.0  # its probability is below FLT_MIN
    labels[0, 0, 0] = 0
    if ignored == 255:
        labels[1, 2:] = 255
    weights = np.array(WEIGHTS, np.float32).astype(np.float64)
    total, kept, gradient = 0.0, 0, np.zeros(x.shape)
    for n, i, j in np.ndindex(*labels.shape):
        label = labels[n, i, j]
        if label == ignored:
            continue
        column = x[n, :, i, j].astype(np.float64)
        probabilities = np.exp(column - column.max())
        probabilities /= probabilities.sum()
        kept += 1
        total -= weights[label] * math.log(max(probabilities[label], 1.17549435e-38))
        gradient[n, :, i, j] = weights[label] * (probabilities - np.eye(4)[label])
    over = {"": kept, "normalize: false": 3, "normalization: FULL": 30, "normalization: NONE": 1}[mode]
    given = mode if ignored is None else f"{mode} ignore_label: {ignored}"
    made = layer(weighted(given), [x.shape, labels.shape]).to(torch.from_numpy(x).dtype)
    leaf = torch.from_numpy(x).requires_grad_()
    loss = made(leaf, torch.from_numpy(labels.astype(dtype)))
    loss.backward()
    assert leaf.grad is not None
    np.testing.assert_allclose(loss.item(), total / over, rtol=1e-6)
    np.testing.assert_allclose(leaf.grad.numpy(), gradient / over, rtol=1e-5, atol=1e-6)


def test_class_weights_without_weight_by_label_freqs_do_nothing() -> None:
    text = 'type: "SoftmaxWithLoss" loss_param {{ {} }}'
    x, labels = torch.randn(2, 3), torch.tensor([1.0, 2.0])
    given, plain = (layer(text.format(s), [(2, 3), (2,)])(x, labels) for s in ("class_weighting: 5", ""))
    assert given == plain


def test_class_weights_are_no_part_of_the_weights() -> None:
    made = layer(weighted(""), [(2, 4), (2,)])
    assert not made.state_dict()
    assert not made.blob_items()
