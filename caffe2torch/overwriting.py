"""Gradients that Caffe takes from blobs after an in-place layer has overwritten them.

Caffe's backward pass reads the blobs as the forward pass left them. A ReLU that works in place takes its mask from the
blob's last value, whatever wrote that; a Sigmoid multiplies by y (1 - y) of its top's last value; Power and Log in
place lose the gradient that comes in. Where that differs from the derivative, the gradient here is Caffe's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from caffe2torch.graph import Node
from caffe2torch.layers.gradient import with_backward
from caffe2torch.layers.registry import Layer

_KEEP_SIGN = frozenset({"ReLU", "Dropout"})
"""Layer types that leave positive values positive (or let no gradient through), and all others not positive."""


def overwritten(nodes: Sequence[Node], layers: Sequence[Layer]) -> frozenset[int]:
    """Positions of the nodes whose layer finds other values in its blobs than it has worked with."""
    return frozenset(i for i, layer in enumerate(layers) if layer.backward_reads and _differs(nodes[i:], layer))


def _differs(nodes: Sequence[Node], layer: Layer) -> bool:
    first, reads = nodes[0], layer.backward_reads
    in_place = first.tops == first.bottoms
    later = {node.type for node in nodes[1:] if first.tops[0] in node.writes}
    return (
        ("top" in reads and bool(later))
        or ("bottom" in reads and in_place)
        or ("bottom's sign" in reads and in_place and not later <= _KEEP_SIGN)
    )


def with_caffes_gradient(
    y: Tensor, x: Tensor, layer: Layer, top: str, last: Mapping[str, Tensor], alone: bool
) -> Tensor:
    """``y``, which ``layer`` made of ``x``, with the gradient it gets from the value that ``last`` has of ``top`` then.

    ``alone`` says that top and bottom are two blobs; otherwise the layer works in place.
    """
    if not x.requires_grad or not y.requires_grad:
        return y
    own = x.detach() if alone else None
    result: Tensor = with_backward(
        y, x, lambda g: layer.caffe_backward(g, last[top] if own is None else own, last[top])
    )
    return result
