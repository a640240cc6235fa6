"""The main job: from pictures to hash codes, with a journal that makes it safe to kill.

``extract`` does it; the other modules are its parts, from ``listing`` (which pictures) over ``pipeline`` (decode
workers, batches, the net) and ``journal`` (rows done so far) to ``writers`` (the output file).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from caffe2torch.extract.hasher import Hasher
    from caffe2torch.extract.job import extract
    from caffe2torch.extract.model import Model
    from caffe2torch.extract.summary import Summary

__all__ = ["Hasher", "Model", "Summary", "extract"]

_HOMES = {"Hasher": "hasher", "Model": "model", "Summary": "summary", "extract": "job"}


def __getattr__(name: str) -> Any:
    """Load torch and OpenCV only when something of this package is used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
