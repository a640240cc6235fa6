"""Every engine against a naive ranking, on data full of ties."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe2torch.errors import MissingPackageError, UsageError
from caffe2torch.retrieval import engine_faiss, engine_numpy, scan
from caffe2torch.retrieval.engine_faiss import FaissEngine
from caffe2torch.retrieval.engine_numpy import NumpyEngine
from caffe2torch.retrieval.engine_torch import TorchEngine
from caffe2torch.retrieval.engines import Engine, Make, engine_maker
from caffe2torch.retrieval.grouping import GroupedEngine
from retrieval.naive import draw_codes, naive_search, naive_within


class CountingFaiss(FaissEngine):
    """Always by faiss' counting selection, which is otherwise taken for few codes."""

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        return self._count(self.as_words(queries), k, block=3)


MAKERS: dict[str, Make] = {
    "numpy": NumpyEngine,
    "numpy on three threads": lambda packed, bits: NumpyEngine(packed, bits, threads=3),
    "faiss": FaissEngine,
    "faiss on three threads": lambda packed, bits: FaissEngine(packed, bits, threads=3),
    "faiss, counting": CountingFaiss,
    "torch": lambda packed, bits: TorchEngine(packed, bits, device="cpu"),
    "numpy, grouped": lambda packed, bits: GroupedEngine(packed, bits, NumpyEngine),
    "faiss, grouped": lambda packed, bits: GroupedEngine(packed, bits, FaissEngine),
}
WIDTHS = [1, 7, 8, 12, 48, 64, 100, 128, 1000]

every_engine = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks far below the usual size, so that small data crosses their borders."""
    monkeypatch.setattr(engine_numpy, "QUERIES_PER_TASK", 3)
    monkeypatch.setattr(engine_faiss, "QUERIES_PER_TASK", 3)
    monkeypatch.setattr(engine_faiss, "FEW_CODES", 0)
    monkeypatch.setattr(scan, "QUERIES", 3)
    monkeypatch.setattr(scan, "QUERIES_PER_TASK", 4)
    monkeypatch.setattr(scan, "SAMPLE", 50)
    monkeypatch.setattr(scan, "ROWS_PER_TASK", 50)
    for module in (engine_numpy, engine_faiss):
        monkeypatch.setattr(module, "SORT_ALL", 4)
    for module in (scan, engine_numpy, engine_faiss):
        monkeypatch.setattr(module, "PAIRS", 150)
    monkeypatch.setattr("caffe2torch.retrieval.engine_torch.ROWS_PER_BLOCK", 64)
    monkeypatch.setattr("caffe2torch.retrieval.engine_torch.QUERIES_PER_BLOCK", 3)
    monkeypatch.setattr("caffe2torch.retrieval.grouping.QUERIES_PER_BLOCK", 3)
    monkeypatch.setattr("caffe2torch.retrieval.grouping.MANY_QUERIES", 5)
    monkeypatch.setattr("caffe2torch.retrieval.grouping.PAIRS_PER_SORT", 50)


def same(engine: Engine, queries: np.ndarray, codes: np.ndarray, bits: int, k: int) -> None:
    positions, distances = engine.search(queries, k)
    expected = naive_search(queries, codes, bits, k)
    assert (positions.dtype, distances.dtype) == (np.int64, np.int32)
    np.testing.assert_array_equal(positions, expected[0])
    np.testing.assert_array_equal(distances, expected[1])


@every_engine
@pytest.mark.parametrize("bits", WIDTHS)
def test_search_is_the_stable_ranking(make: Make, bits: int) -> None:
    codes, queries = draw_codes(300, bits, distinct=40), draw_codes(7, bits, distinct=40, seed=1)
    engine = make(codes, bits)
    for k in (1, 10, 70, 299, 300):
        same(engine, queries, codes, bits, k)


@every_engine
def test_ties_across_the_last_place(make: Make) -> None:
    codes = draw_codes(200, 12, distinct=5)
    engine = make(codes, 12)
    for k in range(1, 201, 7):
        same(engine, codes[:4], codes, 12, k)


@every_engine
def test_all_codes_equal(make: Make) -> None:
    codes = np.repeat(draw_codes(1, 48, distinct=1), 150, axis=0)
    engine = make(codes, 48)
    for k in (1, 64, 65, 150):
        same(engine, draw_codes(2, 48, distinct=2, seed=3), codes, 48, k)


@every_engine
def test_codes_that_are_all_distinct(make: Make) -> None:
    codes = np.arange(256, dtype=np.uint8)[:, None]
    same(make(codes, 8), codes[::50], codes, 8, 100)


@every_engine
@pytest.mark.parametrize("bits", [1, 12, 48, 1000])
def test_within_is_all_that_is_near_enough(make: Make, bits: int) -> None:
    codes, queries = draw_codes(300, bits, distinct=40), draw_codes(7, bits, distinct=40, seed=1)
    engine = make(codes, bits)
    for radius in (0, 1, 5, bits // 2, bits, bits + 7, 1 << 20):
        found = engine.within(queries, radius)
        assert len(found) == 7
        for row, expected in enumerate(naive_within(queries, codes, bits, radius)):
            positions, distances = found[row]
            assert list(zip(distances.tolist(), positions.tolist(), strict=True)) == expected


@every_engine
def test_no_query_is_no_result(make: Make) -> None:
    engine = make(draw_codes(20, 12, distinct=5), 12)
    none = np.zeros((0, 2), np.uint8)
    positions, distances = engine.search(none, 3)
    assert (positions.shape, distances.shape) == ((0, 3), (0, 3))
    assert len(engine.within(none, 3)) == 0


@every_engine
def test_codes_in_a_read_only_memory_map(make: Make, tmp_path_factory: pytest.TempPathFactory) -> None:
    codes = draw_codes(100, 64, distinct=20)
    file = tmp_path_factory.mktemp("map") / "codes.bin"
    codes.tofile(file)
    same(make(np.memmap(file, np.uint8, "r", shape=codes.shape), 64), codes[:3], codes, 64, 30)


@given(data=st.data(), bits=st.sampled_from([1, 3, 8, 17, 64, 70]), count=st.integers(1, 90))
@settings(max_examples=60, deadline=None)
def test_the_engines_agree(data: st.DataObject, bits: int, count: int) -> None:
    codes = draw_codes(count, bits, distinct=data.draw(st.integers(1, 30)), seed=data.draw(st.integers(0, 99)))
    queries = draw_codes(4, bits, distinct=4, seed=data.draw(st.integers(0, 99)))
    k = data.draw(st.integers(1, count))
    for make in MAKERS.values():
        same(make(codes, bits), queries, codes, bits, k)


@pytest.mark.parametrize("limit", ["MOST_PLACES", "PLACES_PER_TASK"])
def test_faiss_at_large_k_gives_the_same(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_faiss, "FEW_CODES", 1 << 16)
    monkeypatch.setattr(engine_faiss, limit, 100)
    codes = draw_codes(200, 48, distinct=30)
    same(FaissEngine(codes, 48), codes[:9], codes, 48, 60)


@pytest.mark.parametrize("engine", [NumpyEngine, FaissEngine])
def test_a_sample_that_misleads_costs_time_only(engine: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    bounds = itertools.cycle([0, 3, 13])
    monkeypatch.setattr(scan, "_bound", lambda matrix, *_: np.array([next(bounds) for _ in matrix]))
    codes = draw_codes(400, 12, distinct=30)
    same(engine(codes, 12), draw_codes(20, 12, distinct=9, seed=2), codes, 12, 60)


def test_faiss_leaves_its_own_threads_as_they_were() -> None:
    faiss = engine_faiss.load_faiss()
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(5)
    try:
        FaissEngine(draw_codes(20, 12, distinct=5), 12).search(draw_codes(2, 12, distinct=2), 3)
        assert faiss.omp_get_max_threads() == 5
    finally:
        faiss.omp_set_num_threads(before)


def test_auto_is_faiss_where_it_is_installed() -> None:
    assert engine_maker("auto") is FaissEngine


def without_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.setattr("caffe2torch.retrieval.engines.find_spec", lambda _: None)


def test_auto_is_numpy_where_faiss_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    without_faiss(monkeypatch)
    assert engine_maker("auto") is NumpyEngine


def test_faiss_asked_for_and_missing_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    without_faiss(monkeypatch)
    with pytest.raises(MissingPackageError, match=r"caffe2torch\[search\]"):
        engine_maker("faiss")(np.zeros((1, 1), np.uint8), 8)


@pytest.mark.parametrize("name", ["annoy", "", "numpy:cuda", "Faiss"])
def test_unknown_engines_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="faiss, numpy, torch"):
        engine_maker(name)


def test_torch_takes_a_device() -> None:
    engine: Callable[..., Engine] = engine_maker("torch:cpu")
    assert engine(draw_codes(5, 8, distinct=5), 8).name == "torch"


@every_engine
def test_a_radius_beyond_all_numbers_of_a_machine_finds_everything(make: Make) -> None:
    codes = draw_codes(20, 12, distinct=9)
    assert [len(found[0]) for found in map(make(codes, 12).within(codes[:2], 10**20).__getitem__, range(2))] == [20, 20]
