"""Work spread over threads: order, work within work, errors, children of a fork; and how much a scan holds at once."""

from __future__ import annotations

import os
import threading
import tracemalloc

import numpy as np
import pytest

from caffe2torch.retrieval.engine_numpy import NumpyEngine
from caffe2torch.threads import in_threads
from retrieval.naive import draw_codes, naive_search


def test_results_come_in_order_and_blocks_cover_all_rows() -> None:
    assert list(in_threads(lambda start, stop: (start, stop), 10, threads=3, block=4)) == [(0, 4), (4, 8), (8, 10)]
    assert list(in_threads(lambda start, stop: (start, stop), 0, threads=3, block=4)) == []


def test_work_within_work_ends() -> None:
    """More tasks than threads, each of which spreads work of its own."""

    def outer(start: int, _: int) -> list[int]:
        return list(in_threads(lambda first, _: 10 * start + first, 5, threads=2, block=1))

    assert list(in_threads(outer, 6, threads=2, block=1)) == [[10 * a + b for b in range(5)] for a in range(6)]


def test_an_error_in_a_thread_is_the_callers_and_threads_work_on() -> None:
    def work(start: int, _: int) -> int:
        if start == 2:
            raise ValueError("row 2")
        return start

    with pytest.raises(ValueError, match="row 2"):
        list(in_threads(work, 4, threads=2, block=1))
    assert list(in_threads(lambda start, _: start, 4, threads=2, block=1)) == [0, 1, 2, 3]


def test_threads_that_search_at_once_do_not_mix_up_their_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("caffe2torch.retrieval.scan.ROWS_PER_TASK", 50)
    codes, queries = draw_codes(3000, 48, distinct=900), draw_codes(40, 48, distinct=40)
    engine, expected = NumpyEngine(codes, 48, threads=2), naive_search(queries, codes, 48, 7)
    wrong: list[int] = []

    def search(number: int) -> None:
        for _ in range(5):
            positions, distances = engine.search(queries, 7)
            if positions.tolist() != expected[0].tolist() or distances.tolist() != expected[1].tolist():
                wrong.append(number)

    threads = [threading.Thread(target=search, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_of_a_fork_has_threads_of_its_own() -> None:
    """The parent's threads are not in the child; waiting for them would never end."""
    assert list(in_threads(lambda start, _: start, 4, threads=2, block=1)) == [0, 1, 2, 3]
    child = os.fork()
    if not child:
        try:
            found = list(in_threads(lambda start, _: start, 4, threads=2, block=1))
            os._exit(0 if found == [0, 1, 2, 3] else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_many_results_for_many_queries_are_not_all_candidates_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the result itself, what one thread holds follows CANDIDATES and not queries times k."""
    monkeypatch.setattr("caffe2torch.retrieval.scan.CANDIDATES", 1 << 14)
    codes = np.random.RandomState(0).randint(0, 256, (160_000, 6), np.uint8)
    engine = NumpyEngine(codes, 48, threads=1)
    engine.search(codes[:1], 10)
    tracemalloc.start()
    engine.search(codes[:32], 10_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak - 32 * 10_000 * 12 < 10e6  # 30e6 with all 32 queries at once
