"""Layers of the text-reading forks: CTPN's Lstm, Reverse and Transpose, and ContinuationIndicator."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from caffe2torch.errors import LayerError
from caffe2torch.fillers import fill
from caffe2torch.layers.lstm import Steps, by_torch
from caffe2torch.layers.registry import Layer, Message, Shape, canonical_axis, check_count, parameter, register
from caffe2torch.layers.ssd import Permute


@register("Lstm")
class Lstm(Layer):
    """CTPN's LSTM: from x (T, N, ...), T steps of N streams that start from 0, to all h_t, (T, N, num_output).

    c_t = f c_{t-1} + i g and h_t = o tanh(c_t), where i, f, o pass a sigmoid and g a tanh. Before these the gates are
    W_x x_t + W_h h_{t-1} + b, in the order i, f, o, g; the blobs are W_x (4 num_output, inputs), W_h and b.
    ``clipping_threshold`` above 0 limits the gradient of these sums at each step, before it goes on to the blobs, to x
    and to the step before. Junhyuk Oh's layer, from which CTPN's comes, has the streams in other places (see its
    ``batch_size``) and markers in a second bottom; that one is refused.
    """

    blobs = ("W_x", "W_h", "b")

    def __init__(self, in_features: int, num_output: int, *, clipping_threshold: float = 0.0) -> None:
        super().__init__()
        if num_output < 1 or in_features < 1:
            raise LayerError(f"{in_features} inputs and num_output {num_output}: expected at least 1 of each")
        self.num_output, self.clipping_threshold = num_output, max(clipping_threshold, 0.0)
        self.W_x = parameter((4 * num_output, in_features))
        self.W_h = parameter((4 * num_output, num_output))
        self.b = parameter((4 * num_output,))

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> Lstm:
        p, shape = layer.lstm_param, bottom_shapes[0]
        if p.HasField("batch_size"):
            raise LayerError(
                f"lstm_param has batch_size: {p.batch_size}, as Junhyuk Oh's Lstm of (steps x streams, ...) has it; "
                "expected CTPN's, of (steps, streams, ...): remove it, and give the bottom that shape with a Reshape"
            )
        if len(shape) < 3 or shape[0] < 1:
            raise LayerError(f"the bottom has shape {shape}: expected (steps, streams, ...) with 1 step or more")
        return cls(math.prod(shape[2:]), p.num_output, clipping_threshold=p.clipping_threshold)

    def fill(self, layer: Message, generator: torch.Generator | None = None) -> None:
        p = layer.lstm_param
        for name, blob in self.blob_items():
            fill(blob, p.bias_filler if name == "b" else p.weight_filler, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2)
        h, c = x.new_zeros(2, x.shape[1], self.num_output).unbind(0)
        if not torch.compiler.is_compiling() and not (self.clipping_threshold and torch.is_grad_enabled()):
            return by_torch(x, h, c, self.W_x, self.W_h, self.b)[0]
        cont = torch.ones_like(x[:, :, :1])
        gates, limit = F.linear(x, self.W_x, self.b), self.clipping_threshold or None
        top: Tensor = Steps.apply(  # type: ignore[no-untyped-call]
            gates, cont, self.W_h, h, c, torch.is_grad_enabled(), limit
        )[0]
        return top

    def extra_repr(self) -> str:
        return f"{self.num_output}, clipping_threshold={self.clipping_threshold:g}"


@register("Reverse")
class Reverse(Layer):
    """The values in opposite order along each ``axis``.

    CTPN's layer has one axis, that of other forks any number. Without any the former takes axis 0, the latter none: it
    has to be given.
    """

    def __init__(self, axes: Sequence[int]) -> None:
        super().__init__()
        self.axes = tuple(axes)

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> Reverse:
        given = list(layer.reverse_param.axis)
        axes = [canonical_axis(axis, bottom_shapes[0], "reverse_param.axis") for axis in given]
        if not axes or len(set(axes)) != len(axes):
            raise LayerError(
                f"reverse_param.axis is {given}: expected one axis or more, all different (without one, CTPN's Caffe "
                "takes axis 0 and others reverse nothing)"
            )
        return cls(axes)

    def forward(self, x: Tensor) -> Tensor:
        return x.flip(self.axes)

    def extra_repr(self) -> str:
        return f"axes={self.axes}"


@register("Transpose")
class Transpose(Permute):
    """CTPN's: axis i of the top is axis ``dim[i]`` of the bottom; a ``Permute`` that names every axis."""

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> Transpose:
        dims, axes = list(layer.transpose_param.dim), len(bottom_shapes[0])
        if not axes or sorted(dims) != list(range(axes)):
            raise LayerError(
                f"transpose_param.dim is {dims} for a bottom {bottom_shapes[0]}: expected each of its axes, 0 to "
                f"{axes - 1}, once (only CTPN's Transpose is supported)"
            )
        return cls(dims)


@register("ContinuationIndicator")
class ContinuationIndicator(Layer):
    """Markers for a recurrent layer, (time_step, batch_size): 0 in the first row, 1 in the others.

    With a bottom (some forks) its first axis gives the number of columns, and ``batch_size`` must not be given.
    """

    bottoms = (0, 1)
    no_gradient = (0,)
    anchor: Tensor
    """A scalar that is moved and cast with the net; the top follows it."""

    def __init__(self, time_step: int, batch_size: int | None = None) -> None:
        """``batch_size`` None: that of the bottom."""
        super().__init__()
        if time_step < 1 or (batch_size is not None and batch_size < 1):
            raise LayerError(f"time_step is {time_step} and batch_size {batch_size or 0}: expected at least 1 of each")
        check_count((time_step, batch_size or 1), "the top")
        self.time_step, self.batch_size = time_step, batch_size
        self.register_buffer("anchor", torch.zeros(()), persistent=False)

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> ContinuationIndicator:
        p = layer.continuation_indicator_param
        if not bottom_shapes:
            return cls(p.time_step, p.batch_size)
        if p.batch_size or not bottom_shapes[0]:
            raise LayerError(
                f"batch_size is {p.batch_size}, and the bottom has shape {bottom_shapes[0]}: forks differ in what a "
                "bottom means then; expected batch_size, or a bottom (batch_size, ...)"
            )
        return cls(p.time_step)

    def forward(self, x: Tensor | None = None) -> Tensor:
        columns = self.batch_size if x is None else x.shape[0]
        assert columns is not None
        rows = self.anchor.new_full((self.time_step, columns), 1.0)
        return torch.cat((self.anchor.new_zeros((1, columns)), rows[1:]))

    def extra_repr(self) -> str:
        return f"time_step={self.time_step}, batch_size={self.batch_size}"
