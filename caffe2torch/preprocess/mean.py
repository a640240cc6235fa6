"""Mean images from every format they are published in, always upright, and the form a dialect subtracts."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from caffe2torch.errors import FormatError, UsageError
from caffe2torch.matlab_v5 import read_variables
from caffe2torch.preprocess.spec import Spec

Mean = NDArray[np.float32]
"""(C, H, W), B, G, R, grey levels."""

# Caffe's two MATLAB interfaces fixed the layout with the variable's name: the old one (matlab/caffe) stored
# image_mean as [H, W, C], the later package (+caffe) stored mean_data as [W, H, C]. KevinNet released the first, SSDH
# the second.
_MAT_LAYOUTS = {"image_mean": "hwc", "mean_data": "whc"}
_MOST_VALUES = 1 << 26
_NPY_HEADER = re.compile(
    rb"""^\{\s*'descr':\s*'(?P<descr>[<>|=][fiu][1248])',\s*'fortran_order':\s*(?P<fortran>True|False),"""
    rb"""\s*'shape':\s*(?P<shape>\((?:[0-9]{1,9}, ?)*(?:[0-9]{1,9})?\)),?\s*\}\s*$"""
)


def load_mean(path: str | Path, *, layout: str | None = None) -> Mean:
    """The mean image of a ``.binaryproto``, ``.npy`` or ``.mat`` (v5, v7.3) file as (C, H, W) float32, upright.

    The format is told by content. A ``.npy`` is (C, H, W), one of C numbers gives (C, 1, 1). A ``.mat`` holds one
    image in MATLAB's index order: ``image_mean`` is [H, W, C] and ``mean_data`` is [W, H, C] (Caffe's own naming);
    for another variable say ``layout="hwc"`` or ``"whc"``. Whether the mean is then subtracted upright or transposed,
    as SSDH's evaluation did with its file, is `Spec.mean_layout`, so it does not depend on which file the mean came
    from.

    Raises FormatError for anything else, with what was found; UsageError for an unknown ``layout``.
    """
    path = Path(path)
    if layout not in (None, "hwc", "whc"):
        raise UsageError(f"layout is {layout!r}, expected 'hwc' or 'whc'")
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise FormatError(f"{path}: cannot read the mean file: {error.strerror or error}") from error
    if head.startswith(b"\x93NUMPY"):
        mean = _from_npy(path)
    elif head.startswith(b"MATLAB 5.0"):
        found = read_variables(path, path.read_bytes())
        mean = _from_mat(path, {v.name: v.numbers() for v in found if v.is_numbers}, layout)
    elif head.startswith((b"MATLAB 7.3", b"\x89HDF")):
        mean = _from_mat(path, _hdf5_arrays(path), layout)
    else:
        from caffe2torch.binaryproto import read_mean

        mean = read_mean(path)
    if mean.size == 0 or not np.isfinite(mean).all():
        raise FormatError(f"{path}: the mean of shape {mean.shape} is empty or has values that are not finite")
    return np.ascontiguousarray(mean, np.float32)


def mean_planes(spec: Spec, mean: NDArray[np.floating] | None, size: tuple[int, int] | None) -> Mean | None:
    """What ``spec`` subtracts: (C, H, W) or (C, 1, 1) float32 laid out as pixels are, or None.

    ``mean`` is upright, as `load_mean` gives it. ``size`` is the (height, width) it must have where known. Raises
    UsageError when array and Spec do not belong together.
    """
    if mean is None:
        if spec.mean_file is not None:
            raise UsageError(f"preprocessing: the mean image {spec.mean_file} is needed but was not given")
        if spec.mean_values is None:
            return None
        values = np.array(spec.mean_values, np.float32)
        return np.broadcast_to(values, (spec.channels,)).reshape(-1, 1, 1).copy()
    if spec.mean_file is None:
        raise UsageError("preprocessing: a mean image was given, but the Spec names no mean_file")
    if mean.ndim != 3 or mean.shape[0] != spec.channels:
        raise UsageError(f"preprocessing: the mean has shape {mean.shape}, expected ({spec.channels}, height, width)")
    planes = np.array(mean, np.float32, order="C")
    if spec.mean_layout == "whc":
        planes = np.ascontiguousarray(planes.transpose(0, 2, 1))
    if size is not None and planes.shape[1:] not in ((1, 1), size):
        raise UsageError(
            f"preprocessing: the mean image is {planes.shape[1]}x{planes.shape[2]} (height x width), but pictures are "
            f"resized to {size[0]}x{size[1]}"
        )
    return planes


def _from_npy(path: Path) -> Mean:
    data = path.read_bytes()
    wide = data[6:7] != b"\x01"
    start = 12 if wide else 10
    stop = start + int.from_bytes(data[8:start], "little")
    header = _NPY_HEADER.match(data[start:stop])
    if header is None:
        raise FormatError(f"{path}: not a .npy file of plain numbers (header {data[start : min(stop, start + 60)]!r})")
    shape = tuple(map(int, re.findall(rb"[0-9]+", header["shape"])))
    dtype = np.dtype(header["descr"].decode())
    if math.prod(shape) * dtype.itemsize != len(data) - stop:
        raise FormatError(
            f"{path}: shape {shape} of {dtype.name} needs other than the {len(data) - stop} bytes that follow"
        )
    order = "F" if header["fortran"] == b"True" else "C"
    mean = np.frombuffer(data, dtype, offset=stop).reshape(shape, order=order)  # type: ignore[call-overload]
    if mean.ndim == 4 and mean.shape[0] == 1:
        mean = mean[0]
    if mean.ndim == 1:
        mean = mean[:, None, None]
    if mean.ndim != 3 or mean.shape[0] not in (1, 3):
        raise FormatError(
            f"{path}: found shape {shape}, expected a mean of shape (C, H, W) with 1 or 3 channels, or (C,)"
        )
    return np.asarray(mean, np.float32)


def _hdf5_arrays(path: Path) -> dict[str, NDArray[np.generic]]:
    """The numeric datasets at the root of a v7.3 file; HDF5 holds MATLAB's indices in reverse."""
    import h5py  # slow to import, and few means need it

    arrays: dict[str, NDArray[np.generic]] = {}
    try:
        with h5py.File(path, "r") as file:
            for name, item in file.items():
                if isinstance(item, h5py.Dataset) and item.dtype.kind in "fiu" and item.size:
                    if item.size > _MOST_VALUES:
                        raise FormatError(
                            f"{path}: dataset {name!r} of shape {item.shape} is too large for a mean image"
                        )
                    arrays[name] = np.asarray(item).T
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise FormatError(f"{path}: a damaged MATLAB v7.3 (HDF5) file: {error}") from error
    return arrays


def _from_mat(path: Path, arrays: dict[str, NDArray[np.generic]], layout: str | None) -> Mean:
    """The one mean image among the file's arrays, turned upright."""
    images = {name: array for name, array in arrays.items() if array.ndim == 3 and array.shape[2] == 3}
    named = [name for name in images if name in _MAT_LAYOUTS]
    candidates = named or list(images)
    if len(candidates) != 1:
        found = ", ".join(f"{name} {array.shape}" for name, array in arrays.items()) or "no numeric array"
        raise FormatError(f"{path}: found {found}; expected one mean image, [H, W, 3] or [W, H, 3]")
    name = candidates[0]
    layout = layout or _MAT_LAYOUTS.get(name)
    if layout is None:
        raise FormatError(
            f"{path}: variable {name!r} {images[name].shape} does not tell its layout (image_mean is [H, W, C], "
            "mean_data is [W, H, C]); say layout='hwc' or 'whc'"
        )
    axes = (2, 0, 1) if layout == "hwc" else (2, 1, 0)
    return np.asarray(images[name].transpose(axes), np.float32)
