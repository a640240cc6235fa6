"""Databases that are written: whole, or not there at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from caffe2torch.data.leveldb_writer import LevelDbWriter
from caffe2torch.data.lmdb import LmdbWriter
from caffe2torch.errors import OutputError, UsageError
from caffe2torch.files import explain, make_folder


class Writer(Protocol):
    """A database in the making."""

    def put(self, key: bytes, value: bytes) -> None:
        """Add a record; keys must come in their order. Raises OutputError for one that cannot be stored."""

    def finish(self) -> None:
        """Write what is left, and what makes it a database."""

    def close(self) -> None:
        """Close the files."""


BACKENDS: dict[str, Callable[[Path], Writer]] = {"lmdb": LmdbWriter, "leveldb": LevelDbWriter}


@contextmanager
def new_database(path: Path, backend: str) -> Iterator[Writer]:
    """A new database folder at ``path``; ``backend`` is ``lmdb`` or ``leveldb``.

    It is made in a folder beside and takes its name when the block ends, so that a run that fails or is killed leaves
    nothing that looks like a database. Raises OutputError where that is not possible or the disk is full.
    """
    if backend not in BACKENDS:
        raise UsageError(f"backend {backend!r}: expected {' or '.join(BACKENDS)}")
    if os.path.lexists(path):
        raise OutputError(
            f"{path}: is there already, and databases are not overwritten; remove it or take another name"
        )
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.part")
    try:
        temporary.mkdir()
        writer = BACKENDS[backend](temporary)
        try:
            yield writer
            writer.finish()
        finally:
            writer.close()
        temporary.rename(path)
    except OSError as error:
        if error.filename is not None and not str(error.filename).startswith(str(temporary)):
            raise
        raise OutputError(f"{path}: cannot be written: {explain(error)}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
