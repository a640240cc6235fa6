"""HDF5Data layers: rows of the datasets named as the tops, file after file, without transformation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from caffe2torch.blobs import MAX_COUNT
from caffe2torch.data.draws import Draws, Orders
from caffe2torch.data.image_list import read_lines
from caffe2torch.data.source import Array, Batch, Shape, batch_size, check_tops
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

    def __init__(self, layer: Message, folder: Path, draws: Draws) -> None:
        check_tops(layer, 1, 1 << 16)
        p = layer.hdf5_data_param
        if layer.HasField("transform_param"):
            raise GraphError(f"{place(layer)} has a transform_param, but it transforms nothing: remove it")
        self.tops: tuple[str, ...] = tuple(layer.top)
        self.draws = draws
        self._size = batch_size(layer, p.batch_size)
        self._paths = [folder / name for name in read_file_list(folder / p.source)]
        self._counts = np.array([count_rows(path, self.tops) for path in self._paths], np.int64)
        self._files = Orders(len(self._paths), shuffle=p.shuffle)
        self._rows = [Orders(int(count), shuffle=p.shuffle) for count in self._counts]
        self._loaded: tuple[int, dict[str, Array]] = (-1, {})
        self.shapes: dict[str, Shape] = {}
        first = self._load(int(self._files.order(draws, 0)[0]))
        self.shapes = {top: (self._size, *array.shape[1:]) for top, array in first.items()}

    def fetch(self, number: int) -> Callable[[], Batch]:
        """Rows of every top."""
        batch = {top: np.empty(shape, np.float32) for top, shape in self.shapes.items()}
        done = 0
        while done < self._size:
            epoch, row = divmod(number * self._size + done, int(self._counts.sum()))
            files = self._files.order(self.draws, epoch)
            ends = np.cumsum(self._counts[files])
            place = int(np.searchsorted(ends, row, side="right"))
            file = int(files[place])
            row -= int(ends[place] - self._counts[file])
            rows = self._rows[file].order(self.draws, epoch, file)[row : row + self._size - done]
            for top, array in self._load(file).items():
                np.take(array, rows, axis=0, out=batch[top][done : done + len(rows)])
            done += len(rows)
        return lambda: batch

    def _load(self, file: int) -> dict[str, Array]:
        """The datasets of a file, kept until another is wanted."""
        if self._loaded[0] != file:
            path = self._paths[file]
            data = read_datasets(path, self.tops)
            for top, array in data.items():
                if self.shapes and array.shape[1:] != self.shapes[top][1:]:
                    raise FormatError(
                        f"{path}: rows of {top!r} have shape {array.shape[1:]}, those of the first file "
                        f"{self.shapes[top][1:]}"
                    )
            rows = len(data[self.tops[0]])
            if rows != self._counts[file]:
                raise FormatError(f"{path}: has {rows} rows, but {self._counts[file]} when training began")
            self._loaded = file, data
        return self._loaded[1]


def read_file_list(path: Path) -> list[str]:
    """The file names in a list, which are parted by spaces or line ends; FormatError when there are none."""
    names = [name for line in read_lines(path) for name in line.split()]
    if not names:
        raise FormatError(f"{path}: the list is empty, expected names of HDF5 files")
    return names


def read_datasets(path: Path, names: tuple[str, ...]) -> dict[str, Array]:
    """The datasets as float32, all with the same number of rows; FormatError naming the file and dataset."""
    with _opened(path) as file:
        datasets = _datasets(file, names, path)
        with np.errstate(over="ignore"):  # as in HDF5, what float32 cannot hold becomes infinite
            return {name: np.ascontiguousarray(dataset[()], np.float32) for name, dataset in datasets.items()}


def count_rows(path: Path, names: tuple[str, ...]) -> int:
    """How many rows the datasets have, without reading them; FormatError as `read_datasets`."""
    with _opened(path) as file:
        return len(_datasets(file, names, path)[names[0]])


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    if not path.is_file():
        raise FormatError(f"{path}: no such file, expected an HDF5 file")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except _H5_ERRORS as error:
        raise FormatError(f"{path}: not a sound HDF5 file: {error}") from error


def _datasets(file: h5py.File, names: tuple[str, ...], path: Path) -> dict[str, h5py.Dataset]:
    found = {name: _dataset(file, name, path) for name in names}
    rows = {name: len(dataset) for name, dataset in found.items()}
    if len(set(rows.values())) != 1 or not all(rows.values()):
        text = ", ".join(f"{name!r} has {count}" for name, count in rows.items())
        raise FormatError(f"{path}: {text} rows, expected the same number, at least 1, in every dataset")
    return found


def _dataset(file: h5py.File, name: str, path: Path) -> h5py.Dataset:
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
    return dataset
