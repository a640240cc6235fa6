"""All the data layers of a net at work together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caffe2torch.data.hdf5 import Hdf5Source
from caffe2torch.data.image_list import open_images
from caffe2torch.data.memory import MemorySource
from caffe2torch.data.records import open_records
from caffe2torch.data.source import Array, Shape, Source
from caffe2torch.data.windows import WindowSource
from caffe2torch.errors import GraphError, UsageError
from caffe2torch.graph import Graph, Node


def open_source(
    node: Node, folder: str | Path, *, phase: str | None = None, rng: np.random.Generator | None = None
) -> Source:
    """The source of batches that a data layer is; its files are looked up below ``folder``.

    ``phase`` is the layer's own unless given; ``rng`` draws crops, flips, orders and windows (by default a fresh
    generator: every run draws others). Raises GraphError for settings Caffe refuses, FormatError and ImageError for bad
    files, UsageError when a package is missing.
    """
    layer, folder, phase = node.message, Path(folder), phase or node.phase
    rng = np.random.default_rng() if rng is None else rng
    if node.type == "Data":
        return open_records(layer, folder, phase=phase, rng=rng)
    if node.type == "ImageData":
        return open_images(layer, folder, phase=phase, rng=rng)
    if node.type == "WindowData":
        return WindowSource(layer, folder, rng=rng)
    if node.type == "HDF5Data":
        return Hdf5Source(layer, folder, rng=rng)
    if node.type == "MemoryData":
        return MemorySource(layer)
    raise GraphError(f"layer {node.name!r} ({node.type}) is not read; feed {', '.join(node.tops)} yourself")


class Feed:
    """Batches for a net, without end: iterating gives ``{blob: float32 array}`` for all its data layers together."""

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self.sources = dict(sources)
        """Layer name -> source."""
        self.batches = 0
        """How many batches were taken."""

    @property
    def shapes(self) -> dict[str, Shape]:
        """Blob -> shape, in the first batch."""
        return {blob: shape for source in self.sources.values() for blob, shape in source.shapes.items()}

    def next_batch(self) -> dict[str, Array]:
        """One batch of every source."""
        self.batches += 1
        return {blob: array for source in self.sources.values() for blob, array in source.next_batch().items()}

    def __iter__(self) -> Iterator[dict[str, Array]]:
        return self

    def __next__(self) -> dict[str, Array]:
        return self.next_batch()


def open_feed(
    graph: Graph,
    folder: str | Path,
    *,
    arrays: Mapping[str, NDArray[Any]] | None = None,
    rng: np.random.Generator | None = None,
) -> Feed:
    """The feed of a graph's data layers; their files are looked up below ``folder`` (the prototxt's).

    ``arrays`` gives the contents of MemoryData layers by blob name. Blobs of Input layers are not in the feed. Raises
    GraphError when the net has no data layer, and what `open_source` raises.
    """
    rng = np.random.default_rng() if rng is None else rng
    sources = {n.name: open_source(n, folder, rng=rng) for n in graph.sources if n.type != "Input"}
    if not sources:
        raise GraphError(f"net {graph.name!r} has no data layer in phase {graph.phase}; give it its inputs yourself")
    given = dict(arrays or {})
    for source in sources.values():
        if isinstance(source, MemorySource) and any(top in given for top in source.tops):
            source.reset({top: given.pop(top) for top in source.tops if top in given})
    if given:
        raise UsageError(f"arrays for {', '.join(given)}: no MemoryData layer of net {graph.name!r} makes these blobs")
    return Feed(sources)
