"""How many threads are worth starting."""

from __future__ import annotations

import os


def cores() -> int:
    """The processors this process may use, which may be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1
