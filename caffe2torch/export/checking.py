"""Running what was written in a fresh interpreter that cannot import caffe2torch, and comparing with the CaffeNet."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from caffe2torch.errors import Caffe2TorchError
from caffe2torch.export.shapes import Batch
from caffe2torch.layers.embed import Embed
from caffe2torch.layers.pick import BatchReindex
from caffe2torch.layers.recurrent import Recurrent
from caffe2torch.net import CaffeNet

ITEMS = 2
"""Batch of the check, for nets that take any."""

_RUN = """
import importlib.abc, json, sys

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "caffe2torch":
            raise ImportError("caffe2torch is not to be imported here")

sys.meta_path.insert(0, Blocked())
job = json.load(open(sys.argv[1], encoding="utf-8"))
import importlib.util
import numpy as np
import torch
from safetensors.torch import load_file
torch.set_num_threads(job["threads"])
spec = importlib.util.spec_from_file_location("model", job["model"])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
net = getattr(module, job["class"])().eval()
net.load_state_dict(load_file(job["weights"]))
values = np.load(job["inputs"])
inputs = [torch.from_numpy(values[f"input{i}"]) for i in range(job["count"])]
with torch.no_grad():
    found = net(*inputs)
found = list(found.values()) if isinstance(found, dict) else [found]
np.savez(job["outputs"], **{f"output{i}": value.numpy() for i, value in enumerate(found)})
"""


@dataclass(frozen=True)
class Check:
    """How far what was written is from the CaffeNet."""

    equal: bool
    """Every value of every output has the same bits."""
    largest: float
    """The largest difference in the output that is farthest off for its size."""
    scale: float
    """The largest magnitude among the CaffeNet's values of that output."""
    seconds: float = 0.0

    @property
    def relative(self) -> float:
        """The largest difference as a share of the largest value."""
        return self.largest / self.scale if self.scale else self.largest

    def text(self) -> str:
        """For a person."""
        return (
            "bit-equal"
            if self.equal
            else f"largest difference {self.largest:.2g} ({self.relative:.1g} of the largest value)"
        )


def example_inputs(net: CaffeNet, batch: Batch, *, items: int = ITEMS, seed: int = 0) -> list[Tensor]:
    """Random inputs (normal, and 0 or 1 where a layer reads numbers) in the order of ``net.inputs``."""
    generator = torch.Generator().manual_seed(seed)
    counted = _counted(net)
    made = []
    for blob, shape in net.input_shapes.items():
        if batch.free:
            shape = (items, *shape[1:])
        if blob in counted:
            made.append(torch.randint(0, counted[blob], shape, generator=generator).float())
        else:
            made.append(torch.randn(shape, generator=generator))
    return made


def _counted(net: CaffeNet) -> dict[str, int]:
    """Blobs whose values are numbers of something, and how many there are."""
    found: dict[str, int] = {}
    for step in net.plan:
        layer = getattr(net, step.module)
        if isinstance(layer, Embed):
            found[step.bottoms[0]] = layer.weight.shape[0]
        elif isinstance(layer, (Recurrent, BatchReindex)):
            found[step.bottoms[1]] = (
                2 if isinstance(layer, Recurrent) else net.structure.blob_shapes[step.bottoms[0]][0]
            )
    return found


def reference_outputs(net: CaffeNet, inputs: list[Tensor]) -> list[Tensor]:
    """What the CaffeNet gives for these inputs, in the order of its outputs."""
    for _, layer in net.built():
        if isinstance(layer, Recurrent):
            layer.reset()
    with torch.no_grad():
        return list(net(*inputs).values())


def compare(expected: list[Tensor], found: list[Tensor], seconds: float = 0.0) -> Check:
    """The output that is farthest off for its size: a large one beside it excuses nothing."""
    checks = [_compared(a, b) for a, b in zip(expected, found, strict=True)]
    worst = max(checks, key=lambda check: check.relative)
    return Check(all(check.equal for check in checks), worst.largest, worst.scale, seconds)


def _compared(a: Tensor, b: Tensor) -> Check:
    """One output. Two NaN are equal, and a NaN and a number infinitely far apart."""
    if a.shape != b.shape:
        raise Caffe2TorchError(f"the written net gives shape {tuple(b.shape)}, the Caffe net {tuple(a.shape)}")
    a, b = a.detach(), b.detach()
    same = (a == b) | (a.isnan() & b.isnan())
    difference = torch.where(same, 0.0, (a.double() - b.double()).abs()).nan_to_num(nan=float("inf"))
    finite = a[a.isfinite()].abs()
    largest, scale = (float(values.max()) if values.numel() else 0.0 for values in (difference, finite))
    return Check(bool(same.all()), largest, scale)


def check_source(
    net: CaffeNet, batch: Batch, folder: Path, class_name: str, expected: Mapping[str, Tensor] | None = None
) -> Check:
    """Run ``model.py`` and ``model.safetensors`` of ``folder`` in a process of its own, which must not need us."""
    started = time.monotonic()
    inputs = example_inputs(net, batch)
    values = reference_outputs(net, inputs)
    with tempfile.TemporaryDirectory(prefix="caffe2torch-") as temporary:
        place = Path(temporary)
        np.savez(place / "inputs.npz", **{f"input{i}": value.numpy() for i, value in enumerate(inputs)})  # type: ignore[arg-type]
        job = {
            "model": str((folder / "model.py").resolve()),
            "weights": str((folder / "model.safetensors").resolve()),
            "class": class_name,
            "inputs": str(place / "inputs.npz"),
            "outputs": str(place / "outputs.npz"),
            "count": len(inputs),
            "threads": torch.get_num_threads(),
        }
        (place / "job.json").write_text(json.dumps(job), "utf-8")
        run_alone(_RUN, [str(place / "job.json")], cwd=place)
        with np.load(place / "outputs.npz") as file:
            found = [torch.from_numpy(file[f"output{i}"]) for i in range(len(values))]
    return compare(values, found, time.monotonic() - started)


def run_alone(program: str, arguments: list[str], *, cwd: Path) -> None:
    """Run a Python program in a new interpreter; its last line of complaint becomes a Caffe2TorchError."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        raise Caffe2TorchError(f"the written net does not run in a fresh interpreter: {lines[-1]}")
