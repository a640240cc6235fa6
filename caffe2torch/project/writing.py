"""The files of a project."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from caffe2torch.binaryproto import write_mean
from caffe2torch.data.class_folders import write_lines
from caffe2torch.files import atomic_path
from caffe2torch.project import nets
from caffe2torch.project.bases import Base
from caffe2torch.project.collect import Collection
from caffe2torch.project.examine import Mean
from caffe2torch.project.plan import Plan
from caffe2torch.project.text import readable
from caffe2torch.schema import Message
from caffe2torch.zoo_manifest import SCHEMA
from caffe2torch.zoo_project import FILE


@dataclass(frozen=True, eq=False)
class Parts:
    """All that is written; ``mean`` None: the net subtracts the mean of each channel."""

    base: Base
    shape: nets.Shape
    plan: Plan
    train: Collection
    test: Collection
    mean: Mean | None
    seed: int


def write_project(folder: Path, parts: Parts) -> None:
    """Write the files, project.toml last. Raises OutputError."""
    write_lines(folder / "classes.txt", list(parts.train.classes))
    for name, side in (("train", parts.train), ("test", parts.test)):
        _write_lists(folder, name, side)
    if parts.mean is not None:
        write_mean(folder / "mean.binaryproto", parts.mean)
    base, shape = parts.base, parts.shape
    net = nets.train_val(base, shape, parts.plan)
    _write_text(folder / "train_val.prototxt", net, _about_training(parts))
    about = f"{shape.name}: {base.method} with {shape.bits} bits.\n"
    code = f"A bit of the code is 1 where `{base.entry.code_blob}` > 0.5."
    _write_text(folder / "deploy.prototxt", nets.deploy(base, shape), about + code)
    scores = "Like deploy.prototxt, with the scores of the classes."
    _write_text(folder / "with_classifier.prototxt", nets.deploy(base, shape, classifier=True), about + scores)
    plan = parts.plan
    _write_text(
        folder / "solver.prototxt",
        nets.solver(base, plan, shape.name, parts.seed),
        f"{shape.name}: {plan.max_iter:,} iterations of {plan.batch} pictures, {plan.epochs:.4g} epochs.\n"
        "Paths are relative to this folder; Caffe itself is to be run in it.",
    )
    with atomic_path(folder / FILE) as temporary:
        temporary.write_text(_toml(parts), encoding="utf-8")


def _write_text(path: Path, message: Message, comment: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(readable(message, comment), encoding="utf-8", errors="surrogateescape")


def _about_training(parts: Parts) -> str:
    shape, counts = parts.shape, f"{len(parts.train):,} pictures to train with, {len(parts.test):,} to test with"
    lines = [f"{shape.name}: {parts.base.method} with {shape.bits} bits, {shape.classes} classes. {counts}."]
    if shape.several:
        lines += [
            "A picture may have several labels: HDF5Data gives them in step with the pictures, neither is shuffled.",
            "The accuracy is five figures: sensitivity, specificity, their harmonic mean, precision, F1.",
        ]
    return "\n".join(lines)


def _write_lists(folder: Path, name: str, side: Collection) -> None:
    """The list; for several labels also without the row for a label, and the rows of labels as HDF5, the list of that
    file, and as text."""
    if not side.several:
        write_lines(folder / f"{name}.txt", [f"{n} {label}" for n, label in zip(side.names, side.labels, strict=True)])
        return
    write_lines(folder / f"{name}.txt", [f"{n} {row}" for row, n in enumerate(side.names)])
    write_lines(folder / f"{name}_pictures.txt", list(side.names))
    write_lines(
        folder / f"{name}_labels.txt", [" ".join(map(str, row)) for row in (side.labels > 0).astype(int).tolist()]
    )
    with atomic_path(folder / f"{name}_labels.h5") as temporary, h5py.File(temporary, "w") as file:
        file.create_dataset("label", data=side.labels.astype(np.float32))
    write_lines(folder / f"{name}_h5.txt", [f"{name}_labels.h5"])


def _toml(parts: Parts) -> str:
    """What `caffe2torch.zoo_project` reads."""
    base, shape, entry = parts.base, parts.shape, parts.base.entry
    thing = "labels" if shape.several else "classes"
    values: dict[str, Any] = {
        "schema": SCHEMA,
        "title": f"{base.method}, {shape.bits} bits, {shape.classes} {thing}",
        "paper": base.paper or entry.paper,
        "deploy": "deploy.prototxt",
        "with_classifier": "with_classifier.prototxt",
        "train_val": "train_val.prototxt",
        "solver": "solver.prototxt",
        "weights": f"{shape.name}_iter_*.caffemodel",
        "bits": shape.bits,
        "code_blob": entry.code_blob,
        "code_layer": entry.code_layer,
        "feature_blob": entry.feature_blob,
        "extra_layers": [nets.classifier_name(base)],
    }
    spec: dict[str, Any] = {
        "dialect": "transformer",
        "resize": [base.size, base.size],
        "crop": [base.crop, base.crop],
    }
    if shape.channel_means is None:
        spec["mean_file"] = "mean.binaryproto"
    else:
        spec["mean_values"] = list(shape.channel_means)
    if base.scale != 1.0:
        spec["scale"] = base.scale
    head = "# What `--model` with this folder's name means. `*` is the iteration: the latest snapshot is taken.\n"
    note = "\n# As the data layers of train_val.prototxt prepare a picture to be tested.\n[preprocessing]\n"
    return head + _pairs(values) + note + _pairs(spec)


def _pairs(values: dict[str, Any]) -> str:
    """TOML takes JSON's strings, numbers and lists."""
    return "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items())
