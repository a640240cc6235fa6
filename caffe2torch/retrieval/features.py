"""Features of pictures, such as fc7: rows of floats that stay in their file until they are wanted.

Every row is checked when it is first read, so no NaN is ever ranked; ``Features.check`` reads them all beforehand.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from caffe2torch.errors import FormatError, RetrievalError
from caffe2torch.files import atomic_path
from caffe2torch.retrieval.feature_files import MAX_WIDTH, Matrix, map_features

Rows = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]

BLOCK = 1 << 26
"""Bytes of rows given out at a time, mapped and not copied where possible: large, for the sake of matrix products."""
PIECE = 1 << 22
"""Bytes of rows checked at a time: what a core's caches hold."""
MAX_SQUARES = 1e300  # of a row; beyond it a distance would overflow float64


class Features:
    """(N, D) floats, row i belonging to code i; mapped from a file, or an array in memory.

    ``source`` is what error messages call them. float16 rows are worked on as float32, exactly.
    """

    def __init__(self, array: npt.ArrayLike, *, source: str = "features", count: int | None = None) -> None:
        """Check shape, type and (with ``count``, the number of codes) length; the values are checked when read.

        Raises RetrievalError.
        """
        matrix: Matrix = np.asarray(array)
        if matrix.ndim != 2 or matrix.dtype.kind != "f" or matrix.dtype.itemsize not in (2, 4, 8):
            raise RetrievalError(
                f"{source}: features are a matrix (pictures, values) of float16, float32 or float64, "
                f"not {matrix.dtype} {matrix.shape}"
            )
        if not len(matrix) or not 1 <= matrix.shape[1] <= MAX_WIDTH:
            raise RetrievalError(f"{source}: features of shape {matrix.shape}; there is nothing to search in")
        self.source, self._array = source, np.ascontiguousarray(matrix)
        # whole rows as items: numpy would copy a matrix that is not aligned, as in an .npz, before taking rows from it
        self._items = self._array.view(f"V{matrix.shape[1] * matrix.itemsize}")[:, 0]
        self._squares: Doubles = np.full(len(matrix), np.nan)  # NaN: a row not yet read and checked
        if count is not None:
            self.expect(count)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        count: int | None = None,
        name: str | None = None,
        width: int | None = None,
        transposed: bool = False,
    ) -> Features:
        """Map the features in an .npy, .h5, .npz, .mat (v7.3) or .bin file; nothing is read before it is wanted.

        ``count`` is the number of codes they have to belong to. ``name`` is the dataset or member, by default
        ``features`` or ``feat_test`` (in a .mat, which stores arrays transposed, MATLAB's D x N is our (N, D)).
        ``width`` is the row length of a .bin file of plain float32. ``transposed`` says that the file holds (D, N).
        Compressed or chunked features are unpacked into a temporary file first, with a warning. Raises FormatError
        for a file that cannot be used, RetrievalError for one that does not belong to ``count`` codes.
        """
        path = Path(path)
        array = map_features(path, name=name, width=width, transposed=transposed)
        return cls(array, source=str(path), count=count)

    def __len__(self) -> int:
        return len(self._array)

    @property
    def width(self) -> int:
        """Values in a row, D."""
        return int(self._array.shape[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type rows are given in: float32, or float64 where the file has it."""
        return np.dtype(np.float64 if self._array.dtype.itemsize == 8 else np.float32)

    def expect(self, count: int) -> None:
        """Raise RetrievalError unless there are ``count`` rows."""
        if len(self) == count:
            return
        hint = "; it is stored transposed: open it with transposed=True" if self.width == count else ""
        raise RetrievalError(f"{self.source}: {len(self)} rows of features for {count} codes{hint}")

    def buffer(self, size: int) -> Matrix:
        """About ``size`` bytes for ``take`` to fill: memory used again is several times faster than new."""
        return np.empty((self._rows_in(size), self.width), self._array.dtype)

    def take(self, rows: Rows, buffer: Matrix | None = None) -> Matrix:
        """The given rows, (n, D), in the given order; ascending rows are read fastest.

        With ``buffer`` the result may lie in it. Raises RetrievalError for a row that does not exist or holds a value
        that is no number.
        """
        if len(rows) and (int(rows.min()) < 0 or int(rows.max()) >= len(self)):
            wrong = int(rows[(rows < 0) | (rows >= len(self))][0])
            raise RetrievalError(f"{self.source}: there is no row {wrong}, it has {len(self)}")
        values = np.empty((len(rows), self.width), self._array.dtype) if buffer is None else buffer[: len(rows)]
        self._items.take(rows, out=values.view(self._items.dtype)[:, 0], mode="clip")
        return self._admit(rows, values.astype(self.dtype, copy=False))

    def block(self, first: int, last: int) -> Matrix:
        """Rows ``first`` to ``last`` (not included), (n, D), where possible without a copy. Raises RetrievalError."""
        values = np.require(self._array[first:last], self.dtype, "A")  # products of unaligned rows are 20 times slower
        return self._admit(np.arange(first, first + len(values)), values)

    def squares(self, rows: Rows | slice) -> Doubles:
        """The sum of squares of rows that have been read, computed in float64; NaN for others."""
        return self._squares[rows]

    def pieces(self) -> Iterator[tuple[int, Matrix]]:
        """All rows in order as (first, block). Raises RetrievalError."""
        step = self._rows_in(BLOCK)
        for first in range(0, len(self), step):
            yield first, self.block(first, first + step)

    def _rows_in(self, size: int) -> int:
        return max(1, size // (self.width * self.dtype.itemsize))

    def check(self) -> None:
        """Read every row once. Raises RetrievalError naming the first that is not all numbers."""
        for _ in self.pieces():
            pass

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the rows, checked, as an .npy file that is mapped without unpacking."""
        path = Path(path)
        if path.suffix != ".npy":
            raise FormatError(f"{path}: features are saved as .npy")
        dtype = self.dtype.newbyteorder("<")
        header = {"descr": dtype.str, "fortran_order": False, "shape": (len(self), self.width)}
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for _, block in self.pieces():
                file.write(np.ascontiguousarray(block, dtype=dtype).tobytes())

    def _admit(self, rows: Rows, values: Matrix) -> Matrix:
        """``values`` of ``rows`` once those read for the first time are known to be numbers of usable size."""
        new = np.flatnonzero(np.isnan(self._squares[rows]))
        if len(new):
            step = self._rows_in(PIECE)
            for first in range(0, len(new), step):
                some = new[first : first + step]
                part = values if len(some) == len(values) else values[some]
                squares = sum_of_squares(part)
                if not (squares <= MAX_SQUARES).all():
                    worst = int(np.flatnonzero(~(squares <= MAX_SQUARES))[0])
                    raise RetrievalError(f"{self.source}: row {rows[some[worst]]} {_complaint(part[worst])}")
                self._squares[rows[some]] = squares
        return values


def sum_of_squares(values: Matrix) -> Doubles:
    """Of each row, in float64; the order of the sum depends on nothing but the row's length."""
    doubles = np.ascontiguousarray(values, dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(np.einsum("ij,ij->i", doubles, doubles), dtype=np.float64)


def check_queries(queries: npt.ArrayLike, features: Features) -> npt.NDArray[Any]:
    """Query features as an array (Q, D) of its own type. Raises RetrievalError when they do not fit ``features``."""
    array = np.asarray(queries)
    if array.ndim != 2 or array.dtype.kind not in "fiu" or array.dtype.itemsize > 8:
        raise RetrievalError(
            f"query features are a matrix (queries, values) of floats, not {array.dtype} {array.shape}"
        )
    if array.shape[1] != features.width:
        raise RetrievalError(
            f"query features have {array.shape[1]} values, those in {features.source} {features.width}: "
            "they were made by different nets or blobs"
        )
    return array


def check_numbers(queries: Doubles, first: int) -> Doubles:
    """The sum of squares of each query. Raises RetrievalError unless all are numbers; the first is query ``first``."""
    squares = sum_of_squares(queries)
    wrong = np.flatnonzero(~(squares <= MAX_SQUARES))
    if len(wrong):
        raise RetrievalError(f"query features: row {first + wrong[0]} {_complaint(queries[wrong[0]])}")
    return squares


def _complaint(row: Matrix) -> str:
    bad = np.flatnonzero(~np.isfinite(row))
    if not len(bad):
        return f"holds {row[np.argmax(np.abs(row))]:g}, too large to compute distances with"
    more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
    return f"holds {row[bad[0]]} at value {bad[0]}{more}; features have to be finite numbers"
