"""From what the user named (folders, pictures, list files) to a stream of pictures in one fixed order.

Nothing here holds all names at once: folders with very many files are sorted in runs on disk.
"""

from __future__ import annotations

import heapq
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO

from caffe2torch.errors import FormatError, ImageError

SUFFIXES = frozenset((".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".png", ".bmp", ".dib", ".webp", ".gif")) | frozenset(
    (".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm")
)
LIST_SUFFIXES = frozenset((".txt", ".lst", ".list"))
RUN = 1 << 16  # names sorted in memory at a time
LINE_LIMIT = 1 << 16  # bytes in one line of a list file

_LABELLED = re.compile(r"^(.*\S)[ \t]+([+-]?[0-9]{1,18})$", re.DOTALL)


@dataclass(frozen=True)
class Entry:
    """One picture: ``shown`` is its name in the output, ``file`` the path to open, ``label`` from a labelled list."""

    shown: str
    file: str
    label: int | None = None


@dataclass
class Found:
    """Counts kept while walking: files passed over because their suffix is no picture's."""

    ignored: int = 0


def walk(
    inputs: Sequence[str | Path], *, root: str | Path | None = None, found: Found, skip: Iterable[Path] = ()
) -> Iterator[Entry]:
    """Every picture of every input, in the order given; a folder's in the order of their names, subfolders in place.

    An input is a folder (walked recursively; hidden names and other suffixes are passed over), a list file (.txt,
    .lst, .list) or a picture. ``root`` is where the paths of list files start. ``skip`` names files never to be
    taken (a contact sheet written by an earlier run). Raises ImageError for an input that does not exist or a folder
    without pictures, FormatError for a list that is none.
    """
    skipped = {path.name: path.resolve() for path in skip}
    for item in inputs:
        path = Path(item)
        if path.is_dir():
            yield from _folder(path, found, skipped)
        elif not path.exists():
            raise ImageError(f"{path}: no such file or folder")
        elif path.suffix.lower() in LIST_SUFFIXES:
            yield from read_list(path, root=root)
        else:
            yield Entry(str(path), str(path))


def _folder(folder: Path, found: Found, skipped: dict[str, Path]) -> Iterator[Entry]:
    count, ignored = 0, found.ignored
    for file in _walk_folder(str(folder), found, set()):
        name = os.path.basename(file)  # noqa: PTH119 - a Path for each of millions of names costs more than the rest
        if name in skipped and Path(file).resolve() == skipped[name]:
            continue
        count += 1
        yield Entry(file, file)
    if not count:
        others = found.ignored - ignored
        seen = f", only {others} of other kinds" if others else ""
        raise ImageError(f"{folder}: no picture files here or below{seen}; looked for {' '.join(sorted(SUFFIXES))}")


def _walk_folder(folder: str, found: Found, visited: set[tuple[int, int]]) -> Iterator[str]:
    """Pictures below ``folder`` by name. A folder reached again (a loop of links) is not entered twice."""
    try:
        status = os.stat(folder)  # noqa: PTH116
        if (status.st_dev, status.st_ino) in visited:
            return
        visited.add((status.st_dev, status.st_ino))
        for kind, name in _sorted_names(folder):
            path = os.path.join(folder, name)  # noqa: PTH118
            if kind == "d":
                yield from _walk_folder(path, found, visited)
            elif os.path.splitext(name)[1].lower() in SUFFIXES:  # noqa: PTH122
                yield path
            else:
                found.ignored += 1
    except OSError as error:
        raise ImageError(f"{folder}: cannot be listed: {error.strerror or error}") from error


def _sorted_names(folder: str) -> Iterator[tuple[str, str]]:
    """(kind, name) of a folder's visible entries by name; ``kind`` is "d" or "f". More than RUN go through disk."""
    with os.scandir(folder) as scan:
        names = ((entry.name, "d" if _is_folder(entry) else "f") for entry in scan if not entry.name.startswith("."))
        first = sorted(islice(names, RUN))
        if len(first) < RUN:
            runs: list[Iterable[tuple[str, str]]] = [first]
        else:
            runs = [_spilled(first)]
            while chunk := sorted(islice(names, RUN)):
                runs.append(_spilled(chunk))
    for name, kind in heapq.merge(*runs):
        yield kind, name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: no folder, and reading it as a picture will say what is wrong
        return False


def _spilled(names: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """The sorted run, kept in an unnamed temporary file; NUL ends a name since no file system allows it inside."""
    file = tempfile.TemporaryFile("w+", encoding="utf-8", errors="surrogateescape", newline="")  # noqa: SIM115
    file.writelines(f"{kind}{name}\0" for name, kind in names)
    file.seek(0)
    return _unspilled(file)


def _unspilled(file: IO[str]) -> Iterator[tuple[str, str]]:
    rest = ""
    with file:
        while block := file.read(1 << 14):
            *whole, rest = (rest + block).split("\0")
            for item in whole:
                yield item[1:], item[0]


def read_list(path: Path, *, root: str | Path | None = None) -> Iterator[Entry]:
    """The pictures a list file names, one on each line, a whole number after the last space being its label.

    Without ``root`` a relative path starts at the current folder. With it every path does, also one that begins with
    "/", as in the papers' lists. Text is UTF-8, or else latin-1. Whether the pictures exist shows when they are read.
    """
    labelled: bool | None = None
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(iter(lambda: file.readline(LINE_LIMIT + 1), b""), start=1):
                text, name = _decode(path, number, raw)
                if not text:
                    continue
                match = _LABELLED.match(text)
                if labelled is not None and labelled != bool(match):
                    raise FormatError(
                        f"{path}:{number}: has {'a' if match else 'no'} label after the path, unlike the lines above: "
                        f"{text[:200]!r}; label every line or none"
                    )
                labelled = bool(match)
                if match:
                    name = name[: len(name) - (len(text) - match.end(1))]
                shown = match.group(1) if match else text
                located = _locate(name, root)
                if name != shown and not os.path.lexists(located):  # the list is latin-1 but the disk is not
                    located = _locate(shown, root)
                yield Entry(shown, located, int(match.group(2)) if match else None)
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror or error}") from error
    if labelled is None:
        raise FormatError(f"{path}: this list names no picture; expected one path on each line")


def _decode(path: Path, number: int, raw: bytes) -> tuple[str, str]:
    """The line as text to show, and as the operating system's name for the same bytes."""
    if number == 1:
        if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise FormatError(f"{path}: this list is UTF-16; save it as UTF-8")
        raw = raw.removeprefix(b"\xef\xbb\xbf")
    if b"\0" in raw:
        raise FormatError(f"{path}:{number}: has a NUL byte; this is no text list of pictures")
    if len(raw) > LINE_LIMIT:
        raise FormatError(f"{path}:{number}: longer than {LINE_LIMIT} bytes; this is no text list of pictures")
    raw = raw.strip()
    try:
        text = raw.decode("utf-8")
        return text, text
    except UnicodeDecodeError:
        return raw.decode("latin-1"), os.fsdecode(raw)


def _locate(name: str, root: str | Path | None) -> str:
    if root is None:
        return name
    return os.path.join(root, name.lstrip("/\\") if name.startswith(("/", "\\")) else name)  # noqa: PTH118
