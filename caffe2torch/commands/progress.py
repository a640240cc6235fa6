"""The progress bars of commands that go through many pictures."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self


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


class Steps:
    """A bar for each step of a command, in place of the one before; ``bar_of`` says which steps have one."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self._bar, self._shown = Bar(), ("", "")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def __call__(self, stage: str, done: int, total: int) -> None:
        shown = self.bar_of(stage)
        if self.quiet:
            return
        if shown != self._shown:
            self._shown = shown
            self._bar.close()
            if any(shown):
                self._bar.open(*shown, done, total)
        self._bar.update(done)
        if done == total > 0:
            self._bar.close()

    def bar_of(self, stage: str) -> tuple[str, str]:
        """Title and unit of the bar of a step, both empty where it has none."""
        if stage == "write":
            return "", ""
        return "listing" if stage == "list" else "hashing", "pictures"

    def say(self, message: str) -> None:
        """A line of its own on stderr."""
        if not self.quiet:
            self._bar.close()
            print(f"caffe2torch: {message}", file=sys.stderr)
