"""Gradients that Caffe takes from blobs after an in-place layer has overwritten them.

Caffe's backward pass reads the blobs as the forward pass left them. A ReLU that works in place takes its mask from the
blob's last value, whatever wrote that; a Sigmoid multiplies by y (1 - y) of its top's last value; Power and Log in
place lose the gradient that comes in. Where that differs from the derivative, the gradient here is Caffe's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

from torch import Tensor

from caffe2torch.graph import Node
from caffe2torch.layers.gradient import with_backward
from caffe2torch.layers.registry import Layer

_KEEP_SIGN = frozenset({"ReLU", "Dropout"})
"""Layer types that leave positive values positive (or let no gradient through), and all others not positive."""


def overwritten(nodes: Sequence[Node], layers: Sequence[Layer]) -> frozenset[int]:
    """Positions of the nodes whose layer finds other values in its blobs than it has worked with."""
    found = set()
    later: dict[str, set[str]] = {}  # blob -> types of the layers that write it after the node at hand
    for position in reversed(range(len(nodes))):
        node, layer = nodes[position], layers[position]
        if layer.backward_reads and _differs(node, layer, later.get(node.tops[0], set())):
            found.add(position)
        for blob in node.writes:
            later.setdefault(blob, set()).add(node.type)
    return frozenset(found)


def _differs(node: Node, layer: Layer, later: Set[str]) -> bool:
    reads, in_place = layer.backward_reads, node.tops == node.bottoms
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
    own = x.detach() if alone or "input" in layer.backward_reads else None
    result: Tensor = with_backward(
        y, x, lambda g: layer.caffe_backward(g, last[top] if own is None else own, last[top])
    )
    return result
