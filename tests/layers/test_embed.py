"""Embed and Parameter: layers that are mostly their parameters."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from .messages import layer, message


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5,), (2, 3), (1, 2, 1)])
def test_embed_looks_up_rows(bias: bool, shape: tuple[int, ...]) -> None:
    text = f'type: "Embed" embed_param {{ input_dim: 4 num_output: 3 bias_term: {str(bias).lower()} }}'
    made = layer(text, [shape])
    x = np.random.RandomState(0).randint(4, size=shape)
    table, *rest = (blob.detach().numpy() for _, blob in made.blob_items())
    expected = np.stack([table[i] + (rest[0] if rest else 0) for i in x.ravel()]).reshape(*shape, 3)
    np.testing.assert_array_equal(made(torch.from_numpy(x).float()).detach().numpy(), expected)
    assert [tuple(blob.shape) for _, blob in made.blob_items()] == [(4, 3), (3,)][: 1 + bias]


def test_embed_adds_up_the_gradients_of_a_row() -> None:
    made = layer('type: "Embed" embed_param { input_dim: 3 num_output: 1 }', [(4,)])
    made(torch.tensor([2.0, 0.0, 2.7, 2.0])).sum().backward()
    weight, bias = (blob.grad for _, blob in made.blob_items())
    assert weight is not None
    assert bias is not None
    assert (weight.tolist(), bias.tolist()) == ([[1], [0], [3]], [4])


def test_parameter_gives_its_blob_and_starts_at_zero() -> None:
    made = layer('type: "Parameter" parameter_param { shape { dim: 2 dim: 3 } }', [])
    (_, blob), *_ = made.blob_items()
    y = made()
    assert torch.equal(y, blob)
    y.sum().backward()
    assert blob.grad is not None
    assert (blob.grad == 1).all()
    with torch.no_grad():
        made.fill(message('type: "Parameter"', bottoms=0))
    assert not blob.any()
