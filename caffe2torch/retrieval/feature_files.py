"""Feature matrices in files: .npy, .h5, .npz, .mat (v7.3) and raw floats, found, checked and mapped into memory.

What lies in the file as plain rows (.npy, a contiguous HDF5 dataset, an .npz member that is stored and not compressed,
raw floats) is mapped where it lies. Compressed, chunked and column-wise matrices have no plain rows: they are unpacked
once, a block at a time, into a temporary file without a name, which is mapped instead; a warning says so.
"""

from __future__ import annotations

import struct
import tempfile
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np
import numpy.typing as npt

from caffe2torch.errors import FormatError, OutputError
from caffe2torch.files import explain

Matrix = npt.NDArray[Any]
"""(N, D) of float16, float32 or float64 in either byte order, rows contiguous, mostly mapped from a file."""

NAMES = ("features", "feat_test", "feat_train")
"""What the matrix is called where nobody says: by ``extract``, and by the papers' scripts."""
MAX_WIDTH = 1 << 20
MAX_RATIO = 1100  # deflate cannot shrink data by more than 1032:1
SLACK = 1 << 20
BLOCK = 1 << 26  # bytes unpacked at a time
# numpy parses an .npy header as Python text, and damaged text fails in all these ways
_TEXT_ERRORS = (SyntaxError, tokenize.TokenError, MemoryError, RecursionError)
_HEADER_ERRORS = (OSError, ValueError, TypeError, EOFError, *_TEXT_ERRORS)
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a zip member: signature, then the lengths of its name and extra field


def map_features(path: Path, *, name: str | None, width: int | None, transposed: bool) -> Matrix:
    """The (N, D) matrix in ``path``. Raises FormatError when there is none or the file is damaged.

    ``name`` is the dataset of an HDF5 file or the member of an .npz (default: one of NAMES, or the only candidate);
    ``width`` is D for raw floats; with ``transposed`` the file holds (D, N).
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        kinds = ", ".join(_READERS)
        raise FormatError(f"{path}: features are kept in {kinds} files, not {path.suffix!r}; numpy.save makes an .npy")
    if (width is not None) != (reader is _read_raw):
        needed = "needs" if width is None else "tells its own width: leave out"
        raise FormatError(f"{path}: a {path.suffix} file {needed} the width, the number of values in a row")
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror}") from error
    source = reader(path, size, name if width is None else str(width))
    return _as_rows(path, source, transposed=transposed)


class _Source:
    """A checked matrix of a file: mapped as ``array``, or to be read by ``blocks(transposed)``."""

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        array: Matrix | None = None,
        blocks: Callable[[bool], Iterator[Matrix]] | None = None,
    ) -> None:
        self.shape, self.dtype, self.array = shape, dtype, array
        self.blocks = blocks or self._array_blocks

    def _array_blocks(self, transposed: bool) -> Iterator[Matrix]:
        assert self.array is not None
        array = self.array.T if transposed else self.array
        step = max(1, BLOCK // max(1, array.shape[1] * array.itemsize))
        for first in range(0, len(array), step):
            yield np.ascontiguousarray(array[first : first + step])


def _as_rows(path: Path, source: _Source, *, transposed: bool) -> Matrix:
    """The mapped matrix itself where its rows are contiguous, otherwise a mapped copy."""
    array = source.array
    if array is not None and not transposed and array.strides[1] == array.itemsize:
        return array
    shape = source.shape[::-1] if transposed else source.shape
    size = source.dtype.itemsize * shape[0] * shape[1]
    warnings.warn(
        f"{path}: its rows do not lie one after another uncompressed, so {size / 1e6:,.0f} MB are unpacked into "
        f"{tempfile.gettempdir()} first; Features.save writes an .npy that is mapped at once",
        stacklevel=5,
    )
    return _unpack(path, shape, source.dtype, source.blocks(transposed))


def _unpack(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], blocks: Iterator[Matrix]) -> Matrix:
    with _temporary() as file:
        try:
            for block in blocks:
                _write(file, block)
        except (OSError, RuntimeError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise FormatError(f"{path}: its features cannot be unpacked: {error}") from error
        if file.tell() != dtype.itemsize * shape[0] * shape[1]:
            raise FormatError(f"{path}: its features end after {file.tell()} bytes, too early for {shape}")
        return np.memmap(file, dtype, "r", shape=(shape[0], shape[1]))


def _temporary() -> IO[bytes]:
    try:
        return tempfile.TemporaryFile(prefix="caffe2torch-", buffering=0)
    except OSError as error:
        raise OutputError(f"no temporary file to unpack features into: {explain(error)}; set TMPDIR") from error


def _write(file: IO[bytes], block: Matrix) -> None:
    rest = memoryview(block.tobytes())
    try:
        while len(rest):
            rest = rest[file.write(rest) :]
    except OSError as error:
        place = f"{tempfile.gettempdir()} (TMPDIR names another place)"
        raise OutputError(f"features cannot be unpacked into {place}: {explain(error)}") from error


def _check(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], what: str) -> None:
    """Raise FormatError unless ``shape`` and ``dtype`` are a matrix of floats."""
    if dtype.kind != "f" or dtype.itemsize not in (2, 4, 8):
        raise FormatError(f"{path}: {what} holds {dtype}, expected float16, float32 or float64")
    if len(shape) != 2 or min(shape) < 1:
        raise FormatError(f"{path}: {what} has shape {shape}, expected (pictures, values), none of them 0")
    if min(shape) > MAX_WIDTH:
        raise FormatError(f"{path}: {what} has shape {shape}, more than {MAX_WIDTH} values in a row")


def _map(
    path: Path, size: int, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any], what: str, order: str = "C"
) -> _Source:
    """The matrix that begins at byte ``offset``, once it is known to end within the file."""
    _check(path, shape, dtype, what)
    end = offset + shape[0] * shape[1] * dtype.itemsize
    if end > size:
        raise FormatError(f"{path}: {what} of shape {shape} would end at byte {end}, the file has {size}")
    try:
        array = np.memmap(path, dtype, "r", offset, (shape[0], shape[1]), "F" if order == "F" else "C")
    except (OSError, ValueError) as error:
        raise FormatError(f"{path}: cannot be mapped into memory: {error}") from error
    return _Source(shape, dtype, array)


def _read_raw(path: Path, size: int, width: str | None) -> _Source:
    """float32, least significant byte first, rows of ``width`` values."""
    columns = int(width or 0)
    if columns < 1 or size % (4 * columns):
        raise FormatError(f"{path}: its {size} bytes are no whole rows of {columns} float32")
    return _map(path, size, 0, (size // (4 * columns), columns), np.dtype("<f4"), "the file")


def _read_npy(path: Path, size: int, name: str | None) -> _Source:
    with path.open("rb") as file:
        shape, order, dtype = _npy_header(path, file)
        return _map(path, size, file.tell(), shape, dtype, "the array", order)


def _npy_header(path: Path, file: IO[bytes]) -> tuple[tuple[int, ...], str, np.dtype[Any]]:
    try:
        version = np.lib.format.read_magic(file)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in readers:
            raise FormatError(f"{path}: .npy of version {version}, expected 1.0 or 2.0")
        shape, fortran, dtype = readers[version](file)
    except _HEADER_ERRORS as error:
        raise FormatError(f"{path}: not a readable .npy array: {error}") from error
    return shape, "F" if fortran else "C", dtype


def _read_npz(path: Path, size: int, name: str | None) -> _Source:
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            chosen = _choose(path, tuple(members), name)
            info = members[chosen]
            if info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1:
                return _stored_member(path, size, info, chosen)
            with archive.open(info) as stream:
                shape, order, dtype = _npy_header(path, stream)
    except (OSError, RuntimeError, NotImplementedError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise FormatError(f"{path}: not a readable .npz file: {error}") from error
    _check(path, shape, dtype, chosen)
    if info.file_size > MAX_RATIO * size + SLACK or shape[0] * shape[1] * dtype.itemsize > info.file_size:
        raise FormatError(f"{path}: {chosen} claims shape {shape} and {info.file_size} bytes, the file has {size}")
    if order == "F":
        raise FormatError(f"{path}: {chosen} is compressed column by column; save numpy.ascontiguousarray of it")

    def blocks(transposed: bool) -> Iterator[Matrix]:
        if transposed:
            raise FormatError(f"{path}: {chosen} is compressed and transposed; save its transpose with numpy.save")
        step = max(1, BLOCK // (shape[1] * dtype.itemsize))
        with zipfile.ZipFile(path) as again, again.open(info) as values:
            _npy_header(path, values)
            for first in range(0, shape[0], step):
                count = min(step, shape[0] - first)
                data = values.read(count * shape[1] * dtype.itemsize)
                yield np.frombuffer(data, np.uint8)

    return _Source(shape, dtype, blocks=blocks)


def _stored_member(path: Path, size: int, info: zipfile.ZipInfo, what: str) -> _Source:
    """An uncompressed member: its bytes begin behind a local header whose length only the file itself tells."""
    with path.open("rb") as file:
        file.seek(info.header_offset)
        header = file.read(_LOCAL_HEADER.size)
        if len(header) < _LOCAL_HEADER.size or not header.startswith(b"PK\x03\x04"):
            raise FormatError(f"{path}: {what} does not begin where the archive's directory says")
        _, name_length, extra_length = _LOCAL_HEADER.unpack(header)
        begin = info.header_offset + _LOCAL_HEADER.size + name_length + extra_length
        file.seek(begin)
        shape, order, dtype = _npy_header(path, file)
        return _map(path, min(size, begin + info.file_size), file.tell(), shape, dtype, what, order)


def _read_hdf5(path: Path, size: int, name: str | None) -> _Source:
    try:
        with h5py.File(path, "r") as file:
            found = tuple(
                key
                for key in file
                if isinstance(file.get(key, getlink=True), h5py.HardLink) and isinstance(file[key], h5py.Dataset)
            )
            chosen = name if name is not None and name in file else _choose(path, found, name)
            dataset = file[chosen]
            if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
                raise FormatError(f"{path}: {chosen} is no matrix")
            _check(path, dataset.shape, dataset.dtype, chosen)
            return _hdf5_source(path, size, dataset, chosen)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        hint = "; a .mat of before v7.3 has to be saved again with -v7.3" if path.suffix.lower() == ".mat" else ""
        raise FormatError(f"{path}: not a readable HDF5 file: {error}{hint}") from error


def _hdf5_source(path: Path, size: int, dataset: Any, what: str) -> _Source:
    shape, dtype = dataset.shape, dataset.dtype
    if dataset.is_virtual or dataset.external or dataset.file.filename != str(path):
        raise FormatError(f"{path}: {what} lies in other files; copy it into one")
    if shape[0] * shape[1] * dtype.itemsize > MAX_RATIO * size + SLACK:
        raise FormatError(f"{path}: {what} claims shape {shape} in a file of {size} bytes")
    offset = dataset.id.get_offset()
    if offset is not None and dataset.chunks is None:
        source = _map(path, size, offset, shape, dtype, what)
        assert source.array is not None
        # whether the offset counts a user block is up to the HDF5 library
        if source.array[-1].tobytes() != dataset[-1].tobytes():
            raise FormatError(f"{path}: {what} does not lie where its header says; the file is damaged")
        return source
    rows = dataset.chunks[0] if dataset.chunks else 1

    def blocks(transposed: bool) -> Iterator[Matrix]:
        with h5py.File(path, "r") as file:
            again = file[dataset_name]
            axis = int(transposed)
            step = max(1, BLOCK // (shape[1 - axis] * dtype.itemsize))
            step = max(rows, step - step % rows)
            for first in range(0, shape[axis], step):
                yield np.ascontiguousarray(
                    again[:, first : first + step].T if transposed else again[first : first + step]
                )

    dataset_name = dataset.name
    return _Source(shape, dtype, blocks=blocks)


def _choose(path: Path, found: tuple[str, ...], name: str | None) -> str:
    """The name asked for, or one of the usual ones, or the only one there is."""
    known = [name] if name is not None else [usual for usual in NAMES if usual in found] or list(found)
    if len(known) == 1 and known[0] in found:
        return known[0]
    wanted = repr(name) if name is not None else f"one of {', '.join(NAMES)}"
    listed = ", ".join(sorted(found)[:8]) or "nothing"
    raise FormatError(f"{path}: expected {wanted}, found {listed}; extract writes features where --features names them")


_READERS: dict[str, Callable[[Path, int, str | None], _Source]] = {
    ".npy": _read_npy,
    ".h5": _read_hdf5,
    ".hdf5": _read_hdf5,
    ".mat": _read_hdf5,
    ".npz": _read_npz,
    ".bin": _read_raw,
}
