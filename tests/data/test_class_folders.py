"""Folders of class folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from caffe2torch.data.class_folders import ClassFolders, read_class_folders, write_lines
from caffe2torch.data.image_list import parse_list
from caffe2torch.errors import ImageError


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_labels_are_the_places_of_the_folders_by_name(tmp_path: Path) -> None:
    make(tmp_path, "dog/2.jpg", "dog/10.JPEG", "cat/a b.png", "cat/more/x.webp", "cat/notes.txt", "cat/.hidden.png")
    make(tmp_path, ".git/x.png", "README", "Zebra/z.bmp", "cat/.thumbs/x.png")
    assert read_class_folders(tmp_path) == ClassFolders(
        ("Zebra", "cat", "dog"),
        (("Zebra/z.bmp", 0), ("cat/a b.png", 1), ("cat/more/x.webp", 1), ("dog/10.JPEG", 2), ("dog/2.jpg", 2)),
        3,
    )


def test_list_of_them_reads_back(tmp_path: Path) -> None:
    make(tmp_path, "a b/1 2.png", "c/ü.png", "c/\udce9.png")
    lines = read_class_folders(tmp_path).lines
    write_lines(tmp_path / "list.txt", [f"{name} {label}" for name, label in lines])
    assert parse_list(tmp_path / "list.txt") == list(lines)
    assert b"c/\xe9.png 1\n" in (tmp_path / "list.txt").read_bytes()


@pytest.mark.parametrize(
    "names, message",
    [
        ([], "found nothing and no folders, expected a folder of pictures for each class"),
        (["a.png", "b.png"], "found 2 pictures and no folders"),
        (["a/1.png", "b/notes.txt"], "b: no pictures in this class folder, 1 other files"),
        (["a/1.png", "x.png"], r"x\.png: a picture beside the class folders, which has no label"),
        (["a/1.png", "x.png", "y.png"], r"x\.png: .*\(one of 2\)"),
        (["a/1\n2.png"], "a name with a line end"),
    ],
)
def test_what_is_no_set_of_classes(names: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=message):
        read_class_folders(make(tmp_path, *names))


@pytest.mark.parametrize("what", [lambda path: None, lambda path: path.touch()], ids=["gone", "file"])
def test_what_is_no_folder(what: Callable[[Path], None], tmp_path: Path) -> None:
    what(tmp_path / "x")
    with pytest.raises(ImageError, match="x: no such folder"):
        read_class_folders(tmp_path / "x")
