"""The table of who may import whom; see the package's modules from the ground up."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "caffe2torch"

# Each level may import from its own and the levels before it.
LEVELS = [
    {"errors", "__init__"},
    {"schema", "wire", "figures", "files", "cores", "threads", "memory", "matlab_v5", "retrieval"},
    {"prototxt", "upgrade", "blobs"},
    {"net_state", "graph", "caffemodel", "hdf5", "binaryproto", "preprocess", "data"},
    {"zoo", "download"},
    {"layers", "fillers", "devices"},
    {"sharing", "overwriting", "net", "build"},
    {"matching"},
    {"loading", "saving"},
    {"solver"},
    {"extract", "verify"},
    {"evaluation", "browse", "export", "importing", "project", "release", "surgery"},
    {"cli", "commands", "__main__"},
]
TORCH_BEGINS = 5
TORCH_BELOW = {"retrieval/engine_torch.py"}
"""Loaded only by whoever asks for it by name."""


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def part(name: str) -> str:
    return name.split(".")[0]


def level(name: str) -> int:
    for index, names in enumerate(LEVELS):
        if name in names or any(name.startswith(f"{n}_") for n in names):
            return index
    raise AssertionError(f"caffe2torch/{name} stands on no level of the table in {Path(__file__).name}")


def imports(path: Path) -> list[str]:
    """Full names of the modules imported anywhere in a file, type-checking blocks left out."""
    found: list[str] = []

    class Visitor(ast.NodeVisitor):
        def visit_If(self, node: ast.If) -> None:
            if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
                return
            self.generic_visit(node)

        def visit_Import(self, node: ast.Import) -> None:
            found.extend(alias.name for alias in node.names)

        def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
            if node.module == "caffe2torch":
                found.extend(f"caffe2torch.{alias.name}" for alias in node.names)
            else:
                found.append(node.module or "")

    Visitor().visit(ast.parse(path.read_text("utf-8")))
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down_the_table(path: Path) -> None:
    own = path.relative_to(PACKAGE).with_suffix("").parts[0]
    for name in imports(path):
        if name == "torch" or name.startswith("torch."):
            if path.relative_to(PACKAGE).as_posix() in TORCH_BELOW:
                continue
            assert level(own) >= TORCH_BEGINS, f"{own} imports torch"
        if name.startswith("caffe2torch."):
            other = part(name.removeprefix("caffe2torch."))
            if not (PACKAGE / other).is_dir() and not (PACKAGE / f"{other}.py").is_file():
                continue  # a name of the package's own __init__
            assert level(other) <= level(own), f"{own} imports {other}, which stands above it"


def test_layers_see_neither_files_nor_the_graph() -> None:
    for path in (PACKAGE / "layers").glob("*.py"):
        for name in imports(path):
            forbidden = {"graph", "caffemodel", "hdf5", "binaryproto", "data", "prototxt", "preprocess", "zoo"}
            assert part(name.removeprefix("caffe2torch.")) not in forbidden or not name.startswith("caffe2torch.")


def test_retrieval_knows_nothing_of_caffe() -> None:
    allowed = {"errors", "files", "cores", "threads", "matlab_v5", "retrieval"}
    for path in (PACKAGE / "retrieval").glob("*.py"):
        for name in imports(path):
            if name.startswith("caffe2torch."):
                assert part(name.removeprefix("caffe2torch.")) in allowed


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, caffe2torch, caffe2torch.cli, caffe2torch.zoo; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
