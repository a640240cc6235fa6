"""The forms in which CIFAR-10 lies on disk, told apart by what is in them."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np

from caffe2torch.data.cifar10.batch_pickle import read_batch
from caffe2torch.data.cifar10.records import BATCHES, RECORD, SIZE, Records, file_stem, make_records
from caffe2torch.data.cifar10.strips import MEMBERS, read_strips
from caffe2torch.errors import FormatError

Reader = Callable[[Collection[str]], Iterator[tuple[str, Records]]]
"""Names of batches to (name, records), in whatever order is quickest; FormatError where one is missing."""

FOLDERS = ("cifar-10-batches-py", "cifar-10-batches-bin")
LARGEST = 64 << 20  # bytes of one batch file; the official ones have 31 million
_WHOLE = 1 << 30  # bytes of an unpacked archive; the official ones have 190 million
_FORMS = (
    "cifar-10-python.tar.gz or cifar-10-binary.tar.gz, the folder it unpacks to, or the lossless strips "
    "(000.webp to 119.webp and labels.bin) in a zip or a folder"
)
_READ_ERRORS = (OSError, EOFError, RuntimeError, NotImplementedError, ValueError)
_ARCHIVE_ERRORS = (*_READ_ERRORS, tarfile.TarError, zipfile.BadZipFile, zlib.error)


def find_reader(path: Path) -> Reader:
    """What reads the form of CIFAR-10 at ``path``; raises FormatError where there is none."""
    try:
        if path.is_dir():
            return _folder_reader(path)
        if path.exists() and not path.is_file():  # opening a pipe would wait for ever
            raise FormatError(f"{path}: a device or a pipe; expected {_FORMS}")
        with path.open("rb") as file:
            start = file.read(512)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FormatError(f"{path}: cannot be read: {reason}; expected {_FORMS}") from error
    if start[:4] == b"PK\x03\x04":
        return partial(_read_zip, path)
    packed = start[:2] == b"\x1f\x8b"
    if packed or start[257:262] == b"ustar":
        return partial(_read_tar, path, packed)
    raise FormatError(f"{path}: no form of CIFAR-10; expected {_FORMS}")


def _folder_reader(path: Path) -> Reader:
    for folder in (path, *(path / name for name in FOLDERS)):
        for suffix in ("", ".bin"):
            if any((folder / (file_stem(name) + suffix)).is_file() for name in BATCHES):
                return partial(_read_folder, folder, suffix)
    if (path / MEMBERS[0]).is_file():
        return partial(_read_strip_folder, path)
    raise FormatError(f"{path}: this folder holds no form of CIFAR-10; expected {_FORMS}")


def _read_folder(folder: Path, suffix: str, names: Collection[str]) -> Iterator[tuple[str, Records]]:
    for name in BATCHES:
        if name in names:
            path = folder / (file_stem(name) + suffix)
            yield name, _decode(_read_file(path), suffix, str(path))


def _read_strip_folder(folder: Path, names: Collection[str]) -> Iterator[tuple[str, Records]]:
    return read_strips(lambda member: _read_file(folder / member), str(folder), names)


def _read_file(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise FormatError(f"{path}: is missing, or no ordinary file; unpack the archive again")
        with path.open("rb") as file:
            return _bounded(file, str(path))
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror or error}") from error


def _bounded(file: IO[bytes], place: str) -> bytes:
    data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise FormatError(f"{place}: more than the {LARGEST:,} bytes a part of CIFAR-10 may have")
    return data


def _decode(data: bytes, suffix: str, place: str) -> Records:
    if not suffix:
        return read_batch(data, place)
    if len(data) != SIZE * RECORD:
        raise FormatError(f"{place}: {len(data):,} bytes, expected {SIZE * RECORD:,}")
    records = np.frombuffer(data, np.uint8).reshape(SIZE, RECORD)
    return make_records(records[:, 0], records[:, 1:], place)


def _read_zip(path: Path, names: Collection[str]) -> Iterator[tuple[str, Records]]:
    try:
        with zipfile.ZipFile(path) as archive:
            present = set(archive.namelist())
            missing = [member for member in MEMBERS if member not in present]
            if missing:
                raise FormatError(f"{path}: a zip without {missing[0]}, so not the strips; expected {_FORMS}")

            def read(member: str) -> bytes:
                info = archive.getinfo(member)
                if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise FormatError(f"{path}: {member} is packed by method {info.compress_type}, which no strips use")
                with archive.open(info) as file:
                    return _bounded(file, f"{path}: {member}")

            yield from read_strips(read, str(path), names)
    except _ARCHIVE_ERRORS as error:
        raise FormatError(f"{path}: damaged: {error or type(error).__name__}") from error


def _read_tar(path: Path, packed: bool, names: Collection[str]) -> Iterator[tuple[str, Records]]:
    """One pass over the archive; members are looked at, never unpacked to disk, and their folders do not matter."""
    wanted = {file_stem(name) + suffix: (name, suffix) for name in names for suffix in ("", ".bin")}
    left, seen = set(names), []
    try:
        with (
            gzip.open(path) if packed else path.open("rb") as file,
            tarfile.open(fileobj=_Bounded(file), mode="r|", bufsize=1 << 18) as archive,
        ):
            for member in archive:
                stem = PurePosixPath(member.name).name
                seen.append(stem)
                name, suffix = wanted.get(stem, ("", ""))
                if name not in left or not member.isreg():
                    continue
                place = f"{path}: {stem}"
                content = archive.extractfile(member)
                assert content is not None  # it is an ordinary file
                yield name, _decode(_bounded(content, place), suffix, place)
                left.discard(name)
                if not left:
                    return
    except _ARCHIVE_ERRORS as error:
        raise FormatError(
            f"{path}: damaged or incomplete: {error or type(error).__name__}; the official cifar-10-python.tar.gz has "
            "170,498,071 bytes and md5 c58f30108f718f92721af3b95e74349a"
        ) from error
    missing = ", ".join(sorted(file_stem(name) for name in left))
    found = ", ".join(repr(name)[:40] for name in seen[:8]) or "nothing"
    raise FormatError(f"{path}: an archive without {missing} (it has {found}); expected {_FORMS}")


class _Bounded(io.RawIOBase):
    """A stream with an end: a few compressed bytes can unpack to any number."""

    def __init__(self, file: IO[bytes] | gzip.GzipFile) -> None:
        super().__init__()
        self._file, self._left = file, _WHOLE

    def read(self, size: int = -1, /) -> bytes:
        if not 0 <= size <= self._left:
            raise ValueError(f"it unpacks to more than {_WHOLE:,} bytes")
        data = self._file.read(size)
        self._left -= len(data)
        return data
