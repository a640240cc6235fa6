"""The index against a plain list, and what it refuses."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from caffe2torch.errors import RetrievalError, UsageError
from caffe2torch.retrieval.codes import Codes
from caffe2torch.retrieval.index import Index
from retrieval.naive import draw_codes, naive_search, naive_within

ENGINES = ["auto", "numpy", "faiss", "torch:cpu"]


def make(count: int = 60, bits: int = 12, **options: Any) -> tuple[Index, np.ndarray]:
    codes = draw_codes(count, bits, distinct=15)
    return Index.from_codes(codes, bits, **options), codes


@pytest.mark.parametrize("grouped", [True, False, "auto"])
@pytest.mark.parametrize("engine", ENGINES)
def test_search_is_the_naive_ranking(engine: str, grouped: Any) -> None:
    index, codes = make(engine=engine, grouped=grouped)
    queries = draw_codes(9, 12, distinct=4, seed=5)
    for k in (1, 14, 60):
        hits = index.search(queries, k)
        expected = naive_search(queries, codes, 12, k)
        np.testing.assert_array_equal(hits.ids, expected[0])
        np.testing.assert_array_equal(hits.distances, expected[1])


def test_ties_stand_in_database_order_not_in_that_of_ids() -> None:
    index = Index.from_codes(np.zeros((4, 1), np.uint8), 8, ids=[7, 3, 9, 1])
    assert index.search(np.zeros((1, 1), np.uint8), 3).ids.tolist() == [[7, 3, 9]]


def test_within_gives_ids_nearest_first() -> None:
    index, codes = make(ids=np.arange(60)[::-1])
    found = index.within(codes[:5], 4)
    for row, expected in enumerate(naive_within(codes[:5], codes, 12, 4)):
        ids, distances = found[row]
        assert list(zip(distances.tolist(), ids.tolist(), strict=True)) == [
            (far, 59 - place) for far, place in expected
        ]


@pytest.mark.parametrize("block", [1, 7, 60, None])
def test_blocks_together_are_the_whole(block: int | None) -> None:
    index, codes = make()
    parts = list(index.search_blocks(codes, 20, block=block))
    whole = index.search(codes, 20)
    assert [start for start, _ in parts] == list(range(0, 60, block or 60))
    np.testing.assert_array_equal(np.concatenate([hits.ids for _, hits in parts]), whole.ids)


def test_an_index_of_a_codes_file_has_its_paths_and_labels() -> None:
    codes = Codes(
        draw_codes(3, 12, distinct=3), 12, ("a.jpg", "b.jpg", "c.jpg"), {"net": "x"}, labels=np.array([4, 5, 6])
    )
    index = Index.of(codes)
    found = index.get([2, 0])
    assert (found.paths, found.labels.tolist(), index.provenance) == (("c.jpg", "a.jpg"), [6, 4], {"net": "x"})
    assert found.packed.tolist() == codes.packed[[2, 0]].tolist()


def test_new_ids_go_on_after_the_largest_so_far() -> None:
    index, codes = make()
    assert index.add(codes[:2]).tolist() == [60, 61]
    index.remove([61])
    assert index.add(codes[:1]).tolist() == [62]
    assert index.add(codes[:1], ids=[1000]).tolist() == [1000]
    assert index.add(codes[:1]).tolist() == [1001]


def test_a_removed_id_may_be_used_again() -> None:
    index, codes = make()
    index.remove([5])
    index.add(codes[:1], ids=[5])
    assert index.ids.tolist() == [*range(5), *range(6, 60), 5]


@pytest.mark.parametrize("k", [61, 1000])
def test_more_results_than_codes_are_refused(k: int) -> None:
    with pytest.raises(RetrievalError, match=f"k is {k}, but the database has only 60"):
        make()[0].search(np.zeros((1, 2), np.uint8), k)


@pytest.mark.parametrize("empty", [make(0)[0], make()[0]], ids=["from the start", "all removed"])
def test_an_empty_database_is_refused(empty: Index) -> None:
    empty.remove(empty.ids)
    assert len(empty) == 0
    with pytest.raises(RetrievalError, match="empty"):
        empty.search(np.zeros((1, 2), np.uint8), 1)
    with pytest.raises(RetrievalError, match="empty"):
        empty.within(np.zeros((1, 2), np.uint8), 1)


def test_an_empty_index_can_grow() -> None:
    index = make(0)[0]
    codes = draw_codes(5, 12, distinct=5)
    assert index.add(codes).tolist() == [0, 1, 2, 3, 4]
    assert index.search(codes[:1], 1).distances.tolist() == [[0]]


@pytest.mark.parametrize(
    ("queries", "message"),
    [
        (np.zeros((1, 6), np.uint8), "6 bytes each, codes of 12 bits have 2"),
        (np.full((1, 2), 255, np.uint8), "beyond the first 12"),
        (np.zeros((1, 2)), "float64"),
        (np.zeros(2, np.uint8), r"\(2,\)"),
    ],
    ids=["width", "bits beyond", "type", "one dimension"],
)
def test_queries_that_do_not_fit_are_refused(queries: np.ndarray, message: str) -> None:
    index = make()[0]
    for ask in (
        lambda: index.search(queries, 1),
        lambda: index.within(queries, 1),
        lambda: list(index.search_blocks(queries, 1)),
    ):
        with pytest.raises(RetrievalError, match=message):
            ask()


@pytest.mark.parametrize(("k", "radius"), [(0, -1), (-3, -100)])
def test_no_results_and_negative_radii_are_refused(k: int, radius: int) -> None:
    index, codes = make()
    with pytest.raises(UsageError, match="at least one"):
        index.search(codes, k)
    with pytest.raises(UsageError, match="0 or more"):
        index.within(codes, radius)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([60, 60], "60 is given more than once"),
        ([3, 60], "3 is already in the index"),
        ([60], "2 codes but 1 ids"),
        ([-1, 60], "-1 to 60"),
        ([1 << 62, 60], "are possible"),
        (np.array([1 << 63, 60], np.uint64), "are possible"),
        ([1.0, 2.0], "float64"),
        ([[60, 61]], "one per code"),
    ],
    ids=["twice", "in use", "count", "negative", "large", "larger", "fractions", "two dimensions"],
)
def test_ids_that_cannot_be_are_refused_and_nothing_is_added(ids: Any, message: str) -> None:
    index, codes = make()
    with pytest.raises(RetrievalError, match=message):
        index.add(codes[:2], ids=ids)
    assert index.ids.tolist() == list(range(60))
    assert index.add(codes[:1]).tolist() == [60]


@pytest.mark.parametrize(
    ("ids", "message"), [([60], "60 is not in"), ([1, 99, 98], "99, 98 are not in"), ([4, 4], "more than once")]
)
def test_what_cannot_be_removed_leaves_all_there(ids: list[int], message: str) -> None:
    index = make()[0]
    with pytest.raises(RetrievalError, match=message):
        index.remove(ids)
    assert len(index) == 60


def test_unknown_ids_have_no_codes() -> None:
    with pytest.raises(RetrievalError, match="77 is not in"):
        make()[0].get([77])


@pytest.mark.parametrize(
    ("index", "new", "message"),
    [
        ({"paths": ["a", "b"]}, {}, "the index has paths, the new codes have none"),
        ({}, {"paths": ["a", "b"]}, "the new codes have paths, the index has none"),
        ({"labels": [1, 2]}, {}, "the index has labels"),
        ({"labels": [1, 2]}, {"labels": np.ones((2, 3), bool)}, "one label per code, the new codes have 3 labels"),
        ({"labels": np.ones((2, 2), bool)}, {"labels": np.ones((2, 3), bool)}, "2 labels to choose from"),
        ({"paths": ["a", "b"]}, {"paths": ["c"]}, "2 codes but 1 paths"),
        ({}, {"labels": [0.5, 1]}, "float64"),
    ],
)
def test_codes_that_do_not_go_together_are_refused(index: Any, new: Any, message: str) -> None:
    codes = draw_codes(2, 12, distinct=2)
    with pytest.raises(RetrievalError, match=message):
        Index.from_codes(codes, 12, **index).add(codes, **new)


def test_the_callers_array_may_change_afterwards() -> None:
    codes = draw_codes(20, 64, distinct=20)
    expected = codes.copy()
    index = Index.from_codes(codes, 64)
    codes[:] = 0
    assert index.get(np.arange(20)).packed.tolist() == expected.tolist()


def test_threads_may_search_at_the_same_time() -> None:
    index, codes = make(300, engine="faiss")
    index.remove([3])
    expected = naive_search(codes[:20], np.delete(codes, 3, axis=0), 12, 50)[1]
    with ThreadPoolExecutor(8) as pool:
        for hits in pool.map(lambda _: index.search(codes[:20], 50), range(16)):
            np.testing.assert_array_equal(hits.distances, expected)


class AgainstAList(RuleBasedStateMachine):
    """Any sequence of changes, saves and openings gives what a list of (id, code) would."""

    counter = 0
    folder: Path

    @initialize(count=st.integers(0, 8), paths=st.booleans())
    def begin(self, count: int, paths: bool) -> None:
        AgainstAList.counter += 1
        self.path = self.folder / f"{AgainstAList.counter}.index"
        self.paths = paths
        codes = self.draw(count, 0)
        self.index = Index.from_codes(codes, 10, engine="numpy", grouped="auto", paths=self.named(count))
        self.model = [(number, code.tobytes()) for number, code in enumerate(codes)]
        self.names = dict(enumerate(self.named(count) or []))
        self.next_id = count
        self.saved = False

    def draw(self, count: int, seed: int) -> np.ndarray:
        return draw_codes(count, 10, distinct=6, seed=seed)

    def named(self, count: int) -> list[str] | None:
        return [f"bild-{number}-\u00e4.jpg" for number in range(count)] if self.paths else None

    @rule(count=st.integers(0, 4), seed=st.integers(0, 50), gap=st.one_of(st.none(), st.integers(0, 5)))
    def add(self, count: int, seed: int, gap: int | None) -> None:
        codes = self.draw(count, seed)
        start = self.next_id + (gap or 0)
        ids = list(range(start, start + count))[::-1] if gap is not None else list(range(start, start + count))
        found = self.index.add(codes, ids=None if gap is None else ids, paths=self.named(count))
        assert found.tolist() == ids
        self.model += [(number, code.tobytes()) for number, code in zip(ids, codes, strict=True)]
        self.names.update(zip(ids, self.named(count) or [], strict=False))
        self.next_id = max([self.next_id, *(number + 1 for number in ids)])

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        if self.model:
            ids = data.draw(st.lists(st.sampled_from([number for number, _ in self.model]), unique=True, max_size=3))
            self.index.remove(ids)
            self.model = [(number, code) for number, code in self.model if number not in ids]

    @rule()
    def save(self) -> None:
        self.index.save(self.path)
        self.saved = True
        self.kept = (list(self.model), self.next_id)

    @rule()
    def save_anew(self) -> None:
        self.index.save(self.path, force=True)
        self.saved = True
        self.kept = (list(self.model), self.next_id)

    @rule(verify=st.booleans())
    def open(self, verify: bool) -> None:
        if self.saved:
            self.index = Index.open(self.path, engine="numpy", verify=verify)
            self.model, self.next_id = list(self.kept[0]), self.kept[1]

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "model"):
            return
        assert len(self.index) == len(self.model)
        assert self.index.ids.tolist() == [number for number, _ in self.model]
        if not self.model:
            return
        codes = np.array([list(code) for _, code in self.model], np.uint8)
        query = self.draw(2, 77)
        k = max(1, len(codes) // 2)
        hits = self.index.search(query, k)
        order, distances = naive_search(query, codes, 10, k)
        assert hits.ids.tolist() == [[self.model[place][0] for place in row] for row in order.tolist()]
        assert hits.distances.tolist() == distances.tolist()
        if self.paths:
            found = self.index.get(hits.ids[0])
            assert list(found.paths) == [self.names[number] for number in hits.ids[0].tolist()]


@pytest.fixture(scope="module", autouse=True)
def _folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    AgainstAList.folder = tmp_path_factory.mktemp("indexes")


AgainstAList.TestCase.settings = settings(max_examples=40, stateful_step_count=15, deadline=None)
TestAgainstAList = AgainstAList.TestCase


def test_a_path_that_is_no_text_is_refused() -> None:
    with pytest.raises(RetrievalError, match=r"path a\\ud800 holds half a surrogate pair"):
        Index.from_codes(draw_codes(1, 8, distinct=1), 8, paths=["a\ud800"])
