"""A data layer's ``transform_param`` on records of any number of channels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from caffe2torch.binaryproto import read_mean
from caffe2torch.data.datum import Record
from caffe2torch.errors import GraphError, ImageError
from caffe2torch.preprocess.spec import Spec
from caffe2torch.preprocess.transformer import Transformer
from caffe2torch.schema import Message

_KNOWN = frozenset({"scale", "mirror", "crop_size", "mean_file", "mean_value", "force_color", "force_gray"})
_HINTS = frozenset({"use_gpu_transform", "random_seed"})
"""Settings of forks that change no value, or only which random numbers are drawn."""


def place(layer: Message) -> str:
    """How messages name a layer."""
    return f"layer {layer.name!r} ({layer.type})"


@dataclass(frozen=True)
class Mean:
    """What a layer subtracts: an image (C, H, W), values (one, or one a channel), or nothing."""

    image: NDArray[np.float32] | None = None
    file: str | None = None
    values: tuple[float, ...] = ()


def read_transform_mean(layer: Message, folder: Path) -> Mean:
    """The mean of ``transform_param``; GraphError when it has both a file and values, or settings of other forks."""
    t = layer.transform_param
    strange = [f.name for f, _ in t.ListFields() if f.name not in _KNOWN | _HINTS]
    if strange:
        raise GraphError(f"{place(layer)}: transform_param has {', '.join(strange)}, which Caffe 1.0 does not have")
    if t.mean_file and t.mean_value:
        raise GraphError(f"{place(layer)}: transform_param has both mean_file and mean_value: remove one of them")
    if t.mean_file:
        path = folder / t.mean_file
        return Mean(read_mean(path), str(path))
    return Mean(values=tuple(t.mean_value))


class Transform:
    """Crop, mean, scale and flip of one layer; may be called in many threads."""

    def __init__(self, layer: Message, folder: Path, *, phase: str) -> None:
        self._layer, self._phase = layer, phase
        self._mean = read_transform_mean(layer, folder)
        self._crop = int(layer.transform_param.crop_size)
        self._by_channels: dict[int, Transformer] = {}

    def shape(self, record: Record) -> tuple[int, int, int]:
        """(C, H, W) of the result."""
        channels, height, width = record.shape
        return (channels, self._crop or height, self._crop or width)

    def __call__(self, record: Record, where: str, out: NDArray[np.float32], rng: np.random.Generator) -> None:
        """Write the transformed record into ``out``; crop and flip are drawn from ``rng``.

        Raises ImageError, naming ``where``, when crop or mean do not fit the record.
        """
        transformer = self._by_channels.get(record.shape[0])
        if transformer is None:
            transformer = self._by_channels[record.shape[0]] = self._make(record.shape[0], where)
        try:
            transformer.transform(record, rng=rng, phase=self._phase, out=out)
        except ImageError as error:
            raise ImageError(f"{where}: {str(error).removeprefix('picture: ')}") from error

    def _make(self, channels: int, where: str) -> Transformer:
        t, mean = self._layer.transform_param, self._mean
        if mean.image is not None and mean.image.shape[0] != channels:
            raise ImageError(f"{where}: {channels} channels, but the mean {mean.file} has {mean.image.shape[0]}")
        if mean.values and len(mean.values) not in (1, channels):
            raise ImageError(
                f"{where}: {channels} channels, but {place(self._layer)} has {len(mean.values)} mean_value; give one, "
                "or one for each channel"
            )
        spec = _RecordSpec(
            "transformer",
            channels=channels,
            crop=(self._crop, self._crop) if self._crop else None,
            mean_file=mean.file,
            mean_values=mean.values or None,
            scale=t.scale,
            mirror=t.mirror,
        )
        return Transformer(spec, mean.image)


@dataclass(frozen=True)
class _RecordSpec(Spec):
    """A Spec for records, which, other than pictures, may have any number of channels."""

    def __post_init__(self) -> None:
        """Whoever makes one has checked it."""
