"""The running part: decode workers fill batches, the net runs on them, the journal takes the rows, all at once.

Workers decode and preprocess straight into the slots of a batch (OpenCV and numpy release the interpreter lock). While
the net runs on one batch they fill the next; a few buffers go round, so memory does not depend on how many pictures
there are, and rows stay in order. Every batch has full size, the last one filled up with zeros, so the net does the
same arithmetic for every picture.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

import cv2
import numpy as np
from torch import Tensor

from caffe2torch.errors import ImageError, WeightsError
from caffe2torch.extract.hasher import Hasher, Launched
from caffe2torch.extract.journal import Journal
from caffe2torch.extract.listing import Entry
from caffe2torch.preprocess import read_image
from caffe2torch.retrieval.codes import Floats, pack, threshold

BUFFERS = 4  # one in the net, one read back, one ready, one being filled
SAMPLE = 256  # pictures on which a faster precision is compared with float32


@dataclass
class Tally:
    """What was seen on the way: bits that a faster precision flips among those compared, range of the code values."""

    flipped: int = 0
    compared: int = 0
    lowest: float = float("inf")
    highest: float = float("-inf")


@dataclass
class Batch:
    """Consecutive pictures on their way into ``buffer``; each task gives {row: message} for what it could not read."""

    first: int
    entries: list[Entry]
    buffer: Tensor
    tasks: list[Future[dict[int, str]]]

    def errors(self) -> dict[int, str]:
        """Wait for the decoding; row in the batch -> why the picture could not be read."""
        errors: dict[int, str] = {}
        for task in self.tasks:
            errors.update(task.result())
        return errors


class Pipeline:
    """One run over the pictures that a journal still lacks."""

    def __init__(self, hasher: Hasher, journal: Journal, *, batch_size: int, workers: int, stop_on_error: bool) -> None:
        self.hasher, self.journal = hasher, journal
        self.batch_size, self.workers, self.stop_on_error = batch_size, workers, stop_on_error
        self.tally = Tally()
        self._free: deque[Tensor] = deque()
        self._flight: deque[tuple[Batch, dict[int, str], Launched]] = deque()

    def run(self, progress: Callable[[int], None]) -> Tally:
        """Append every missing row; ``progress`` is called with the number of finished rows after each batch.

        Raises ImageError for the first unreadable picture when ``stop_on_error``; the batches before it are kept.
        """
        ahead = 1 if self.hasher.device.type == "cuda" else 0  # batches launched before the oldest is waited for
        step_back = _step_back if self.hasher.device.type == "cpu" else None
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="decode", initializer=step_back)
        try:
            with _single_threaded_cv2():
                for batch in self._batches(pool):
                    errors = batch.errors()
                    if errors and self.stop_on_error:
                        self._land(0, progress)
                        raise ImageError(self._stopped(errors))
                    self._flight.append((batch, errors, self.hasher.launch(batch.buffer)))
                    self._land(ahead, progress)
                self._land(0, progress)
        finally:
            pool.shutdown(cancel_futures=True)
        return self.tally

    def _batches(self, pool: ThreadPoolExecutor) -> Iterator[Batch]:
        """Batches in order, each being decoded; as many are begun as there are free buffers."""
        first = self.journal.rows.done
        entries = self.journal.entries(first)
        self._free.extend(self.hasher.buffer(self.batch_size) for _ in range(BUFFERS))
        begun: deque[Batch] = deque()
        while True:
            while self._free and (chunk := list(islice(entries, self.batch_size))):
                begun.append(self._begin(pool, first, chunk, self._free.popleft()))
                first += len(chunk)
            if not begun:
                return
            yield begun.popleft()

    def _begin(self, pool: ThreadPoolExecutor, first: int, entries: list[Entry], buffer: Tensor) -> Batch:
        slots = buffer.numpy()
        slots[len(entries) :] = 0
        step = max(1, min(8, len(entries) // (2 * self.workers)))  # few tasks, yet enough for every worker
        tasks = [
            pool.submit(self._decode, range(start, min(start + step, len(entries))), entries, slots)
            for start in range(0, len(entries), step)
        ]
        return Batch(first, entries, buffer, tasks)

    def _decode(self, rows: range, entries: list[Entry], slots: Floats) -> dict[int, str]:
        errors = {}
        for row in rows:
            file = entries[row].file
            try:
                self.hasher.preprocess(read_image(file, exif=self.hasher.model.exif), slots[row])
            except ImageError as error:
                slots[row] = 0
                errors[row] = str(error) if file in str(error) else f"{file}: {error}"
                if not os.path.lexists(file):
                    errors[row] += " (the paths of a list file start at the current folder, or at --root)"
        return errors

    def _land(self, ahead: int, progress: Callable[[int], None]) -> None:
        """Take the output of the oldest batches until ``ahead`` are left in flight."""
        while len(self._flight) > ahead:
            batch, errors, launched = self._flight.popleft()
            output, count = launched.wait(), len(batch.entries)
            good = np.ones(count, np.bool_)
            good[list(errors)] = False
            values = output.values[:count]
            features = None if output.features is None else output.features[:count]
            self._check(batch, good, values, features)
            self._compare(batch, good, values)
            self.journal.append(pack(threshold(values)), features, errors)
            self._free.append(batch.buffer)
            progress(self.journal.rows.done)

    def _check(self, batch: Batch, good: Any, values: Floats, features: Floats | None) -> None:
        model = self.hasher.model
        for blob, array in ((model.blob, values), (model.features, features)):
            if array is None:
                continue
            broken = good & ~np.isfinite(array).all(axis=1)
            if broken.any():
                raise WeightsError(
                    f"{batch.entries[int(broken.argmax())].file}: blob {blob!r} is NaN or infinite for this picture: "
                    "the weights are damaged, do not belong to this net and its preprocessing, or "
                    f"{self.hasher.precision} is too narrow for them"
                )
        if good.any():
            self.tally.lowest = min(self.tally.lowest, float(values[good].min()))
            self.tally.highest = max(self.tally.highest, float(values[good].max()))

    def _compare(self, batch: Batch, good: Any, values: Floats) -> None:
        """Count the bits that the chosen precision flips, on the first pictures of the job."""
        if self.hasher.precision == "float32" or batch.first >= SAMPLE:
            return
        exact = self.hasher.run(batch.buffer, precision="float32").values[: len(values)]
        flips = threshold(exact) != threshold(values)
        self.tally.flipped += int(np.count_nonzero(flips[good]))
        self.tally.compared += int(flips[good].size)

    def _stopped(self, errors: dict[int, str]) -> str:
        assert self.journal.listed is not None
        done, total = self.journal.rows.done, self.journal.listed.count
        kept = f"{done} codes are kept, --resume goes on from there; " if done else ""
        return (
            f"{errors[min(errors)]} (stopped at picture {done + min(errors) + 1} of {total}; {kept}--on-error skip "
            "leaves such pictures out, --on-error zero gives them a code of zeros)"
        )


def _step_back() -> None:
    """Let this decode thread take only the time the net leaves over, where both run on the same cores.

    The threads of a net wait for each other, so one that loses its core for a while holds up all the others.
    """
    if sys.platform == "linux":  # elsewhere priorities belong to whole processes
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + 10)


@contextmanager
def _single_threaded_cv2() -> Iterator[None]:
    """OpenCV's own threads off: the workers already use every core."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
