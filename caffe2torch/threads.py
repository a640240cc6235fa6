"""Work on blocks of rows, spread over threads that stay.

Starting a thread takes as long as a small search, and a new thread's memory is slow to touch the first time; so threads
are kept for the next search. Work that itself spreads work does it in its own thread: threads that wait for one another
would never end.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

_here = threading.local()


def in_threads(work: Callable[[int, int], Any], count: int, *, threads: int, block: int) -> Iterator[Any]:
    """``work(start, stop)`` for each block of ``count`` rows, results in order; numpy and faiss let threads run."""
    tasks = [(start, min(start + block, count)) for start in range(0, count, block)]
    if threads == 1 or len(tasks) <= 1 or getattr(_here, "working", False):
        yield from (work(*task) for task in tasks)
    else:
        yield from _pool(threads).map(lambda task: work(*task), tasks)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    def begin() -> None:
        _here.working = True

    return ThreadPoolExecutor(threads, thread_name_prefix="caffe2torch", initializer=begin)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not live on in a child
