"""Running a golden net: every pass forward, one pass backward, the parameters it changes and the files it writes."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from caffe2torch import prototxt
from caffe2torch.build import is_automatic
from caffe2torch.errors import Caffe2TorchError
from caffe2torch.layers.registry import Layer
from caffe2torch.loading import load
from caffe2torch.net import CaffeNet
from caffe2torch.sharing import owned
from caffe2torch.verify.case import Case
from caffe2torch.verify.compare import LONG_SUMS, LOOSE, TIGHT, Array, Check, claim, compare, tolerances
from caffe2torch.verify.randomness import Watch, affected, random_nodes
from caffe2torch.verify.sources import Feed, closeness

CANCELLED = 1e-2
"""A gradient below this share of the largest one of its case is measured by that share instead of by itself: where a
sum cancels (a bias that BatchNorm takes out again) only the rounding of its terms is left."""


GRADIENT_SUMS = frozenset({"Axpy", "Bias", "Scale"})
"""Further types that have a long sum in the gradient of a bottom; those of parameters always are long sums."""


@dataclass(frozen=True)
class Trial:
    """A golden case and the net built from it."""

    case: Case
    net: CaffeNet
    folder: Path
    """Where its files are: the case's own folder, or a copy when the net writes files."""

    @property
    def types(self) -> dict[str, str]:
        """Layer name -> type."""
        return {node.name: node.type for node in self.net.structure.graph.nodes}

    @property
    def writers(self) -> dict[str, str]:
        """Blob -> type of the layer that writes its final value."""
        graph = self.net.structure.graph
        nodes = (*graph.sources, *graph.nodes)
        return {blob: node.type for node in nodes for blob in node.tops}


def run(case: Case) -> list[Check]:
    """All comparisons of one case; errors of the program pass through."""
    with _prepared(case) as trial:
        return [*_forward_and_backward(trial), *_files(trial)]


def build(case: Case, folder: Path | None = None) -> CaffeNet:
    """The case's net with its weights; a few cases lack or add layers on purpose."""
    folder = folder or case.path
    weights = folder / "weights.caffemodel"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load(
            folder / "net.prototxt",
            weights if weights.exists() else None,
            phase=case.phase,
            level=case.facts.get("level", 0),
            stages=case.facts.get("stages", ()),
            allow_missing=True,
            ignore_extra=True,
        )


@contextmanager
def _prepared(case: Case) -> Iterator[Trial]:
    """The net, with its case's folder as current directory; a copy of it when the net writes files there."""
    writes = any(layer.type == "HDF5Output" for layer in prototxt.read_net(case.path / "net.prototxt").layer)
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="caffe2torch-") as temporary:
        folder = case.path
        if writes:
            ignore = shutil.ignore_patterns(*(path.name for path in _written(case)))
            folder = Path(shutil.copytree(folder, Path(temporary) / "case", ignore=ignore))
            folder.chmod(0o700)  # an installed package may be read-only
        os.chdir(folder)
        try:
            yield Trial(case, build(case, folder), folder)
        finally:
            os.chdir(before)


def _written(case: Case) -> list[Path]:
    """HDF5 files in the folder that the net made: those it has an HDF5Output layer for."""
    net = prototxt.read_net(case.path / "net.prototxt")
    names = [layer.hdf5_output_param.file_name for layer in net.layer if layer.type == "HDF5Output"]
    return [case.path / name for name in names if (case.path / name).is_file()]


def _forward_and_backward(trial: Trial) -> list[Check]:
    case, net = trial.case, trial.net
    graph = net.structure.graph
    checks: list[Check] = []
    wanted = [blob for blob in _expected(case, 1) if blob in net.blob_shapes]
    checks += _blob_names(trial)
    runner = _with_sinks(net, wanted)
    read = closeness(trial.folder, graph)
    close = tolerances(graph, {blob: value.share for blob, value in read.items()})
    floors = {blob: value.floor for blob, value in read.items()}
    drawn = random_nodes(net)
    random = affected(graph, drawn, sources=bool(case.facts.get("random")))
    feed, watch = Feed(case, trial.folder, graph), Watch(net, drawn)
    before = {key: value.detach().clone() for key, value in _parameters(net).items()}
    last: tuple[Mapping[str, Tensor], Mapping[str, Tensor]] = ({}, {})
    with watch:
        for number in range(1, case.facts.get("passes", 1) + 1):
            inputs = {blob: x.requires_grad_(bool(case.gradients)) for blob, x in feed(number).items()}
            with torch.set_grad_enabled(bool(case.gradients)):
                outputs = runner({blob: inputs[blob] for blob in runner.inputs})
            checks += _compare_blobs(trial, number, {**inputs, **outputs}, Limits(close, floors, random))
            last = (inputs, outputs)
        checks += watch.checks(case)
    checks += _changed(trial, before)
    if case.gradients and not random:
        checks += _gradients(trial, *last)
    return checks


@dataclass(frozen=True)
class Limits:
    """How close each blob must be: a share of its largest magnitude, that being at least its floor."""

    close: Mapping[str, float]
    floors: Mapping[str, float]
    random: frozenset[str]
    """Blobs that only have to have Caffe's shape."""


def _expected(case: Case, number: int) -> dict[str, Array]:
    prefix = "out:" if number == 1 else f"out{number}:"
    return {key.removeprefix(prefix): value for key, value in case.blobs.items() if key.startswith(prefix)}


def _blob_names(trial: Trial) -> list[Check]:
    """The blobs say which layers survive the rules of the net state."""
    expected = set(_expected(trial.case, 1))
    ours = set(trial.net.blob_shapes)
    unnamed = {blob for blob in ours if is_automatic(blob)}
    missing = sorted(expected - ours)
    extra = sorted(ours - unnamed - expected - set(trial.net.structure.graph.inputs))
    parts = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"has {', '.join(extra)} too"] * bool(extra)
    return [claim("blobs", holds=False, detail="the net " + " and ".join(parts))] if parts else []


def _with_sinks(net: CaffeNet, outputs: list[str]) -> CaffeNet:
    """The net with all these outputs; layers that write files are kept in the plan."""
    sinks = [node.index for node, layer in net.built() if layer.sink]
    modules = {name: module for name, module in net.named_children() if isinstance(module, Layer)}
    return CaffeNet(net.structure, modules, outputs, sinks) if outputs else net


def _compare_blobs(
    trial: Trial,
    number: int,
    values: Mapping[str, Tensor],
    limits: Limits,
) -> list[Check]:
    checks = []
    for blob, value in _expected(trial.case, number).items():
        name = f"out{number if number > 1 else ''}:{blob}"
        layer = trial.writers.get(blob, "")
        if blob not in values:
            continue  # _blob_names has said so
        found = values[blob].detach().numpy()
        if blob in limits.random:
            same = found.shape == value.shape
            checks.append(
                claim(name, holds=same, detail=f"has shape {found.shape}, Caffe's {value.shape}", layer=layer)
            )
        else:
            checks.append(
                compare(name, found, value, limits.close[blob], floor=limits.floors.get(blob, 0.0), layer=layer)
            )
    return checks


def _parameters(net: CaffeNet) -> dict[str, Tensor]:
    """``LAYER:I`` -> parameter blob."""
    return {f"{n}:{i}": blob for n, layer in net.layers().items() for i, (_, blob) in enumerate(layer.blob_items())}


def _changed(trial: Trial, before: Mapping[str, Tensor]) -> list[Check]:
    """Parameters that the passes changed are those that Caffe's changed, and equal them."""
    expected = {k.partition(":")[2]: v for k, v in trial.case.blobs.items() if k.startswith("param_after:")}
    checks = []
    for key, value in _parameters(trial.net).items():
        name, layer = f"param_after:{key}", trial.types[key.rpartition(":")[0]]
        if key in expected:
            checks.append(compare(name, value.detach().numpy(), expected.pop(key), LOOSE, layer=layer))
        else:
            same = np.array_equal(value.detach().numpy(), before[key].numpy(), equal_nan=True)
            checks.append(claim(name, holds=same, detail="changed, Caffe's did not", layer=layer))
    return checks + [claim(f"param_after:{key}", holds=False, detail="the net has no such blob") for key in expected]


def _gradients(trial: Trial, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> list[Check]:
    """One backward pass. Without ``force_backward`` Caffe's starts at the losses only."""
    given, net = trial.case.gradients, trial.net
    forced = net.structure.graph.force_backward
    total = torch.zeros(())
    for key, value in given.items():
        kind, _, blob = key.partition(":")
        if (kind == "loss_weight" and blob not in net.structure.replaced) or (kind == "topdiff" and forced):
            total = total + (outputs[blob] * torch.from_numpy(value)).sum()
    if total.requires_grad:
        torch.autograd.backward(total)
    expected = {key: value for key, value in given.items() if key.startswith("grad_")}
    floor = CANCELLED * max((float(np.abs(v[np.isfinite(v)]).max(initial=0)) for v in expected.values()), default=0.0)
    tight = not (LONG_SUMS | GRADIENT_SUMS) & set(trial.types.values())
    checks = []
    for key, value in expected.items():
        found, layer = _gradient(trial, key, inputs)
        array = np.zeros_like(value) if found is None else found.reshape(value.shape).numpy()
        tolerance = TIGHT if tight and key.startswith("grad_in:") else LOOSE
        checks.append(compare(key, array, value, tolerance, floor=floor, layer=layer))
    for blob, leaf in inputs.items():
        if forced and leaf.grad is not None and f"grad_in:{blob}" not in expected:
            checks.append(claim(f"grad_in:{blob}", holds=False, detail="has a gradient; Caffe propagates none"))
    return checks


def _gradient(trial: Trial, key: str, inputs: Mapping[str, Tensor]) -> tuple[Tensor | None, str]:
    """Our gradient under a key of ``grads.npz`` (None: nothing was propagated), and the layer type it speaks for."""
    kind, _, name = key.partition(":")
    if kind == "grad_in":
        types = set(trial.types.values())
        declared = trial.case.facts.get("layer", "")
        return inputs[name].grad, declared if declared in types else ""
    layer, _, index = name.rpartition(":")
    module = trial.net.layer(layer)
    return owned(module, module.blob_items()[int(index)][0]).grad, trial.types[layer]


def _files(trial: Trial) -> list[Check]:
    """HDF5 files that the net wrote hold what Caffe's hold."""
    checks = []
    for path in _written(trial.case):
        with h5py.File(path, "r") as expected, _open_written(trial.folder / path.name) as found:
            for name in expected:
                have = found[name][()] if name in found else np.zeros(0)
                checks.append(compare(f"{path.name}:{name}", have, expected[name][()], TIGHT, layer="HDF5Output"))
    return checks


def _open_written(path: Path) -> h5py.File:
    if not path.is_file():
        raise Caffe2TorchError(f"the net did not write {path.name}")
    return h5py.File(path, "r")
