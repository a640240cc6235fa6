"""The nets of a solver: built, filled, fed with their data, and sharing what the training net learns."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from caffe2torch.data import Feed, open_feed
from caffe2torch.errors import FormatError, GraphError, ImageError, TrainingError
from caffe2torch.graph import Graph, build_graph
from caffe2torch.loading import build_net, copy_weights, fill, naming
from caffe2torch.net import CaffeNet
from caffe2torch.sharing import tie
from caffe2torch.solver.group import Group
from caffe2torch.solver.joining import join_scales
from caffe2torch.solver.settings import NetChoice

_CLASSES = {"SoftmaxWithLoss", "Accuracy", "MultinomialLogisticLoss", "InfogainLoss", "HingeLoss"}
"""Layers whose second bottom holds class numbers."""


class BadBatch(TrainingError):
    """A batch that cannot be trained with: a damaged record or picture, a label that is no class."""


@dataclass(frozen=True)
class Labels:
    """A blob of the data that a layer reads as class numbers from 0 to ``classes`` - 1, or ``ignored``."""

    blob: str
    layer: str
    classes: int
    ignored: int | None


@dataclass(frozen=True)
class Place:
    """Where a training runs, and how."""

    device: torch.device
    autocast: torch.dtype | None = None
    """What convolutions and products are computed in; None: as the weights are."""
    workers: int = 0
    """Threads that make batches ahead, for each net."""
    group: Group = field(default_factory=Group)
    """The other processes that train the same net."""

    @property
    def channels_last(self) -> bool:
        """bfloat16 on a CPU is several times as fast with the channels of a pixel side by side."""
        return self.autocast is not None and self.device.type == "cpu"

    def take(self, array: NDArray[np.float32]) -> Tensor:
        """A blob of a batch, moved there."""
        value = torch.from_numpy(array)
        if self.channels_last and value.ndim == 4:
            value = value.contiguous(memory_format=torch.channels_last)
        return value.to(self.device, non_blocking=True)

    def settle(self, net: CaffeNet) -> CaffeNet:
        """Move a net there; what it is measured by is computed in float32 whatever the layers before it use."""
        if self.autocast is not None:
            for node, layer in net.built():
                if layer.loss or node.type == "Accuracy":
                    layer.register_forward_pre_hook(_in_float32)
        if self.channels_last:
            net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return net.to(self.device)

    def precision(self) -> AbstractContextManager[object]:
        """The context that forward passes run in."""
        return torch.autocast(self.device.type, self.autocast) if self.autocast else nullcontext()


@dataclass(frozen=True, eq=False)
class Fed:
    """A net with the data it takes."""

    net: CaffeNet
    feed: Feed | None
    """None for a net that makes its own data (DummyData)."""
    place: Place
    labels: tuple[Labels, ...]

    def forward(self) -> dict[str, Tensor]:
        """The outputs for the next batch. Raises BadBatch."""
        try:
            batch = self.feed.next_batch() if self.feed else {}
        except (FormatError, ImageError) as error:
            raise BadBatch(str(error)) from error
        for labels in self.labels:
            _check_labels(labels, batch[labels.blob])
        outputs: dict[str, Tensor] = self.net({blob: self.place.take(array) for blob, array in batch.items()})
        return outputs


def _in_float32(layer: nn.Module, bottoms: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(bottom.float() for bottom in bottoms)


def open_net(choice: NetChoice, root: Path, place: Place, seed: int, number: int) -> Fed:
    """Build a net of a solver, fill its parameters and open its data; ``number`` tells the nets' draws apart."""
    with naming(choice.path):
        graph = build_graph(choice.message, phase=choice.phase, level=choice.level, stages=choice.stages)
        _check_sources(graph)
        net = build_net(graph, root)
    join_scales(net)
    net.report = fill(net)
    share = (place.group.rank, place.group.size) if choice.phase == "train" else (0, 1)
    seeds = (seed, number)
    feed = open_feed(graph, root, seed=seeds, workers=place.workers, share=share) if graph.sources else None
    return Fed(place.settle(net), feed, place, tuple(_labels(net)))


def _labels(net: CaffeNet) -> list[Labels]:
    found = []
    inputs = set(net.structure.graph.inputs)
    for node, layer in net.built():
        if node.type in _CLASSES and len(node.bottoms) > 1 and node.bottoms[1] in inputs:
            scores = net.blob_shapes[node.bottoms[0]]
            axis = getattr(layer, "axis", 1)
            ignored = getattr(layer, "ignore_label", None)
            found.append(Labels(node.bottoms[1], node.name, scores[axis] if axis < len(scores) else 1, ignored))
    return found


def _check_labels(labels: Labels, values: NDArray[np.float32]) -> None:
    """A label that is no class would end in an error far from its cause; on a GPU it would end the process."""
    wrong = (values < 0) | (values >= labels.classes)
    if labels.ignored is not None:
        wrong &= values != labels.ignored
    if wrong.any():
        found = ", ".join(f"{value:g}" for value in np.unique(values[wrong])[:5])
        raise BadBatch(
            f"blob {labels.blob!r} holds the labels {found}, layer {labels.layer!r} has classes 0 to "
            f"{labels.classes - 1}: correct the list or database, or the num_output of the classifier"
        )


def _check_sources(graph: Graph) -> None:
    """A net that wants blobs from outside cannot be trained by a solver."""
    for node in graph.sources:
        if node.type == "Input":
            raise GraphError(
                f"layer {node.name!r} is an Input layer, which nothing feeds in training; give the net a data layer "
                "(Data, ImageData, HDF5Data)"
            )


def share(owner: CaffeNet, net: CaffeNet, weights: Sequence[str | Path] = (), root: Path = Path()) -> None:
    """Let ``net`` use the blobs of the layers of the same name in ``owner``: ``Net::ShareTrainedLayersWith``.

    Layers of its own take theirs from the ``weights`` files, if these have them.
    """
    theirs = owner.layers()
    if any(layer.blob_items() for node, layer in net.built() if node.name not in theirs):
        for file in weights:
            copy_weights(net, root / file)
    for node, layer in net.built():
        if node.name not in theirs:
            continue
        lender = theirs[node.name]
        mine, other = layer.blob_items(), lender.blob_items()
        if len(mine) != len(other):
            raise GraphError(
                f"layer {node.name!r} has {len(mine)} parameters in the test net and {len(other)} in the training net"
            )
        for (name, value), (lent, source) in zip(mine, other, strict=True):
            if value.shape != source.shape:
                raise GraphError(
                    f"layer {node.name!r}: parameter {name} has shape {tuple(value.shape)} in the test net and "
                    f"{tuple(source.shape)} in the training net"
                )
            tie(layer, name, lender, lent)
