"""The table of docs/conversion.md: every known net in every form, with size, time and largest difference."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from caffe2torch import __version__, zoo
from caffe2torch.errors import Caffe2TorchError, UsageError
from caffe2torch.export.convert import File, Settings, convert
from caffe2torch.export.models import Convertible, from_files, from_zoo
from caffe2torch.files import atomic_path
from caffe2torch.net import CaffeNet

COLUMNS = (
    ("source", Settings(("source", "safetensors"))),
    ("pt", Settings(("pt",))),
    ("pt2", Settings(("pt2",))),
    ("onnx", Settings(("onnx",))),
    ("half", Settings(("safetensors",), half=True)),
    ("pictures", Settings(("pt2",), pictures=True)),
)
"""What each row holds: the form, and the settings it is written with."""

BEGIN, END = "<!-- table -->", "<!-- end of table -->"


@dataclass(frozen=True)
class Row:
    """One model: its name, whether its weights are the real ones, and a cell for each column."""

    name: str
    real: bool
    cells: tuple[str, ...]


def write_table(path: Path, models: Path | None, *, say: Callable[[str], None]) -> None:
    """Replace the table in ``path`` (between its two marks) by one made now.

    ``models`` is a folder of nets with their weights: X.prototxt beside X*.caffemodel or X*.caffemodel.h5.
    """
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from error
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UsageError(f"{path}: has no place for the table: expected the lines {BEGIN} and {END}")
    rows = []
    for model, real in _known(models):
        say(f"caffe2torch: {model.name}")
        rows.append(_row(model, real=real))
    with atomic_path(path) as temporary:
        temporary.write_text(before + BEGIN + "\n" + _text(rows) + END + after, "utf-8")


def _known(models: Path | None) -> Iterator[tuple[Convertible, bool]]:
    """The real models of a folder, then the zoo; with weights from fillers where a model's own are not here."""
    for net in sorted(models.rglob("*.prototxt")) if models else ():
        found = [w for w in sorted(net.parent.iterdir()) if w.name.startswith(net.stem) and ".caffemodel" in w.name]
        if found and not (net.stem + "_").startswith(tuple(f"{p.stem}_" for p in _longer(net, found[0]))):
            yield from_files(net, found[0]), True
    for name in zoo.names():
        here = zoo.is_here(zoo.entry(name).weights)
        yield from_zoo(name, random=not here), here


def _longer(net: Path, weights: Path) -> list[Path]:
    """Other nets of the folder whose longer name fits the weights better."""
    others = net.parent.glob("*.prototxt")
    return [o for o in others if len(o.stem) > len(net.stem) and weights.name.startswith(o.stem)]


def _row(model: Convertible, *, real: bool) -> Row:
    torch.manual_seed(0)
    net = model.load()
    if not real:
        _spread(net)
    cells = tuple(_cell(net, model, column, settings) for column, settings in COLUMNS)
    del net
    gc.collect()
    return Row(model.name, real, cells)


def _spread(net: CaffeNet) -> None:
    """Fillers of deploy nets are constants mostly; random weights keep their values apart."""
    for parameter in net.parameters():
        if parameter.dim() > 1:
            torch.nn.init.kaiming_normal_(parameter)


def _cell(net: CaffeNet, model: Convertible, column: str, settings: Settings) -> str:
    preprocessing = model.preprocessing()
    if settings.pictures and preprocessing is None:
        return "-"
    with tempfile.TemporaryDirectory(prefix="caffe2torch-") as folder:
        try:
            result = convert(net, folder, settings=settings, preprocessing=preprocessing)
        except Caffe2TorchError as error:
            return f"refused: {error}".replace("|", "/")
        return _figures(result.files, result.seconds)


def _figures(files: tuple[File, ...], seconds: float) -> str:
    size = sum(file.size for file in files)
    check = files[-1].check
    said = files[-1].unchecked if check is None else "equal" if check.equal else f"{check.relative:.0e}"
    return f"{size / 1e6:.1f} MB, {seconds:.1f} s, {said}"


def _text(rows: list[Row]) -> str:
    head = ("net", "weights", *(column for column, _ in COLUMNS))
    lines = [
        f"Made with caffe2torch {__version__} and torch {torch.__version__} on {torch.get_num_threads()} threads.\n"
    ]
    lines += [f"| {' | '.join(head)} |", f"|{'|'.join(['---'] * len(head))}|"]
    lines += [f"| {' | '.join((row.name, 'real' if row.real else 'random', *row.cells))} |" for row in rows]
    return "\n".join(lines) + "\n"
