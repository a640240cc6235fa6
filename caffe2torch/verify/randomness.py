"""Layers whose values are drawn at random: their properties are checked instead of their numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from caffe2torch.graph import Graph, Node
from caffe2torch.layers.activation import Dropout
from caffe2torch.layers.registry import Layer
from caffe2torch.net import CaffeNet
from caffe2torch.verify.case import Case
from caffe2torch.verify.compare import TIGHT, Check, claim, compare
from caffe2torch.verify.sources import draws

SIGMAS = 5.0
"""How many standard errors a random share or mean may be away from what it should be."""


def random_nodes(net: CaffeNet) -> tuple[Node, ...]:
    """The layers of a net that draw random numbers in its phase."""
    return tuple(node for node, layer in net.built() if _random(node, layer))


def _random(node: Node, layer: Layer) -> bool:
    if isinstance(layer, Dropout):
        return layer.drops and 0 < layer.ratio < 1
    if node.type == "DummyData":
        return any(filler.type != "constant" for filler in node.message.dummy_data_param.data_filler)
    return False


def affected(graph: Graph, random: Sequence[Node], *, sources: bool) -> frozenset[str]:
    """The blobs whose final values depend on what the ``random`` layers drew, or with ``sources`` the data layers."""
    drawn = {node.index for node in random}
    found = {blob for node in graph.sources if sources and draws(node) for blob in node.tops}
    for node in graph.nodes:
        if node.index in drawn or not found.isdisjoint(node.bottoms):
            found.update(node.writes)
        elif node.type != "Silence":
            found.difference_update(set(node.tops) - set(node.bottoms))
    return frozenset(found)


class Watch:
    """Keeps what the random layers of a net read and write, for ``checks``."""

    def __init__(self, net: CaffeNet, nodes: Sequence[Node]) -> None:
        self._seen: list[tuple[Node, Tensor | None, Tensor]] = []
        self._hooks = [net.layer(node.name).register_forward_hook(self._keep(node)) for node in nodes]

    def _keep(self, node: Node) -> Any:
        def hook(module: torch.nn.Module, bottoms: tuple[Tensor, ...], result: Any) -> None:
            tops = result if isinstance(result, tuple) else (result,)
            self._seen.extend((node, bottoms[0] if bottoms else None, top) for top in tops)

        return hook

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *error: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def checks(self, case: Case) -> list[Check]:
        """The properties of everything that was drawn."""
        found: list[Check] = []
        for node, bottom, top in self._seen:
            if bottom is not None:
                found += _dropout(node, bottom, top)
        for index, blob in enumerate(dict.fromkeys(b for node, _, _ in self._seen for b in node.tops)):
            drawn = [top for node, bottom, top in self._seen if bottom is None and blob in node.tops]
            if drawn and f"out:{blob}" in case.blobs:
                # Each pass adds one tensor per top; those of this blob are every len(tops)-th.
                found += _same_distribution(blob, drawn[index % len(drawn)], case.blobs[f"out:{blob}"])
        return found


def _dropout(node: Node, bottom: Tensor, top: Tensor) -> list[Check]:
    """Every value is 0 or x / (1 - ratio), zeros come at the given rate, and the gradient passes the same mask."""
    ratio = node.message.dropout_param.dropout_ratio
    scale = 1.0 / (1.0 - ratio) if node.message.dropout_param.scale_train else 1.0
    x, y = bottom.detach().numpy(), top.detach().numpy()
    kept = y != 0
    name, layer = f"random:{node.tops[0]}", node.type
    checks = [compare(name, y, np.where(kept, x * np.float32(scale), 0), TIGHT, layer=layer)]
    live = int((x != 0).sum())
    share = 1.0 - float(kept.sum()) / max(live, 1)
    allowed = SIGMAS * math.sqrt(ratio * (1 - ratio) / max(live, 1))
    holds = abs(share - ratio) <= allowed
    checks.append(claim(f"{name}:rate", holds=holds, detail=f"drops {share:.3f}, expected {ratio:g}", layer=layer))
    if top.requires_grad and bottom.requires_grad:
        (gradient,) = torch.autograd.grad(top.sum(), bottom, retain_graph=True)
        mask = np.where(kept | (x == 0), np.float32(scale), 0) if live == x.size else gradient.numpy()
        checks.append(compare(f"{name}:gradient", gradient.numpy(), mask, TIGHT, layer=layer))
    return checks


def _same_distribution(blob: str, found: Tensor, sample: Any) -> list[Check]:
    """Two samples of one distribution: their means and spreads agree within sampling error."""
    ours = found.detach().double().numpy()
    spread = max(float(sample.std()), float(ours.std()))
    error = SIGMAS * spread * math.sqrt(2 / max(sample.size, 1))
    near = abs(ours.mean() - sample.mean()) <= error and abs(ours.std() - sample.std()) <= error
    detail = f"mean {ours.mean():.3g} and spread {ours.std():.3g}, Caffe's {sample.mean():.3g} and {sample.std():.3g}"
    return [claim(f"random:{blob}", holds=near, detail=detail, layer="DummyData")]
