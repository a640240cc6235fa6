"""RNN, LSTM and LSTMUnit against loops over their definitions; what becomes of their state; what they refuse."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from caffe2torch.errors import LayerError
from caffe2torch.layers.lstm import LSTM
from caffe2torch.layers.recurrent import RNN, Recurrent

from .messages import layer, message

Array = NDArray[np.float64]
Definition = Callable[..., tuple[Array, list[Array]]]

STEPS, STREAMS, INPUTS, STATIC, SIZE = 4, 3, 5, 2, 3
X = (STEPS, STREAMS, INPUTS)
CONT = X[:2]

RESTARTS = np.array([[0, 1, 1], [1, 1, 0], [0, 1, 1], [1, 1, 0]], np.float64)
ONCE = np.array([[0, 1, 0], [1, 1, 1], [1, 1, 1], [1, 1, 1]], np.float64)
FRACTIONS = np.array([[0.5, 1, 0], [1, 0.25, 2], [0, 1, 1], [0.75, 1, 0]], np.float64)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def rnn(p: dict[str, Array], x: Array, cont: Array, static: Array | None, states: Sequence[Array]) -> Any:
    """What RNN's docstring says, one value at a time."""
    h, y = states[0].copy(), np.zeros((*x.shape[:2], SIZE))
    for t in range(x.shape[0]):
        for n in range(x.shape[1]):
            new = p["W_hh"] @ (cont[t, n] * h[n]) + p["W_xh"] @ x[t, n] + p["b_h"]
            if static is not None:
                new = new + p["W_xh_static"] @ static[n]
            h[n] = np.tanh(new)
            y[t, n] = np.tanh(p["W_ho"] @ h[n] + p["b_o"])
    return y, [h]


def lstm(p: dict[str, Array], x: Array, cont: Array, static: Array | None, states: Sequence[Array]) -> Any:
    """What LSTM's docstring says, one stream at a time."""
    h, c = (state.copy() for state in states)
    y = np.zeros((*x.shape[:2], SIZE))
    for t in range(x.shape[0]):
        for n in range(x.shape[1]):
            gates = p["W_hc"] @ (cont[t, n] * h[n]) + p["W_xc"] @ x[t, n] + p["b_c"]
            if static is not None:
                gates = gates + p["W_xc_static"] @ static[n]
            i, f, o, g = gates.reshape(4, SIZE)
            c[n] = cont[t, n] * sigmoid(f) * c[n] + sigmoid(i) * np.tanh(g)
            h[n] = y[t, n] = sigmoid(o) * np.tanh(c[n])
    return y, [h, c]


KINDS = [pytest.param(RNN, rnn, id="RNN"), pytest.param(LSTM, lstm, id="LSTM")]
CONTS = [pytest.param(c, id=i) for c, i in ((RESTARTS, "restarts"), (ONCE, "once"), (FRACTIONS, "fractions"))]


def make(kind: type[Recurrent], *, static: bool = False, expose: bool = False, streams: int = STREAMS) -> Recurrent:
    built = kind(INPUTS, SIZE, static_features=STATIC if static else None, streams=streams, expose_hidden=expose)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for blob in built.parameters():
            blob.uniform_(-1, 1, generator=generator)
    return built.double()


def values(built: Recurrent) -> dict[str, Array]:
    return {name: blob.detach().numpy() for name, blob in built.named_parameters()}


def draw(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).uniform(-1, 1, shape)


def zeros(count: int) -> list[Array]:
    return [np.zeros((STREAMS, SIZE))] * count


def tensor(value: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(value))


@pytest.mark.parametrize("cont", CONTS)
@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("kind, definition", KINDS)
def test_values_follow_the_definition_over_three_passes(
    kind: type[Recurrent], definition: Definition, static: bool, cont: Array
) -> None:
    built = make(kind, static=static)
    states = zeros(len(built.states))
    for seed in range(3):
        x, s = draw(*X, seed=seed), draw(STREAMS, STATIC, seed=9) if static else None
        expected, states = definition(values(built), x, cont, s, states)
        found = built(tensor(x), tensor(cont), *([] if s is None else [tensor(s)]))
        np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-10)


@pytest.mark.parametrize("kind, definition", KINDS)
def test_exposed_states_are_read_and_returned(kind: type[Recurrent], definition: Definition) -> None:
    built = make(kind, static=True, expose=True)
    first = [draw(STREAMS, SIZE, seed=seed) for seed in range(len(built.states))]
    x, s = draw(*X), draw(STREAMS, STATIC)
    expected, last = definition(values(built), x, RESTARTS, s, first)
    for _ in range(2):  # nothing is kept from one pass to the next
        y, *found = built(*map(tensor, (x, RESTARTS, s, *(state[None] for state in first))))
        np.testing.assert_allclose(y.detach().numpy(), expected, rtol=1e-10)
        for a, b in zip(found, last, strict=True):
            np.testing.assert_allclose(a.detach().numpy(), b[None], rtol=1e-10)


@pytest.mark.parametrize("cont", CONTS[:2])
@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("kind, definition", KINDS)
def test_gradients_are_the_slopes_of_the_definition(
    kind: type[Recurrent], definition: Definition, static: bool, cont: Array
) -> None:
    built = make(kind, static=static)
    weights, states = draw(STEPS, STREAMS, SIZE, seed=5), zeros(len(built.states))
    fixed = {"x": draw(*X), **({"static": draw(STREAMS, STATIC)} if static else {})}

    def total(values: dict[str, Array]) -> float:
        y, _ = definition(values, values["x"], cont, values.get("static"), states)
        return float((y * weights).sum())

    leaves = {name: tensor(value).requires_grad_() for name, value in fixed.items()}
    markers = tensor(cont).requires_grad_()
    y = built(leaves["x"], markers, *([leaves["static"]] if static else []))
    (y * tensor(weights)).sum().backward()
    assert markers.grad is None
    for name, leaf in {**leaves, **dict(built.named_parameters())}.items():
        assert leaf.grad is not None
        expected = slopes(total, {**values(built), **fixed}, name)
        np.testing.assert_allclose(leaf.grad.numpy(), expected, rtol=1e-6, atol=1e-8, err_msg=name)


def slopes(function: Callable[[dict[str, Array]], float], at: dict[str, Array], name: str) -> Array:
    """Central differences of ``function`` in the values of one array."""
    found, step = np.zeros_like(at[name]), 1e-5
    for index in np.ndindex(found.shape):
        ends = []
        for sign in (1, -1):
            moved = at[name].copy()
            moved[index] += sign * step
            ends.append(function({**at, name: moved}))
        found[index] = (ends[0] - ends[1]) / (2 * step)
    return found


def test_lstm_unit_has_caffes_values_and_gradients() -> None:
    unit = layer('type: "LSTMUnit" top: "c" top: "h"', ((1, 3, 2), (1, 3, 8), (1, 3)))
    c, x, cont = draw(1, 3, 2), 3 * draw(1, 3, 8, seed=1), np.array([[1, 0, 0.25]])
    by_c, by_h = draw(1, 3, 2, seed=2), draw(1, 3, 2, seed=3)
    expected = {
        name: np.zeros(shape) for name, shape in (("c", c.shape), ("h", c.shape), ("dc", c.shape), ("dx", x.shape))
    }
    for n in range(3):
        for d in range(2):
            i, f, o = (sigmoid(x[0, n, gate * 2 + d]) for gate in range(3))
            f, g = cont[0, n] * f, np.tanh(x[0, n, 6 + d])
            new = f * c[0, n, d] + i * g
            expected["c"][0, n, d], expected["h"][0, n, d] = new, o * np.tanh(new)
            term = by_c[0, n, d] + by_h[0, n, d] * o * (1 - np.tanh(new) ** 2)
            expected["dc"][0, n, d] = term * f
            expected["dx"][0, n, d] = term * g * i * (1 - i)
            # Caffe takes cont f for the gate itself, so this is no slope of the definition unless cont is 0 or 1.
            expected["dx"][0, n, 2 + d] = term * c[0, n, d] * f * (1 - f)
            expected["dx"][0, n, 4 + d] = by_h[0, n, d] * np.tanh(new) * o * (1 - o)
            expected["dx"][0, n, 6 + d] = term * i * (1 - g**2)
    before, gates = tensor(c).requires_grad_(), tensor(x).requires_grad_()
    cells, hidden = unit(before, gates, tensor(cont))
    ((cells * tensor(by_c)).sum() + (hidden * tensor(by_h)).sum()).backward()
    for name, found in (("c", cells), ("h", hidden), ("dc", before.grad), ("dx", gates.grad)):
        assert found is not None
        np.testing.assert_allclose(found.detach().numpy(), expected[name], rtol=1e-10, err_msg=name)


def test_lstm_with_fractional_markers_has_the_gradients_of_its_units() -> None:
    """The unrolled net of Caffe, built of InnerProduct's formula and LSTMUnit."""
    built, x = make(LSTM), tensor(draw(*X)).requires_grad_()
    unit = layer('type: "LSTMUnit" top: "c" top: "h"', ((1, STREAMS, SIZE), (1, STREAMS, 4 * SIZE), (1, STREAMS)))
    cont, p = tensor(FRACTIONS), dict(built.named_parameters())
    h = c = torch.zeros(1, STREAMS, SIZE, dtype=torch.float64)
    steps = []
    for t in range(STEPS):
        gates = x[t : t + 1] @ p["W_xc"].t() + p["b_c"] + (h * cont[t].view(1, -1, 1)) @ p["W_hc"].t()
        c, h = unit(c, gates, cont[t : t + 1])
        steps.append(h)
    leaves = [x, *p.values()]
    expected = torch.autograd.grad(torch.cat(steps).square().sum(), leaves)
    found = torch.autograd.grad(built(x, cont).square().sum(), leaves)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("kind", [RNN, LSTM])
def test_no_gradient_passes_through_exposed_states(kind: type[Recurrent]) -> None:
    built = make(kind, expose=True)
    first = [tensor(draw(1, STREAMS, SIZE)).requires_grad_() for _ in built.states]
    y, *last = built(tensor(draw(*X)).requires_grad_(), tensor(RESTARTS), *first)
    assert not any(state.requires_grad for state in last)
    y.sum().backward()
    assert all(state.grad is None for state in first)


@pytest.mark.parametrize("kind", [RNN, LSTM])
def test_reset_forgets_the_state(kind: type[Recurrent]) -> None:
    built = make(kind)
    x, cont = tensor(draw(*X)), torch.ones(CONT, dtype=torch.float64)
    first, second = built(x, cont), built(x, cont)
    assert not torch.equal(first, second)
    built.reset()
    assert torch.equal(built(x, cont), first)


@pytest.mark.parametrize("kind, definition", KINDS)
def test_streams_go_on_from_the_last_pass_that_had_them(kind: type[Recurrent], definition: Definition) -> None:
    """As Caffe's blobs do: their memory stays when N shrinks, and is new, all 0, when N passes all it has been."""
    built, memory = make(kind, streams=3), [np.zeros((3, SIZE))] * len(kind.states)
    for number, streams in enumerate((3, 2, 3, 5, 4)):
        if streams > len(memory[0]):
            memory = [np.zeros((streams, SIZE))] * len(kind.states)
        x, cont = draw(2 + number, streams, INPUTS), np.ones((2 + number, streams))
        expected, last = definition(values(built), x, cont, None, [state[:streams] for state in memory])
        memory = [np.concatenate((new, old[streams:])) for new, old in zip(last, memory, strict=True)]
        found = built(tensor(x), tensor(cont))
        np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-10)


def test_state_is_no_weight_and_follows_copies_and_pickles() -> None:
    built, x, cont = make(LSTM), tensor(draw(*X)), torch.ones(CONT, dtype=torch.float64)
    built(x, cont)
    assert set(built.state_dict()) == {"W_xc", "b_c", "W_hc"}
    file = io.BytesIO()
    torch.save(built, file)
    file.seek(0)
    copies = [copy.deepcopy(built), torch.load(file, weights_only=False)]
    expected = built(x, cont)
    assert all(torch.equal(other(x, cont), expected) for other in copies)


def test_state_made_in_inference_mode_can_be_trained_with() -> None:
    built, x, cont = make(LSTM, streams=1), tensor(draw(*X)), torch.ones(CONT, dtype=torch.float64)
    with torch.inference_mode():
        built(x, cont)
    built(x, cont).sum().backward()
    assert built.W_hc.grad is not None


def test_backward_after_the_next_pass_sees_its_own_state() -> None:
    built, x, cont = make(LSTM), tensor(draw(*X)), tensor(FRACTIONS)
    built(x, cont)
    start = copy.deepcopy(built)
    (expected,) = torch.autograd.grad(start(x, cont).sum(), [start.W_hc])
    y = built(x, cont)
    built(x, cont)
    (found,) = torch.autograd.grad(y.sum(), [built.W_hc])
    assert torch.equal(found, expected)


@pytest.mark.parametrize("kind", [RNN, LSTM])
def test_compiled_layer_keeps_its_state_and_caffes_gradients(kind: type[Recurrent]) -> None:
    plain, x, cont = make(kind), tensor(draw(*X)).requires_grad_(), tensor(FRACTIONS)
    twin = copy.deepcopy(plain)
    torch.compiler.reset()
    compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
    for _ in range(2):
        expected, found = plain(x, cont), compiled(x, cont)
        torch.testing.assert_close(found, expected)
        gradients = [
            torch.autograd.grad(y.square().sum(), [x, *built.parameters()])
            for y, built in ((found, twin), (expected, plain))
        ]
        for a, b in zip(*gradients, strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("kind", [RNN, LSTM])
def test_exported_program_keeps_its_state(kind: type[Recurrent]) -> None:
    built, x = make(kind), tensor(draw(*X))
    # What it was exported with has no restart: the program must still have the markers.
    program = torch.export.export(copy.deepcopy(built), (x, torch.ones(CONT, dtype=torch.float64))).module()
    for cont in (ONCE, RESTARTS, FRACTIONS):
        torch.testing.assert_close(program(x, tensor(cont)), built(x, tensor(cont)))


def test_fillers_tell_weights_from_biases() -> None:
    text = 'type: "LSTM" recurrent_param { num_output: 2 weight_filler { value: 2 } bias_filler { value: 3 } }'
    built = layer(text, (X, CONT, (STREAMS, STATIC)))
    built.fill(message(text))
    assert {name: set(blob.flatten().tolist()) for name, blob in built.blob_items()} == {
        "W_xc": {2.0},
        "b_c": {3.0},
        "W_xc_static": {2.0},
        "W_hc": {2.0},
    }


@pytest.mark.parametrize(
    "text, shapes, said",
    [
        ('type: "LSTM"', (X, CONT), "num_output 0"),
        ('type: "LSTM" recurrent_param { num_output: 2 }', ((4, 3), CONT), r"expected \(steps, streams, ...\)"),
        ('type: "LSTM" recurrent_param { num_output: 2 }', (X, (3, 4)), r"\(3, 4\), expected \(4, 3\)"),
        ('type: "LSTM" recurrent_param { num_output: 2 }', (X, CONT, (4, 2)), r"expected \(3, ...\)"),
        ('type: "RNN" recurrent_param { num_output: 2 expose_hidden: true }', (X, CONT), "expected 3 or 4 with expose"),
        (
            'type: "RNN" top: "y" top: "h" recurrent_param { num_output: 2 expose_hidden: true }',
            (X, CONT, (1, 3, 5)),
            r"expected \(1, 3, 2\)",
        ),
        ('type: "RNN" top: "y" top: "h" recurrent_param { num_output: 2 }', (X, CONT), "2 tops, expected 1 with"),
        ('type: "LSTMUnit" top: "c" top: "h"', ((1, 3, 2), (1, 3, 6), (1, 3)), r"expected \(1, 3, 2\), \(1, 3, 8\)"),
        ('type: "LSTMUnit" top: "c" top: "h"', ((2, 3, 2), (2, 3, 8), (2, 3)), r"expected \(1, streams, cells\)"),
    ],
)
def test_impossible_bottoms_are_refused(text: str, shapes: Sequence[tuple[int, ...]], said: str) -> None:
    with pytest.raises(LayerError, match=said):
        layer(text, shapes)


def test_markers_of_another_length_are_refused_in_a_pass() -> None:
    with pytest.raises(LayerError, match="a marker for each step"):
        make(RNN)(tensor(draw(*X)), torch.ones(3, 3))
