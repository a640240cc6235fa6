"""Figures against the definition written out; what does not belong together is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from caffe2torch.errors import RetrievalError, UsageError
from caffe2torch.evaluation.run import Side, asking_for_themselves, measure, read_sides
from evaluation.sets import as_codes, draw_codes, write_csv


def side(count: int, seed: int, **provenance: object) -> Side:
    bits, labels = draw_codes(count, seed=seed)
    return Side(as_codes(bits, **provenance), Path(f"{seed}.h5"), labels, "here")


def naive_map(queries: Side, database: Side, k: int, *, leave_one_out: bool = False) -> float:
    total = 0.0
    for row, query in enumerate(queries.codes.unpacked()):
        distances = (database.codes.unpacked() != query).sum(axis=1).tolist()
        ranked = sorted(range(len(distances)), key=distances.__getitem__)
        ranked = [place for place in ranked if not (leave_one_out and place == row)][:k]
        right = [database.labels[place] == queries.labels[row] for place in ranked]
        sums = [sum(right[:rank]) / rank for rank in range(1, k + 1) if right[rank - 1]]
        total += sum(sums) / len(sums) if sums else 0.0
    return total / len(queries)


def test_map_at_several_k() -> None:
    queries, database = side(15, 1), side(60, 2)
    found = measure(queries, database, ks=[5, 60, 5])
    assert [scores.k for scores in found.scores] == [5, 60]
    for scores in found.scores:
        assert scores.map == pytest.approx(naive_map(queries, database, scores.k), abs=1e-12)
    assert found.longest.k == 60


def test_each_query_against_the_others() -> None:
    queries = side(30, 3)
    found = measure(queries, None, ks=[7])
    assert found.scores[0].map == pytest.approx(naive_map(queries, queries, 7, leave_one_out=True), abs=1e-12)
    assert found.scores[0].database == 29


def test_without_k_it_is_1000_or_all() -> None:
    assert measure(side(3, 1), side(20, 2)).longest.k == 20
    assert measure(side(3, 1), None).longest.k == 2
    assert measure(side(3, 1), side(1001, 2)).longest.k == 1000


@pytest.mark.parametrize("k", [0, -1, 21])
def test_a_k_the_database_cannot_have(k: int) -> None:
    with pytest.raises(RetrievalError, match=f"k = {k} is not possible: the database has 20 pictures"):
        measure(side(3, 1), side(20, 2), ks=[5, k])


def test_leaving_one_out_leaves_one_fewer() -> None:
    with pytest.raises(RetrievalError, match="has 19 pictures besides the query itself"):
        measure(side(20, 1), None, ks=[20])


@pytest.mark.parametrize(
    "key, first, second",
    [
        ("weights_sha256", "aa", "bb"),
        ("preprocessing", {"crop": [227, 227]}, {"crop": [224, 224]}),
        ("precision", "float32", "fp16"),
        ("pictures_as", "papers", "lossless"),
        ("exif", True, False),
    ],
)
def test_codes_made_otherwise_are_refused_unless_asked_for(key: str, first: object, second: object) -> None:
    queries, database = side(5, 1, **{key: first}), side(20, 2, **{key: second})
    with pytest.raises(RetrievalError, match=f"{key}.* against .*--any-model"):
        measure(queries, database)
    assert measure(queries, database, any_model=True).longest.k == 20


def test_other_bits_are_refused_even_then() -> None:
    bits, labels = draw_codes(20, bits=16)
    database = Side(as_codes(bits), Path("x.h5"), labels, "here")
    with pytest.raises(RetrievalError, match=r"1\.h5 are codes of 12 bits, x\.h5 of 16"):
        measure(side(5, 1), database, any_model=True)


def test_reading_both_sides(tmp_path: Path) -> None:
    (bits, labels), (more, others) = draw_codes(5, seed=1), draw_codes(9, seed=2)
    files = [write_csv(tmp_path / "q.csv", bits, labels), write_csv(tmp_path / "d.csv", more)]
    numbers = tmp_path / "labels.txt"
    numbers.write_text("\n".join(map(str, others)))
    queries, database = read_sides(files, [None, numbers])
    assert queries.labels.tolist() == labels.tolist()
    assert database.labels.tolist() == others.tolist()
    assert database.to_dict()["labels"]["file"] == str(numbers)
    assert len(database.to_dict()["codes"]["sha256"]) == 64


def test_several_labels_each(tmp_path: Path) -> None:
    bits, _ = draw_codes(3)
    files = [write_csv(tmp_path / "q.csv", bits), write_csv(tmp_path / "d.csv", bits)]
    one, two = tmp_path / "one.txt", tmp_path / "two.txt"
    one.write_text("0 2\n1\n2\n")
    two.write_text("0\n1 4\n2 4\n")
    queries, database = read_sides(files, [one, two])
    assert queries.labels.shape == database.labels.shape == (3, 5)
    assert measure(queries, database).scores[0].queries == 3


def test_one_label_each_against_several(tmp_path: Path) -> None:
    bits, labels = draw_codes(3)
    files = [write_csv(tmp_path / "q.csv", bits, labels), write_csv(tmp_path / "d.csv", bits)]
    several = tmp_path / "several.txt"
    several.write_text("0 1\n1 2\n1\n")
    with pytest.raises(RetrievalError, match="single label"):
        read_sides(files, [None, several])


def test_no_k_is_no_evaluation() -> None:
    with pytest.raises(UsageError, match="at least one"):
        measure(side(3, 1), side(20, 2), ks=[])


@pytest.mark.parametrize(
    "own, theirs, known",
    [({"folder": "/a"}, {"folder": "/a"}, 5), ({"folder": "/a"}, {"folder": "/b"}, 0), ({}, {}, 0)],
    ids=["names from one place", "names from elsewhere", "names from anywhere"],
)
def test_queries_that_stand_in_the_database(own: dict[str, str], theirs: dict[str, str], known: int) -> None:
    assert asking_for_themselves(side(5, 1, **own), side(9, 2, **theirs)) == known


def test_the_same_codes_without_names_that_count() -> None:
    both = side(5, 1)
    assert asking_for_themselves(both, both) == 5
