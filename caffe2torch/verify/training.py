"""Golden training runs: ten iterations of a solver, the snapshots it writes, and going on from Caffe's own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from caffe2torch.caffemodel import open_weights
from caffe2torch.errors import FormatError
from caffe2torch.net import CaffeNet
from caffe2torch.solver.events import Events
from caffe2torch.solver.settings import read_settings
from caffe2torch.solver.solver import Solver
from caffe2torch.solver.state import SolverState, read_state
from caffe2torch.verify.case import Case, read_arrays
from caffe2torch.verify.compare import TIGHT, Array, Check, claim, compare


class _Trace(Events):
    """Everything a golden run records, under its names."""

    def __init__(self) -> None:
        self.found: dict[str, list[Array]] = {}

    def _add(self, key: str, value: Array | float) -> None:
        self.found.setdefault(key, []).append(np.asarray(value, np.float32))

    def passed(self, solver: Solver, outputs: dict[str, Tensor]) -> None:
        self._outputs("loss", solver.train.net, outputs)
        self._add("loss_total", solver.train.net.loss(outputs).item())

    def updated(self, solver: Solver, loss: float, rate: float) -> None:
        self._add("iter", solver.iteration)
        self._add("lr", rate)
        self.weights(solver.train.net)

    def test_passed(self, solver: Solver, net: int, number: int, outputs: dict[str, Tensor]) -> None:
        self._add("test_iter", solver.iteration)
        self._outputs("test", solver.tests[net].net, outputs)

    def _outputs(self, kind: str, net: CaffeNet, outputs: Mapping[str, Tensor]) -> None:
        for blob, value in outputs.items():
            if kind == "test" or blob in net.loss_weights:
                self._add(f"{kind}:{blob}", value.detach().squeeze().numpy().copy())

    def weights(self, net: CaffeNet) -> None:
        for key, value in _weights(net).items():
            self._add(f"w:{key}", value)


class _Snapshot(NamedTuple):
    """A snapshot of Caffe's, read from its two files."""

    name: str
    state: SolverState
    weights: dict[str, Array]

    @classmethod
    def read(cls, path: Path) -> _Snapshot:
        return cls(path.name, read_state(path), _stored(path.with_name(path.name.replace("solverstate", "caffemodel"))))


def run(case: Case) -> list[Check]:
    """The whole run against Caffe's, its snapshots against Caffe's, and the second half again from Caffe's snapshot."""
    goldens = read_arrays(case.path / "goldens.npz")
    last = len(goldens["lr"])
    with _copy(case) as folder:
        theirs = [_Snapshot.read(path) for path in _states(folder)]
        for path in folder.glob("snap_iter_*"):
            path.unlink()
        trace = _Trace()
        solver = Solver(
            read_settings(folder / "solver.prototxt", root=folder), weights=["init.caffemodel"], events=trace
        )
        trace.weights(solver.train.net)
        solver.step(last)
        checks = [_against(key, trace.found, value) for key, value in goldens.items()]
        for snapshot in theirs:
            checks += _same(_Snapshot.read(folder / snapshot.name), snapshot)
    ends = {key.partition(":")[2]: value[-1] for key, value in goldens.items() if key.startswith("w:")}
    for snapshot in theirs:
        if snapshot.state.iteration < last:
            checks += resume(case, snapshot.name, ends, last - snapshot.state.iteration)
    return checks


def resume(case: Case, state: str, expected: Mapping[str, Array], iterations: int) -> list[Check]:
    """Restore Caffe's ``state``, go on for some ``iterations``, and compare the weights."""
    with _copy(case) as folder:
        solver = Solver(read_settings(folder / "solver.prototxt", root=folder))
        solver.restore(folder / state)
        solver.step(iterations)
    checks = []
    found = _weights(solver.train.net)
    for key, value in expected.items():
        name = f"{state} resumed w:{key}"
        if key in found:
            checks.append(compare(name, found[key], value, TIGHT))
        else:
            checks.append(claim(name, holds=False, detail="the net has no such parameter"))
    return checks


def _against(key: str, found: Mapping[str, list[Array]], expected: Array) -> Check:
    if key not in found:
        return claim(key, holds=False, detail="was not recorded: no such blob or parameter")
    values = np.stack(found[key])
    return compare(key, values, expected.reshape(len(expected), *values.shape[1:]).astype(np.float32), TIGHT)


def _same(ours: _Snapshot, theirs: _Snapshot) -> list[Check]:
    """Our snapshot against Caffe's of the same iteration."""
    name = theirs.name
    checks = [
        claim(f"{name} {field}", holds=found == expected, detail=f"is {found}, Caffe's {expected}")
        for field, found, expected in (
            ("iter", ours.state.iteration, theirs.state.iteration),
            ("current_step", ours.state.current_step, theirs.state.current_step),
            ("history", len(ours.state.history), len(theirs.state.history)),
            ("blobs", sorted(ours.weights), sorted(theirs.weights)),
        )
    ]
    pairs = zip(ours.state.history, theirs.state.history, strict=False)
    checks += [compare(f"{name} history:{k}", found, expected, TIGHT) for k, (found, expected) in enumerate(pairs)]
    return checks + [
        compare(f"{name} w:{key}", ours.weights[key], value, TIGHT)
        for key, value in theirs.weights.items()
        if key in ours.weights
    ]


def _weights(net: CaffeNet) -> dict[str, Array]:
    return {
        f"{name}:{index}": value.detach().numpy().copy()
        for name, layer in net.layers().items()
        for index, (_, value) in enumerate(layer.blob_items())
    }


def _stored(path: Path) -> dict[str, Array]:
    with open_weights(path) as file:
        return {
            f"{layer.name}:{i}": blob.read()
            for layer in file.layers
            for i, blob in zip(layer.indices, layer.blobs, strict=True)
        }


def _states(folder: Path) -> list[Path]:
    """Solver states in the order of their iterations."""
    return sorted(folder.glob("*.solverstate*"), key=lambda path: (len(path.name), path.name))


@contextmanager
def _copy(case: Case) -> Iterator[Path]:
    """The case's files in a folder where snapshots can be written."""
    if not (case.path / "solver.prototxt").is_file():
        raise FormatError(f"{case.path}: has no solver.prototxt")
    with tempfile.TemporaryDirectory(prefix="caffe2torch-") as temporary:
        folder = Path(temporary) / "case"
        shutil.copytree(case.path, folder, copy_function=shutil.copyfile)
        folder.chmod(0o700)
        yield folder
