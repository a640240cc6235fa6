"""The shapes of the blobs a source layer makes, read from its parameters and, where they are here, from its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import h5py

from caffe2torch.binaryproto import read_mean
from caffe2torch.data import image_list, records
from caffe2torch.errors import GraphError
from caffe2torch.schema import Message

Shape = tuple[int, ...]

_LIST_START = 1 << 16  # bytes of a list file that are read: only its first line is wanted
_ABSENT = "its data are not here"
_MAX_AXES = 32  # Caffe's kMaxBlobAxes


@dataclass(frozen=True)
class SourceShapes:
    """Shapes by top; ``None`` where the layer and its files do not say. ``assumed`` explains what had to be assumed."""

    shapes: tuple[Shape | None, ...]
    assumed: str = ""


def input_shapes(
    sources: Sequence[Any],
    folder: Path,
    given: Mapping[str, Sequence[int]],
    image_shape: Sequence[int] | None = None,
) -> tuple[dict[str, Shape], list[str]]:
    """The shape of every input blob of a graph's source nodes, and notes on what was assumed.

    ``given`` (blob -> shape) wins over the prototxt; a single blob of which neither tells has the ``image_shape``,
    unless another input already takes such pictures. Relative paths in the layers are looked up below ``folder``.
    Raises GraphError naming every blob whose shape cannot be known.
    """
    blobs = [top for node in sources for top in node.tops]
    for blob in given:
        if blob not in blobs:
            raise GraphError(f"input_shapes names {blob!r}, but the net's inputs are {', '.join(blobs) or 'none'}")
    shapes: dict[str, Shape] = {}
    notes: list[str] = []
    unknown: list[tuple[str, Any]] = []
    for node in sources:
        if all(top in given for top in node.tops):
            shapes.update({top: tuple(given[top]) for top in node.tops})
            continue
        found = source_shapes(node.message, folder)
        if len(found.shapes) < len(node.tops):
            raise GraphError(
                f"layer {node.name!r} ({node.type}) names {len(node.tops)} tops ({', '.join(node.tops)}), expected at "
                f"most {len(found.shapes)}: data and labels"
            )
        if found.assumed and not any(top in given for top in node.tops):
            notes.append(f"layer {node.name!r}: {found.assumed}")
        for top, shape in zip(node.tops, found.shapes, strict=True):
            if top in given:
                shapes[top] = tuple(given[top])
            elif shape is None:
                unknown.append((top, node))
            else:
                shapes[top] = shape
    if len(unknown) == 1 and image_shape is not None:
        picture = tuple(image_shape)
        if all(shape[1:] != picture[1:] for shape in shapes.values()):
            shapes[unknown.pop()[0]] = picture
    if unknown:
        raise _ask_for(unknown)
    for blob, shape in shapes.items():
        _check(blob, shape)
    return shapes, notes


def _ask_for(unknown: Sequence[tuple[str, Any]]) -> GraphError:
    """The error for blobs of unknown shape, each with its source node; a data layer's second is taken for labels."""
    labels = {top for top, node in unknown if node.type != "Input" and top != node.tops[0]}
    named = ", ".join(f"{top!r} of layer {node.name!r} ({node.type})" for top, node in unknown)
    shapes = ", ".join(f"{top!r}: (batch,{'' if top in labels else ' channels, height, width'})" for top, _ in unknown)
    options = " ".join(f"--input {top}=10{'' if top in labels else ',3,227,227'}" for top, _ in unknown)
    return GraphError(
        f"the shape of {named} is not in the prototxt, and its data are not here; give it: input_shapes={{{shapes}}} "
        f"(command line: {options})"
    )


def source_shapes(layer: Message, folder: Path) -> SourceShapes:
    """The shapes of one source layer's tops (labels are ``(batch,)``, boxes ``(1, 1, rows, 8)``)."""
    kind = layer.type
    if kind == "Input":
        return _input(layer)
    if kind == "MemoryData":
        p = layer.memory_data_param
        labels = (p.batch_size, 1, 1, 1)  # this layer alone makes them so
        return SourceShapes((((p.batch_size, p.channels, p.height, p.width)), labels)[: len(layer.top)])
    if kind == "HDF5Data":
        return _hdf5(layer, folder)
    if kind == "Data" and layer.data_param.source and _is_folder(folder / layer.data_param.source):
        return _records(layer, folder)
    if kind == "Data":
        return _images(layer, layer.data_param.batch_size, None, None, folder)
    if kind == "AnnotatedData":
        return _annotated(layer, folder)
    if kind == "ImageData":
        return _listed(layer, folder)
    if kind == "WindowData":
        p, crop = layer.window_data_param, layer.transform_param.crop_size
        return SourceShapes((((p.batch_size, 3, crop, crop)), (p.batch_size,))[: len(layer.top)])
    return SourceShapes((None,) * len(layer.top))  # a type that nobody knows feeds the net if its shapes are given


def _input(layer: Message) -> SourceShapes:
    """Caffe's InputLayer: no shape, one for all tops, or one per top."""
    given = [tuple(shape.dim) for shape in layer.input_param.shape]
    if len(given) not in (0, 1, len(layer.top)):
        raise GraphError(
            f"layer {layer.name!r} (Input) has {len(given)} shapes for {len(layer.top)} tops, expected none, one, or "
            "one per top"
        )
    if not given:
        return SourceShapes((None,) * len(layer.top))
    return SourceShapes(tuple(given * len(layer.top) if len(given) == 1 else given))


def _records(layer: Message, folder: Path) -> SourceShapes:
    """The size of the first record; without the package that reads it, what the layer says, if enough."""
    batch = layer.data_param.batch_size
    if layer.data_param.backend == layer.data_param.LMDB and find_spec("lmdb") is None:
        found = _images(layer, batch, None, None, folder)
        if None not in found.shapes:
            reason = "its database is not read without the package lmdb (pip install 'caffe2torch[data]')"
            return replace(found, assumed=found.assumed.replace(_ABSENT, reason))
    channels, height, width = records.first_example(layer, folder).record.shape
    return _images(layer, batch, (height, width), channels, folder)


def _annotated(layer: Message, folder: Path) -> SourceShapes:
    """SSD's pictures, all of one size, and the boxes of a batch: one row each, and one where there is none."""
    t = layer.transform_param
    resize = t.resize_param
    fixed = resize.resize_mode != resize.FIT_SMALL_SIZE  # which leaves one side to the picture
    height, width = t.crop_h or fixed * resize.height, t.crop_w or fixed * resize.width
    size = (height, width) if height and width else None
    found = _images(layer, layer.data_param.batch_size, size, None, folder)
    if len(layer.top) < 2:
        return found
    assumed = [found.assumed] if found.assumed else []
    if not layer.annotated_data_param.HasField("anno_type"):
        assumed.append(f"{_ABSENT}, so blob {layer.top[1]!r} is taken to hold boxes, (1, 1, boxes, 8)")
    return SourceShapes((found.shapes[0], (1, 1, 1, 8), *found.shapes[2:]), "; ".join(assumed))


def _listed(layer: Message, folder: Path) -> SourceShapes:
    """The size of the first picture of a list, unless the layer resizes or crops all."""
    p = layer.image_data_param
    size, channels = image_list.new_size(layer), 3 if p.is_color else 1
    if size is None and not layer.transform_param.crop_size and p.source and _is_file(folder / p.source):
        name, _ = image_list.read_list(layer, folder)[0]
        if _is_file(folder / name):
            height, width = image_list.first_example(layer, folder).record.shape[1:]
            size = (height, width)
    return _images(layer, p.batch_size, size, channels, folder)


def _hdf5(layer: Message, folder: Path) -> SourceShapes:
    """The dataset shapes in the first file of the source list, with the layer's batch size."""
    p = layer.hdf5_data_param
    nothing = SourceShapes((None,) * len(layer.top))
    listing = folder / p.source
    if not p.source or not _is_file(listing):
        return nothing
    first = folder / _first_line(layer, listing)
    if not _is_file(first):
        return nothing
    try:
        with h5py.File(first, "r") as file:
            return SourceShapes(tuple((p.batch_size, *file[top].shape[1:]) for top in layer.top))
    except (OSError, KeyError, AttributeError, RuntimeError) as error:
        raise GraphError(
            f"layer {layer.name!r} (HDF5Data): {first} cannot give the datasets {', '.join(layer.top)} ({error})"
        ) from error


def _first_line(layer: Message, listing: Path) -> str:
    """The first name in a list of HDF5 files, which spaces or line ends part."""
    try:
        with listing.open("rb") as file:
            start = file.read(_LIST_START).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise GraphError(
            f"layer {layer.name!r} (HDF5Data): {listing} cannot be read as a list of HDF5 files, one name on each "
            f"line: {error}"
        ) from error
    return next(iter(start.split()), "")


def _is_file(path: Path) -> bool:
    """Whether there is an ordinary file of this name; a name that is too long or has a NUL names none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _images(
    layer: Message, batch: int, size: tuple[int, int] | None, channels: int | None, folder: Path
) -> SourceShapes:
    """Batches of images: the crop decides height and width, else the resize, else the mean image."""
    t = layer.transform_param
    mean = _mean_shape(folder / t.mean_file) if t.mean_file else None
    if t.crop_size:
        size = (t.crop_size, t.crop_size)
    elif size is None and mean is not None:
        size = (mean[1], mean[2])
    if size is None or not batch:
        return SourceShapes((None,) * len(layer.top))
    assumed = ""
    if channels is None and (t.force_gray or t.force_color):
        channels = 1 if t.force_gray else 3
    if channels is None and mean is not None:
        channels = mean[0]
    if channels is None and len(t.mean_value) > 1:
        channels = len(t.mean_value)
    if channels is None:
        channels, assumed = 3, f"{_ABSENT}, so blob {layer.top[0]!r} is taken to have 3 channels"
    return SourceShapes(((batch, channels, *size), (batch,))[: len(layer.top)], assumed)


def _mean_shape(path: Path) -> Shape | None:
    return read_mean(path).shape if _is_file(path) else None


def _check(blob: str, shape: Shape) -> None:
    if any(d <= 0 for d in shape):
        text = "x".join(map(str, shape))
        raise GraphError(f"input blob {blob!r} has shape {text}; every dimension must be at least 1")
    if len(shape) > _MAX_AXES:
        raise GraphError(f"input blob {blob!r} has {len(shape)} axes; Caffe's limit is {_MAX_AXES}")
    count = 1
    for d in shape:
        count *= d
    if count > 2**31 - 1:
        raise GraphError(
            f"input blob {blob!r} has {count} values ({'x'.join(map(str, shape))}); Caffe's limit is 2147483647"
        )
