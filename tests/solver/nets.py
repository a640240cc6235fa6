"""A small training in a folder: an HDF5 data set, a net and a solver file."""

from __future__ import annotations

import re
from pathlib import Path

import h5py
import numpy as np

from caffe2torch.solver.settings import read_settings
from caffe2torch.solver.solver import Solver

NET = """
name: "small"
layer { name: "d" type: "HDF5Data" top: "x" top: "t" hdf5_data_param { source: "list.txt" batch_size: 4 SHUFFLE } }
layer { name: "ip1" type: "InnerProduct" bottom: "x" top: "h"
        param { lr_mult: 1 decay_mult: 1 } param { lr_mult: 2 decay_mult: 0 }
        inner_product_param { num_output: 6 weight_filler { type: "xavier" } } }
layer { name: "r" type: "ReLU" bottom: "h" top: "h" }
layer { name: "drop" type: "Dropout" bottom: "h" top: "h" dropout_param { dropout_ratio: 0.5 } }
layer { name: "ip2" type: "InnerProduct" bottom: "h" top: "y"
        inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "acc" type: "Accuracy" bottom: "y" bottom: "t" top: "acc" include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "y" bottom: "t" top: "loss" }
"""
SOLVER = {
    "net": '"net.prototxt"',
    "base_lr": "0.1",
    "lr_policy": '"fixed"',
    "momentum": "0.9",
    "weight_decay": "0.01",
    "max_iter": "10",
    "snapshot_prefix": '"out/snap"',
    "random_seed": "3",
}


def write(folder: Path, solver: str = "", *, net: str = NET, rows: int = 22, labels: int = 3) -> Path:
    """Write the files; returns the solver file. Fields in ``solver`` stand in place of the common ones."""
    rng = np.random.default_rng(0)
    with h5py.File(folder / "data.h5", "w") as file:
        file["x"] = rng.standard_normal((rows, 5)).astype(np.float32)
        file["t"] = rng.integers(0, labels, rows).astype(np.float32)
    (folder / "list.txt").write_text("data.h5\n")
    (folder / "net.prototxt").write_text(net.replace("SHUFFLE", "shuffle: true"))
    path = folder / "solver.prototxt"
    given = set(re.findall(r"(\w+):", solver))
    path.write_text("\n".join([solver, *(f"{name}: {value}" for name, value in SOLVER.items() if name not in given)]))
    return path


def solver(folder: Path, text: str = "", **files: object) -> Solver:
    """The training of these files."""
    return Solver(read_settings(write(folder, text, **files), root=folder))  # type: ignore[arg-type]


def weights(solver: Solver) -> list[np.ndarray]:
    """All parameters, in order."""
    return [value.detach().numpy().copy() for value in solver.train.net.parameters()]
