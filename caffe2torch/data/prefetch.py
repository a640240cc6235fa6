"""Results made ahead by threads, taken in their order.

Whole results are made side by side, not parts of one: nothing has to be put together, and decoders and numpy leave the
interpreter free while they work.
"""

from __future__ import annotations

import atexit
import threading
import weakref
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from functools import partial
from itertools import islice
from typing import Any, Generic, NoReturn, TypeVar

_S = TypeVar("_S")
_T = TypeVar("_T")
_PATIENCE = 10.0  # seconds that the program's end waits for a thread that is in the middle of a batch
_TOGETHER = 16  # items that a thread takes at a time


class Prefetcher(Generic[_T]):
    """Results number ``start``, ``start + 1``, ... of ``fetch(number)()``, made by ``workers`` threads.

    ``fetch`` is called by one thread at a time, in order; what it returns is called by several. At most ``depth``
    results are being made or wait to be taken. An error ends the row: it is raised when its turn comes, after the
    results before it. The threads end with `close`, with the object, or with the program.
    """

    def __init__(self, fetch: Callable[[int], Callable[[], _T]], start: int, *, workers: int, depth: int) -> None:
        self._line: _Line[_T] = _Line(fetch, start, depth)
        self._threads = [threading.Thread(target=_work, args=(self._line,), daemon=True) for _ in range(workers)]
        for thread in self._threads:
            thread.start()
        weakref.finalize(self, self._line.stop).atexit = False
        _open.add(self)

    def take(self) -> _T:
        """The next result, waiting for it if need be; raises what making it raised."""
        return self._line.take().result()

    def close(self, patience: float | None = None) -> None:
        """Stop the threads and wait, at most ``patience`` seconds for each, until they have finished what they make."""
        self._line.stop()
        for thread in self._threads:
            thread.join(patience)


class _Line(Generic[_T]):
    """What the threads and the taker share; it does not know the Prefetcher, so that that one can vanish."""

    def __init__(self, fetch: Callable[[int], Callable[[], _T]], start: int, depth: int) -> None:
        self.fetch, self.depth = fetch, depth
        self._reading = threading.Lock()  # held while a thread fetches, so that numbers are fetched in order
        self._changed = threading.Condition()
        self._given = self._taken = start
        """The next number to make, the next to be taken."""
        self._done: dict[int, Future[_T]] = {}
        self._stopped = False

    def begin(self) -> tuple[int, Callable[[], _T]] | None:
        """The next number, once there is room for it, and what makes its result; None when no more are wanted."""
        with self._reading:
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or self._given < self._taken + self.depth)
                if self._stopped:
                    return None
                number, self._given = self._given, self._given + 1
            try:
                return number, self.fetch(number)
            except BaseException as error:
                return number, partial(_raise, error)

    def put(self, number: int, result: Future[_T]) -> None:
        with self._changed:
            self._done[number] = result
            self._stopped |= result.exception() is not None
            self._changed.notify_all()

    def take(self) -> Future[_T]:
        with self._changed:
            self._changed.wait_for(lambda: self._taken in self._done or (self._stopped and self._taken >= self._given))
            if self._taken not in self._done:
                raise RuntimeError("the row has ended: it was closed, or an error was raised")
            self._taken += 1
            self._changed.notify_all()
            return self._done.pop(self._taken - 1)

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()


def _work(line: _Line[_T]) -> None:
    """A thread: one result after the other."""
    while (job := line.begin()) is not None:
        number, make = job
        result: Future[_T] = Future()
        try:
            result.set_result(make())
        except BaseException as error:
            result.set_exception(error)
        line.put(number, result)
        del job, make, result  # nothing of it need wait in memory for the next


def _raise(error: BaseException) -> NoReturn:
    raise error


def in_threads(items: Iterable[_S], make: Callable[[_S], _T], *, workers: int) -> Generator[_T, None, None]:
    """``make`` of every item, in their order, by ``workers`` threads; few are waiting at a time."""
    rest = iter(items)

    def fetch(number: int) -> Callable[[], list[_T]]:
        return partial(_all, make, list(islice(rest, _TOGETHER)))

    row = Prefetcher(fetch, 0, workers=workers, depth=2 * workers)
    try:
        while results := row.take():
            yield from results
    finally:
        row.close()


def _all(make: Callable[[_S], _T], items: list[_S]) -> list[_T]:
    return [make(item) for item in items]


_open: weakref.WeakSet[Prefetcher[Any]] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """A thread that decodes while the interpreter is taken down could crash it."""
    for prefetcher in list(_open):
        prefetcher.close(_PATIENCE)
