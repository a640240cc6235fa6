"""Which pictures an input stands for, and in which order."""

from __future__ import annotations

from pathlib import Path

import pytest

from caffe2torch.errors import FormatError, ImageError
from caffe2torch.extract import listing
from caffe2torch.extract.listing import Entry, Found, walk


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def shown(folder: Path, *inputs: Path | str, **options: object) -> list[str]:
    entries = list(walk(inputs or (folder,), found=Found(), **options))
    return [entry.shown.removeprefix(f"{folder}/") for entry in entries]


def write(path: Path, data: bytes | str) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def test_folder_is_walked_by_name_with_subfolders_in_place(tmp_path: Path) -> None:
    touch(tmp_path, "c.png", "b/z.jpg", "b/a/x.bmp", "a.JPEG", "B.tif", "d.webp")
    assert shown(tmp_path) == ["B.tif", "a.JPEG", "b/a/x.bmp", "b/z.jpg", "c.png", "d.webp"]


def test_hidden_names_are_passed_over_and_other_files_counted(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", ".b.jpg", ".git/c.jpg", "notes.txt", "d/e.pdf", "noext")
    found = Found()
    assert [entry.file for entry in walk([tmp_path], found=found)] == [str(tmp_path / "a.jpg")]
    assert found.ignored == 3


def test_folder_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no picture files here or below; looked for"):
        shown(tmp_path)
    touch(tmp_path, "a.txt", "b/c.pdf")
    with pytest.raises(ImageError, match="no picture files here or below, only 2 of other kinds"):
        shown(tmp_path)


def test_loops_of_links_end(tmp_path: Path) -> None:
    touch(tmp_path, "a/b.jpg")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    (tmp_path / "other").symlink_to(tmp_path / "a")
    assert shown(tmp_path) == ["a/b.jpg"]


def test_broken_link_is_listed_so_that_reading_reports_it(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to(tmp_path / "gone.jpg")
    assert shown(tmp_path) == ["a.jpg"]


def test_names_beyond_one_run_are_sorted_through_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "RUN", 4)
    names = [f"{n * 7 % 23:02d} ü\n.jpg" for n in range(23)]
    touch(tmp_path, *names, "05x/in.jpg")
    assert shown(tmp_path) == sorted([*names, "05x/in.jpg"])


def test_several_inputs_keep_their_order(tmp_path: Path) -> None:
    touch(tmp_path, "b/1.jpg", "a/2.jpg", "c.weird")
    inputs = (tmp_path / "b", tmp_path / "c.weird", tmp_path / "a")
    assert shown(tmp_path, *inputs) == ["b/1.jpg", "c.weird", "a/2.jpg"]


def test_missing_input(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="none: no such file or folder"):
        shown(tmp_path, tmp_path / "none")


def test_sheet_of_an_earlier_run_is_skipped(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "codes.png", "sub/codes.png")
    assert shown(tmp_path, skip=[tmp_path / "codes.png"]) == ["a.jpg", "sub/codes.png"]


def test_list_file_in_the_papers_form(tmp_path: Path) -> None:
    file = write(tmp_path / "list.txt", "/data/a.jpg\r\n\r\n  /data/my picture 2.jpg\nrelative.jpg")
    assert list(walk([file], root="/papers", found=Found())) == [
        Entry("/data/a.jpg", "/papers/data/a.jpg"),
        Entry("/data/my picture 2.jpg", "/papers/data/my picture 2.jpg"),
        Entry("relative.jpg", "/papers/relative.jpg"),
    ]
    assert next(entry.file for entry in walk([file], found=Found())) == "/data/a.jpg"


def test_labels_follow_the_last_space(tmp_path: Path) -> None:
    file = write(tmp_path / "list.lst", "a b.jpg 3\nc.jpg\t-1\n")
    assert list(walk([file], found=Found())) == [Entry("a b.jpg", "a b.jpg", 3), Entry("c.jpg", "c.jpg", -1)]


@pytest.mark.parametrize("text, line", [("a.jpg 1\nb.jpg\n", 2), ("a.jpg\n\nb.jpg 1\n", 3)])
def test_some_labels_are_an_error(tmp_path: Path, text: str, line: int) -> None:
    file = write(tmp_path / "list.txt", text)
    with pytest.raises(FormatError, match=rf"list\.txt:{line}: has .* label .*unlike the lines above"):
        list(walk([file], found=Found()))


def test_byte_order_mark_and_latin_1(tmp_path: Path) -> None:
    assert [e.shown for e in walk([write(tmp_path / "a.txt", b"\xef\xbb\xbfx.jpg\n")], found=Found())] == ["x.jpg"]
    touch(tmp_path, "é.jpg")
    file = write(tmp_path / "b.txt", "é.jpg 7\n".encode("latin-1"))
    entry = next(walk([file], root=tmp_path, found=Found()))
    assert (entry.shown, entry.label) == ("é.jpg", 7)
    assert Path(entry.file).exists()


def test_latin_1_list_of_latin_1_file_names(tmp_path: Path) -> None:
    name = "é.jpg".encode("latin-1")
    (Path(str(tmp_path)) / name.decode("utf-8", "surrogateescape")).touch()
    entry = next(walk([write(tmp_path / "b.txt", name + b"\n")], root=tmp_path, found=Found()))
    assert entry.shown == "é.jpg"
    assert Path(entry.file).exists()


@pytest.mark.parametrize(
    "data, message",
    [
        pytest.param(b"", "names no picture", id="empty"),
        pytest.param(b" \n\r\n", "names no picture", id="blank lines"),
        pytest.param("a.jpg\n".encode("utf-16"), "UTF-16; save it as UTF-8", id="utf-16"),
        pytest.param(b"a.jpg\nb\0c\n", r":2: has a NUL byte", id="binary"),
        pytest.param(b"a" * 100_000, r":1: longer than", id="endless line"),
    ],
)
def test_what_is_no_list(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        list(walk([write(tmp_path / "list.txt", data)], found=Found()))


def test_the_papers_own_list(reference: Path) -> None:
    file = reference / "published" / "cifar10_lists" / "cvprw15-test-file-list.txt"
    entries = list(walk([file], root="/somewhere", found=Found()))
    assert len(entries) == 10_000
    assert entries[0].file == "/somewhere/examples/cvprw15-cifar10/dataset/test/4590.jpg"
