"""The numbers of a training, from how many pictures there are."""

from __future__ import annotations

from dataclasses import dataclass

from caffe2torch.errors import UsageError
from caffe2torch.project.bases import Base

TESTS, SNAPSHOTS = 20, 5
"""About how many there are in a training."""


@dataclass(frozen=True)
class Plan:
    """Sizes of the batches and the solver's numbers; a test runs over the test pictures exactly once."""

    batch: int
    test_batch: int
    test_iter: int
    test_interval: int
    max_iter: int
    snapshot: int
    display: int
    epochs: float

    def rate_step(self) -> int:
        """Where the rate falls: half-way."""
        return max(1, self.max_iter // 2)


def plan(base: Base, train: int, test: int, *, epochs: float | None = None, batch: int | None = None) -> Plan:
    """The numbers for so many pictures; ``epochs`` and ``batch`` replace those of the base."""
    if epochs is not None and not 0 < epochs < 1e6:
        raise UsageError(f"--epochs {epochs:g}: expected more than 0")
    if batch is not None and batch < 1:
        raise UsageError(f"--batch-size {batch}: expected at least 1")
    batch = min(base.batch, train) if batch is None else batch
    wanted = -(-base.epochs * train // batch) if epochs is None else round(epochs * train / batch)
    iterations = max(wanted, 1 if epochs is not None else base.least)
    one = -(-train // batch)
    test_batch = divisor(test, base.test_batch)
    return Plan(
        batch,
        test_batch,
        test // test_batch,
        test_interval=min(max(one, -(-iterations // TESTS)), iterations),
        max_iter=iterations,
        snapshot=-(-iterations // SNAPSHOTS),
        display=min(max(iterations // 100, 1), 100),
        epochs=iterations * batch / train,
    )


def divisor(count: int, most: int) -> int:
    """The largest divisor of ``count`` that is at most ``most``."""
    return next(size for size in range(min(count, most), 0, -1) if count % size == 0)


def convenient(count: int, most: int) -> bool:
    """Whether ``count`` pictures can be tested in batches of a good size, all of them once."""
    return count <= most or 2 * divisor(count, most) >= most
