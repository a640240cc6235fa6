"""Working memory that each thread keeps between pictures.

Arrays of a megabyte that are made and dropped for every picture go back to the system each time, and taking them again
(one page fault per 4 KB) cost four times as much as the arithmetic.
"""

from __future__ import annotations

import math
import threading

import numpy as np
from numpy.typing import DTypeLike, NDArray

_KEEP = 1 << 25  # bytes of one array that are kept; larger pictures are rare and pay for themselves


class _Kept(threading.local):
    def __init__(self) -> None:
        self.buffers: dict[str, NDArray[np.uint8]] = {}


_kept = _Kept()


def scratch(name: str, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> NDArray[np.generic]:
    """An uninitialised array that is valid until this thread asks for the same name again."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    buffer = _kept.buffers.get(name)
    if buffer is None or len(buffer) < size:
        buffer = np.empty(size, np.uint8)
        if size <= _KEEP:
            _kept.buffers[name] = buffer
    return buffer[:size].view(dtype).reshape(shape)
