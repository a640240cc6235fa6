"""LSTM, and LSTMUnit: the part of one of its steps that has no parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from caffe2torch.errors import LayerError
from caffe2torch.layers.recurrent import Recurrent
from caffe2torch.layers.registry import Layer, Message, Shape, parameter, register


@register("LSTMUnit")
class LSTMUnit(Layer):
    """c_t = cont f c_{t-1} + i g and h_t = o tanh(c_t).

    The bottoms are c_{t-1} (1, N, D), the gates (1, N, 4D) and cont (1, N), the tops c_t and h_t. The gates come in the
    order i, f, o, g; the first three pass a sigmoid, g a tanh.
    """

    bottoms = (3, 3)
    tops = (2, 2)
    no_gradient = (2,)

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> LSTMUnit:
        _check_unit(*bottom_shapes)
        return cls()

    def forward(self, c: Tensor, gates: Tensor, cont: Tensor) -> tuple[Tensor, Tensor]:
        _check_unit(c.shape, gates.shape, cont.shape)
        h, last = Steps.apply(  # type: ignore[no-untyped-call]
            gates, cont.detach().unsqueeze(2), None, None, c[0], torch.is_grad_enabled(), None
        )
        return last.unsqueeze(0), h


def _check_unit(c: Shape, gates: Shape, cont: Shape) -> None:
    if len(c) != 3 or c[0] != 1:
        raise LayerError(f"the first bottom has shape {tuple(c)}, expected (1, streams, cells)")
    if tuple(gates) != (1, c[1], 4 * c[2]) or tuple(cont) != (1, c[1]):
        raise LayerError(
            f"the bottoms have shapes {tuple(c)}, {tuple(gates)} and {tuple(cont)}, expected "
            f"{tuple(c)}, {(1, c[1], 4 * c[2])} and {(1, c[1])}"
        )


@register("LSTM")
class LSTM(Recurrent):
    """The steps of LSTMUnit, with gates W_hc (cont_t h_{t-1}) + W_xc x_t + b_c + W_xc_static x_static."""

    bottoms = (2, 5)
    tops = (1, 3)
    blobs = ("W_xc", "b_c", "W_xc_static", "W_hc")
    states = ("hidden", "cell")

    def make_blobs(self, in_features: int, static_features: int | None) -> None:
        gates = 4 * self.num_output
        self.W_xc = parameter((gates, in_features))
        self.b_c = parameter((gates,))
        self.W_xc_static = None if static_features is None else parameter((gates, static_features))
        self.W_hc = parameter((gates, self.num_output))

    def run(
        self, x: Tensor, cont: Tensor, static: Tensor | None, first: Sequence[Tensor]
    ) -> tuple[Tensor, Sequence[Tensor]]:
        h, c = first
        if static is None and _uninterrupted(cont):
            return by_torch(x, h * cont[0], c * cont[0], self.W_xc, self.W_hc, self.b_c)
        gates = F.linear(x, self.W_xc, self.b_c)
        if static is not None and self.W_xc_static is not None:
            gates = gates + F.linear(static.flatten(1), self.W_xc_static)
        y, last = Steps.apply(gates, cont, self.W_hc, h, c, torch.is_grad_enabled(), None)  # type: ignore[no-untyped-call]
        return y, (y[-1], last)


def by_torch(x: Tensor, h: Tensor, c: Tensor, W_x: Tensor, W_h: Tensor, b: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
    """The steps by torch's kernel, twice as fast as the loop; it takes the gates in the order i, f, g, o."""
    blobs = [part.flatten() for blob in (W_x, W_h, b) for part in in_torchs_order(blob)]
    zeros = torch.zeros_like(b)  # torch has a second bias
    # cuDNN wants them in one piece of memory, in this order.
    sizes = [W_x.numel(), W_h.numel(), zeros.numel(), zeros.numel()]
    to_gates, from_h, bias, second = torch.split_with_sizes(torch.cat([*blobs, zeros]), sizes)
    weights = [to_gates.view_as(W_x), from_h.view_as(W_h), bias, second]
    training = torch.is_grad_enabled()  # whether backward may follow
    y, *last = torch.lstm(x, (h.unsqueeze(0), c.unsqueeze(0)), weights, True, 1, 0.0, training, False, False)
    return y, [state[0] for state in last]


def in_torchs_order(blob: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A blob's rows for the gates i, f, g and o, which Caffe has in the order i, f, o, g."""
    i, f, o, g = blob.chunk(4)
    return i, f, g, o


def _uninterrupted(cont: Tensor) -> bool:
    """Whether no stream restarts after the first step, so that torch's kernel, which knows no markers, will do.

    Never while a graph is captured: that has to hold for all markers.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return False
    if cont.device.type not in ("cpu", "cuda") or (cont.is_cuda and torch.cuda.is_current_stream_capturing()):
        return False
    return bool((cont[1:] == 1).all() & ((cont[0] == 0) | (cont[0] == 1)).all())


_by_sigmoid = torch.ops.aten.sigmoid_backward.default
"""gradient * y * (1 - y)"""
_by_tanh = torch.ops.aten.tanh_backward.default
"""gradient * (1 - y^2)"""


def _stack(steps: list[Tensor]) -> Tensor:
    return torch.stack(steps) if len(steps) > 1 else steps[0].unsqueeze(0)


class Steps(torch.autograd.Function):
    """The loop over the steps, from their gates (T, N, 4D) before h and cont (T, N, 1): all h (T, N, D) and the last c.

    Autograd's own backward would take a product for the gradient of the weight at every step, and where ``cont`` is
    neither 0 nor 1 it would differ from Caffe's: for the gate f' = cont f Caffe's slope is f' (1 - f'). ``limit`` is
    the largest gradient that a gate gets, or None.
    """

    @staticmethod
    def forward(
        ctx: Any,
        gates: Tensor,
        cont: Tensor,
        weight: Tensor | None,
        h: Tensor | None,
        c: Tensor,
        keep: bool,
        limit: float | None,
    ) -> tuple[Tensor, Tensor]:
        size, ctx.limit = c.shape[1], limit
        hidden, cells, tanh, before, activated = [], [], [], [], []
        for step, marker in zip(gates.unbind(0), cont.unbind(0), strict=True):
            if weight is not None and h is not None:
                h = h * marker
                before.append(h)
                step = torch.addmm(step, h, weight.t())
            # Nothing here works in place: an exported program records these very steps.
            i, f, o = step[:, : 3 * size].sigmoid().chunk(3, 1)
            f, g = f * marker, step[:, 3 * size :].tanh()
            cells.append(c)
            c = torch.addcmul(f * c, i, g)
            t = c.tanh()
            h = o * t
            hidden.append(h)
            tanh.append(t)
            activated += [i, f, o, g]
        if keep:
            kept = [_stack(steps) if steps else None for steps in (activated, cells, tanh, before)]
            ctx.save_for_backward(*kept, cont, weight)
        return _stack(hidden), c

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        activated, cells, tanh, before, cont, weight = ctx.saved_tensors
        dh, dc = gradients[0][-1], gradients[1]
        i, f, o, g = activated.unflatten(0, (-1, 4)).unbind(1)
        by_cell = [k.unbind(0) for k in (_by_sigmoid(g, i), _by_sigmoid(cells, f), _by_tanh(i, g), f)]
        by_hidden = [k.unbind(0) for k in (_by_sigmoid(tanh, o), _by_tanh(o, tanh))]
        steps = []
        for t in range(len(f) - 1, -1, -1):
            dc = torch.addcmul(dc, dh, by_hidden[1][t])
            di, df, dg, before_dc = (k[t] * dc for k in by_cell)
            step = torch.cat((di, df, by_hidden[0][t] * dh, dg), 1)
            steps.append(step if ctx.limit is None else step.clamp(-ctx.limit, ctx.limit))
            dc = before_dc
            if t:
                dh = torch.addcmul(gradients[0][t - 1], steps[-1] @ weight, cont[t])
        gates = _stack(steps[::-1])
        to_weight = gates.flatten(0, 1).t() @ before.flatten(0, 1) if ctx.needs_input_grad[2] else None
        return gates, None, to_weight, None, dc, None, None
