"""What a weights file holds, whatever its format: layers by name, each with its blobs, read when asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from caffe2torch.errors import FormatError, WeightsError

Array = npt.NDArray[Any]

# Caffe's own limits (Blob::Reshape), and ours: no net comes near them, and they bound what a hostile file can cost.
MAX_AXES = 32
MAX_COUNT = (1 << 31) - 1
MAX_LAYERS = 1 << 16
MAX_BLOBS = 1 << 16


class Source(Protocol):
    """Where the numbers of a blob lie."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type the file stores."""

    def fill(self, out: Array) -> None:
        """Write all values, converted to its type, into the one-dimensional array ``out``; raises FormatError."""


@dataclass(frozen=True, slots=True)
class Blob:
    """One parameter array of a layer, still in its file.

    ``legacy`` says that the shape comes from a num/channels/height/width header: four axes, padded with leading ones,
    so that an (out, in) matrix appears as (1, 1, out, in) and a bias as (1, 1, 1, out). ``dtype`` is the stored type.
    """

    shape: tuple[int, ...]
    legacy: bool
    source: Source = field(repr=False, compare=False)

    @property
    def count(self) -> int:
        """Number of values; 1 for an empty shape."""
        return math.prod(self.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type the file stores the values in."""
        return self.source.dtype

    def read(self, dtype: npt.DTypeLike = np.float32) -> Array:
        """The values as a fresh, writable, C-contiguous array of ``dtype`` (float32 or float64)."""
        out: Array = np.empty(self.shape, dtype)
        self.read_into(out)
        return out

    def read_into(self, out: Array) -> None:
        """Write the values into ``out``: C-contiguous, of this blob's count, float32 or float64."""
        if out.size != self.count or not out.flags.c_contiguous or out.dtype not in (np.float32, np.float64):
            raise ValueError(f"expected a C-contiguous float array of {self.count} values, not {out.dtype} {out.shape}")
        if self.count:
            self.source.fill(out.reshape(-1))


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """The blobs one layer has in the file. ``type`` is the V2 type name, or None where the file does not tell.

    ``indices`` are the parameter numbers of ``blobs``: 0, 1, ... except in HDF5 files, where a layer that shares some
    of its parameters with an earlier layer stores only the others.
    """

    name: str
    type: str | None
    blobs: tuple[Blob, ...]
    indices: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.indices:
            object.__setattr__(self, "indices", tuple(range(len(self.blobs))))


class WeightsFile:
    """An open weights file: layers in the order of the file, including those without blobs and repeated names.

    ``syntax`` is "V0", "V1", "V2" or "HDF5". Blobs can be read until the file is closed, from any thread.
    """

    def __init__(
        self,
        path: Path,
        *,
        net_name: str,
        syntax: str,
        layers: tuple[LayerWeights, ...],
        close: Callable[[], None],
        net_message: Callable[[], Any] | None = None,
    ) -> None:
        self.path, self.net_name, self.syntax, self.layers = path, net_name, syntax, layers
        self._close, self._net_message = close, net_message

    def net_message(self) -> Any:
        """The net settings stored beside the weights, as a NetParameter in the file's own syntax, without blobs."""
        if self._net_message is None:
            raise FormatError(f"{self.path}: an HDF5 weights file holds no net settings; take them from the prototxt")
        return self._net_message()

    def close(self) -> None:
        """Release the file; blobs that were not read can no longer be read."""
        self._close()

    def __enter__(self) -> WeightsFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()


def check_shape(shape: tuple[int, ...]) -> None:
    """Refuse shapes that Caffe refuses: too many axes, a negative axis, more values than an ``int`` counts."""
    if len(shape) > MAX_AXES:
        raise FormatError(f"a shape of {len(shape)} axes, expected at most {MAX_AXES}")
    if min(shape, default=0) < 0:
        raise FormatError(f"the shape {shape} has a negative axis")
    if math.prod(axis or 1 for axis in shape) > MAX_COUNT:
        raise FormatError(f"the shape {shape} is too large, Caffe's limit is {MAX_COUNT} values")


def float_arrays(layers: Iterable[Any], weights: Mapping[str, Sequence[Array]]) -> dict[str, list[Array]]:
    """The weights to write, checked; nothing is copied or converted.

    Raises WeightsError for weights of a layer that is not among ``layers`` (messages with a name), for other types than
    floats, and for shapes Caffe refuses.
    """
    extra = {name for name, blobs in weights.items() if len(blobs)} - {layer.name for layer in layers}
    if extra:
        raise WeightsError(f"the net has no layer for these weights: {', '.join(map(repr, sorted(extra)))}")
    arrays = {name: [np.asarray(blob) for blob in blobs] for name, blobs in weights.items() if len(blobs)}
    for name, blobs in arrays.items():
        for index, array in enumerate(blobs):
            if array.dtype.kind != "f" or array.dtype.itemsize > 8:
                raise WeightsError(f"layer {name!r}, blob {index} is {array.dtype}, expected float32 or float64")
            try:
                check_shape(array.shape)
            except FormatError as error:
                raise WeightsError(f"layer {name!r}, blob {index}: {error}") from error
    return arrays


def stored_dtype(array: Array) -> np.dtype[Any]:
    """What Caffe's formats store an array as: double for float64, float for float32 and (exactly) float16."""
    return np.dtype("<f8" if array.dtype.itemsize == 8 else "<f4")
