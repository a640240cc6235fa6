"""Reorg and the repeating Upsample against OpenCV and loops over their definitions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from caffe2torch.errors import LayerError

from . import opencv
from .messages import layer

Array = NDArray[Any]


def darknet(x: Array, stride: int, *, reverse: bool) -> Array:
    """Darknet's loop over the flat arrays: reversed it scatters, otherwise it gathers."""
    n, channels, height, width = x.shape
    fewer = channels // stride**2
    shape = (fewer, height * stride, width * stride)
    result = np.zeros((n, *(shape if reverse else (channels * stride**2, height // stride, width // stride))), x.dtype)
    for image in range(n):
        source, target = x[image].reshape(-1), result[image].reshape(-1)
        for k, j, i in np.ndindex(channels, height, width):
            offset, c = divmod(k, fewer)
            place = np.ravel_multi_index((c, j * stride + offset // stride, i * stride + offset % stride), shape)
            plain = np.ravel_multi_index((k, j, i), (channels, height, width))
            if reverse:
                target[place] = source[plain]
            else:
                target[plain] = source[place]
    return result


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("stride, shape", [(1, (1, 2, 3, 2)), (2, (2, 8, 4, 6)), (3, (1, 9, 6, 3))])
def test_reorg_equals_darknets_loop(stride: int, shape: tuple[int, ...], reverse: bool) -> None:
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    built = layer(f'type: "Reorg" reorg_param {{ stride: {stride} reverse: {str(reverse).lower()} }}', [shape])
    np.testing.assert_array_equal(built(torch.from_numpy(x)), darknet(x, stride, reverse=reverse))


@pytest.mark.parametrize("shape", [(2, 8, 4, 6), (1, 64, 26, 26)])
def test_reorg_equals_opencv(tmp_path: Path, shape: tuple[int, ...]) -> None:
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    text = 'type: "Reorg" reorg_param { stride: 2 }'
    np.testing.assert_array_equal(layer(text, [shape])(torch.from_numpy(x)), opencv.run(tmp_path, text, [x]))


@pytest.mark.parametrize("reverse", ["false", "true"])
def test_reorg_moves_its_gradient_back(reverse: str) -> None:
    shape = (1, 8, 2, 4)
    built = layer(f'type: "Reorg" reorg_param {{ stride: 2 reverse: {reverse} }}', [shape])
    x = torch.arange(64.0).reshape(shape).requires_grad_()
    y = built(x)
    y.backward(y.detach())
    assert x.grad is not None
    assert torch.equal(x.grad, x.detach())


@pytest.mark.parametrize(
    "settings, shape, problem",
    [
        ("", (1, 4, 2, 2), "no stride"),
        ("stride: 0", (1, 4, 2, 2), "stride is 0"),
        ("stride: 2", (1, 6, 2, 2), "channels that 4 divides"),
        ("stride: 2", (1, 4, 3, 2), "rows and columns that 2 divides"),
    ],
)
def test_reorg_refuses(settings: str, shape: tuple[int, ...], problem: str) -> None:
    with pytest.raises(LayerError, match=problem):
        layer(f'type: "Reorg" reorg_param {{ {settings} }}', [shape])


@pytest.mark.parametrize("scale", [1, 2, 3, 41])
def test_upsample_repeats_every_value(scale: int) -> None:
    x = np.random.RandomState(0).randn(2, 3, 4, 5).astype(np.float32)
    built = layer(f'type: "Upsample" upsample_param {{ scale: {scale} }}', [x.shape])
    expected = np.empty((2, 3, 4 * scale, 5 * scale), np.float32)
    for n, c, h, w in np.ndindex(*expected.shape):
        expected[n, c, h, w] = x[n, c, h // scale, w // scale]
    np.testing.assert_array_equal(built(torch.from_numpy(x)), expected)


def test_upsample_sums_the_gradients_of_the_copies() -> None:
    built = layer('type: "Upsample" upsample_param { scale: 2 }', [(1, 1, 1, 2)])
    x = torch.zeros(1, 1, 1, 2, requires_grad=True)
    built(x).backward(torch.arange(8.0).reshape(1, 1, 2, 4))
    assert x.grad is not None
    assert x.grad.flatten().tolist() == [0 + 1 + 4 + 5, 2 + 3 + 6 + 7]


def test_upsample_without_a_scale_changes_nothing() -> None:
    x = torch.rand(1, 2, 3, 4)
    assert torch.equal(layer('type: "Upsample"', [(1, 2, 3, 4)])(x), x)


def test_upsample_without_a_mask_refuses_segnets_fields() -> None:
    with pytest.raises(LayerError, match=r"upsample_param has upsample_h, .*no second bottom"):
        layer('type: "Upsample" upsample_param { upsample_h: 4 }', [(1, 2, 3, 4)])
