"""What a user's pictures and labels are taken for."""

from __future__ import annotations

from pathlib import Path

import pytest

from caffe2torch.errors import Caffe2TorchError, FormatError, ImageError, UsageError
from caffe2torch.project.collect import Collection, collect

from .pictures import folders


def listed(folder: Path, text: str, **options: object) -> Collection:
    path = folder / "list.txt"
    path.write_text(text, encoding="utf-8")
    return collect(path, **options)  # type: ignore[arg-type]


def test_folders_are_classes_in_the_order_of_their_names(tmp_path: Path) -> None:
    found = collect(folders(tmp_path, {"zebra": 1, "Äpfel & so": 2, "a b": 1}))
    assert found.classes == ("a b", "zebra", "Äpfel & so")
    assert found.names == ("a b/000.png", "zebra/000.png", "Äpfel & so/000.png", "Äpfel & so/001.png")
    assert found.labels.tolist() == [0, 1, 2, 2]
    assert not found.several
    assert found.path(1) == tmp_path.resolve() / "zebra/000.png"


@pytest.mark.parametrize(
    ("text", "classes", "labels"),
    [
        ("a.png 0\nb c.png 1\n", ["0", "1"], [0, 1]),
        ("a.png 10\n\nb.png 2\r\nc.png 10", ["2", "10"], [1, 0, 1]),
        ("a.png dog\nb.png cat\n", ["cat", "dog"], [1, 0]),
        ("\ufeffa.png\t007\nb.png 1\n", ["1", "7"], [1, 0]),
    ],
    ids=["numbers", "gaps", "words", "byte order mark and zeros"],
)
def test_one_label_a_line(tmp_path: Path, text: str, classes: list[str], labels: list[int]) -> None:
    found = listed(tmp_path, text)
    assert (list(found.classes), found.labels.tolist()) == (classes, labels)
    assert found.root == str(tmp_path.resolve())


def test_renumbered_labels_are_said(tmp_path: Path) -> None:
    assert listed(tmp_path, "a.png 0\nb.png 1\n").notes == ()
    assert "1 to 2" in listed(tmp_path, "a.png 1\nb.png 2\n").notes[0]
    assert "cat, dog" in listed(tmp_path, "a.png cat\nb.png dog\n").notes[0]


def test_several_labels_of_0_and_1(tmp_path: Path) -> None:
    found = listed(tmp_path, "a b.png 0 1 1\nc.png 1 0 0\n")
    assert found.several
    assert found.names == ("a b.png", "c.png")
    assert found.labels.tolist() == [[-1, 1, 1], [1, -1, -1]]


def test_with_minus_1_a_0_is_unknown(tmp_path: Path) -> None:
    assert listed(tmp_path, "a.png 0 1 -1\nc.png 1 0 0\n").labels.tolist() == [[0, 1, -1], [1, 0, 0]]


def test_full_paths_and_roots(tmp_path: Path) -> None:
    assert listed(tmp_path, "/x/a.png 0\n/y/b.png 1\n").root == ""
    mixed = listed(tmp_path, "/x/a.png 0\nb.png 1\n")
    assert (mixed.root, mixed.names) == ("", ("/x/a.png", str(tmp_path.resolve() / "b.png")))
    rooted = listed(tmp_path, "/x/a.png 0\nb.png 1\n", root=tmp_path / "r")
    assert (rooted.root, rooted.names) == (str(tmp_path.resolve() / "r"), ("x/a.png", "b.png"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("a.png\n", r":1: 'a.png' is no path with a label"),
        ("a.png 0\nb.png\n", r":2: 'b.png' is no path with a label"),
        ("a.png 0\nb.png 3 4\n", r":2: .*several numbers"),
        ("a.png 3 17\n", r":1: .*0 or 1 for each label"),
        ("a.png 0 1\nb.png 1\n", r":2: .*has 1 labels .*have 2"),
        ("a.png 0 1\nb.png dog\n", r":2: .*has 0 labels .*have 2"),
        ("a.png 0\nb.png -1\n", "label -1"),
        ("a.png 0\nb.png 1\na.png 1\n", r":3: names 'a.png' again, as line 1"),
    ],
)
def test_lists_that_are_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(FormatError, match=said):
        listed(tmp_path, text)


@pytest.mark.parametrize(
    ("data", "said"), [(b"\xff\xfea\0", "UTF-16"), (b"\x89PNG\0\0", "NUL"), (b"a.png 0\0\n", "NUL")]
)
def test_files_that_are_no_lists(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(FormatError, match=said):
        collect(tmp_path / "x")


def test_what_is_not_there_and_a_root_for_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such folder or list"):
        collect(tmp_path / "missing")
    with pytest.raises(UsageError, match="is for list files"):
        collect(folders(tmp_path, {"a": 1}), root=tmp_path)


@pytest.mark.parametrize("name", [" a", "a "])
def test_names_a_list_would_lose_are_refused(tmp_path: Path, name: str) -> None:
    folders(tmp_path, {"a": 1})
    (tmp_path / "a").rename(tmp_path / name)
    (tmp_path / name / "000.png").rename(tmp_path / name / ("x.png" if name[0] == " " else "y.png"))
    if name[0] == " ":
        with pytest.raises(Caffe2TorchError, match="begins or ends with a blank"):
            collect(tmp_path)
    else:
        assert collect(tmp_path).names == ("a /y.png",)


def test_classes_of_another_source_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="class 'b', which there is none of"):
        collect(folders(tmp_path, {"a": 1, "b": 1}), classes=["a", "c"])
    assert listed(tmp_path, "a.png 2\n", classes=["1", "2"]).labels.tolist() == [1]
