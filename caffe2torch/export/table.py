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

RUNS = (
    Settings(("source", "safetensors", "pt", "pt2", "onnx")),
    Settings(("safetensors",), half=True),
    Settings(("pt2",), pictures=True),
)
COLUMNS = ("source", "pt", "pt2", "onnx", "half", "pictures")

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
    for weights in sorted(models.rglob("*.caffemodel*")) if models else ():
        nets = [net for net in weights.parent.glob("*.prototxt") if weights.name.startswith(net.stem)]
        if nets:
            yield from_files(max(nets, key=lambda net: len(net.stem)), weights), True
    for name in zoo.names():
        here = zoo.is_here(zoo.entry(name).weights)
        yield from_zoo(name, random=not here), here


def _row(model: Convertible, *, real: bool) -> Row:
    torch.manual_seed(0)
    net = model.load()
    if not real:
        _spread(net)
    every, half, pictures = (_run(net, model, settings) for settings in RUNS)
    cells = [every] * 4 if isinstance(every, str) else [_cell(*every[:2]), *(_cell(file) for file in every[2:])]
    cells += [found if isinstance(found, str) else _cell(*found) for found in (half, pictures)]
    del net
    gc.collect()
    return Row(model.name, real, tuple(cells))


def _spread(net: CaffeNet) -> None:
    """Fillers of deploy nets are constants mostly; random weights keep their values apart."""
    for parameter in net.parameters():
        if parameter.dim() > 1:
            torch.nn.init.kaiming_normal_(parameter)


def _run(net: CaffeNet, model: Convertible, settings: Settings) -> tuple[File, ...] | str:
    """The files of one conversion, or why there are none."""
    preprocessing = model.preprocessing()
    if settings.pictures and preprocessing is None:
        return "-"
    with tempfile.TemporaryDirectory(prefix="caffe2torch-") as folder:
        try:
            return convert(net, folder, settings=settings, preprocessing=preprocessing).files
        except Caffe2TorchError as error:
            return f"refused: {error}".replace("|", "/")


def _cell(*files: File) -> str:
    size, seconds, check = sum(f.size for f in files), sum(f.seconds for f in files), files[-1].check
    said = files[-1].unchecked if check is None else "equal" if check.equal else f"{check.relative:.0e}"
    return f"{size / 1e6:.1f} MB, {seconds:.1f} s, {said}"


def _text(rows: list[Row]) -> str:
    head = ("net", "weights", *COLUMNS)
    lines = [
        f"Made with caffe2torch {__version__} and torch {torch.__version__} on {torch.get_num_threads()} threads.\n"
    ]
    lines += [f"| {' | '.join(head)} |", f"|{'|'.join(['---'] * len(head))}|"]
    lines += [f"| {' | '.join((row.name, 'real' if row.real else 'random', *row.cells))} |" for row in rows]
    return "\n".join(lines) + "\n"
