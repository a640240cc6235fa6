"""Several processes training one net: what they have to agree on.

Started by ``torchrun``, every process takes its own batches: of each ``size`` batches in a row, the process with rank r
takes number r. Gradients are averaged, as Caffe averages them over its GPUs, so an iteration counts as one with a batch
``size`` times as large, and neither learning rate nor iterations are changed for it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor
from torch import distributed as dist

_PATIENCE = timedelta(hours=12)
"""How long the others wait while the first one tests and writes snapshots."""

_ENDS_BADLY = tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 8)
"""Whether torch holds Python's lock while it waits for gloo's threads, which need it to free the last tensors: without
a pause many a training never ends. A barrier instead would hang where one process has failed."""


@dataclass(frozen=True)
class Group:
    """This process's place among them; the default is to be alone."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that tests, logs and writes."""
        return self.rank == 0

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its mean over all processes."""
        if self.size > 1:
            for tensor in tensors:
                dist.all_reduce(tensor)
                tensor.div_(self.size)

    def total(self, values: list[float]) -> list[float]:
        """The sum of each number over all processes."""
        if self.size == 1:
            return values
        device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else "cpu"
        tensor = torch.tensor(values, dtype=torch.float64, device=device)
        dist.all_reduce(tensor)
        return tensor.tolist()

    def seed(self, seed: int) -> int:
        """The first one's seed."""
        return int(self.total([seed if self.first else 0])[0])


def join() -> Group:
    """The group that torchrun started; alone where it did not."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Group()
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank())
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=_PATIENCE)
    return Group(dist.get_rank(), size)


def leave(group: Group) -> None:
    """End what ``join`` began."""
    if group.size > 1:
        if _ENDS_BADLY:
            time.sleep(1.0)
        dist.destroy_process_group()


def local_rank() -> int:
    """Which of this machine's devices is this process's."""
    return int(os.environ.get("LOCAL_RANK", "0"))
