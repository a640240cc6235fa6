"""Writing a ``.safetensors`` file: eight bytes of length, a JSON header, and the values, one tensor after the other.

The format is that of the safetensors package, whose own writer first makes a copy of everything in memory.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from caffe2torch.files import atomic_path

_NAMES = {torch.float32: "F32", torch.float16: "F16", torch.int64: "I64"}
_ALIGNED = 8


def write_safetensors(path: Path, state: Mapping[str, Tensor], *, metadata: Mapping[str, str] | None = None) -> None:
    """Write the tensors (float32, float16 or int64; on the CPU) under their names, one at a time."""
    order = sorted(state, key=lambda name: (-state[name].element_size(), name))  # so that all lie aligned
    header: dict[str, object] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    place = 0
    for name in order:
        value = state[name]
        size = value.numel() * value.element_size()
        header[name] = {
            "dtype": _NAMES[value.dtype],
            "shape": list(value.shape),
            "data_offsets": [place, place + size],
        }
        place += size
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % _ALIGNED)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(struct.pack("<Q", len(text)))
        file.write(text)
        for name in order:
            file.write(state[name].contiguous().numpy().reshape(-1).view(np.uint8).data)
