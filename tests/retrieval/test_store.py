"""Saved indexes: growth without rewriting, writers that die, damage, and files of another version."""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from caffe2torch.errors import FormatError, OutputError
from caffe2torch.retrieval import store
from caffe2torch.retrieval.index import Index
from retrieval.naive import draw_codes

CODES = draw_codes(40, 48, distinct=25)
PATHS = [f"Ordner/Bild {number} ü \udcff.jpg" for number in range(40)]


def make(path: Path, **options: Any) -> Index:
    index = Index.from_codes(
        CODES, 48, paths=PATHS, labels=np.arange(40) % 10, provenance={"net": "größe", "n": 1}, **options
    )
    index.save(path)
    return index


def everything(index: Index) -> Any:
    found = index.codes()
    labels = None if found.labels is None else found.labels.tolist()
    return found.packed.tolist(), found.paths, labels, index.ids.tolist(), dict(found.provenance), index.bits


def column_sizes(path: Path) -> dict[str, int]:
    return {file.name: file.stat().st_size for file in path.glob("*.bin")}


def rewrite_head(path: Path, change: Callable[[dict[str, Any]], None], *, sign: bool = True) -> None:
    whole = json.loads((path / "index.json").read_text())
    change(whole)
    if sign and "content" in whole:
        text = json.dumps(whole["content"], sort_keys=True, separators=(",", ":"))
        whole["crc32"] = zlib.crc32(text.encode())
    (path / "index.json").write_text(json.dumps(whole))


def test_what_is_opened_is_what_was_saved(tmp_path: Path) -> None:
    index = make(tmp_path / "a.index")
    opened = Index.open(tmp_path / "a.index")
    assert everything(opened) == everything(index)
    assert everything(opened)[1] == tuple(PATHS)


@pytest.mark.parametrize("bits", [1, 12, 20, 64, 100])
@pytest.mark.parametrize("count", [0, 1, 30])
def test_codes_of_every_width_come_back(bits: int, count: int, tmp_path: Path) -> None:
    codes = draw_codes(count, bits, distinct=9)
    Index.from_codes(codes, bits).save(tmp_path / "a")
    opened = Index.open(tmp_path / "a")
    assert opened.codes().packed.tolist() == codes.tolist()
    assert len(opened) == count


def test_several_labels_per_code_come_back(tmp_path: Path) -> None:
    labels = np.random.RandomState(0).rand(40, 5) > 0.5
    index = Index.from_codes(CODES, 48, labels=labels)
    index.save(tmp_path / "a")
    index.add(CODES[:2], labels=~labels[:2])
    index.save(tmp_path / "a")
    found = Index.open(tmp_path / "a").codes().labels
    assert found is not None
    assert found.tolist() == np.concatenate([labels, ~labels[:2]]).tolist()


def test_the_codes_are_mapped_not_read(tmp_path: Path) -> None:
    make(tmp_path / "a")
    codes = Index.open(tmp_path / "a").packed
    assert not codes.flags.writeable
    base: Any = codes
    while isinstance(base, np.ndarray) and base.base is not None:
        base = base.base
    assert type(base).__name__ == "mmap"


def test_saving_again_appends_and_rewrites_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a"
    index = make(path)
    before = {file.name: (file.stat().st_ino, file.read_bytes()) for file in path.glob("*.bin")}
    index.remove([3, 30])
    index.add(CODES[:5], paths=PATHS[:5], labels=np.arange(5))
    index.save(path)
    for name, (inode, content) in before.items():
        assert (path / name).stat().st_ino == inode
        assert (path / name).read_bytes().startswith(content)
    sizes = column_sizes(path)
    assert (sizes["codes.1.bin"], sizes["ids.1.bin"], sizes["removed.1.bin"]) == (45 * 8, 45 * 8, 2 * 8)
    assert everything(Index.open(path)) == everything(index)


def test_saving_what_has_not_changed_writes_nothing(tmp_path: Path) -> None:
    index = make(tmp_path / "a")
    before = (tmp_path / "a" / "index.json").read_bytes()
    index.save(tmp_path / "a")
    assert (tmp_path / "a" / "index.json").read_bytes() == before


def test_an_opened_index_grows_too(tmp_path: Path) -> None:
    make(tmp_path / "a")
    for number in range(3):
        index = Index.open(tmp_path / "a")
        index.add(CODES[:1], paths=[f"{number}.jpg"], labels=[number])
        index.remove([number])
        index.save(tmp_path / "a")
    assert Index.open(tmp_path / "a").ids.tolist() == list(range(3, 43))


def test_who_has_it_open_goes_on_seeing_what_was_there(tmp_path: Path) -> None:
    index = make(tmp_path / "a")
    reader = Index.open(tmp_path / "a")
    before = everything(reader)
    index.remove([0])
    index.add(CODES[:9], paths=PATHS[:9], labels=np.arange(9))
    index.save(tmp_path / "a")
    index.save(tmp_path / "a", force=True)
    assert everything(reader) == before


def test_force_writes_anew_without_the_removed(tmp_path: Path) -> None:
    index = make(tmp_path / "a")
    index.remove(np.arange(10, 40))
    index.save(tmp_path / "a", force=True)
    assert column_sizes(tmp_path / "a")["codes.2.bin"] == 10 * 8
    assert not (tmp_path / "a" / "codes.1.bin").exists()
    assert everything(Index.open(tmp_path / "a")) == everything(index)
    assert Index.open(tmp_path / "a").add(CODES[:1], paths=["x"], labels=[0]).tolist() == [40]


@pytest.mark.parametrize("dies_at", ["codes", "ids", "labels", "path_ends", "index.json"])
def test_a_writer_that_dies_leaves_the_state_before(
    dies_at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    make(path)
    before = everything(Index.open(path))
    index = Index.open(path)
    index.add(CODES[:7], paths=PATHS[:7], labels=np.arange(7))
    index.remove([1])

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if dies_at == "index.json":
            patch.setattr(store, "write_head", die)
        else:
            real = Path.open

            def open_or_die(self: Path, *mode: Any, **options: Any) -> Any:
                return die() if self.name.startswith(f"{dies_at}.") else real(self, *mode, **options)

            patch.setattr(Path, "open", open_or_die)
        with pytest.raises(KeyboardInterrupt):
            index.save(path)
    assert everything(Index.open(path)) == before
    index.save(path)  # the same append, done again over what was left
    assert everything(Index.open(path)) == everything(index)
    assert column_sizes(path)["codes.1.bin"] == 47 * 8


def test_a_first_save_that_died_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store, "write_head", die)
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path / "a")
    with pytest.raises(FormatError, match="no index"):
        Index.open(tmp_path / "a")
    index = make(tmp_path / "a")
    assert everything(Index.open(tmp_path / "a")) == everything(index)


def test_two_who_append_do_not_mix(tmp_path: Path) -> None:
    make(tmp_path / "a")
    first, second = Index.open(tmp_path / "a"), Index.open(tmp_path / "a")
    for index in (first, second):
        index.remove([0])
    first.save(tmp_path / "a")
    with pytest.raises(OutputError, match="changed by another process"):
        second.save(tmp_path / "a")


def test_a_second_writer_is_refused_while_one_writes(tmp_path: Path) -> None:
    index = make(tmp_path / "a")
    index.remove([0])
    with store.locked(tmp_path / "a"), pytest.raises(OutputError, match="right now"):
        index.save(tmp_path / "a")
    index.save(tmp_path / "a")


def test_another_index_is_replaced_by_force_only(tmp_path: Path) -> None:
    make(tmp_path / "a")
    other = Index.from_codes(CODES[:3], 48)
    with pytest.raises(OutputError, match="lies there already"):
        other.save(tmp_path / "a")
    other.save(tmp_path / "a", force=True)
    assert everything(Index.open(tmp_path / "a")) == everything(other)
    assert set(column_sizes(tmp_path / "a")) == {"codes.2.bin", "ids.2.bin", "removed.2.bin"}


def test_a_damaged_index_can_be_replaced_by_force(tmp_path: Path) -> None:
    index = make(tmp_path / "a")
    (tmp_path / "a" / "index.json").write_text("{")
    Index.from_codes(CODES[:3], 48).save(tmp_path / "a", force=True)
    assert len(Index.open(tmp_path / "a")) == 3
    assert len(index) == 40


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"x")
    for force in (False, True):
        with pytest.raises(OutputError, match=r"other things in it \(photo.jpg"):
            Index.from_codes(CODES, 48).save(tmp_path, force=force)
    with pytest.raises(OutputError, match="is a file"):
        Index.from_codes(CODES, 48).save(tmp_path / "photo.jpg", force=True)
    assert [file.name for file in tmp_path.iterdir()] == ["photo.jpg"]


def test_a_full_disk_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.os, "fsync", full)
    with pytest.raises(OutputError, match="the disk is full"):
        make(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def full_after(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on a disk that has room for so many columns more."""
    synced: list[int] = []
    real = store.os.fsync

    def sync(file: int) -> None:
        synced.append(file)
        if len(synced) > columns:
            raise OSError(28, "No space left on device")
        real(file)

    monkeypatch.setattr(store.os, "fsync", sync)


@pytest.mark.parametrize("columns", [0, 1, 5])
def test_a_full_disk_gets_back_what_an_append_wrote(
    columns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = make(tmp_path / "a")
    before = {file.name: file.read_bytes() for file in (tmp_path / "a").iterdir()}
    index.add(CODES, paths=PATHS, labels=np.arange(40))
    with monkeypatch.context() as patch:
        full_after(columns, patch)
        with pytest.raises(OutputError, match="the disk is full"):
            index.save(tmp_path / "a")
    assert {file.name: file.read_bytes() for file in (tmp_path / "a").iterdir()} == before
    index.save(tmp_path / "a")
    assert len(Index.open(tmp_path / "a")) == 80


def test_a_full_disk_leaves_the_index_that_was_to_be_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "a")
    before = {file.name: file.read_bytes() for file in (tmp_path / "a").iterdir()}
    full_after(2, monkeypatch)
    with pytest.raises(OutputError, match="the disk is full"):
        Index.from_codes(CODES[:3], 48).save(tmp_path / "a", force=True)
    assert {file.name: file.read_bytes() for file in (tmp_path / "a").iterdir()} == before


def test_an_interruption_after_the_new_head_takes_nothing_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = make(tmp_path / "a")
    index.add(CODES[:5], paths=PATHS[:5], labels=np.arange(5))
    real = store.write_head

    def write_and_die(*arguments: Any) -> None:
        real(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "write_head", write_and_die)
    with pytest.raises(KeyboardInterrupt):
        index.save(tmp_path / "a")
    assert len(Index.open(tmp_path / "a")) == 45


@pytest.mark.parametrize("column", ["codes", "ids", "labels", "paths", "path_ends", "removed"])
def test_a_column_that_was_cut_off_is_refused(column: str, tmp_path: Path) -> None:
    index = make(tmp_path / "a")
    index.remove([0])
    index.save(tmp_path / "a")
    file = tmp_path / "a" / f"{column}.1.bin"
    content = file.read_bytes()
    for kept in (len(content) - 1, 0):
        file.write_bytes(content[:kept])
        for verify in (True, False):
            with pytest.raises(FormatError, match=rf"{column}\.1\.bin: cut off: {kept} bytes"):
                Index.open(tmp_path / "a", verify=verify)
    file.unlink()
    with pytest.raises(FormatError, match=rf"{column}\.1\.bin"):
        Index.open(tmp_path / "a")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "a"
    index = make(path)
    index.remove([0, 7])
    index.save(path)
    return path


@given(data=st.data())
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_flipped_bit_is_noticed(data: st.DataObject, saved: Path) -> None:
    names = sorted(file.name for file in saved.iterdir() if file.stat().st_size)
    file = saved / data.draw(st.sampled_from(names))
    content = file.read_bytes()
    place = data.draw(st.integers(0, 8 * len(content) - 1))
    damaged = bytearray(content)
    damaged[place // 8] ^= 1 << place % 8
    before = everything(Index.open(saved))
    try:
        file.write_bytes(bytes(damaged))
        try:
            assert everything(Index.open(saved)) == before  # a space of the JSON text may be another space
        except FormatError as error:
            assert str(saved) in str(error)  # noqa: PT017
    finally:
        file.write_bytes(content)


def test_a_newer_version_is_refused_by_its_number(tmp_path: Path) -> None:
    make(tmp_path / "a")
    rewrite_head(tmp_path / "a", lambda whole: (whole.update(version=2), whole.pop("content")))  # type: ignore[func-returns-value]
    with pytest.raises(FormatError, match="version 2 of the caffe2torch index, this program reads up to 1; update"):
        Index.open(tmp_path / "a")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("rows", 1 << 39, "bytes of"),
        ("rows", -1, "rows is -1"),
        ("rows", "40", "rows is '40'"),
        ("rows", True, "rows is True"),
        ("bits", 0, "bits is 0"),
        ("bits", 1 << 20, "bits is"),
        ("bits", 128, "contradict"),
        ("stride", 6, "contradict"),
        ("next_id", 5, "ids reach from 0 to 39"),
        ("label_width", 3, "bytes of labels"),
        ("generation", "../../b", "generation is"),
        ("generation", 9, r"codes\.9\.bin"),
        ("provenance", [], "contradict"),
        ("columns", {}, "columns are missing"),
        ("columns", [], "damaged"),
        ("extra", 1, "damaged"),
    ],
)
def test_a_head_that_contradicts_the_files_is_refused(key: str, value: Any, message: str, tmp_path: Path) -> None:
    make(tmp_path / "a")
    rewrite_head(tmp_path / "a", lambda whole: whole["content"].update({key: value}))
    with pytest.raises(FormatError, match=message):
        Index.open(tmp_path / "a")


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("removed", np.array([40], "<i8"), "removed rows"),
        ("removed", np.array([-1], "<i8"), "removed rows"),
        ("removed", np.array([3, 3], "<i8"), "removed rows"),
        ("removed", np.zeros(41, "<i8"), "removed rows"),
        ("ids", np.zeros(40, "<i8"), "the same id"),
        ("ids", np.arange(40, dtype="<i8") - 1, "ids reach from -1"),
        ("path_ends", np.zeros(40, "<i8"), "ends of its paths"),
        ("path_ends", np.full(40, 1 << 60, "<i8"), "ends of its paths"),
        ("codes", np.full((40, 8), 255, np.uint8), "bits beyond the first 48"),
    ],
)
def test_columns_with_right_sums_and_wrong_values_are_refused(
    column: str, values: np.ndarray, message: str, tmp_path: Path
) -> None:
    make(tmp_path / "a")
    content = values.tobytes()
    (tmp_path / "a" / f"{column}.1.bin").write_bytes(content)
    entry = {"size": len(content), "crc32": zlib.crc32(content)}
    rewrite_head(tmp_path / "a", lambda whole: whole["content"]["columns"].update({column: entry}))
    with pytest.raises(FormatError, match=message):
        Index.open(tmp_path / "a")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("[1]", "not the head"),
        ('{"format": "x"}', "not the head"),
        ('{"format": "caffe2torch index"}', "version is None"),
        ('{"format": "caffe2torch index", "version": 0}', "version is 0"),
        ('{"format": "caffe2torch index", "version": 1}', "checksum"),
        ('{"format": "caffe2torch index", "version": 1e99}', "version is"),
        ("[" * 100_000, "not JSON"),
        ("\udcff", "not JSON"),
    ],
    ids=range(9),
)
def test_a_head_that_is_none_is_refused(text: str, message: str, tmp_path: Path) -> None:
    make(tmp_path / "a")
    (tmp_path / "a" / "index.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(FormatError, match=message):
        Index.open(tmp_path / "a")


def test_a_huge_head_is_not_read(tmp_path: Path) -> None:
    make(tmp_path / "a")
    with (tmp_path / "a" / "index.json").open("r+b") as file:
        file.truncate(1 << 30)
    with pytest.raises(FormatError, match="has at most"):
        Index.open(tmp_path / "a")


def test_what_is_no_folder_is_no_index(tmp_path: Path) -> None:
    (tmp_path / "codes.h5").write_bytes(b"x")
    for path in (tmp_path / "codes.h5", tmp_path / "nothing"):
        with pytest.raises(FormatError, match="an index is a folder"):
            Index.open(path)
    with pytest.raises(FormatError, match="no index"):
        Index.open(tmp_path)


def test_an_index_can_be_moved(tmp_path: Path) -> None:
    index = make(tmp_path / "a")
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert everything(Index.open(tmp_path / "b")) == everything(index)
