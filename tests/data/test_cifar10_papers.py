"""The papers' pictures, order and lists, byte for byte; and a run that can be repeated."""

from __future__ import annotations

import errno
import hashlib
import io
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from caffe2torch import cli, download, download_cifar10
from caffe2torch.data import cifar10
from caffe2torch.data.cifar10 import (
    BATCHES,
    TEST_WALK,
    TRAIN_WALK,
    Batch,
    Cifar10,
    Layout,
    open_cifar10,
    papers_jpeg,
    papers_order,
    write_papers_dataset,
)
from caffe2torch.data.cifar10.papers import label_text, list_text
from caffe2torch.errors import DownloadError, OutputError
from caffe2torch.extract.listing import Found, walk
from caffe2torch.files import atomic_path
from cifar import labels, strips

DEMO = {  # the picture each demo image of the papers' repository is, found by comparing with all 60,000
    "air1": "test/9696.jpg",
    "air2": "batch2/4480.jpg",
    "bird1": "batch1/2350.jpg",
    "bird2": "batch1/4187.jpg",
    "bus1": "batch1/680.jpg",
    "bus2": "batch1/1735.jpg",
    "car1": "batch1/2456.jpg",
    "car2": "batch1/5335.jpg",
    "deer1": "batch2/5527.jpg",
    "deer2": "batch2/876.jpg",
    "horse1": "batch2/436.jpg",
    "horse2": "test/100.jpg",
}
THE_SAME_AFTER_ONE_PASS = {"air1", "air2", "bird2", "bus1", "deer1", "deer2"}


class Few(Cifar10):
    """A data set of ``count`` noise pictures in each batch."""

    def __init__(self, count: int = 3) -> None:
        self.count = count

    def batches(self, names: Collection[str] = BATCHES) -> Iterator[Batch]:
        for number, name in enumerate(BATCHES):
            rng = np.random.default_rng(number)
            images = rng.integers(0, 256, (self.count, 32, 32, 3), np.uint8)
            yield Batch(name, images, rng.integers(0, 10, self.count).astype(np.uint8))


def files(root: Path) -> dict[str, bytes]:
    return {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}


# --- pictures


@pytest.fixture(scope="module")
def originals(reference: Path) -> dict[str, np.ndarray]:
    """The CIFAR images of the demo pictures."""
    wanted = {name.split("/")[0] for name in DEMO.values()}
    found = {}
    for batch in open_cifar10(strips(reference)).batches(wanted):
        for demo, file in DEMO.items():
            name, number = file.removesuffix(".jpg").split("/")
            if name == batch.name:
                found[demo] = batch.images[int(number) - 1].copy()
    return found


@pytest.mark.parametrize("name", DEMO)
def test_the_demo_pictures_come_out_byte_for_byte(name: str, reference: Path, originals: dict[str, np.ndarray]) -> None:
    published = (reference / "published" / "demo_images" / f"{name}.jpg").read_bytes()
    assert papers_jpeg(originals[name]) == published
    assert (papers_jpeg(originals[name], passes=1) == published) == (name in THE_SAME_AFTER_ONE_PASS)


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8)


def smooth(seed: int) -> np.ndarray:
    return cv2.resize(noise(seed)[:4, :4], (32, 32), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize("image", [noise(1), smooth(2), smooth(3), np.zeros((32, 32, 3), np.uint8)])
def test_the_bytes_are_those_of_libjpeg_at_its_defaults(image: np.ndarray) -> None:
    """Pillow brings a libjpeg of its own; its quality 75 and 4:2:0 are libjpeg's defaults."""

    def code(pixels: Image.Image) -> bytes:
        file = io.BytesIO()
        pixels.save(file, "JPEG", quality=75, subsampling="4:2:0")
        return file.getvalue()

    once = code(Image.fromarray(image[:, ::-1]))
    assert papers_jpeg(image, passes=1) == once
    assert papers_jpeg(image, passes=2) == code(Image.open(io.BytesIO(once)))


def test_the_jpeg_holds_the_standard_segments_only() -> None:
    data, at, segments = papers_jpeg(noise(0)), 2, []
    while data[at + 1] != 0xDA:
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        segments.append((data[at + 1], data[at + 4 : at + 2 + length]))
        at += 2 + length
    assert [kind for kind, _ in segments] == [0xE0, 0xDB, 0xDB, 0xC0, 0xC4, 0xC4, 0xC4, 0xC4]
    assert segments[0][1] == b"JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
    first_row = [16, 11, 12, 14, 12, 10, 16, 14]  # of the luminance table in the standard's Annex K, in zigzag order
    assert list(segments[1][1][1:9]) == [(value * 50 + 50) // 100 for value in first_row]  # quality 75 halves it
    assert segments[3][1] == b"\x08\x00\x20\x00\x20\x03\x01\x22\x00\x02\x11\x01\x03\x11\x01"  # 4:2:0, 32x32
    assert data.endswith(b"\xff\xd9")


def test_a_picture_is_mirrored_left_to_right_and_keeps_its_colours() -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    image[:, :16] = 255, 0, 0  # red at the left
    image[:16, 16:] = 0, 0, 255  # blue at the upper right
    bgr = cv2.imdecode(np.frombuffer(papers_jpeg(image), np.uint8), cv2.IMREAD_COLOR).astype(int)
    assert np.allclose(bgr[4, 4], (255, 0, 0), atol=12)
    assert np.allclose(bgr[20, 28], (0, 0, 255), atol=12)


# --- order and lists


def test_the_order_is_that_of_the_published_lists(reference: Path) -> None:
    with np.load(reference / "cifar10" / "cvprw15_order.npz") as order:
        assert np.array_equal(papers_order(TRAIN_WALK), order["train_index"])
        assert np.array_equal(papers_order(TEST_WALK), order["test_index"])


def test_the_lists_come_out_byte_for_byte(reference: Path) -> None:
    published = reference / "published" / "cifar10_lists"
    assert list_text(TRAIN_WALK).encode() == (published / "cvprw15-train-file-list.txt").read_bytes()
    assert list_text(TEST_WALK).encode() == (published / "cvprw15-test-file-list.txt").read_bytes()


def test_the_labels_come_out_byte_for_byte(reference: Path) -> None:
    published = reference / "published" / "cifar10_lists"
    each = dict(zip(BATCHES, labels(reference).reshape(6, -1), strict=True))
    assert label_text(TRAIN_WALK, each).encode() == (published / "train-label.txt").read_bytes()
    assert label_text(TEST_WALK, each).encode() == (published / "test-label.txt").read_bytes()


def test_the_order_of_the_first_few_is_the_papers_order_without_the_others() -> None:
    whole = papers_order(TRAIN_WALK)
    kept = whole[whole % 10_000 < 7]
    assert papers_order(TRAIN_WALK, first=7).tolist() == [i // 10_000 * 7 + i % 10_000 for i in kept]


# --- on disk


def test_what_is_written(tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    written = write_papers_dataset(Few(), tmp_path, first=3, progress=lambda *counts: done.append(counts))
    found = files(Layout(tmp_path).dataset)
    assert (written.written, written.kept) == (18, 0)
    assert done[-1] == (18, 18)
    pictures = {f"{batch}/{number}.jpg" for batch in BATCHES for number in (1, 2, 3)}
    texts = {"cvprw15-train-file-list.txt", "cvprw15-test-file-list.txt", "train-label.txt", "test-label.txt"}
    assert set(found) == pictures | texts | {"train.txt", "val.txt"}
    assert written.bytes == sum(len(found[name]) for name in pictures)
    for batch in Few().batches():
        for index, image in enumerate(batch.images):
            assert found[f"{batch.name}/{index + 1}.jpg"] == papers_jpeg(image)


def test_lists_labels_and_labelled_lists_go_together(tmp_path: Path) -> None:
    layout = write_papers_dataset(Few(), tmp_path, first=3).layout
    known = {
        f"{batch.name}/{i + 1}.jpg": str(label) for batch in Few().batches() for i, label in enumerate(batch.labels)
    }
    for paths, numbers, both in (
        (layout.train_list, layout.train_labels, layout.labelled_train_list),
        (layout.test_list, layout.test_labels, layout.labelled_test_list),
    ):
        listed = [line.removeprefix("/examples/cvprw15-cifar10/dataset/") for line in paths.read_text().splitlines()]
        assert [known[name] for name in listed] == numbers.read_text().splitlines()
        assert [f"{name} {known[name]}" for name in listed] == both.read_text().splitlines()


def test_extract_finds_every_picture_of_the_lists(tmp_path: Path) -> None:
    layout = write_papers_dataset(Few(), tmp_path, first=3).layout
    plain = list(walk([layout.train_list, layout.test_list], root=tmp_path, found=Found()))
    labelled = list(walk([layout.labelled_train_list, layout.labelled_test_list], root=layout.dataset, found=Found()))
    assert len(plain) == len(labelled) == 18
    assert all(Path(entry.file).is_file() for entry in plain + labelled)
    assert all(entry.label is not None for entry in labelled)


def test_a_second_run_writes_what_is_missing_only(tmp_path: Path) -> None:
    layout = write_papers_dataset(Few(), tmp_path, first=3).layout
    before = files(tmp_path)
    layout.picture("batch3", 1).unlink()
    layout.test_labels.unlink()
    old = layout.picture("batch3", 0).stat().st_mtime_ns
    again = write_papers_dataset(Few(), tmp_path, first=3)
    assert (again.written, again.kept) == (1, 17)
    assert files(tmp_path) == before
    assert layout.picture("batch3", 0).stat().st_mtime_ns == old


@pytest.mark.parametrize("spoil", [lambda data: data[:-1], lambda data: data + b"x", lambda data: b""])
def test_another_file_in_the_way_stops_the_run_unless_forced(spoil: Any, tmp_path: Path) -> None:
    layout = write_papers_dataset(Few(), tmp_path, first=3).layout
    before = files(tmp_path)
    path = layout.picture("batch3", 1)
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(OutputError, match=r"batch3/2\.jpg: is there already with other contents.*--force"):
        write_papers_dataset(Few(), tmp_path, first=3)
    assert write_papers_dataset(Few(), tmp_path, first=3, force=True).written == 1
    assert files(tmp_path) == before


def test_lists_of_another_run_stop_it_before_anything_is_written(tmp_path: Path) -> None:
    write_papers_dataset(Few(), tmp_path, first=2)
    before = files(tmp_path)
    with pytest.raises(OutputError, match=r"train-file-list\.txt: is there already"):
        write_papers_dataset(Few(), tmp_path, first=3)
    assert files(tmp_path) == before


def test_a_full_disk_ends_the_run_and_the_next_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room, whole = [9], Path.write_bytes

    def write(path: Path, data: bytes) -> int:
        room[0] -= 1
        if room[0] < 0:
            whole(path, data[:100])
            raise OSError(errno.ENOSPC, "No space left on device")
        return whole(path, data)

    monkeypatch.setattr(Path, "write_bytes", write)
    with pytest.raises(OutputError, match=r"\.jpg: cannot be written: the disk is full"):
        write_papers_dataset(Few(), tmp_path, first=3, workers=1)
    monkeypatch.undo()
    assert len(files(tmp_path)) == 9
    assert not any(name.rsplit("/", 1)[-1].startswith(".") for name in files(tmp_path))
    assert write_papers_dataset(Few(), tmp_path, first=3).kept == 9


def test_an_interruption_leaves_whole_files_only(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_papers_dataset(Few(), tmp_path, first=3, progress=stop)
    whole = {papers_jpeg(image) for image in next(Few().batches()).images}
    assert set(files(tmp_path).values()) == whole


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_permission_says_so(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(OutputError, match="no permission"):
        write_papers_dataset(Few(), tmp_path / "locked", first=3)


def test_a_file_where_a_folder_must_be_says_so(tmp_path: Path) -> None:
    (tmp_path / "examples").write_text("")
    with pytest.raises(OutputError, match="not a folder"):
        write_papers_dataset(Few(), tmp_path, first=3)


def test_a_folder_where_a_picture_must_be_says_so(tmp_path: Path) -> None:
    Layout(tmp_path).picture("batch2", 0).mkdir(parents=True)
    with pytest.raises(OutputError, match=r"batch2/1\.jpg: cannot be written: it is a folder"):
        write_papers_dataset(Few(), tmp_path, first=3)


@pytest.mark.parametrize("settings", [{"first": 0}, {"first": 10_001}, {"passes": 0}])
def test_impossible_settings_are_refused(settings: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected 1"):
        write_papers_dataset(Few(), tmp_path, **settings)


# --- the command


def test_the_command_builds_and_says_what_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[Path] = []
    monkeypatch.setattr(cifar10, "open_cifar10", lambda source: opened.append(source) or Few())
    assert cli.main(["cifar10", str(tmp_path), "--source", "x.tar.gz", "--first", "3", "--passes", "1"]) == 0
    assert opened == [Path("x.tar.gz")]
    image = next(Few().batches()).images[0]
    assert Layout(tmp_path).picture("batch1", 0).read_bytes() == papers_jpeg(image, passes=1)
    out = capsys.readouterr().out
    assert "18 pictures written; " in out
    assert f"caffe2torch extract {Layout(tmp_path).test_list} --root {tmp_path}" in out


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        ([], 2, "give --download to fetch the official archive, or --source"),
        (["--source", "/absent"], 1, "/absent: cannot be read"),
        (["--source", os.devnull], 1, "a device or a pipe"),
        (["--download", "--source", __file__], 2, "--source names, and"),
    ],
)
def test_wrong_use_is_one_line(
    options: list[str], status: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["cifar10", str(tmp_path / "out"), *options]) == status
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", ["0", "10001", "-1", "x", "1" * 5000, "²"])
def test_a_count_that_is_none_is_refused(value: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        cli.main(["cifar10", str(tmp_path), f"--first={value}"])


# --- the download


def serve(monkeypatch: pytest.MonkeyPatch, data: bytes) -> list[str]:
    """Let every transfer give ``data``; returns the URLs asked for."""
    asked: list[str] = []

    def fetch(url: str, part: Any, expected: Any, **_: Any) -> Any:
        asked.append(url)
        with atomic_path(part.path) as temporary:
            temporary.write_bytes(data)
        return download.digest_file(part.path)

    monkeypatch.setattr(download, "fetch", fetch)
    monkeypatch.setattr(
        download_cifar10, "ARCHIVE", download_cifar10.FileEntry("a.tar.gz", "-", bytes=4, sources=(source(),))
    )
    return asked


def source() -> Any:
    return download_cifar10.ARCHIVE.sources[0]


def test_the_archive_is_fetched_once_and_proved_by_its_md5(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = serve(monkeypatch, b"data")
    monkeypatch.setattr(download_cifar10, "MD5", hashlib.md5(b"data").hexdigest())
    assert download_cifar10.fetch_archive(tmp_path).fetched
    assert not download_cifar10.fetch_archive(tmp_path).fetched
    assert asked == ["https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"]


def test_an_archive_with_another_md5_does_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, b"data")
    with pytest.raises(DownloadError, match="md5 is 8d777f385d3dfec8815d20f7496026dc, expected c58f3010"):
        download_cifar10.fetch_archive(tmp_path)
    assert not any(tmp_path.iterdir())


def test_the_official_size_and_sum() -> None:
    assert download_cifar10.ARCHIVE.bytes == 170_498_071
    assert download_cifar10.MD5 == "c58f30108f718f92721af3b95e74349a"
