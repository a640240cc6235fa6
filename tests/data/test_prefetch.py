"""Batches made ahead by threads: the same, in the same order, and nothing left running."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from caffe2torch import prototxt
from caffe2torch.data import Feed, open_feed
from caffe2torch.data.prefetch import Prefetcher
from caffe2torch.errors import FormatError, ImageError, UsageError
from caffe2torch.graph import build_graph

from .sources import datum, images, write_lmdb
from .test_seek import KINDS, image_list, lmdb, same


def opened(text: str, folder: Path, workers: int, depth: int | None = None) -> Feed:
    graph = build_graph(prototxt.parse(text), phase="train")
    return open_feed(graph, folder, seed=1, workers=workers, depth=depth)


def running() -> int:
    return threading.active_count()


@pytest.mark.parametrize("kind", KINDS)
def test_any_number_of_workers_gives_the_same_batches(kind: Callable[[Path], str], tmp_path: Path) -> None:
    text = kind(tmp_path)
    alone = opened(text, tmp_path, 0)
    batches = [next(alone) for _ in range(25)]
    for workers, depth in ((1, None), (2, 1), (5, 3), (3, 30)):
        with opened(text, tmp_path, workers, depth) as source:
            assert all(same(next(source), batch) for batch in batches)
            assert source.batches == 25
            source.seek(4)
            assert all(same(next(source), batch) for batch in batches[4:9])


def test_what_was_made_ahead_with_another_seed_is_dropped(tmp_path: Path) -> None:
    text = lmdb(tmp_path)
    alone = opened(text, tmp_path, 0)
    alone.seek(1, seed=9)
    with opened(text, tmp_path, 2) as source:
        next(source)
        source.seek(1, seed=9)
        assert same(next(source), next(alone))


def test_error_comes_in_its_turn_and_again_until_it_is_mended(tmp_path: Path) -> None:
    text = image_list(tmp_path).replace("shuffle: true rand_skip: 5", "")
    alone = opened(text, tmp_path, 0)
    batches = [next(alone) for _ in range(4)]
    whole = (tmp_path / "6.png").read_bytes()
    before = running()
    with opened(text, tmp_path, 3) as source:
        (tmp_path / "6.png").write_bytes(whole[:60])
        assert same(next(source), batches[0])
        assert same(next(source), batches[1])
        for _ in range(2):
            with pytest.raises(ImageError, match=r"6\.png"):
                next(source)
            assert source.batches == 2
            assert running() == before
        (tmp_path / "6.png").write_bytes(whole)
        assert same(next(source), batches[2])
        assert same(next(source), batches[3])


def test_damaged_record_comes_in_its_turn(tmp_path: Path) -> None:
    good = [datum(data=picture, label=index) for index, picture in enumerate(images(5))]
    write_lmdb(tmp_path / "db", {f"{i:04}": record for i, record in enumerate([*good, b"\xff", *good])})
    text = 'layer { name: "d" type: "Data" top: "x" top: "l" data_param { source: "db" batch_size: 1 backend: LMDB } }'
    with opened(text, tmp_path, 4) as source:
        assert [int(next(source)["l"][0]) for _ in range(5)] == [0, 1, 2, 3, 4]
        with pytest.raises(FormatError, match="record '0005'"):
            next(source)


def test_numbers_are_fetched_in_order_and_not_too_far_ahead() -> None:
    fetched: list[int] = []
    made = threading.Semaphore(0)

    def fetch(number: int) -> Callable[[], int]:
        fetched.append(number)
        return partial(make, number)

    def make(number: int) -> int:
        made.release()
        return number

    row = Prefetcher(fetch, 10, workers=3, depth=4)
    for _ in range(4):
        assert made.acquire(timeout=10)
    assert fetched == [10, 11, 12, 13]
    assert row.take() == 10
    assert made.acquire(timeout=10)
    assert fetched == [10, 11, 12, 13, 14]
    row.close()
    assert fetched == [10, 11, 12, 13, 14]


def test_results_made_out_of_order_come_in_order() -> None:
    second = threading.Event()

    def fetch(number: int) -> Callable[[], int]:
        return partial(make, number)

    def make(number: int) -> int:
        if number == 0:
            assert second.wait(10)
        second.set()
        return number

    row = Prefetcher(fetch, 0, workers=2, depth=2)
    assert [row.take() for _ in range(3)] == [0, 1, 2]
    row.close()


def test_closed_row_says_so() -> None:
    row = Prefetcher(lambda number: lambda: number, 0, workers=1, depth=1)
    row.take()
    row.close()
    with pytest.raises(RuntimeError, match="the row has ended"):
        print(row.take(), row.take())  # one may have been made ahead


def test_workers_end_with_the_feed(tmp_path: Path) -> None:
    text, before = lmdb(tmp_path), running()
    source = opened(text, tmp_path, 3)
    next(source)
    assert running() == before + 3
    threads = [thread for thread in threading.enumerate() if thread is not threading.current_thread()]
    del source
    gc.collect()
    for thread in threads[-3:]:
        thread.join(10)
    assert running() == before


def test_close_ends_the_workers(tmp_path: Path) -> None:
    text, before = lmdb(tmp_path), running()
    source = opened(text, tmp_path, 3)
    first = next(source)
    source.close()
    assert running() == before
    source.seek(0)
    assert same(next(source), first)
    source.close()


def test_program_ends_although_nobody_closed(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(lmdb(tmp_path))
    code = (
        "import sys; from caffe2torch import prototxt; from caffe2torch.data import open_feed\n"
        "from caffe2torch.graph import build_graph\n"
        "graph = build_graph(prototxt.read_net('net.prototxt'), phase='train')\n"
        "feed = open_feed(graph, '.', workers=3); next(feed)\n"
        "if sys.argv[1] == 'stop': raise KeyboardInterrupt\n"
    )
    for how, status in (("end", 0), ("stop", -2)):
        done = subprocess.run(
            [sys.executable, "-c", code, how], cwd=tmp_path, timeout=60, check=False, capture_output=True
        )
        assert done.returncode == status, done.stderr.decode()


def test_waiting_is_counted(tmp_path: Path) -> None:
    text = lmdb(tmp_path)
    for workers in (0, 1):
        with opened(text, tmp_path, workers) as source:
            assert source.waited == 0
            next(source)
            assert source.waited > 0


@pytest.mark.parametrize("workers, depth", [(-1, None), (1, 0)])
def test_impossible_numbers_are_refused(workers: int, depth: int | None, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected at least 0 and at least 1"):
        opened(lmdb(tmp_path), tmp_path, workers, depth)


def test_batches_are_the_takers_own(tmp_path: Path) -> None:
    with opened(lmdb(tmp_path), tmp_path, 2) as source:
        first = next(source)
        kept = {blob: array.copy() for blob, array in first.items()}
        for _ in range(5):
            next(source)
        assert all(np.array_equal(first[blob], kept[blob]) for blob in kept)
