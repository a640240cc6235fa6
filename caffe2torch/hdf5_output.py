"""HDF5 files that survive a full disk: the HDF5 library itself crashes the process when a file cannot be closed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py


@contextmanager
def hdf5_output(path: Path, *, append: bool = False, **options: Any) -> Iterator[tuple[Any, Callable[[], None]]]:
    """A new ``h5py.File`` at ``path`` (the one that is there with ``append``), and a function that raises what failed.

    The library is never told of a failed write: with one it can neither flush nor close the file, and ends in a
    segmentation fault when its objects are released. Call the function now and then in a long block; at its end it is
    called anyway. Raises OSError.
    """
    with path.open("r+b" if append else "w+b", buffering=0) as target:
        sink = _Sink(target)
        try:
            with h5py.File(sink, "r+" if append else "w", **options) as file:
                yield file, sink.check
        finally:
            sink.check()


class _Sink:
    """The file as h5py wants it; what is written after a failure goes nowhere."""

    def __init__(self, target: Any) -> None:
        self._target = target
        self._failure: OSError | KeyboardInterrupt | None = None
        self.seek, self.tell, self.read = target.seek, target.tell, target.read  # h5py knows a file by these

    def check(self) -> None:
        """Raise the failure, if there was one."""
        if self._failure is not None:
            raise self._failure

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer`` from the file; zeros stand where nothing was ever written."""
        view = memoryview(buffer).cast("B")
        count = int(self._target.readinto(view))
        view[count:] = bytes(len(view) - count)
        return len(view)

    def write(self, data: Any) -> int:
        """Write all of ``data``, unless a write has failed."""
        view = memoryview(data).cast("B")
        rest = view
        try:
            while len(rest) and self._failure is None:
                rest = rest[self._target.write(rest) :]
        except (OSError, KeyboardInterrupt) as error:
            self._failure = error
        return len(view)

    def truncate(self, size: int) -> int:
        """Set the length of the file, unless a write has failed."""
        try:
            if self._failure is None:
                self._target.truncate(size)
        except (OSError, KeyboardInterrupt) as error:
            self._failure = error
        return size

    def flush(self) -> None:
        """Nothing is held back."""
