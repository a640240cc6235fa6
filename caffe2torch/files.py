"""Writing a file so that it is either complete or not there at all."""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from caffe2torch.errors import OutputError

_ADVICE = {
    errno.ENOSPC: "the disk is full; free some space or choose another place",
    errno.EDQUOT: "your disk quota is used up; free some space or choose another place",
    errno.EFBIG: "the file would exceed the size limit that holds here",
    errno.EACCES: "no permission to write there; choose another place",
    errno.EPERM: "no permission to write there; choose another place",
    errno.EROFS: "that file system is read-only; choose another place",
    errno.ENOENT: "its folder does not exist; create it first",
    errno.ENOTDIR: "its folder is not a folder",
    errno.EEXIST: "a file of that name is in the way",
    errno.EISDIR: "it is a folder; give a file name",
    errno.ENAMETOOLONG: "the name is too long",
    errno.EIO: "the device reports a write error",
}


def make_folder(folder: Path) -> None:
    """Create the folder of an output file, with those above it; raises OutputError where that cannot be done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be created: {explain(error)}") from error


@contextmanager
def atomic_path(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside ``target``; on leaving without an exception it takes ``target``'s place.

    The temporary file exists already (empty) and keeps the suffix of ``target``, because some writers choose the
    format by it. It is removed when the block raises. A symbolic link is followed, and a file that is replaced passes
    its permissions on. Raises OutputError where the file cannot be written; an OSError that names another file than
    ours is the block's own affair and passes unchanged.
    """
    target = Path(target)
    try:
        final = target.resolve()
        _refuse_special(target, final)
        temporary = final.with_name(f".{final.stem[:100]}.{secrets.token_hex(4)}.part{final.suffix[:100]}")
        _create_like(final, temporary)
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a loop of links; ValueError: a NUL in the name
        raise OutputError(f"{target}: cannot be written: {explain(error)}") from error
    try:
        yield temporary
        temporary.replace(final)
    except (OSError, RuntimeError) as error:
        if not _ours(error, temporary, final):
            raise
        raise OutputError(f"{target}: cannot be written: {explain(error)}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _refuse_special(target: Path, final: Path) -> None:
    """Renaming over a device or a pipe would replace it by an ordinary file."""
    if final.is_dir():
        raise OutputError(f"{target}: cannot be written: it is a folder; give a file name")
    if final.exists() and not final.is_file():
        raise OutputError(f"{target}: cannot be written: it is a device or a pipe; give the name of an ordinary file")
    if not final.name:
        raise OutputError(f"{target}: cannot be written: it names no file")


def _create_like(final: Path, temporary: Path) -> None:
    mode = final.stat().st_mode & 0o777 if final.exists() else None
    if mode is not None and not os.access(final, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(final))
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    if mode is not None:
        with suppress(OSError):  # a file system without permissions
            temporary.chmod(mode)


def _ours(error: OSError | RuntimeError, temporary: Path, final: Path) -> bool:
    """Whether a failed write to our file raised this: such errors name our file, or (write, flush, close) none."""
    name = getattr(error, "filename", None)
    if name is None:
        return _number(error) in _ADVICE
    return str(name) in (str(temporary), str(final))


def _number(error: Exception) -> int | None:
    """The system's error number; HDF5 tells it only within its message."""
    found = re.search(r"\berrno = (\d+)", str(error))
    return int(found[1]) if found else getattr(error, "errno", None)


def explain(error: Exception) -> str:
    """Why a file cannot be written, and what to do, for an error of the system or of HDF5."""
    return _ADVICE.get(_number(error) or 0) or str(error)
