"""Which engines there are, what they have in common, and which one "auto" means.

All of them give the same positions in the same order; they differ in speed and in what must be installed.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Protocol

from caffe2torch.errors import UsageError
from caffe2torch.retrieval.codes import Packed
from caffe2torch.retrieval.engine_faiss import FaissEngine
from caffe2torch.retrieval.engine_numpy import NumpyEngine
from caffe2torch.retrieval.hamming import Distances, Neighbours, Positions

ENGINES = ("auto", "faiss", "numpy", "torch")


class Engine(Protocol):
    """Exhaustive or grouped search; queries are packed codes, (Q, width), and k is at most ``len(engine)``."""

    @property
    def name(self) -> str: ...
    def __len__(self) -> int: ...
    def search(self, queries: Packed, k: int) -> tuple[Positions, Distances]: ...
    def within(self, queries: Packed, radius: int) -> Neighbours: ...


Make = Callable[[Packed, int], Engine]


def engine_maker(name: str) -> Make:
    """What builds the engine ``name`` from (packed, bits); "auto" is faiss where it is installed, else numpy.

    "torch:cuda:1" names a device for the engine torch. Raises UsageError for an unknown name and MissingPackageError
    where faiss was asked for and is not installed.
    """
    kind, _, device = name.partition(":")
    if kind not in ENGINES or (device and kind != "torch"):
        raise UsageError(f"no engine is called {name!r}; there are {', '.join(ENGINES)}, and torch:DEVICE")
    if kind == "torch":
        from caffe2torch.retrieval.engine_torch import TorchEngine

        return lambda packed, bits: TorchEngine(packed, bits, device=device or None)
    if kind == "faiss" or (kind == "auto" and find_spec("faiss") is not None):
        return FaissEngine
    return NumpyEngine
