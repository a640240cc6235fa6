"""The progress bar of commands that go through many pictures."""

from __future__ import annotations

import sys
from typing import Any


class Bar:
    """A bar with rate and time left on stderr; where that is no terminal, a line every half minute of a long run."""

    def __init__(self) -> None:
        self._bar: Any = None

    def open(self, title: str, unit: str, done: int, total: int) -> None:
        """Begin a bar, in place of the one before; ``total`` 0 is unknown."""
        from tqdm import tqdm

        self.close()
        terminal = sys.stderr.isatty()
        self._bar = tqdm(
            desc=title,
            total=total or None,
            initial=done,
            unit=f" {unit}",
            smoothing=0.05,
            dynamic_ncols=True,
            mininterval=0.1 if terminal else 30.0,
            delay=0.0 if terminal else 30.0,
        )

    def update(self, done: int) -> None:
        """So many are done by now."""
        if self._bar is not None:
            self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """End the bar, if there is one."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
