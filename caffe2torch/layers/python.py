"""Python layers: classes of the user's own, named by ``python_param { module: "m" layer: "C" }``.

The module must be on ``sys.path``, or else in the prototxt's own folder; loading a net with such a layer runs that
module, so load no net whose Python modules you would not run. Its class may be

* a :class:`caffe2torch.layers.registry.Layer`: ``C.from_caffe(layer, bottom_shapes)`` builds it, like any layer here;
* another ``torch.nn.Module``: ``C()`` builds it, or ``C(param_str)`` where ``param_str`` is given. Its parameters must
  be its own, not those of submodules; in order of registration they are the layer's blobs;
* a class as pycaffe wants it, with ``setup``, ``reshape``, ``forward`` and ``backward`` over numpy blobs.
  Where pycaffe is not installed, ``import caffe`` in such a file gets a stand-in that has only ``caffe.Layer``.

Faster R-CNN's own ``rpn.proposal_layer`` needs no file: unless there is a module ``rpn``, our Proposal takes its place.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from torch import nn

from caffe2torch.errors import LayerError
from caffe2torch.layers.imports import check_origin
from caffe2torch.layers.pycaffe import PycaffeLayer, StandInLayer
from caffe2torch.layers.rcnn import Proposal
from caffe2torch.layers.registry import Layer, Message, Shape, register

KNOWN: dict[tuple[str, str], Callable[[Message, Sequence[Shape]], Layer]] = {
    ("rpn.proposal_layer", "ProposalLayer"): Proposal.from_python,
}
"""Python layers of published nets that are computed here, by module and class."""

_METHODS = ("setup", "reshape", "forward", "backward")


@register("Python")
class Python(Layer):
    """Finds the class and builds its layer; no net holds an instance of this one.

    Not captured by torch.export because, and only where, the class is one for pycaffe: its numpy code cannot be traced.
    """

    bottoms = (0, None)
    tops = (0, None)

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> Layer:
        p = layer.python_param
        known = KNOWN.get((p.module, p.layer))
        if known is not None and importlib.util.find_spec(p.module.partition(".")[0]) is None:
            return known(layer, bottom_shapes)
        found = _find(p.module, p.layer)
        if isinstance(found, type) and issubclass(found, Layer):
            return found.from_caffe(layer, bottom_shapes)
        if isinstance(found, type) and issubclass(found, nn.Module):
            return _adopt(found, p.param_str)
        missing = [name for name in _METHODS if not callable(getattr(found, name, None))]
        if not isinstance(found, type) or missing:
            raise LayerError(
                f"{p.module}.{p.layer} is no layer class: expected a torch.nn.Module, or a class with the methods "
                f"{', '.join(_METHODS)} (missing: {', '.join(missing) or 'it is not a class'})"
            )
        return PycaffeLayer(found, layer, bottom_shapes)


def _find(module: str, name: str) -> Any:
    if not module or not name:
        raise LayerError(f"python_param has module {module!r} and layer {name!r}: expected the names of both")
    if not all(part.isidentifier() for part in module.split(".")):
        raise LayerError(f"python_param.module is {module!r}: expected the name of a module, as import takes it")
    imported = _import(module)
    if not hasattr(imported, name):
        raise LayerError(f"module {module!r} ({getattr(imported, '__file__', 'built in')}) has no class {name!r}")
    return getattr(imported, name)


def _import(module: str) -> ModuleType:
    """Import a module; where it wants pycaffe and there is none, with the stand-in in its place."""
    check_origin(module)
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != "caffe" or module == "caffe":
            raise LayerError(
                f"cannot import {module!r}, the module of a Python layer: {error}; put its folder on PYTHONPATH, or "
                "the file beside the prototxt"
            ) from error
    stand_in = ModuleType("caffe")
    stand_in.Layer = StandInLayer  # type: ignore[attr-defined]
    sys.modules["caffe"] = stand_in
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise LayerError(
            f"cannot import {module!r}, the module of a Python layer, without pycaffe: {error}; "
            "there is only a stand-in with caffe.Layer"
        ) from error
    finally:
        del sys.modules["caffe"]


def _adopt(cls: type[nn.Module], param_str: str) -> Layer:
    """An instance of a torch module that is a Layer as well."""
    both = type(cls.__name__, (cls, Layer), {"__module__": cls.__module__, "__doc__": inspect.getdoc(cls)})
    made = both(param_str) if param_str else both()
    own = [name for name, _ in made.named_parameters(recurse=False)]
    deeper = [name for name, _ in made.named_parameters() if name not in own]
    if deeper:
        raise LayerError(
            f"{cls.__module__}.{cls.__name__} has parameters in submodules ({', '.join(deeper)}), which have no place "
            "among Caffe's blobs; derive it from caffe2torch.layers.registry.Layer and name its blobs"
        )
    assert isinstance(made, Layer)
    made.blobs = tuple(own)
    return made
