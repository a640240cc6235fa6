"""LRN written out: a fast way to normalise across channels, as in `caffe2torch convert`'s sources, becomes LRN again.

What is recognised is x * (k + a * sums)^-beta, where the sums of x^2 run over windows of channels padded with zeros,
and the power may be taken by square roots. Sums that are used otherwise become a convolution with ones.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from caffe2torch.importing.builder import Builder, MadeLayer, Origin
from caffe2torch.importing.values import PENDING, Operand, Refused, Value
from caffe2torch.schema import Message

SUMS = "(sums over channels)"
"""Type of a layer that stands for such sums until :func:`settle` has made of it what Caffe has."""


def channel_sums(net: Builder, x: Value, size: int) -> Value:
    """The sums over windows of ``size`` neighbouring channels, as many channels as before."""
    return net.add(SUMS, [x], x.shape, lrn_param={"local_size": size}, convolution_param={"num_output": x.shape[1]})


def window_values(net: Builder, windows: Value) -> list[Value]:
    """The first value of every window, the second, ...: an LRN written out may add them up one after the other."""
    (size,) = windows.amounts
    shape = windows.shape[:-1]
    if size == 1:
        return [channel_sums(net, replace(windows, shape=shape, pending="", amounts=()), size)]
    return [replace(windows, shape=shape, pending="window", amounts=(size, i, i + 1)) for i in range(size)]


def joined_windows(net: Builder, a: Operand, b: Operand, factor: float) -> Value:
    """a + b, where both are neighbouring values of the same windows, added up."""
    if not (isinstance(a, Value) and isinstance(b, Value) and a.pending == b.pending == "window" and factor == 1.0):
        raise Refused(PENDING["window"])
    (size, start, middle), (_, at, stop) = a.amounts, b.amounts
    if a.blob != b.blob or size != b.amounts[0] or middle != at:
        raise Refused(PENDING["window"])
    if stop - start == size:
        return channel_sums(net, replace(a, pending="", amounts=()), size)
    return replace(a, amounts=(size, start, stop))


def settle(layers: Sequence[MadeLayer], outputs: Collection[str]) -> list[MadeLayer]:
    """The layers with an LRN in place of each written-out one, and convolutions in place of other such sums."""
    result = list(layers)
    for layer in layers:
        if layer.message.type != SUMS:
            continue
        found = _Search(result, outputs).around(layer)
        if found is None:
            _as_convolution(layer)
            continue
        size = layer.message.lrn_param.local_size
        place = result.index(found.last)
        result[place] = MadeLayer(_lrn(found, size), path=found.last.path)
        result = [other for other in result if not any(other is part for part in found.parts)]
    return result


@dataclass
class _Found:
    x: str
    parts: list[MadeLayer]
    """Layers that the LRN takes in, without the last."""
    last: MadeLayer
    scale: float
    k: float
    beta: float


class _Search:
    """Looks along the layers for the rest of the formula."""

    def __init__(self, layers: Sequence[MadeLayer], outputs: Collection[str]) -> None:
        self.layers, self.outputs = layers, outputs

    def around(self, sums: MadeLayer) -> _Found | None:
        """The formula that these sums belong to, if all of it is there and nobody else reads its parts."""
        squares = self._maker(sums.message.bottom[0])
        if squares is None or not _is_square(squares.message):
            return None
        x = squares.message.bottom[0]
        parts = [squares, sums]
        at, scale, shift = sums, 1.0, 0.0
        while (step := self._only_reader(at)) is not None and _is_linear(step.message):
            p = step.message.power_param
            scale, shift = scale * p.scale, shift * p.scale + p.shift
            parts.append(step)
            at = step
        power = self._inverse_power(at, parts)
        if power is None:
            return None
        at, beta = power
        last = self._only_reader(at)
        if last is None or not _is_product(last.message) or set(last.message.bottom) != {x, at.message.top[0]}:
            return None
        inner = {part.message.top[0] for part in parts}
        if self._readers(squares) != [sums] or not inner.isdisjoint(self.outputs):
            return None
        return _Found(x, parts, last, scale, shift, beta)

    def _inverse_power(self, at: MadeLayer, parts: list[MadeLayer]) -> tuple[MadeLayer, float] | None:
        """The layer that gives (...)^-beta, and beta: one Power, or root * sqrt(root) for 0.75."""
        first = self._only_reader(at)
        if first is None or first.message.type != "Power" or first.message.power_param.power >= 0:
            return None
        p = first.message.power_param
        if (p.scale, p.shift) != (1.0, 0.0):
            return None
        parts.append(first)
        readers = self._readers(first)
        if len(readers) == 2 and p.power == -0.5:
            root = next((r for r in readers if r.message.type == "Power" and r.message.power_param.power == 0.5), None)
            both = next((r for r in readers if _is_product(r.message)), None)
            if root is None or both is None or self._only_reader(root) is not both:
                return None
            if set(both.message.bottom) != {first.message.top[0], root.message.top[0]}:
                return None
            parts += [root, both]
            return both, 0.75
        return first, -p.power

    def _maker(self, blob: str) -> MadeLayer | None:
        return next((layer for layer in self.layers if blob in layer.message.top), None)

    def _readers(self, layer: MadeLayer) -> list[MadeLayer]:
        return [other for other in self.layers if layer.message.top[0] in other.message.bottom]

    def _only_reader(self, layer: MadeLayer) -> MadeLayer | None:
        readers = self._readers(layer)
        return readers[0] if len(readers) == 1 and layer.message.top[0] not in self.outputs else None


def _is_product(message: Message) -> bool:
    return bool(message.type == "Eltwise" and message.eltwise_param.operation == message.eltwise_param.PROD)


def _is_square(message: Message) -> bool:
    if message.type == "Power":
        p = message.power_param
        return bool((p.power, p.scale, p.shift) == (2.0, 1.0, 0.0))
    return _is_product(message) and message.bottom[0] == message.bottom[1]


def _is_linear(message: Message) -> bool:
    return bool(message.type == "Power" and message.power_param.power == 1.0)


def _lrn(found: _Found, size: int) -> Message:
    message = type(found.last.message)(name=found.last.message.name, type="LRN", bottom=[found.x])
    message.top.extend(found.last.message.top)
    p = message.lrn_param
    values = {"alpha": found.scale * size, "beta": found.beta, "k": found.k}
    for field, value in values.items():
        # float32 times five is not what somebody wrote: six digits are.
        setattr(p, field, float(f"{value:.6g}"))
    p.local_size = size
    for field in ("local_size", *values):
        if getattr(p, field) == p.DESCRIPTOR.fields_by_name[field].default_value:
            p.ClearField(field)
    return message


def _as_convolution(layer: MadeLayer) -> None:
    message = layer.message
    size, channels = message.lrn_param.local_size, message.convolution_param.num_output
    message.type = "Convolution"
    message.ClearField("lrn_param")
    message.convolution_param.bias_term = False
    message.convolution_param.kernel_size.append(1)
    apart = np.abs(np.arange(channels)[:, None] - np.arange(channels))
    layer.blobs = [(apart <= size // 2).astype(np.float32).reshape(channels, channels, 1, 1)]
    layer.origins = [Origin("", False)]
