"""LRN and BatchNorm against their definitions in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from caffe2torch.errors import LayerError
from caffe2torch.layers.lrn import LRN
from caffe2torch.layers.norm import BatchNorm
from caffe2torch.layers.registry import Layer

from . import opencv
from .messages import layer as build
from .messages import message


def lrn(x: np.ndarray, size: int, alpha: float, beta: float, k: float, *, within: bool) -> np.ndarray:
    """The definition: every value by itself."""
    half, scale = size // 2, np.zeros(x.shape)
    square = x.astype(np.float64) ** 2
    for n, c, h, w in np.ndindex(*x.shape):
        if within:
            total = square[n, c, max(h - half, 0) : h + half + 1, max(w - half, 0) : w + half + 1].sum()
            scale[n, c, h, w] = 1.0 + alpha / size**2 * total
        else:
            scale[n, c, h, w] = k + alpha / size * square[n, max(c - half, 0) : c + half + 1, h, w].sum()
    return x / scale**beta


@pytest.mark.parametrize("within", [False, True], ids=["across", "within"])
@pytest.mark.parametrize("size", [1, 3, 5, 9])
@pytest.mark.parametrize("beta", [0.75, 0.5, 1.0, 0.6])
@pytest.mark.parametrize("shape", [(2, 7, 4, 3), (1, 1, 1, 1), (1, 16, 2, 5)])
def test_lrn_equals_its_definition(within: bool, size: int, beta: float, shape: tuple[int, ...]) -> None:
    x = (np.random.RandomState(0).randn(*shape) * 10).astype(np.float32)
    layer = LRN(size, alpha=0.3, beta=beta, k=2.0, within_channel=within)
    found = layer(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(found, lrn(x, size, 0.3, beta, 2.0, within=within), rtol=2e-6)


@pytest.mark.parametrize("within", [False, True], ids=["across", "within"])
def test_lrn_of_a_huge_window_takes_no_more_memory_than_the_blob(within: bool) -> None:
    x = np.random.RandomState(0).randn(1, 3, 2, 2).astype(np.float32)
    found = LRN(2**32 - 1, alpha=1e9, within_channel=within)(torch.from_numpy(x)).numpy()
    expected = lrn(x, 2**32 - 1, 1e9, 0.75, 1.0, within=within)
    np.testing.assert_allclose(found, expected, rtol=2e-6)


def test_lrn_gradient_is_the_derivative() -> None:
    layer = LRN(3, alpha=0.5, k=2.0)
    x = torch.randn(2, 5, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))


def test_lrn_refuses_even_sizes() -> None:
    with pytest.raises(LayerError, match="local_size is 4: expected an odd number"):
        LRN(4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_lrn_of_half_precision_does_not_overflow(dtype: torch.dtype) -> None:
    x = np.full((1, 3, 1, 1), 512.0)
    found = LRN(3, alpha=1e-4)(torch.from_numpy(x).to(dtype))
    assert found.dtype == dtype
    np.testing.assert_allclose(found.float().numpy(), lrn(x, 3, 1e-4, 0.75, 1.0, within=False), rtol=5e-3)


def batch_norm(channels: int, **settings: float | bool | None) -> BatchNorm:
    layer = BatchNorm(channels, **settings)  # type: ignore[arg-type]
    layer.mean.fill_(6.0)
    layer.variance.fill_(8.0)
    layer.scale_factor.fill_(2.0)
    return layer


def test_batch_norm_divides_its_sums_by_the_factor() -> None:
    x = torch.tensor([[5.0], [1.0]])
    found = batch_norm(1, eps=0.0).eval()(x)
    assert found.flatten().tolist() == [1.0, -1.0]  # mean 3, variance 4


def test_batch_norm_takes_a_factor_of_zero_as_zero_statistics() -> None:
    layer = batch_norm(1, eps=0.25).eval()
    layer.scale_factor.zero_()
    assert layer(torch.tensor([[5.0]])).item() == 10.0


def test_batch_norm_in_training_moves_its_sums_as_caffe_does() -> None:
    layer = batch_norm(1, moving_average_fraction=0.5).train()
    x = torch.tensor([[1.0], [3.0], [5.0]])
    y = layer(x)
    np.testing.assert_allclose(y.flatten(), np.array([-2, 0, 2]) / np.sqrt(8 / 3 + 1e-5), rtol=1e-6, atol=1e-6)
    assert layer.mean.item() == pytest.approx(6 * 0.5 + 3)
    assert layer.variance.item() == pytest.approx(8 * 0.5 + 8 / 3 * 3 / 2)
    assert layer.scale_factor.item() == pytest.approx(2 * 0.5 + 1)


@pytest.mark.parametrize("training", [False, True])
def test_batch_norm_with_global_statistics_leaves_them_alone(training: bool) -> None:
    layer = batch_norm(1, use_global_stats=True).train(training)
    layer(torch.tensor([[1.0], [3.0]]))
    assert [layer.mean.item(), layer.variance.item(), layer.scale_factor.item()] == [6.0, 8.0, 2.0]


def test_batch_norm_of_vectors_has_one_channel() -> None:
    x = torch.tensor([1.0, 3.0])
    found = BatchNorm(1, eps=0.0, use_global_stats=False)
    for blob in (found.mean, found.variance, found.scale_factor):
        blob.zero_()
    assert found(x).tolist() == [-1.0, 1.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_batch_norm_keeps_its_sums_in_float32(dtype: torch.dtype) -> None:
    norm = BatchNorm(3).eval()
    for blob, value in ((norm.mean, 20.0), (norm.variance, 400.0), (norm.scale_factor, 1.0)):
        blob.fill_(999 * value)  # 999 * 400 is more than float16 holds
    x = torch.randn(4, 3, 5, 5) * 20 + 20
    expected = norm(x)
    found = norm.to(dtype)(x.to(dtype))
    assert found.dtype == dtype
    assert torch.allclose(found.float(), expected, atol=0.02)


def fused(settings: str, shape: tuple[int, ...], *, training: bool) -> Layer:
    return build(f'type: "BatchNorm" batch_norm_param {{ {settings} }}', [shape], training=training)


@pytest.mark.parametrize("settings", ["scale_bias: true", "scale_filler { }", "bias_filler { }"])
def test_fused_batch_norm_equals_opencv(tmp_path: Path, settings: str) -> None:
    x = np.random.RandomState(0).randn(2, 3, 4, 5).astype(np.float32)
    layer = fused(f"{settings} eps: 0.001", x.shape, training=False)
    layer.blob_items()[2][1].fill_(1.0)
    blobs = [blob.detach().numpy() for _, blob in layer.blob_items()]
    assert [blob.shape for blob in blobs] == [(3,), (3,), (1,), (3,), (3,)]
    expected = opencv.run(tmp_path, 'type: "BatchNorm" batch_norm_param { scale_bias: true eps: 0.001 }', [x], blobs)
    np.testing.assert_allclose(layer(torch.from_numpy(x)).detach(), expected, rtol=1e-5, atol=1e-5)


def test_fused_batch_norm_in_training_keeps_averages() -> None:
    layer = fused("scale_bias: true moving_average_fraction: 0.75 eps: 1e-9", (3, 1), training=True)
    mean, variance, factor, weight, bias = (blob for _, blob in layer.blob_items())
    factor.fill_(1.0)
    y = layer(torch.tensor([[1.0], [3.0], [5.0]]))
    expected = np.array([-2, 0, 2]) / np.sqrt(8 / 3 + 1e-5) * weight.item() + bias.item()
    np.testing.assert_allclose(y.detach().flatten(), expected, rtol=1e-6)
    assert [mean.item(), variance.item(), factor.item()] == pytest.approx([3.0, 4.0, 1.0])
    layer(torch.tensor([[2.0], [6.0], [10.0]]))
    assert [mean.item(), variance.item(), factor.item()] == pytest.approx([3.75, 7.0, 1.0])


def test_fused_batch_norm_starts_as_the_identity() -> None:
    layer = fused("scale_bias: true", (2, 3), training=False)
    layer.fill(message('type: "BatchNorm" batch_norm_param { scale_bias: true bias_filler { value: 2 } }'))
    assert [blob.unique().tolist() for _, blob in layer.blob_items()] == [[0.0], [0.0], [1.0], [1.0], [2.0]]


@pytest.mark.parametrize("training", [False, True])
def test_fused_batch_norm_runs_in_half_precision(training: bool) -> None:
    x = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    expected = fused("scale_bias: true", (4, 3, 5, 5), training=training)(x)
    found = fused("scale_bias: true", (4, 3, 5, 5), training=training).half()(x.half())
    assert found.dtype == torch.float16
    assert torch.allclose(found.float(), expected, atol=0.02)
