"""CTPN's Lstm, Reverse and Transpose, and ContinuationIndicator, against loops over every value."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import caffe2torch
from caffe2torch.errors import LayerError
from caffe2torch.layers.sequence import Lstm

from .messages import layer, message

Array = NDArray[np.float64]


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def lstm(x: Array, blobs: list[Array], limit: float, top_gradient: Array) -> tuple[Array, Array, list[Array]]:
    """Top, gradient of the bottom (T, N, I), and of the blobs, one stream and step after the other."""
    w_x, w_h, b = blobs
    steps, streams, _ = x.shape
    size = w_h.shape[1]
    top, to_x, to_blobs = np.zeros((steps, streams, size)), np.zeros_like(x), [np.zeros_like(blob) for blob in blobs]
    for n in range(streams):
        h, c, seen = np.zeros(size), np.zeros(size), []
        for t in range(steps):
            before_h, before_c = h, c
            sums = w_x @ x[t, n] + b + w_h @ h
            i, f, o = (sigmoid(sums[k * size : (k + 1) * size]) for k in range(3))
            g = np.tanh(sums[3 * size :])
            c = i * g + f * before_c
            h = o * np.tanh(c)
            top[t, n] = h
            seen.append((i, f, o, g, c, before_h, before_c))
        later_h, later_c = np.zeros(size), np.zeros(size)
        for t in reversed(range(steps)):
            i, f, o, g, c, before_h, before_c = seen[t]
            dh = top_gradient[t, n] + later_h
            dc = later_c + dh * o * (1 - np.tanh(c) ** 2)
            sums = np.concatenate(
                [
                    dc * g * i * (1 - i),
                    dc * before_c * f * (1 - f),
                    dh * np.tanh(c) * o * (1 - o),
                    dc * i * (1 - g**2),
                ]
            )
            if limit > 0:
                sums = np.minimum(np.maximum(sums, -limit), limit)
            later_h, later_c = w_h.T @ sums, dc * f
            to_x[t, n] = w_x.T @ sums
            for blob, part in zip(to_blobs, (np.outer(sums, x[t, n]), np.outer(sums, before_h), sums), strict=True):
                blob += part
    return top, to_x, to_blobs


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("limit", [0, 0.0625, -1])
@pytest.mark.parametrize("shape", [(5, 3, 4), (1, 2, 3), (4, 1, 2, 3, 1)], ids=str)
def test_lstm_equals_its_definition(shape: tuple[int, ...], limit: float, dtype: torch.dtype) -> None:
    random = np.random.RandomState(1)
    made = layer(f'type: "Lstm" lstm_param {{ num_output: 6 clipping_threshold: {limit} }}', [shape]).to(dtype)
    assert isinstance(made, Lstm)
    blobs = [random.randn(*blob.shape) * 0.6 for _, blob in made.blob_items()]
    inputs = int(np.prod(shape[2:]))
    assert [blob.shape for blob in blobs] == [(24, inputs), (24, 6), (24,)]
    with torch.no_grad():
        for (_, blob), value in zip(made.blob_items(), blobs, strict=True):
            blob.copy_(torch.from_numpy(value))
    x, above = random.randn(*shape), random.randn(*shape[:2], 6)
    top, to_x, to_blobs = lstm(x.reshape(*shape[:2], inputs), blobs, limit, above)
    if limit > 0:
        free = lstm(x.reshape(*shape[:2], inputs), blobs, 0, above)
        assert not np.allclose(free[1], to_x)  # the limit does something here
    leaf = torch.from_numpy(x).to(dtype).requires_grad_()
    result = made(leaf)
    result.backward(torch.from_numpy(above).to(dtype))
    close = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-9, "atol": 1e-12}
    np.testing.assert_allclose(result.detach().numpy(), top, **close)
    assert leaf.grad is not None
    np.testing.assert_allclose(leaf.grad.numpy(), to_x.reshape(shape), **close)
    for (_, blob), gradient in zip(made.blob_items(), to_blobs, strict=True):
        assert blob.grad is not None
        np.testing.assert_allclose(blob.grad.numpy(), gradient, **close)
    with torch.no_grad():  # by torch's kernel
        np.testing.assert_allclose(made(leaf).numpy(), top, **close)


def test_lstm_keeps_no_state() -> None:
    made = layer('type: "Lstm" lstm_param { num_output: 2 }', [(3, 2, 4)])
    x = torch.randn(3, 2, 4)
    assert torch.equal(made(x), made(x))


def test_lstm_is_filled_by_its_fillers() -> None:
    text = """type: "Lstm" lstm_param { num_output: 2 weight_filler { type: "constant" value: 3 }
        bias_filler { type: "constant" value: 5 } }"""
    made = Lstm.from_caffe(message(text), [(3, 2, 4)])
    made.fill(message(text))
    assert [set(blob.flatten().tolist()) for _, blob in made.blob_items()] == [{3}, {3}, {5}]


@pytest.mark.parametrize(
    "settings, shape, reason",
    [
        ("num_output: 2 batch_size: 1", (3, 2, 4), "batch_size: 1, as Junhyuk Oh's"),
        ("num_output: 2", (6, 4), r"\(6, 4\): expected \(steps, streams, ...\)"),
        ("num_output: 2", (0, 2, 4), "1 step or more"),
        ("", (3, 2, 4), "4 inputs and num_output 0"),
        ("num_output: 2", (3, 2, 0), "0 inputs"),
    ],
)
def test_lstm_refuses(settings: str, shape: tuple[int, ...], reason: str) -> None:
    with pytest.raises(LayerError, match=reason):
        layer(f'type: "Lstm" lstm_param {{ {settings} }}', [shape])


def by_places(text: str, x: Array) -> tuple[Array, Array]:
    """The top of float64 values, and the bottom's gradient if the top's is the top squared."""
    leaf = torch.from_numpy(x).requires_grad_()
    y = layer(text, [x.shape])(leaf)
    assert y.is_contiguous()
    y.backward(y.detach().square())
    assert leaf.grad is not None
    return y.detach().numpy(), leaf.grad.numpy()


@pytest.mark.parametrize("axes", [(0,), (1,), (-1,), (2, 0), (0, 1, 2)], ids=str)
def test_reverse_turns_the_axes_round(axes: tuple[int, ...]) -> None:
    x = np.random.RandomState(2).randn(3, 4, 5)
    expected = np.zeros_like(x)
    turned = {axis % 3 for axis in axes}
    for place in np.ndindex(*x.shape):
        to = tuple(x.shape[a] - 1 - i if a in turned else i for a, i in enumerate(place))
        expected[to] = x[place]
    given = " ".join(f"axis: {axis}" for axis in axes)
    top, gradient = by_places(f'type: "Reverse" reverse_param {{ {given} }}', x)
    np.testing.assert_array_equal(top, expected)
    np.testing.assert_array_equal(gradient, x**2)


@pytest.mark.parametrize(
    "settings, shape, reason",
    [
        ("", (2, 3), "expected one axis or more"),
        ("axis: 2", (2, 3), "reverse_param.axis is 2"),
        ("axis: -3", (2, 3), "reverse_param.axis is -3"),
        ("axis: 1 axis: -1", (2, 3), r"\[1, -1\]: expected one axis or more, all different"),
        ("axis: 0", (), "a scalar, which has no axes"),
    ],
)
def test_reverse_refuses(settings: str, shape: tuple[int, ...], reason: str) -> None:
    with pytest.raises(LayerError, match=reason):
        layer(f'type: "Reverse" reverse_param {{ {settings} }}', [shape])


@pytest.mark.parametrize("dims", [(0,), *itertools.permutations(range(3)), (3, 2, 0, 1)], ids=str)
def test_transpose_moves_the_axes(dims: tuple[int, ...]) -> None:
    x = np.random.RandomState(3).randn(*(2, 3, 4, 5)[: len(dims)])
    expected = np.zeros([x.shape[dim] for dim in dims])
    for place in np.ndindex(*x.shape):
        expected[tuple(place[dim] for dim in dims)] = x[place]
    given = " ".join(f"dim: {dim}" for dim in dims)
    top, gradient = by_places(f'type: "Transpose" transpose_param {{ {given} }}', x)
    np.testing.assert_array_equal(top, expected)
    np.testing.assert_array_equal(gradient, x**2)


@pytest.mark.parametrize(
    "settings, shape",
    [
        ("", (2, 3)),
        ("dim: 0", (2, 3)),
        ("dim: 1 dim: 1", (2, 3)),
        ("dim: 0 dim: 2", (2, 3)),
        ("dim: -1 dim: 0", (2, 3)),
    ],
)
def test_transpose_refuses(settings: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(LayerError, match="expected each of its axes, 0 to 1, once"):
        layer(f'type: "Transpose" transpose_param {{ {settings} }}', [shape])


INDICATOR = 'type: "ContinuationIndicator" continuation_indicator_param {{ {} }}'


def test_the_indicator_is_0_in_the_first_row_only() -> None:
    made = layer(INDICATOR.format("time_step: 3 batch_size: 2"), [])
    assert made().tolist() == [[0, 0], [1, 1], [1, 1]]
    assert made.double()().dtype == torch.float64
    assert layer(INDICATOR.format("time_step: 1 batch_size: 1"), [])().tolist() == [[0]]


def test_the_indicator_has_a_column_for_each_item_of_a_bottom() -> None:
    made = layer(INDICATOR.format("time_step: 2"), [(3, 1, 4)])
    assert made(torch.rand(3, 1, 4)).tolist() == [[0, 0, 0], [1, 1, 1]]
    assert made(torch.rand(1, 1, 4)).tolist() == [[0], [1]]


@pytest.mark.parametrize(
    "settings, shapes, reason",
    [
        ("time_step: 3", [], "time_step is 3 and batch_size 0: expected at least 1"),
        ("batch_size: 3", [], "time_step is 0 and batch_size 3"),
        ("time_step: 65536 batch_size: 65536", [], "is impossible"),
        ("time_step: 3 batch_size: 2", [(2, 3)], "forks differ"),
        ("time_step: 3", [()], "forks differ"),
    ],
)
def test_the_indicator_refuses(settings: str, shapes: list[tuple[int, ...]], reason: str) -> None:
    with pytest.raises(LayerError, match=reason):
        layer(INDICATOR.format(settings), shapes)


def test_the_indicator_starts_an_lstm_anew_in_every_pass() -> None:
    cont = layer(INDICATOR.format("time_step: 3 batch_size: 2"), [])()
    caffes = layer('type: "LSTM" recurrent_param { num_output: 4 }', [(3, 2, 5), (3, 2)])
    x = torch.randn(3, 2, 5)
    assert torch.equal(caffes(x, cont), caffes(x, cont))


CTPN = """name: "ctpn" input: "x" input_shape { dim: 2 dim: 3 dim: 4 dim: 5 }
layer { name: "windows" type: "Im2col" bottom: "x" top: "windows" convolution_param { kernel_size: 3 pad: 1 } }
layer { name: "turned" type: "Transpose" bottom: "windows" top: "turned" transpose_param { dim: [3, 2, 0, 1] } }
layer { name: "rows" type: "Reshape" bottom: "turned" top: "rows"
  reshape_param { shape { dim: -1 } axis: 1 num_axes: 2 } }
layer { name: "right" type: "Lstm" bottom: "rows" top: "right" lstm_param { num_output: 2 clipping_threshold: 1 } }
layer { name: "reversed" type: "Reverse" bottom: "rows" top: "reversed" reverse_param { axis: 0 } }
layer { name: "left" type: "Lstm" bottom: "reversed" top: "reversed left" lstm_param { num_output: 2 } }
layer { name: "again" type: "Reverse" bottom: "reversed left" top: "left" reverse_param { axis: 0 } }
layer { name: "both" type: "Concat" bottom: "right" bottom: "left" top: "both" concat_param { axis: 2 } }
layer { name: "split" type: "Reshape" bottom: "both" top: "split"
  reshape_param { shape { dim: -1 dim: 2 } axis: 1 num_axes: 1 } }
layer { name: "top" type: "Transpose" bottom: "split" top: "top" transpose_param { dim: [2, 3, 1, 0] } }"""


def test_a_net_reads_its_columns_in_both_directions_as_ctpn_does(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(CTPN, "utf-8")
    net = caffe2torch.load(path)
    for _, made in net.built():
        for _, blob in made.blob_items():
            torch.nn.init.uniform_(blob, -1, 1)
    x = np.random.RandomState(4).randn(2, 3, 4, 5)
    found = net(torch.from_numpy(x).float())["top"].detach().numpy()
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    blobs = [[blob.detach().double().numpy() for _, blob in net.layer(n).blob_items()] for n in ("right", "left")]
    # The streams are the rows of all pictures, numbered (row, picture) as the transposed blob has them.
    columns = np.stack(
        [[padded[n, :, i : i + 3, j : j + 3].ravel() for i in range(4) for n in range(2)] for j in range(5)]
    )
    nothing = np.zeros((5, 8, 2))
    right = lstm(columns, blobs[0], 0, nothing)[0]
    left = lstm(columns[::-1], blobs[1], 0, nothing)[0][::-1]
    both = np.concatenate([right, left], 2).reshape(5, 4, 2, 4)
    np.testing.assert_allclose(found, both.transpose(2, 3, 1, 0), rtol=1e-4, atol=1e-5)
