"""The files the published suite needs: which they are, where they are published, fetching and checking them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from caffe2torch.download import Outcome, Settings, obtain
from caffe2torch.download_http import digest_file
from caffe2torch.errors import DownloadError, FormatError, UsageError
from caffe2torch.zoo_manifest import FileEntry, Source

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MANIFEST = Path(__file__).with_name("reference_files.toml")
SCHEMA = 1
HOST = "https://raw.githubusercontent.com"
PUBLISHED = "published"
"""The files lie below this folder of the reference material."""


@dataclass(frozen=True)
class ReferenceFile:
    """One published file: where it belongs, its exact size and hash, and where it can be had, best place first.

    ``path`` is relative to the reference material. ``seen`` says that the place was found in a listing of the
    repository; otherwise the name there is inferred.
    """

    path: PurePosixPath
    size: int
    sha256: str
    urls: tuple[str, ...]
    seen: bool


def files(*, host: str = HOST, manifest: Path = MANIFEST) -> tuple[ReferenceFile, ...]:
    """All published files; ``host`` takes the place of GitHub's where a mirror has the same paths."""
    try:
        table = tomllib.loads(manifest.read_text(encoding="utf-8"))
        if table["schema"] != SCHEMA:
            raise FormatError(f"{manifest}: schema is {table['schema']}, this version of caffe2torch reads {SCHEMA}")
        return tuple(_file(group, row, host.rstrip("/")) for group in table["groups"] for row in group["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{manifest}: {type(error).__name__}: {error}; the installation is damaged") from error


def _file(group: dict[str, Any], row: dict[str, Any], host: str) -> ReferenceFile:
    path = PurePosixPath(PUBLISHED, group["folder"], row["name"])
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{path} leads out of the folder")
    there = quote(str(PurePosixPath(group["upstream"], row.get("from", row["name"]))))
    urls = tuple(f"{host}/{group['repository']}/{commit}/{there}" for commit in group["commits"])
    return ReferenceFile(path, row["size"], row["sha256"], urls, group["seen"])


def choose(known: Sequence[ReferenceFile], only: Iterable[str]) -> tuple[ReferenceFile, ...]:
    """The files, and those in the folders, that ``only`` names (below ``published``); all of them if it is empty."""
    wanted = [PurePosixPath(name) for name in only]
    if not wanted:
        return tuple(known)
    inside = {name: [file for file in known if _is_in(file.path, name)] for name in wanted}
    for name, found in inside.items():
        if not found:
            folders = sorted({str(file.path.parent.relative_to(PUBLISHED)) for file in known})
            raise UsageError(f"no published file or folder is called {name}; there are {', '.join(folders)}")
    chosen = {file.path for found in inside.values() for file in found}
    return tuple(file for file in known if file.path in chosen)


def _is_in(path: PurePosixPath, name: PurePosixPath) -> bool:
    below = path.relative_to(PUBLISHED)
    return below == name or name in below.parents or path == name or name in path.parents


def problem(folder: Path, file: ReferenceFile) -> str | None:
    """What is wrong with a file of the material in ``folder``, None if it is the published one."""
    path = folder / file.path
    if not path.is_file():
        return "is not here"
    try:
        found = digest_file(path)
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    if found.size != file.size:
        return f"has {found.size:,} bytes, the published file {file.size:,}"
    return (
        None if found.sha256 == file.sha256 else f"sha256 is {found.sha256}, that of the published file {file.sha256}"
    )


def fetch(
    folder: Path,
    file: ReferenceFile,
    *,
    settings: Settings | None = None,
    say: Callable[[str], object] = lambda message: None,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> Outcome:
    """Make sure that the published ``file`` lies in ``folder``; what is there and proved by its hash is left alone.

    Raises DownloadError, naming every URL that was tried, when none delivers exactly this file.
    """
    target = folder / file.path
    entry = FileEntry(
        target.name,
        "that of the repository",
        bytes=file.size,
        sha256=file.sha256,
        sources=tuple(Source("direct", url) for url in file.urls),
    )
    try:
        return obtain(
            entry, target.parent, check=_proved_by_hash, settings=settings or Settings(), say=say, progress=progress
        )
    except DownloadError as error:
        if file.seen:
            raise
        raise DownloadError(
            f"{error} (the name of this file in its repository is inferred: look there for one of {file.size:,} bytes)"
        ) from error


def _proved_by_hash(path: Path) -> None:
    """Nothing more to check."""
