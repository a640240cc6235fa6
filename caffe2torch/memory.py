"""Memory that is freed and taken again with every batch."""

from __future__ import annotations

import ctypes
import os
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # of glibc's malloc.h
_NEVER = -1


def keep_freed_memory() -> None:
    """Let glibc keep what is freed for whatever needs memory next, and take it from the system in huge pages.

    Otherwise each blob of 32 MB or more goes back to the system when it is freed and comes back as pages to be zeroed
    one by one: a third of a training step of AlexNet, half of its forward pass. For programs, before their first
    tensor; the process keeps the most it ever held. Without glibc nothing changes.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    mallopt(_M_TRIM_THRESHOLD, _NEVER)
    mallopt(_M_MMAP_MAX, 0)  # no block has a mapping of its own, which would end with it
    mallopt(_M_ARENA_MAX, 1)  # autograd's thread frees what the main one has taken, and the other way round
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch reads it with its first tensor
