"""Golden files: weights, solver states and mean images in each stored form, and the statistics of fillers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from caffe2torch import prototxt
from caffe2torch.binaryproto import read_mean
from caffe2torch.caffemodel import open_weights
from caffe2torch.errors import FormatError
from caffe2torch.fillers import Filler, fill
from caffe2torch.loading import load
from caffe2torch.solver.state import read_state
from caffe2torch.verify import training
from caffe2torch.verify.case import Case
from caffe2torch.verify.compare import LOOSE, Check, claim, compare

EXACT = 0.0
_STEPS = 2
"""Iterations between a stored state and the weights ``w5``."""


def run_weights(case: Case) -> list[Check]:
    """Stored values bit for bit, then the net that each file gives."""
    checks: list[Check] = []
    for path in sorted(case.path.glob("weights.caffemodel*")):
        checks += _stored(case, path, "w")
        net = load(case.path / "net.prototxt", path, phase=case.phase)
        inputs = {blob: torch.from_numpy(case.blobs[f"in:{blob}"].copy()) for blob in net.inputs}
        expected = {k.partition(":")[2]: v for k, v in case.blobs.items() if k.startswith("out:")}
        with torch.no_grad():
            outputs = net.select(*expected)(inputs)
        for blob, value in expected.items():
            checks.append(compare(f"{path.name} out:{blob}", outputs[blob].numpy(), value, LOOSE))
    return checks


def _stored(case: Case, path: Path, prefix: str) -> list[Check]:
    """The arrays of a weights file against ``w:LAYER:I``; an HDF5 file holds what is shared only once."""
    expected = {k.partition(":")[2]: v for k, v in case.blobs.items() if k.startswith(f"{prefix}:")}
    with open_weights(path) as file:
        found = {f"{layer.name}:{i}": blob.read() for layer in file.layers for i, blob in enumerate(layer.blobs)}
    checks = []
    for key, value in expected.items():
        name = f"{path.name} {prefix}:{key}"
        if key in found:
            checks.append(compare(name, found[key].reshape(value.shape), value, EXACT))
        elif path.suffix != ".h5" or not any(np.array_equal(value, other) for other in found.values()):
            checks.append(claim(name, holds=False, detail="is not in the file"))
    extra = sorted(set(found) - set(expected))
    return checks + [claim(f"{path.name} w:{key}", holds=False, detail="is not among Caffe's") for key in extra]


def run_state(case: Case) -> list[Check]:
    """Weights and solver state of a snapshot in both forms, and training that goes on from each."""
    checks: list[Check] = []
    for path in sorted(case.path.glob("*.caffemodel*")):
        checks += _stored(case, path, "w")
    after = {key.partition(":")[2]: value for key, value in case.blobs.items() if key.startswith("w5:")}
    for path in sorted(case.path.glob("*.solverstate*")):
        state = read_state(path)
        found = {"iter": np.asarray(state.iteration), "current_step": np.asarray(state.current_step)}
        found |= {f"history:{index}": array for index, array in enumerate(state.history)}
        expected = {key: value for key, value in case.blobs.items() if key.startswith("history:") or key in found}
        for key, value in expected.items():
            if key in found:
                checks.append(compare(f"{path.name} {key}", found[key], np.asarray(value), EXACT))
            else:
                checks.append(claim(f"{path.name} {key}", holds=False, detail="is not in the file"))
        checks += training.resume(case, path.name, after, _STEPS)
    return checks


def run_mean(case: Case) -> list[Check]:
    """The mean image in each header style."""
    paths = sorted(case.path.glob("*.binaryproto"))
    return [compare(path.name, read_mean(path), case.blobs["mean"], EXACT) for path in paths]


def run_fillers(case: Case) -> list[Check]:
    """Moments of random fillers within sampling error, bilinear kernels exactly."""
    try:
        samples: list[dict[str, Any]] = json.loads((case.path / "fillers.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise FormatError(f"{case.path / 'fillers.json'}: cannot be read: {error}") from error
    checks = [check for sample in samples for check in _moments(sample)]
    for name, kernel in case.blobs.items():
        if name.startswith("bilinear"):
            checks.append(compare(name, fill(torch.empty(kernel.shape), Filler("bilinear")).numpy(), kernel, 2e-7))
    return checks


def _moments(sample: dict[str, Any]) -> list[Check]:
    """Five standard errors for the means of two samples, 3 % for their spreads, half a per cent for the zeros."""
    name = f"{sample['filler']} {'x'.join(map(str, sample['shape']))}"
    filler = prototxt.parse(sample["filler"], "FillerParameter")
    generator = torch.Generator().manual_seed(1)
    values = fill(torch.empty(sample["shape"]), filler, generator=generator).double().numpy()
    allowed = {
        "mean": 5 * sample["std"] * np.sqrt(2 / sample["count"]) + 1e-7,
        "std": 0.03 * sample["std"] + 1e-9,
        "zero_fraction": 0.005,
    }
    found = {"mean": values.mean(), "std": values.std(), "zero_fraction": (values == 0).mean()}
    if any(kind in sample["filler"] for kind in ("uniform", "xavier", "constant")):
        allowed["min"] = allowed["max"] = 0.003 * (sample["max"] - sample["min"]) + 1e-7
        found |= {"min": values.min(), "max": values.max()}
    if "unitball" in sample["filler"]:
        allowed["sum_per_item"] = 1e-5 * abs(sample["sum_per_item"])
        sums = values.reshape(values.shape[0], -1).sum(1)
        found["sum_per_item"] = sums[np.abs(sums - sample["sum_per_item"]).argmax()]
    return [
        claim(
            f"{name}: {what}",
            holds=bool(abs(found[what] - sample[what]) <= limit),
            detail=f"is {found[what]:.6g}, Caffe's {sample[what]:.6g}, expected within {limit:.1g}",
        )
        for what, limit in allowed.items()
    ]
