"""What a golden net's input blobs hold in each pass: the arrays given to Caffe, or what its data layers read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from caffe2torch.data import Feed as DataFeed
from caffe2torch.data import open_feed
from caffe2torch.graph import Graph, Node
from caffe2torch.verify.case import Case
from caffe2torch.verify.compare import Array

EXACT = 1e-6
"""Share of the largest magnitude by which mean subtraction and scaling may round differently."""
JPEG_LEVELS = 4.0
"""By how many of 255 grey levels JPEG decoders may differ."""
RESIZE_LEVELS = 1.0
"""By how many bilinear resizing of 8-bit images may."""

_JPEG = re.compile(rb"\xff\xd8\xff[\xdb\xe0\xe1\xee]")
_PICTURES = frozenset({"Data", "ImageData", "WindowData"})
_READ = _PICTURES | {"HDF5Data", "MemoryData"}


class Feed:
    """Gives the inputs of each pass, by number from 1. What is not given again stays the same."""

    def __init__(self, case: Case, folder: Path, graph: Graph) -> None:
        self._blobs, self._inputs = case.blobs, graph.inputs
        self._given: dict[str, Tensor] = {}
        self._reader: DataFeed | None = None
        if any(node.type in _READ for node in graph.sources):
            self._reader = open_feed(graph, folder, arrays=_memory(case, graph), seed=1)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the blobs that data layers make."""
        return dict(self._reader.shapes) if self._reader else {}

    def __call__(self, number: int) -> dict[str, Tensor]:
        """The inputs of one pass, fresh tensors."""
        suffix = "" if number == 1 else str(number)
        read = self._reader.next_batch() if self._reader else {}
        for blob in self._inputs:
            if blob in read:
                self._given[blob] = torch.from_numpy(read[blob])
            elif f"in{suffix}:{blob}" in self._blobs:
                self._given[blob] = torch.from_numpy(self._blobs[f"in{suffix}:{blob}"])
        return {blob: value.detach().clone() for blob, value in self._given.items()}


def _memory(case: Case, graph: Graph) -> dict[str, Array]:
    """The arrays given to MemoryData layers, by blob."""
    arrays = [case.blobs[key] for key in ("in:memory_data", "in:memory_label") if key in case.blobs]
    layers = [node for node in graph.sources if node.type == "MemoryData"]
    return {blob: array for node in layers for blob, array in zip(node.tops, arrays, strict=False)}


@dataclass(frozen=True)
class Closeness:
    """How close what a data layer reads must be: a share of the largest magnitude, that being at least ``floor``."""

    share: float
    floor: float = 0.0


def closeness(folder: Path, graph: Graph) -> Mapping[str, Closeness]:
    """For every blob that a data layer makes; decoders and resizing of pictures differ between programs."""
    found: dict[str, Closeness] = {}
    for node in graph.sources:
        if node.type in _READ:
            found.update(dict.fromkeys(node.tops, Closeness(EXACT)))
        levels = _levels(node, folder)
        if levels:
            found[node.tops[0]] = Closeness(levels / 255, 255 * node.message.transform_param.scale)
    return found


def _levels(node: Node, folder: Path) -> float:
    """By how many grey levels the layer's pictures may differ; 0 when they are decoded exactly."""
    if node.type not in _PICTURES:
        return 0.0
    resized = node.type == "WindowData" or bool(node.message.image_data_param.new_height)
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".npz")
    jpeg = any(_JPEG.search(path.read_bytes()) for path in files)
    return max(JPEG_LEVELS * jpeg, RESIZE_LEVELS * resized)


def draws(node: Node) -> bool:
    """Whether a data layer may draw what it reads at random (it does so in training only, windows excepted)."""
    message = node.message
    shuffled = message.image_data_param.shuffle or message.hdf5_data_param.shuffle
    skipped = message.image_data_param.rand_skip or message.data_param.rand_skip
    t = message.transform_param
    varied = node.phase == "train" and bool(t.mirror or t.crop_size)
    return bool(node.type in _READ and (shuffled or skipped or varied or node.type == "WindowData"))
