"""Writing a net in the forms that are asked for, and checking each of them."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from caffe2torch.errors import OutputError, UsageError
from caffe2torch.export import check_forms, checking, forms
from caffe2torch.export.checking import Check
from caffe2torch.export.onnx import require_onnx, write_onnx
from caffe2torch.export.preprocessing import Written
from caffe2torch.export.readme import readme
from caffe2torch.export.safetensors import write_safetensors
from caffe2torch.export.source import Origin, Source, write_source
from caffe2torch.files import atomic_path, make_folder
from caffe2torch.net import CaffeNet

FORMATS = ("source", "safetensors", "pt", "pt2", "onnx")
DEFAULT = ("source", "safetensors")
FILES = {
    "source": "model.py",
    "safetensors": "model.safetensors",
    "pt": "model.pt",
    "pt2": "model.pt2",
    "onnx": "model.onnx",
}


@dataclass(frozen=True)
class Settings:
    """What to write. ``half``: float16 weights. ``pictures``: pt2 and onnx take RGB pictures, not the net's input."""

    formats: tuple[str, ...] = DEFAULT
    half: bool = False
    pictures: bool = False
    check: bool = True
    force: bool = False


@dataclass(frozen=True)
class File:
    """One file that was written."""

    form: str
    path: Path
    size: int
    seconds: float
    check: Check | None = None
    unchecked: str = ""
    """Why there is no check."""


@dataclass(frozen=True)
class Result:
    """What a conversion wrote, and how far each form is from the Caffe net."""

    folder: Path
    files: tuple[File, ...]
    notes: tuple[str, ...]
    seconds: float
    """Writing alone, checks left out."""
    preprocessing: bool = False
    parts: Mapping[str, float] = field(default_factory=dict)


def convert(
    net: CaffeNet,
    folder: str | Path,
    *,
    settings: Settings | None = None,
    origins: Sequence[Origin] = (),
    preprocessing: Written | None = None,
) -> Result:
    """Write the net into ``folder`` under fixed names; nothing in the net decides where.

    Raises OutputError where a file is already there (unless ``force``), UnsupportedLayerError for what has no plain
    PyTorch form, MissingPackageError for ONNX without its package.
    """
    chosen, folder = settings or Settings(), Path(folder)
    check_possible(folder, chosen)
    if chosen.pictures and preprocessing is None:
        raise UsageError("the preprocessing cannot be built in: it is not known for this net; give --preprocess")
    wanted = [form for form in FORMATS if form in chosen.formats]
    started = time.monotonic()
    source = write_source(net, origins, preprocessing)
    state = forms.halved(source.state) if chosen.half else source.state
    make_folder(folder)
    files = []
    for form in wanted:
        begun = time.monotonic()
        path = folder / FILES[form]
        _write(form, path, source, state, chosen)
        files.append((form, path, time.monotonic() - begun))
    with atomic_path(folder / "README.md") as temporary:
        temporary.write_text(readme(source, wanted, half=chosen.half, pictures=chosen.pictures), "utf-8")
    seconds = time.monotonic() - started
    checked = _checks(net, source, folder, wanted, chosen) if chosen.check else {}
    made = tuple(
        File(form, path, path.stat().st_size, spent, *_split(checked.get(form, "not asked for")))
        for form, path, spent in files
    )
    return Result(folder, made, source.notes, seconds, preprocessing is not None)


def _split(check: Check | str) -> tuple[Check | None, str]:
    return (None, check) if isinstance(check, str) else (check, "")


def check_possible(folder: Path, settings: Settings) -> None:
    """All that can be told without the net: known formats, their packages, and files that exist (OutputError)."""
    unknown = [form for form in settings.formats if form not in FORMATS]
    if unknown or not settings.formats:
        raise UsageError(f"the format {', '.join(unknown) or '(none)'} is not known: expected {', '.join(FORMATS)}")
    if "onnx" in settings.formats:
        require_onnx()
    names = [*(FILES[form] for form in FORMATS if form in settings.formats), "README.md"]
    there = [name for name in names if os.path.lexists(folder / name)]
    if there and not settings.force:
        raise OutputError(f"{folder}: {', '.join(there)} exists already; give --force to replace, or another folder")


def _write(form: str, path: Path, source: Source, state: Mapping[str, Tensor], settings: Settings) -> None:
    if form == "source":
        with atomic_path(path) as temporary:
            temporary.write_text(source.text, "utf-8")
    elif form == "safetensors":
        write_safetensors(path, state)
    elif form == "pt":
        with atomic_path(path) as temporary:
            torch.save(dict(state), temporary)
    elif form == "pt2":
        forms.write_pt2(path, source, state, half=settings.half, pictures=settings.pictures)
    else:
        write_onnx(path, source, state, half=settings.half, pictures=settings.pictures)


def _checks(
    net: CaffeNet, source: Source, folder: Path, formats: Sequence[str], settings: Settings
) -> dict[str, Check | str]:
    """The check of each form; the source and the weights that go with it are checked together."""
    found: dict[str, Check | str] = {}
    if {"source", "safetensors"} <= set(formats):
        found["source"] = found["safetensors"] = checking.check_source(net, source.batch, folder, source.class_name)
    for form in formats:
        if form not in found:
            found[form] = check_forms.check(form, folder / FILES[form], net, source, settings.pictures)
    return found
