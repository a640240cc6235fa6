"""All the data layers of a net at work together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from numpy.typing import NDArray

from caffe2torch.data.draws import Seed, draws
from caffe2torch.data.hdf5 import Hdf5Source
from caffe2torch.data.image_list import open_images
from caffe2torch.data.memory import MemorySource
from caffe2torch.data.prefetch import Prefetcher
from caffe2torch.data.records import open_records
from caffe2torch.data.source import Batch, Shape, Source
from caffe2torch.data.windows import WindowSource
from caffe2torch.errors import GraphError, UsageError
from caffe2torch.graph import Graph, Node


def open_source(node: Node, folder: str | Path, *, phase: str | None = None, seed: Seed | None = None) -> Source:
    """The source of batches that a data layer is; its files are looked up below ``folder``.

    ``phase`` is the layer's own unless given. Crops, flips, orders and windows are drawn from ``seed`` and the name of
    the layer; without a seed every run draws others. Raises GraphError for settings Caffe refuses, FormatError and
    ImageError for bad files, UsageError when a package is missing.
    """
    layer, folder, phase = node.message, Path(folder), phase or node.phase
    drawn = draws(seed, node.name)
    if node.type == "Data":
        return open_records(layer, folder, phase=phase, draws=drawn)
    if node.type == "ImageData":
        return open_images(layer, folder, phase=phase, draws=drawn)
    if node.type == "WindowData":
        return WindowSource(layer, folder, drawn)
    if node.type == "HDF5Data":
        return Hdf5Source(layer, folder, drawn)
    if node.type == "MemoryData":
        return MemorySource(layer, drawn)
    raise GraphError(f"layer {node.name!r} ({node.type}) is not read; feed {', '.join(node.tops)} yourself")


class Feed:
    """Batches for a net, without end: iterating gives ``{blob: float32 array}`` for all its data layers together.

    Which batch comes depends on its number alone, so `seek` goes on exactly where another feed stood, and any number of
    ``workers`` gives the same batches: threads that make them ahead, at most ``depth`` at a time (by default two more
    than there are workers). They start with the first batch and end with `close`, with the feed, or with the program.
    Without workers batches are made when they are asked for. ``share`` (r, n) takes batch r of each n in a row.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        *,
        workers: int = 0,
        depth: int | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        if workers < 0 or (depth is not None and depth < 1):
            raise UsageError(f"{workers} workers, {depth} batches ahead: expected at least 0 and at least 1")
        self.sources = dict(sources)
        """Layer name -> source."""
        self.batches = 0
        """How many batches were taken, which is the number of the next one."""
        self.waited = 0.0
        """For how many seconds `next_batch` kept its caller waiting, all in all."""
        self._share = share
        self._workers, self._depth = workers, workers + 2 if depth is None else depth
        self._ahead: Prefetcher[Batch] | None = None

    @property
    def shapes(self) -> dict[str, Shape]:
        """Blob -> shape, in the first batch."""
        return {blob: shape for source in self.sources.values() for blob, shape in source.shapes.items()}

    def next_batch(self) -> Batch:
        """One batch of every source. After an error the next call tries the same batch again."""
        start = time.perf_counter()
        try:
            batch = self._next()
        except BaseException:
            self.close()
            raise
        finally:
            self.waited += time.perf_counter() - start
        self.batches += 1
        return batch

    def _next(self) -> Batch:
        if not self._workers:
            return _fetch(self.sources, self._share, self.batches)()
        if self._ahead is None:
            fetch = partial(_fetch, self.sources, self._share)  # not a method: the threads must not keep the feed alive
            self._ahead = Prefetcher(fetch, self.batches, workers=self._workers, depth=self._depth)
        return self._ahead.take()

    def close(self) -> None:
        """Stop the workers, if any, and drop what they made ahead; the next batch starts them again."""
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None

    def seek(self, batches: int, *, seed: Seed | None = None) -> None:
        """Make ``batches`` the number of the next batch, without making those before it; with ``seed``, draw from it.

        Databases are gone through by their keys.
        """
        if batches < 0:
            raise UsageError(f"no batch has the number {batches}, expected at least 0")
        self.close()
        self.batches = batches
        if seed is not None:
            for name, source in self.sources.items():
                source.draws = draws(seed, name)

    def __enter__(self) -> Feed:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        return self.next_batch()


def _fetch(sources: Mapping[str, Source], share: tuple[int, int], number: int) -> Callable[[], Batch]:
    """One batch of every source, read and ready to be made."""
    first, step = share
    return partial(_make, [source.fetch(first + step * number) for source in sources.values()])


def _make(parts: list[Callable[[], Batch]]) -> Batch:
    return {blob: array for part in parts for blob, array in part().items()}


def open_feed(
    graph: Graph,
    folder: str | Path,
    *,
    arrays: Mapping[str, NDArray[Any]] | None = None,
    seed: Seed | None = None,
    workers: int = 0,
    depth: int | None = None,
    share: tuple[int, int] = (0, 1),
) -> Feed:
    """The feed of a graph's data layers; their files are looked up below ``folder`` (the prototxt's).

    ``arrays`` gives the contents of MemoryData layers by blob name. Blobs of Input layers are not in the feed. All that
    is random comes from ``seed``; without one every run draws others. ``workers`` threads make batches ahead, at most
    ``depth`` at a time, and only those of this process's ``share``; see `Feed`. Raises GraphError when the net has no
    data layer, and what `open_source` raises.
    """
    if seed is None:
        seed = draws(None, "").seed
    sources = {n.name: open_source(n, folder, seed=seed) for n in graph.sources if n.type != "Input"}
    if not sources:
        raise GraphError(f"net {graph.name!r} has no data layer in phase {graph.phase}; give it its inputs yourself")
    given = dict(arrays or {})
    for source in sources.values():
        if isinstance(source, MemorySource) and any(top in given for top in source.tops):
            source.reset({top: given.pop(top) for top in source.tops if top in given})
    if given:
        raise UsageError(f"arrays for {', '.join(given)}: no MemoryData layer of net {graph.name!r} makes these blobs")
    return Feed(sources, workers=workers, depth=depth, share=share)
