"""What may be a query, and what is refused."""

from __future__ import annotations

import csv
import json
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from browse.conftest import Database, naive_ranking
from caffe2torch.browse.answers import Query
from caffe2torch.browse.gallery import Gallery, Wanted, read_label_names
from caffe2torch.browse.page import page
from caffe2torch.browse.queries import read_queries
from caffe2torch.browse.same_model import Given, is_recorded, recorded_model
from caffe2torch.errors import Caffe2TorchError, FormatError, ImageError, RetrievalError, UsageError
from caffe2torch.extract import Hasher, Model, extract
from caffe2torch.retrieval.codes import Codes
from caffe2torch.retrieval.index import Index
from caffe2torch.retrieval.readers import read_codes
from pictures import draw


def unused() -> Hasher:
    raise AssertionError("nothing had to be hashed")


@pytest.fixture(scope="session")
def hasher(database: Database) -> Hasher:
    return Hasher(recorded_model(database.path, database.codes.provenance, Given()))


def edited(database: Database, target: Path, **changes: Any) -> Path:
    """The codes file with other provenance."""
    target.write_bytes(database.path.read_bytes())
    with h5py.File(target, "r+") as file:
        known = json.loads(file.attrs["provenance"])
        file.attrs["provenance"] = json.dumps({**known, **changes})
    return target


def test_a_new_picture_gets_the_code_that_extract_gives(database: Database, hasher: Hasher, tmp_path: Path) -> None:
    picture = draw(tmp_path / "new.png", 99)
    extract(picture, tmp_path / "new.npz")
    gallery = Gallery.open(database.path)
    (query,) = read_queries([picture], gallery, lambda: hasher)
    np.testing.assert_array_equal(query.packed, read_codes(tmp_path / "new.npz").packed[0])
    assert (query.origin, query.id, query.labels) == ("hashed", None, None)


def test_a_picture_of_the_database_is_not_hashed_again(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = Gallery.open(database.path)
    monkeypatch.chdir(database.folder / "pictures")
    by_path, by_file = read_queries([database.codes.paths[4], "4.png"], gallery, unused)
    for query in (by_path, by_file):
        np.testing.assert_array_equal(query.packed, database.codes.packed[4])
        assert (query.origin, query.id, query.labels) == ("database", 4, (1,))


def test_folders_and_lists_with_labels(database: Database, hasher: Hasher, tmp_path: Path) -> None:
    first, second = draw(tmp_path / "q" / "a.png", 70), draw(tmp_path / "q" / "b.png", 71)
    (tmp_path / "list.txt").write_text(f"{tmp_path}/q/b.png 2\n{database.codes.paths[0]} 9\n")
    gallery = Gallery.open(database.path)
    queries = read_queries([tmp_path / "q"], gallery, lambda: hasher)
    assert [query.name for query in queries] == [str(first), str(second)]
    listed = read_queries([tmp_path / "list.txt"], gallery, lambda: hasher)
    np.testing.assert_array_equal(listed[0].packed, queries[1].packed)
    assert [(query.labels, query.origin) for query in listed] == [((2,), "hashed"), ((9,), "database")]
    (tmp_path / "list.txt").write_text("/b.png 2\n")
    (rooted,) = read_queries([tmp_path / "list.txt"], gallery, lambda: hasher, root=tmp_path / "q")
    np.testing.assert_array_equal(rooted.packed, queries[1].packed)


def test_a_second_codes_file(database: Database, tmp_path: Path) -> None:
    gallery = Gallery.open(database.path)
    queries = read_queries([edited(database, tmp_path / "b.h5", date="later")], gallery, unused)
    assert [query.name for query in queries] == list(database.codes.paths)
    assert {query.origin for query in queries} == {"codes file"}
    assert [query.labels for query in queries][:4] == [(0,), (1,), (2,), (0,)]
    (first, *_) = gallery.answer(queries, Wanted(12))
    ranking = naive_ranking(database.codes, database.codes.packed[0])
    assert [(hit.id, hit.distance) for hit in first.hits] == ranking


def test_pictures_of_a_second_codes_file_are_known_in_the_database(database: Database, tmp_path: Path) -> None:
    gallery = Gallery.open(database.path)
    queries = read_queries([database.path], gallery, unused)
    assert [query.id for query in queries] == list(range(12))
    answers = gallery.answer(queries, Wanted(11, skip_self=True))
    assert all(number not in [hit.id for hit in answer.hits] for number, answer in enumerate(answers))
    copies = [draw(tmp_path / f"{number}.png", number) for number in range(2)]
    extract(copies, tmp_path / "copies.npz")  # other files, of the same name
    assert [query.id for query in read_queries([tmp_path / "copies.npz"], gallery, unused)] == [None, None]


def test_a_second_codes_file_without_codes(database: Database, tmp_path: Path) -> None:
    none = np.zeros((0, 6), np.uint8)
    np.savez(tmp_path / "none.npz", codes=none, bits=48, paths=np.zeros(0, np.str_), provenance="{}")
    with pytest.raises(RetrievalError, match="no codes to search with"):
        read_queries([tmp_path / "none.npz"], Gallery.open(database.path), unused)


@pytest.mark.parametrize("key", ["weights_sha256", "net_sha256", "preprocessing", "exif", "blob"])
def test_codes_of_another_model_are_refused(database: Database, tmp_path: Path, key: str) -> None:
    gallery = Gallery.open(database.path)
    other = edited(database, tmp_path / "b.h5", **{key: "other"})
    with pytest.raises(RetrievalError, match="model") as caught:
        read_queries([other], gallery, unused)
    assert key in str(caught.value)
    assert len(read_queries([other], gallery, unused, any_model=True)) == 12


def test_codes_of_another_length_are_refused(database: Database, tmp_path: Path) -> None:
    with (tmp_path / "short.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "code"], ["x", "01" * 16]])
    with pytest.raises(RetrievalError, match=r"32 bits.*48"):
        read_queries([tmp_path / "short.csv"], Gallery.open(database.path), unused)


@pytest.mark.parametrize(
    "content, message",
    [(b"no picture", "not a picture"), (b"", "empty"), (b"\x89PNG\r\n\x1a\n123", "cut short|damaged")],
)
def test_a_query_that_cannot_be_read(
    database: Database, hasher: Hasher, tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(ImageError, match=message) as caught:
        read_queries([tmp_path / "bad.png"], Gallery.open(database.path), lambda: hasher)
    assert "bad.png" in str(caught.value)


def test_a_query_that_is_nowhere(database: Database) -> None:
    with pytest.raises(ImageError, match="no such file"):
        read_queries(["nowhere.png"], Gallery.open(database.path), unused)


def test_a_model_of_other_width_is_refused(database: Database, hasher: Hasher, tmp_path: Path) -> None:
    gallery = Gallery(Path("x.npz"), Index.of(Codes(np.zeros((3, 4), np.uint8), 32, ("a", "b", "c"))))
    with pytest.raises(RetrievalError, match=r"32 bits.*makes 48"):
        read_queries([draw(tmp_path / "q.png", 1)], gallery, lambda: hasher)


def test_weights_that_were_changed_are_refused(database: Database, tmp_path: Path) -> None:
    model = Model.from_zoo("ssdh48_small")
    changed = tmp_path / "changed.caffemodel"
    changed.write_bytes(model.weights.read_bytes() + b"\0")
    with pytest.raises(RetrievalError, match=r"is another file.*give the right file with --weights"):
        recorded_model(database.path, database.codes.provenance, Given(weights=changed))
    copied = tmp_path / "copied.caffemodel"
    copied.write_bytes(model.weights.read_bytes())
    assert recorded_model(database.path, database.codes.provenance, Given(weights=copied)).weights == copied


def test_files_that_moved_are_found_in_the_zoo_or_asked_for(database: Database, tmp_path: Path) -> None:
    moved = {**database.codes.provenance, "net": "/gone/a.prototxt", "weights": "/gone/b.caffemodel"}
    assert recorded_model(database.path, moved, Given()).weights == Model.from_zoo("ssdh48_small").weights
    with pytest.raises(RetrievalError, match=r"b.caffemodel is not here.*--weights or --model"):
        recorded_model(database.path, {**moved, "weights_sha256": "0" * 64}, Given())
    with pytest.raises(RetrievalError, match=r"a.prototxt is not here.*--net or --model"):
        recorded_model(database.path, {**moved, "net_sha256": "0" * 64}, Given())
    with pytest.raises(RetrievalError, match=r"mean image.*--mean"):
        recorded_model(database.path, {**moved, "mean_sha256": "0" * 64, "mean": "/gone/mean.npy"}, Given())


def test_a_record_of_a_newer_version_is_refused(database: Database) -> None:
    newer = {**database.codes.provenance, "preprocessing": {"dialect": "matcaffe", "something_new": 1}}
    with pytest.raises(RetrievalError, match="something_new"):
        recorded_model(database.path, newer, Given())


def test_a_codes_file_does_not_choose_code_to_run(database: Database, tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')")
    record = {**database.codes.provenance, "imports": [str(tmp_path / "evil.py")], "custom_sha256": ["0"], "protos": []}
    with pytest.raises(RetrievalError, match=r"give --import .*evil.py to run that code"):
        recorded_model(database.path, record, Given())
    with pytest.raises(RetrievalError, match="not the same"):
        recorded_model(database.path, record, Given(imports=(str(tmp_path / "evil.py"),)))


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_any_record_is_used_or_refused(database: Database, data: st.DataObject) -> None:
    record = dict(database.codes.provenance)
    odd = st.sampled_from([None, 5, 1.5, True, "", "x", "\0", "a" * 5000, [], [1], ["x"], {}, {"a": 1}, "/dev/zero"])
    keys = st.sampled_from(sorted({*record, "imports", "protos", "custom_sha256"}))
    record.update(data.draw(st.dictionaries(keys, odd, min_size=1, max_size=3)))
    gallery = Gallery(Path("x.h5"), Index.of(replace(database.codes, provenance=record)))
    page(gallery.answer([gallery.query(0)], Wanted(1)), gallery).encode("utf-8")
    if is_recorded(record):
        with suppress(Caffe2TorchError):
            recorded_model(database.path, record, Given())


def test_an_empty_database(tmp_path: Path) -> None:
    with pytest.raises(RetrievalError, match="holds no codes"):
        Gallery(Path("x.h5"), Index.of(Codes(np.zeros((0, 6), np.uint8), 48, ())))


def test_more_results_than_pictures(database: Database) -> None:
    gallery = Gallery.open(database.path)
    with pytest.raises(RetrievalError, match="13 results are asked for, but there are 12 pictures; give -k 12"):
        gallery.answer([gallery.query(0)], Wanted(13))
    with pytest.raises(RetrievalError, match="11 pictures besides the query"):
        gallery.answer([gallery.query(0)], Wanted(12, skip_self=True))


def test_skip_self_leaves_out_one_row_and_nothing_else(database: Database) -> None:
    gallery = Gallery.open(database.path)
    stranger = Query("q", database.codes.packed[2], "hashed")
    own, other = gallery.answer([gallery.query(2), stranger], Wanted(11, skip_self=True))
    ranking = [row for row, _ in naive_ranking(database.codes, database.codes.packed[2])]
    assert [hit.id for hit in own.hits] == [row for row in ranking if row != 2]
    assert [hit.id for hit in other.hits] == ranking[:11]


def test_within_a_radius(database: Database) -> None:
    gallery = Gallery.open(database.path)
    ranking = naive_ranking(database.codes, database.codes.packed[2])
    radius = ranking[5][1]
    inside = [row for row, distance in ranking if distance <= radius]
    (answer,) = gallery.answer([gallery.query(2)], Wanted(radius=radius))
    assert [hit.id for hit in answer.hits] == inside
    (answer,) = gallery.answer([gallery.query(2)], Wanted(3, radius=radius))
    assert [hit.id for hit in answer.hits] == inside[:3]


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_ranked_again_by_features(database: Database, metric: str) -> None:
    gallery = Gallery.open(database.path)
    features = database.codes.features
    assert features is not None
    values = features.astype(np.float64)
    if metric == "cosine":
        values /= np.linalg.norm(values, axis=1, keepdims=True)
        far = 1 - values @ values[6]
    else:
        far = np.linalg.norm(values - values[6], axis=1)
    near = [row for row, _ in naive_ranking(database.codes, database.codes.packed[6])[:5]]
    (answer,) = gallery.answer([gallery.query(6)], Wanted(4, metric=metric, candidates=5))
    assert [hit.id for hit in answer.hits] == sorted(near, key=lambda row: far[row])[:4]
    for hit in answer.hits:
        assert hit.feature_distance == pytest.approx(far[hit.id], abs=1e-5)


def test_features_that_are_not_there(database: Database, tmp_path: Path) -> None:
    gallery = Gallery(Path("x.h5"), Index.of(database.codes))
    with pytest.raises(RetrievalError, match="--features"):
        gallery.answer([gallery.query(0)], Wanted(2, metric="euclidean"))
    np.save(tmp_path / "short.npy", np.ones((5, 3), np.float32))
    with pytest.raises(RetrievalError, match="5 rows of features for 12 codes"):
        Gallery.open(database.path, features=tmp_path / "short.npy")


@pytest.mark.parametrize("suffix", [".h5", ".npz"])
@pytest.mark.parametrize("saved", [False, True], ids=["codes file", "index"])
def test_features_of_other_pictures_are_refused(database: Database, tmp_path: Path, suffix: str, saved: bool) -> None:
    """As many rows, of the same pictures and by the same model, but the first and the last changed places."""
    lines = (database.folder / "list.txt").read_text("utf-8").splitlines()
    model = replace(Model.from_zoo("ssdh48_small"), features="pool5")
    same, other = tmp_path / f"same{suffix}", tmp_path / f"other{suffix}"
    for out, some in ((same, lines), (other, [lines[-1], *lines[1:-1], lines[0]])):
        (tmp_path / "list.txt").write_text("\n".join(some), "utf-8")
        extract(tmp_path / "list.txt", out, model=model)
    path = database.path
    if saved:
        path = tmp_path / "db.index"
        index = Index.of(database.codes)
        index.remove([3])
        index.save(path)
    assert Gallery.open(path, features=same).features is not None
    with pytest.raises(
        RetrievalError, match=r"its row 0 is of .*11\.png.*picture 0 of .*0\.png; row i of the features"
    ):
        Gallery.open(path, features=other)


def test_features_of_another_model_are_refused(database: Database, tmp_path: Path) -> None:
    other = edited(database, tmp_path / "b.h5", weights_sha256="other")
    with pytest.raises(RetrievalError, match="not made by one and the same model"):
        Gallery.open(database.path, features=other)


def test_features_may_come_from_another_device_and_folder(database: Database, tmp_path: Path) -> None:
    """A bit of a code is the other way round, and the pictures lay elsewhere."""
    shutil.copy(database.path, tmp_path / "b.h5")
    with h5py.File(tmp_path / "b.h5", "r+") as file:
        file["codes"][2, 0] ^= 1
        file["paths"][2] = "/elsewhere/pictures/2.png"
    assert Gallery.open(database.path, features=tmp_path / "b.h5").features is not None


def test_names_from_a_list(database: Database, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("\n".join(f"n/{row}.png {row + 5}" for row in range(12)))
    gallery = Gallery.open(database.path, names=tmp_path / "names.txt")
    assert (gallery.query(3).name, gallery.query(3).labels) == ("n/3.png", (8,))
    (tmp_path / "names.txt").write_text("a 1\nb 2\n")
    with pytest.raises(RetrievalError, match=r"2 pictures, but .* has 12 codes"):
        Gallery.open(database.path, names=tmp_path / "names.txt")


def test_label_names(tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_text("cat\nbig dog\n\n", "utf-8")
    assert read_label_names(file) == ("cat", "big dog")
    file.write_text("cat\n\ndog\n", "utf-8")
    with pytest.raises(FormatError, match="empty line"):
        read_label_names(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(FormatError, match="cannot be read"):
        read_label_names(file)


def test_a_saved_index_in_place_of_the_codes_file(database: Database, tmp_path: Path) -> None:
    index = Index.of(database.codes)
    index.remove([3])
    index.save(tmp_path / "db.index")
    gallery = Gallery.open(tmp_path / "db.index")
    assert len(gallery) == 11
    (query,) = read_queries([database.codes.paths[4]], gallery, unused)
    (answer,) = gallery.answer([query], Wanted(11))
    ranking = naive_ranking(database.codes, database.codes.packed[4])
    assert [hit.id for hit in answer.hits] == [row for row, _ in ranking if row != 3]
    assert query.labels == (1,)
    with pytest.raises(UsageError, match="has its own names"):
        Gallery.open(tmp_path / "db.index", names="list.txt")


def test_pictures_are_found_where_they_are_now(database: Database, tmp_path: Path) -> None:
    draw(tmp_path / "old" / "photos" / "a.png", 1)
    extract([tmp_path / "old" / "photos"], tmp_path / "old" / "codes.npz")
    (tmp_path / "old").rename(tmp_path / "new")
    codes = tmp_path / "new" / "codes.npz"
    assert Gallery.open(codes).thumbnails([0]) == [None]
    assert Gallery.open(codes, root=tmp_path / "new" / "photos").thumbnails([0]) != [None]


def test_relative_names_start_where_extract_ran_or_beside_the_codes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(tmp_path / "old" / "photos" / "a.png", 1)
    monkeypatch.chdir(tmp_path / "old")
    extract("photos", "codes.npz")
    monkeypatch.chdir("/")
    assert Gallery.open(tmp_path / "old" / "codes.npz").thumbnails([0]) != [None]
    (tmp_path / "old").rename(tmp_path / "new")
    assert Gallery.open(tmp_path / "new" / "codes.npz").thumbnails([0]) != [None]
    (tmp_path / "new" / "codes.npz").rename(tmp_path / "codes.npz")
    assert Gallery.open(tmp_path / "codes.npz").thumbnails([0]) == [None]
    assert Gallery.open(tmp_path / "codes.npz", root=tmp_path / "new").thumbnails([0]) != [None]
