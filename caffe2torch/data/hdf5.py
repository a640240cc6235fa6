"""HDF5Data layers: rows of the datasets named as the tops, file after file, without transformation."""

from __future__ import annotations

import math
from pathlib import Path

import h5py
import numpy as np

from caffe2torch.blobs import MAX_COUNT
from caffe2torch.data.image_list import read_lines
from caffe2torch.data.source import Array, Shape, batch_size, check_tops
from caffe2torch.data.transform import place
from caffe2torch.errors import FormatError, GraphError
from caffe2torch.schema import Message

_BEST_RATIO = 1100  # deflate cannot do better
_SMALL = 1 << 24  # bytes that may be claimed without being stored: values that were never written are zero
_H5_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, AttributeError)


class Hdf5Source:
    """Batches of an HDF5Data layer; the list and the files it names are looked up below ``folder``.

    One file is held in memory at a time. After the last row of the last file comes the first again; ``shuffle`` draws
    the order of the files and of the rows of each file anew every time.
    """

    def __init__(self, layer: Message, folder: Path, *, rng: np.random.Generator) -> None:
        check_tops(layer, 1, 1 << 16)
        p = layer.hdf5_data_param
        if layer.HasField("transform_param"):
            raise GraphError(f"{place(layer)} has a transform_param, but it transforms nothing: remove it")
        self.tops: tuple[str, ...] = tuple(layer.top)
        self._folder, self._rng, self._shuffle = folder, rng, bool(p.shuffle)
        self._size = batch_size(layer, p.batch_size)
        self._files = read_file_list(folder / p.source)
        self._order = list(range(len(self._files)))
        if self._shuffle:
            rng.shuffle(self._order)
        self.shapes: dict[str, Shape] = {}
        self._file = -1
        self._next_file()
        self.shapes = {top: (self._size, *array.shape[1:]) for top, array in self._data.items()}

    def next_batch(self) -> dict[str, Array]:
        """The next rows of every top."""
        batch = {top: np.empty(shape, np.float32) for top, shape in self.shapes.items()}
        done = 0
        while done < self._size:
            rows = self._rows[self._row : self._row + self._size - done]
            for top, array in self._data.items():
                np.take(array, rows, axis=0, out=batch[top][done : done + len(rows)])
            done += len(rows)
            self._row += len(rows)
            if self._row == len(self._rows):
                self._next_file()
        return batch

    def _next_file(self) -> None:
        """Go on to the first row of the next file."""
        self._file += 1
        if self._file == len(self._files):
            self._file = 0
            if self._shuffle:
                self._rng.shuffle(self._order)
        if self._file or len(self._files) > 1 or not self.shapes:
            path = self._folder / self._files[self._order[self._file]]
            self._data = read_datasets(path, self.tops)
            for top, array in self._data.items():
                if self.shapes and array.shape[1:] != self.shapes[top][1:]:
                    raise FormatError(
                        f"{path}: rows of {top!r} have shape {array.shape[1:]}, those of the first file "
                        f"{self.shapes[top][1:]}"
                    )
        self._rows = np.arange(len(self._data[self.tops[0]]))
        if self._shuffle:
            self._rng.shuffle(self._rows)
        self._row = 0


def read_file_list(path: Path) -> list[str]:
    """The file names in a list, which are parted by spaces or line ends; FormatError when there are none."""
    names = [name for line in read_lines(path) for name in line.split()]
    if not names:
        raise FormatError(f"{path}: the list is empty, expected names of HDF5 files")
    return names


def read_datasets(path: Path, names: tuple[str, ...]) -> dict[str, Array]:
    """The datasets as float32, all with the same number of rows; FormatError naming the file and dataset."""
    if not path.is_file():
        raise FormatError(f"{path}: no such file, expected an HDF5 file")
    try:
        with h5py.File(path, "r") as file:
            data = {name: _read(file, name, path) for name in names}
    except _H5_ERRORS as error:
        raise FormatError(f"{path}: not a sound HDF5 file: {error}") from error
    rows = {name: len(array) for name, array in data.items()}
    if len(set(rows.values())) != 1 or not all(rows.values()):
        found = ", ".join(f"{name!r} has {count}" for name, count in rows.items())
        raise FormatError(f"{path}: {found} rows, expected the same number, at least 1, in every dataset")
    return data


def _read(file: h5py.File, name: str, path: Path) -> Array:
    if isinstance(file.get(name, getlink=True), h5py.ExternalLink):
        raise FormatError(f"{path}: {name!r} is a link to another file, which is never followed")
    dataset = file.get(name)
    if not isinstance(dataset, h5py.Dataset):
        raise FormatError(f"{path}: no dataset {name!r}; it has {', '.join(map(repr, sorted(file)[:8])) or 'nothing'}")
    if dataset.dtype.kind not in "fiu" or not dataset.shape:
        raise FormatError(f"{path}: {name!r} is {dataset.dtype} {dataset.shape}, expected rows of numbers")
    if dataset.external or dataset.is_virtual:
        raise FormatError(f"{path}: {name!r} keeps its values in another file, which is never followed")
    if math.prod(dataset.shape) > MAX_COUNT:
        raise FormatError(f"{path}: {name!r} has shape {dataset.shape}; Caffe's limit is {MAX_COUNT} values")
    stored, claimed = dataset.id.get_storage_size(), math.prod(dataset.shape) * dataset.dtype.itemsize
    if claimed > max(stored * _BEST_RATIO, _SMALL):
        raise FormatError(f"{path}: {name!r} claims {claimed} bytes of values, the file holds {stored} for it")
    with np.errstate(over="ignore"):  # as in HDF5, what float32 cannot hold becomes infinite
        return np.ascontiguousarray(dataset[()], np.float32)
