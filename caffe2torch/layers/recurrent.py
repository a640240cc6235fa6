"""What Caffe's recurrent layers have in common, and RNN; LSTM is in ``lstm``.

Caffe unrolls these layers in time, into nets of InnerProduct and element-wise layers. Here the part of the input is one
matrix product for all steps, and only the part of the state is a loop.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from caffe2torch.errors import LayerError
from caffe2torch.fillers import fill
from caffe2torch.layers.registry import Layer, Message, Shape, parameter, register


class Recurrent(Layer):
    """Steps through ``x`` (T, N, ...): T steps of N streams, whose state goes on where ``cont`` (T, N) is not 0.

    The third bottom may be a static input (N, ...), seen at every step. Unless the hidden state is exposed, the state
    after the last step is kept and the next pass starts from it; as in Caffe no gradient goes back to an earlier pass.
    With ``expose_hidden`` the first states (1, N, D) are the last bottoms and the final states the last tops, and no
    gradient passes through either. Caffe fixes T when the net is built; here each pass may have its own.

    The state survives a change of N as Caffe's blobs do: stream i goes on from the last pass that had a stream i, but
    if N is larger than ever before, all streams start from 0.
    """

    no_gradient = (1,)
    states: ClassVar[tuple[str, ...]]
    """Names of the buffers that keep the state of each stream, (most streams so far, D); not part of the weights."""

    def __init__(
        self,
        in_features: int,
        num_output: int,
        *,
        static_features: int | None = None,
        streams: int = 1,
        expose_hidden: bool = False,
    ) -> None:
        super().__init__()
        if num_output < 1 or in_features < 1 or static_features == 0:
            raise LayerError(
                f"{in_features} inputs, {static_features} static ones and num_output {num_output}: "
                "expected at least 1 of each"
            )
        self.num_output, self.expose_hidden = num_output, expose_hidden
        if expose_hidden:
            first = 2 if static_features is None else 3
            self.no_gradient = (1, *range(first, first + len(self.states)))
        for name in self.states:
            kept = None if expose_hidden else torch.zeros(streams, num_output)
            self.register_buffer(name, kept, persistent=False)
        self.make_blobs(in_features, static_features)

    def make_blobs(self, in_features: int, static_features: int | None) -> None:
        """Make the parameter blobs."""
        raise NotImplementedError

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> Recurrent:
        p = layer.recurrent_param
        exposed = len(cls.states) if p.expose_hidden else 0
        for what, count, allowed in (
            ("bottoms", len(bottom_shapes), (2 + exposed, 3 + exposed)),
            ("tops", len(layer.top), (1 + exposed,)),
        ):
            if count not in allowed:
                raise LayerError(
                    f"{count} {what}, expected {' or '.join(map(str, allowed))} with "
                    f"expose_hidden: {'true' if exposed else 'false'}"
                )
        x, cont, *rest = bottom_shapes
        static = rest[0] if len(rest) > exposed else None
        check_shapes(x, cont, static, rest[len(rest) - exposed :], p.num_output)
        return cls(
            math.prod(x[2:]),
            p.num_output,
            static_features=None if static is None else math.prod(static[1:]),
            streams=x[1],
            expose_hidden=p.expose_hidden,
        )

    def fill(self, layer: Message, generator: torch.Generator | None = None) -> None:
        p = layer.recurrent_param
        for name, blob in self.blob_items():
            fill(blob, p.bias_filler if name.startswith("b_") else p.weight_filler, generator=generator)

    def reset(self) -> None:
        """Forget the state: the next pass starts from 0, whatever ``cont`` says."""
        for name in self.states:
            kept = getattr(self, name)
            if kept is not None:
                kept.zero_()

    def forward(self, x: Tensor, cont: Tensor, *rest: Tensor) -> Tensor | tuple[Tensor, ...]:
        exposed = len(self.states) if self.expose_hidden else 0
        static = rest[0] if len(rest) > exposed else None
        states = rest[len(rest) - exposed :]
        fixed = None if static is None else static.shape
        check_shapes(x.shape, cont.shape, fixed, [state.shape for state in states], self.num_output)
        first = [state.detach()[0] for state in states] if exposed else self._load(x.shape[1])
        y, last = self.run(x.flatten(2), cont.detach().unsqueeze(2), static, first)
        if exposed:
            return (y, *(state.detach().unsqueeze(0) for state in last))
        self._save(last)
        return y

    def run(
        self, x: Tensor, cont: Tensor, static: Tensor | None, first: Sequence[Tensor]
    ) -> tuple[Tensor, Sequence[Tensor]]:
        """The output and the last states of ``x`` (T, N, inputs), ``cont`` (T, N, 1) and the first states (N, D)."""
        raise NotImplementedError

    def _load(self, streams: int) -> list[Tensor]:
        kept: list[Tensor] = [getattr(self, name) for name in self.states]
        if kept[0].shape[0] < streams:
            # A tensor made in inference mode could not be written outside of it later.
            with torch.inference_mode(False):
                kept = [state.new_zeros(streams, self.num_output) for state in kept]
            for name, state in zip(self.states, kept, strict=True):
                setattr(self, name, state)
        # Copies: autograd may keep what the states are overwritten with before backward runs.
        return [state[:streams].clone() for state in kept]

    def _save(self, last: Sequence[Tensor]) -> None:
        with torch.no_grad():
            for name, state in zip(self.states, last, strict=True):
                getattr(self, name)[: state.shape[0]].copy_(state)

    def extra_repr(self) -> str:
        return f"{self.num_output}, expose_hidden={self.expose_hidden}"


def check_shapes(x: Shape, cont: Shape, static: Shape | None, states: Sequence[Shape], num_output: int) -> None:
    """Raise LayerError for bottoms that do not belong together."""
    if len(x) < 3 or x[0] < 1:
        raise LayerError(f"the first bottom has shape {tuple(x)}, expected (steps, streams, ...) with 1 step or more")
    if tuple(cont) != tuple(x[:2]):
        raise LayerError(f"the second bottom has shape {tuple(cont)}, expected {tuple(x[:2])}: a marker for each step")
    if static is not None and (len(static) < 2 or static[0] != x[1]):
        raise LayerError(f"the static input has shape {tuple(static)}, expected ({x[1]}, ...): one item a stream")
    for state in states:
        if tuple(state) != (1, x[1], num_output):
            raise LayerError(f"a state has shape {tuple(state)}, expected (1, {x[1]}, {num_output})")


@register("RNN")
class RNN(Recurrent):
    """h_t = tanh(W_hh (cont_t h_{t-1}) + W_xh x_t + b_h + W_xh_static x_static), o_t = tanh(W_ho h_t + b_o)."""

    bottoms = (2, 4)
    tops = (1, 2)
    blobs = ("W_xh", "b_h", "W_xh_static", "W_hh", "W_ho", "b_o")
    states = ("hidden",)

    def make_blobs(self, in_features: int, static_features: int | None) -> None:
        size = self.num_output
        self.W_xh = parameter((size, in_features))
        self.b_h = parameter((size,))
        self.W_xh_static = None if static_features is None else parameter((size, static_features))
        self.W_hh = parameter((size, size))
        self.W_ho = parameter((size, size))
        self.b_o = parameter((size,))

    def run(
        self, x: Tensor, cont: Tensor, static: Tensor | None, first: Sequence[Tensor]
    ) -> tuple[Tensor, Sequence[Tensor]]:
        inputs = F.linear(x, self.W_xh, self.b_h)
        if static is not None and self.W_xh_static is not None:
            inputs = inputs + F.linear(static.flatten(1), self.W_xh_static)
        (h,) = first
        weight, hidden = self.W_hh.t(), []
        for step, marker in zip(inputs.unbind(0), cont.unbind(0), strict=True):
            h = torch.addmm(step, h * marker, weight).tanh()
            hidden.append(h)
        return F.linear(torch.stack(hidden), self.W_ho, self.b_o).tanh(), (h,)
