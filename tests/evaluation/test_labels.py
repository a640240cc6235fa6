"""Labels are matched to codes by name or by order, and never by guessing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from caffe2torch.errors import RetrievalError
from caffe2torch.evaluation.labels import folder_labels, labels_of
from caffe2torch.retrieval.codes import Codes

FILE = Path("codes.h5")


def codes(*paths: str, labels: list[int] | None = None, count: int = 0) -> Codes:
    found = None if labels is None else np.array(labels)
    return Codes(np.zeros((len(paths) or count, 1), np.uint8), 8, paths, labels=found)


def label_file(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "labels.txt"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_labels_of_the_codes_file() -> None:
    assert labels_of(codes("a/1", "a/2", labels=[4, 5]), FILE, None, "--x").labels.tolist() == [4, 5]


def test_a_label_file_goes_before_them(tmp_path: Path) -> None:
    given = label_file(tmp_path, "7", "8")
    assert labels_of(codes("a/1", "a/2", labels=[4, 5]), FILE, given, "--x").labels.tolist() == [7, 8]


def test_no_labels_at_all() -> None:
    with pytest.raises(RetrievalError, match=r"codes\.h5: holds no labels.*give --query-labels FILE"):
        labels_of(codes("a/1"), FILE, None, "--query-labels")


@pytest.mark.parametrize("named", [True, False], ids=["with paths", "without paths"])
def test_another_number_of_labels(tmp_path: Path, named: bool) -> None:
    some = codes("a/1", "a/2", "a/3") if named else codes(count=3)
    with pytest.raises(RetrievalError, match=r"2 labels.* 3 "):
        labels_of(some, FILE, label_file(tmp_path, "7", "8"), "--x")


def test_a_list_in_another_order_is_matched_by_name(tmp_path: Path) -> None:
    given = label_file(tmp_path, "/old/b/1.png 3", "/old/a/2.png 2", "/old/a/1.png 1", "/old/c/9.png 9")
    found = labels_of(codes("x/a/1.png", "x/a/2.png", "x/b/1.png"), FILE, given, "--x")
    assert found.labels.tolist() == [1, 2, 3]


def test_names_that_occur_twice_are_matched_in_the_same_order_only(tmp_path: Path) -> None:
    given = label_file(tmp_path, "p/a/1.png 3", "q/a/1.png 4")
    assert labels_of(codes("p/a/1.png", "q/a/1.png"), FILE, given, "--x").labels.tolist() == [3, 4]
    with pytest.raises(RetrievalError, match="several pictures by the same folder and name"):
        labels_of(codes("p/a/1.png"), FILE, given, "--x")


def test_a_picture_the_list_does_not_name(tmp_path: Path) -> None:
    with pytest.raises(RetrievalError, match=r"no label for 1 of the 2 pictures of codes\.h5, such as a/2"):
        labels_of(codes("a/1", "a/2"), FILE, label_file(tmp_path, "a/1 3"), "--x")


def test_folders_as_labels_agree_over_both_sets() -> None:
    found, names = folder_labels([["t/dog/1", "t/cat/1"], ["u/cat/2", "u\\ant\\3", "u/dog/4"]], [FILE, FILE])
    assert names == ["ant", "cat", "dog"]
    assert [each.labels.tolist() for each in found] == [[2, 1], [1, 0, 2]]


@pytest.mark.parametrize("paths", [[], ["1.png"]], ids=["no paths", "no folder"])
def test_pictures_without_a_folder(paths: list[str]) -> None:
    with pytest.raises(RetrievalError, match="folders cannot be labels"):
        folder_labels([paths], [FILE])
