"""Where nets run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from caffe2torch.errors import UsageError


def choose_device(name: str) -> torch.device:
    """``auto`` (the first GPU if there is one), ``cpu``, ``cuda`` or ``cuda:N``; UsageError for what is not here."""
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"device {name!r}: expected auto, cpu or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"device {name!r}: expected auto, cpu or cuda:N")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            there = f"only {', '.join(f'cuda:{n}' for n in range(count))}" if count else "no CUDA device"
            raise UsageError(f"device {name!r}: this machine has {there}; use --device cpu or auto")
        return torch.device("cuda", device.index or 0)
    return device


@contextmanager
def exact_float32() -> Iterator[None]:
    """TF32 off: float32 products keep all 24 bits, which is what defines a code and Caffe's training."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32, cudnn.allow_tf32 = False, False
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before
