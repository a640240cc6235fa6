"""Signals as Caffe takes them: Ctrl-C ends a training with a snapshot, a hang-up writes one and goes on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from caffe2torch.solver.solver import Wish

_MEANS = {"SIGINT": Wish.STOP, "SIGTERM": Wish.STOP, "SIGHUP": Wish.SNAPSHOT}


@contextmanager
def listening() -> Iterator[Callable[[], Wish]]:
    """Give a function that says what was asked for since the last call; a second Ctrl-C interrupts at once.

    Signals reach only the main thread; elsewhere nothing is ever asked for.
    """
    asked: list[Wish] = []

    def hear(number: int, frame: FrameType | None) -> None:
        wish = _MEANS[signal.Signals(number).name]
        if wish is Wish.STOP and Wish.STOP in asked:
            raise KeyboardInterrupt
        asked.append(wish)

    def wish() -> Wish:
        if Wish.STOP in asked:
            return Wish.STOP
        return asked.pop() if asked else Wish.NONE

    if threading.current_thread() is not threading.main_thread():
        yield wish
        return
    numbers = [getattr(signal, name) for name in _MEANS if hasattr(signal, name)]  # Windows has no SIGHUP
    before = {number: signal.signal(number, hear) for number in numbers}
    try:
        yield wish
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
