"""A folder of class folders as a list: label k for the pictures in the k-th folder by name."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from caffe2torch.data.image_list import Line
from caffe2torch.errors import ImageError
from caffe2torch.files import atomic_path

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".webp", ".gif", ".tif", ".tiff")
) | frozenset((".ppm", ".pgm", ".pbm", ".pnm"))


@dataclass(frozen=True)
class ClassFolders:
    """The classes by label, the pictures (names below the folder) with their labels, and how many files are none."""

    classes: tuple[str, ...]
    lines: tuple[Line, ...]
    ignored: int


def read_class_folders(folder: Path) -> ClassFolders:
    """The pictures below each folder in ``folder``, in the order of their names; hidden names are passed over.

    Raises ImageError when there are no class folders, when one holds no picture, for pictures that lie beside the
    class folders, and for names that a list cannot hold.
    """
    if not folder.is_dir():
        raise ImageError(f"{folder}: no such folder, expected one with a folder for each class")
    names = _visible(folder)
    classes = [name for name in names if (folder / name).is_dir()]
    loose = [name for name in names if name not in set(classes) and _is_picture(name)]
    if not classes:
        found = f"{len(loose)} pictures" if loose else "nothing"
        raise ImageError(f"{folder}: found {found} and no folders, expected a folder of pictures for each class")
    if loose:
        raise ImageError(f"{folder / loose[0]}: {_beside(len(loose))}, which has no label; move it into a class folder")
    ignored = len(names) - len(classes)
    lines: list[Line] = []
    for label, name in enumerate(classes):
        pictures, others = _pictures(folder, name)
        if not pictures:
            raise ImageError(
                f"{folder / name}: no pictures in this class folder, {others} other files; put some there or remove it"
            )
        lines += [(picture, label) for picture in pictures]
        ignored += others
    for text in (*classes, *(name for name, _ in lines)):
        if "\n" in text:
            raise ImageError(f"{folder / text!r}: a name with a line end, which a list cannot hold; rename it")
    return ClassFolders(tuple(classes), tuple(lines), ignored)


def write_lines(path: Path, lines: list[str]) -> None:
    """Write a list or the names of classes; names that are not UTF-8 keep their bytes. Raises OutputError."""
    with atomic_path(path) as temporary:
        temporary.write_bytes("".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape"))


def _pictures(root: Path, name: str) -> tuple[list[str], int]:
    """Names below ``root`` of the pictures in a class folder and the folders in it, and the count of other files."""
    found, others = [], 0
    for base, folders, files in os.walk(root / name, onerror=_stop):
        folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
        for file in sorted(files):
            if _is_picture(file) and not file.startswith("."):
                found.append((Path(base) / file).relative_to(root).as_posix())
            else:
                others += 1
    return found, others


def _visible(folder: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))  # noqa: PTH208
    except OSError as error:
        _stop(error)
        raise


def _stop(error: OSError) -> None:
    raise ImageError(f"{error.filename}: cannot be listed: {error.strerror or error}") from error


def _is_picture(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES  # noqa: PTH122


def _beside(count: int) -> str:
    return "a picture beside the class folders" + (f" (one of {count})" if count > 1 else "")
