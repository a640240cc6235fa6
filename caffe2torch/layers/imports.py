"""Importing the modules of users: those of Python layers, and those that register layer classes."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType

from caffe2torch.errors import LayerError, UsageError


@contextmanager
def modules_from(folder: Path) -> Iterator[None]:
    """Let modules be imported from ``folder`` too, after all other places."""
    place = str(folder.resolve())
    if place in sys.path:
        yield
        return
    importlib.invalidate_caches()  # the files may be seconds old
    sys.path.append(place)
    try:
        yield
    finally:
        if place in sys.path:
            sys.path.remove(place)


def check_origin(module: str) -> None:
    """Raise LayerError where a module of this name was imported from elsewhere than an import would now find it.

    Python keeps one module of a name: two nets with a ``layers.py`` each would otherwise share the first one's.
    """
    name = module.partition(".")[0]
    loaded = getattr(sys.modules.get(name), "__spec__", None)
    found = PathFinder.find_spec(name) if loaded else None
    if loaded and found and found.origin and loaded.origin and Path(found.origin) != Path(loaded.origin):
        raise LayerError(
            f"the module {name!r} of a Python layer is {found.origin}, but {loaded.origin} is already imported under "
            "that name; rename one of them, or load the nets in separate processes"
        )


def import_layers(source: str) -> ModuleType:
    """Import a module by its name, or a ``.py`` file by its path, for the classes it registers.

    Raises UsageError where there is no such module or file, or where it is no Python. What the code itself raises is
    not caught.
    """
    try:
        return _import_file(Path(source)) if source.endswith(".py") else importlib.import_module(source)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"--import {source}: {error}; give the name of a module on PYTHONPATH, or the path of a .py file"
        ) from error
    except SyntaxError as error:
        raise UsageError(f"--import {source}: {error.filename}:{error.lineno}: {error.msg}") from error


def _import_file(path: Path) -> ModuleType:
    """The module of a file, under the file's name; imported once."""
    name = path.stem
    known = sys.modules.get(name)
    if known is not None:
        if Path(getattr(known, "__file__", None) or "").resolve() == path.resolve():
            return known
        raise UsageError(f"--import {path}: a module {name!r} is already imported; give the file another name")
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise UsageError(f"--import {path}: there is no such file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
