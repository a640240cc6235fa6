"""The golden cases: what lies in their folders, and which folders are cases."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from caffe2torch.errors import FormatError, UsageError
from caffe2torch.verify.compare import Array


@dataclass(frozen=True)
class Case:
    """One folder (or, for a full-size net, one ``.npz`` file) of golden values."""

    path: Path
    name: str
    """Its path below the goldens, as ``layers/relu``."""

    @cached_property
    def facts(self) -> dict[str, Any]:
        """``case.json``."""
        path = self.path / "case.json"
        try:
            facts: dict[str, Any] = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise FormatError(f"{path}: cannot be read as a golden case: {error}") from error
        return facts

    @cached_property
    def blobs(self) -> Mapping[str, Array]:
        """``blobs.npz``."""
        return read_arrays(self.path / "blobs.npz")

    @cached_property
    def gradients(self) -> Mapping[str, Array]:
        """``grads.npz``; empty where there is none."""
        path = self.path / "grads.npz"
        return read_arrays(path) if path.exists() else {}

    @property
    def phase(self) -> str:
        return str(self.facts.get("phase", "TEST")).lower()

    @cached_property
    def kind(self) -> str:
        """``net``, ``weights``, ``state``, ``mean``, ``fillers``, ``solver`` or ``fullsize``, told by its files."""
        if self.path.is_file():
            return "fullsize"
        if (self.path / "goldens.npz").exists():
            return "solver"
        if (self.path / "fillers.json").exists():
            return "fillers"
        if not (self.path / "net.prototxt").exists():
            return "mean"
        if any(self.path.glob("*.solverstate*")):
            return "state"
        return "weights" if (self.path / "weights.caffemodel.h5").exists() else "net"


def read_arrays(path: Path) -> dict[str, Array]:
    """All arrays of an ``.npz`` file; raises FormatError for another kind of file."""
    try:
        with np.load(path) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise FormatError(f"{path}: holds one array without a name, expected an .npz file of named arrays")
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise FormatError(f"{path}: cannot be read as an .npz file: {error}") from error


def discover(folder: Path) -> list[Case]:
    """The cases below ``folder``, in the order of their names: the goldens, one kind of them, or a single case.

    Raises UsageError where there are none.
    """
    if not folder.exists():
        raise UsageError(f"{folder}: there is no such folder of golden cases")
    folder = root = folder.resolve()  # a case is run with its folder as current directory
    if (folder / "case.json").exists() or folder.is_file():
        root = folder.parent.parent
    elif any(folder.glob("*/case.json")) or any(folder.glob("*.npz")):
        root = folder.parent
    folders = {path.parent for path in folder.rglob("case.json")}
    files = [folder] if folder.suffix == ".npz" else [p for p in folder.rglob("*.npz") if p.parent.name == "fullsize"]
    paths = sorted({*folders, *(path for path in files if path.parent not in folders)})
    if not paths:
        raise UsageError(f"{folder}: no golden cases below it (folders with a case.json, fullsize/*.npz)")
    return [Case(path, path.relative_to(root).as_posix().removesuffix(".npz")) for path in paths]


def bundled() -> Path:
    """The goldens that come with the program: inside an installed package, or in the checkout's tests."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "_goldens", package.parent / "tests" / "goldens"):
        if (folder / "index.json").is_file():
            return folder
    raise UsageError(
        f"{package / '_goldens'}: the golden cases are neither there nor beside the package; install caffe2torch again"
    )
