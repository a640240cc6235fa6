"""What ``diff`` compares: files by their kind, or nets with their weights."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from caffe2torch.blobs import Array, Blob, LayerWeights
from caffe2torch.caffemodel import open_weights
from caffe2torch.errors import FormatError, UsageError
from caffe2torch.graph import near
from caffe2torch.prototxt import read, require_layers
from caffe2torch.schema import Message, Schema
from caffe2torch.surgery import model as models
from caffe2torch.surgery.compare_nets import NetDifferences, compare_nets
from caffe2torch.surgery.compare_weights import BlobDifference, compare_weights
from caffe2torch.upgrade import upgrade_net

_TEXT = frozenset(range(32, 256)) | frozenset(b"\t\n\v\f\r")


@dataclass(frozen=True)
class Comparison:
    """The differences of two nets, of two sets of weights, or of both; None for what was not compared."""

    nets: NetDifferences | None = None
    weights: tuple[BlobDifference, ...] | None = None

    def equal(self, tolerance: float | None = None) -> bool:
        """Whether nothing differs, or no value by more than ``tolerance``."""
        same = self.nets is None or self.nets.equal
        return same and not any(blob.differs(tolerance) for blob in self.weights or ())


@dataclass(frozen=True)
class _InMemory:
    """Numbers that are no longer in a file."""

    array: Array

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.array.dtype

    def fill(self, out: Array) -> None:
        out[:] = self.array.reshape(-1)


def is_weights(path: str | os.PathLike[str]) -> bool:
    """Whether a file is binary, so not a prototxt; raises FormatError for one that cannot be read."""
    try:
        with Path(path).open("rb") as file:
            head = file.read(4096)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise FormatError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return not _TEXT.issuperset(head)


def compare(
    first: str | os.PathLike[str],
    second: str | os.PathLike[str],
    *,
    settings: bool = False,
    schema: Schema | None = None,
) -> Comparison:
    """Compare two nets or two weights files; with ``settings`` also the net settings that binary weights files hold.

    Raises UsageError for one of each kind.
    """
    kinds = [is_weights(path) for path in (first, second)]
    if kinds[0] != kinds[1]:
        what = ["weights" if kind else "a net" for kind in kinds]
        raise UsageError(
            f"{os.fspath(first)} is {what[0]} and {os.fspath(second)} is {what[1]}: give two of a kind, or "
            "NET WEIGHTS NET WEIGHTS"
        )
    if not kinds[0]:
        return Comparison(compare_nets(_net(first, schema), _net(second, schema)))
    with ExitStack() as stack:
        files = [stack.enter_context(open_weights(path)) for path in (first, second)]
        nets = compare_nets(*(file.net_message() for file in files), splits=False) if settings else None
        return Comparison(nets, tuple(compare_weights(*(file.layers for file in files))))


def compare_pairs(
    first: tuple[str | os.PathLike[str], str | os.PathLike[str]],
    second: tuple[str | os.PathLike[str], str | os.PathLike[str]],
    *,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    schema: Schema | None = None,
) -> Comparison:
    """Compare two nets with their weights, which must fit them; what layers share counts for each of them."""
    nets = [_net(pair[0], schema) for pair in (first, second)]
    inputs = [{b for graph in models.states(upgrade_net(net)).values() for b in graph.inputs} for net in nets]
    for blob in input_shapes or {}:
        if blob not in inputs[0] | inputs[1]:
            raise UsageError(f"--input {blob}: neither net has such an input{near(blob, inputs[0] | inputs[1])}")
    sides = []
    for pair, known in zip((first, second), inputs, strict=True):
        shapes = {blob: shape for blob, shape in (input_shapes or {}).items() if blob in known}
        sides.append(_layers(models.read(*pair, input_shapes=shapes, ignore_extra=True, schema=schema)))
    return Comparison(compare_nets(*nets), tuple(compare_weights(*sides)))


def _net(path: str | os.PathLike[str], schema: Schema | None) -> Message:
    net = read(path, schema=schema)
    require_layers(net, path)
    return net


def _layers(model: models.Model) -> list[LayerWeights]:
    return [
        LayerWeights(name, None, tuple(Blob(blob.shape, False, _InMemory(blob)) for blob in blobs))
        for name, blobs in (model.weights or {}).items()
    ]
