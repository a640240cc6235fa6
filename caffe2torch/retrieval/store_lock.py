"""While an index is written: other processes kept out, errors of the system told, a folder made in vain removed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from caffe2torch.errors import OutputError
from caffe2torch.files import explain


@contextmanager
def removed_in_vain(path: Path, *, fresh: bool) -> Iterator[None]:
    """Where an index could not be written into a folder made for it, remove that again."""
    try:
        yield
    except BaseException:
        if fresh:
            with suppress(OSError):
                (path / "lock").unlink(missing_ok=True)
                path.rmdir()
        raise


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes from writing, where the system knows file locks. They end with the process."""
    try:
        import fcntl
    except ImportError:  # not a Unix
        yield
        return
    try:
        lock = (path / "lock").open("wb")
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {explain(error)}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(f"{path}: another process is writing to it right now") from error
        yield


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """OutputError for errors of the system."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {explain(error)}") from error
