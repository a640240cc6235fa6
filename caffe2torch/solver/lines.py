"""Text that a training writes line by line, and that must not end it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from caffe2torch.errors import OutputError
from caffe2torch.files import explain, make_folder


class Lines:
    """A file that lines are added to, at once.

    Lines that cannot be written (the disk is full) are lost; ``trouble`` hears of the first of them.
    """

    def __init__(self, path: Path, trouble: Callable[[str], object], *, append: bool) -> None:
        self.path, self._trouble, self._broken = path, trouble, False
        make_folder(path.parent)
        try:
            self._file = path.open("ab" if append else "wb", buffering=0)
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {explain(error)}") from error

    def write(self, line: str) -> None:
        """Add a line, given without its end."""
        data = f"{line}\n".encode("utf-8", "surrogateescape")
        if self._broken:
            data = b"\n" + data  # part of the last one may have been written
        try:
            reason = "" if self._file.write(data) == len(data) else "the disk is full"
        except OSError as error:
            reason = explain(error)
        if reason and not self._broken:
            self._trouble(f"{self.path}: lines of the log are lost, training goes on: {reason}")
        self._broken = bool(reason)

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()
