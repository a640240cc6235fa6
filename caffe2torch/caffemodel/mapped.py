"""A file as a memory map for looking around in it, with copying reads for bulk data."""

from __future__ import annotations

import mmap
import stat
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np

from caffe2torch.blobs import Array
from caffe2torch.errors import FormatError


class MappedFile:
    """A regular, non-empty file. ``view`` is a read-only map: walking it touches only the pages it looks at.

    Bulk data are copied by ordinary reads into the destination instead of through the map: that is as fast, keeps the
    file's pages out of the process's memory, and no array can depend on the map.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            status = path.stat()
            if stat.S_ISDIR(status.st_mode):
                raise FormatError(f"{path}: is a folder, expected a file")
            if not stat.S_ISREG(status.st_mode):
                raise FormatError(f"{path}: is a device or a pipe, expected an ordinary file")
            if not status.st_size:
                raise FormatError(f"{path}: is empty (0 bytes); fetch it again")
            self._file = path.open("rb", buffering=0)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            raise FormatError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
        self._lock = threading.Lock()
        try:
            self.view = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            self._file.close()
            raise FormatError(f"{path}: cannot be mapped into memory: {error}") from error
        self.size = len(self.view)

    def read_into(self, offset: int, out: Array) -> None:
        """Fill the C-contiguous array ``out`` with the bytes at ``offset``."""
        target = out.reshape(-1).view(np.uint8).data
        done = 0
        with self._lock:
            try:
                self._file.seek(offset)
                while done < len(target):  # one call reads at most 2 GB on Linux
                    got = self._file.readinto(target[done:])
                    if not got:
                        raise FormatError(f"{self.path}: ends at byte {offset + done} though it was longer when opened")
                    done += got
            except (OSError, ValueError) as error:  # ValueError: the file was closed
                raise FormatError(f"{self.path}: cannot be read: {error}") from error

    def close(self) -> None:
        """Release file and map."""
        self._file.close()
        with suppress(BufferError):  # an exception being handled still holds a view; the map goes with it
            self.view.close()
