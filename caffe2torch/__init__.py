"""caffe2torch: Caffe models in PyTorch, exactly.

The public names load what they need on first use: ``import caffe2torch`` itself does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from caffe2torch.caffemodel import open_weights, write_caffemodel
    from caffe2torch.errors import Caffe2TorchError
    from caffe2torch.graph import build_graph
    from caffe2torch.hdf5 import write_hdf5
    from caffe2torch.importing import to_caffe
    from caffe2torch.layers.registry import Layer, register
    from caffe2torch.loading import load
    from caffe2torch.net import CaffeNet
    from caffe2torch.prototxt import read_net, read_solver
    from caffe2torch.retrieval.readers import read_codes
    from caffe2torch.saving import save

__all__ = [
    "Caffe2TorchError",
    "CaffeNet",
    "Layer",
    "__version__",
    "build_graph",
    "load",
    "open_weights",
    "read_codes",
    "read_net",
    "read_solver",
    "register",
    "save",
    "to_caffe",
    "write_caffemodel",
    "write_hdf5",
]

_HOMES = {
    "Caffe2TorchError": "errors",
    "CaffeNet": "net",
    "Layer": "layers.registry",
    "build_graph": "graph",
    "load": "loading",
    "open_weights": "caffemodel",
    "read_codes": "retrieval.readers",
    "read_net": "prototxt",
    "read_solver": "prototxt",
    "register": "layers.registry",
    "save": "saving",
    "to_caffe": "importing",
    "write_caffemodel": "caffemodel",
    "write_hdf5": "hdf5",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'caffe2torch' has no attribute {name!r}")
    return getattr(importlib.import_module(f"caffe2torch.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)
