"""What a training starts from: weights by layer name, in the training net and in the test nets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from caffe2torch.caffemodel import write_caffemodel
from caffe2torch.prototxt import parse
from caffe2torch.solver.settings import read_settings
from caffe2torch.solver.solver import Solver
from solver.nets import NET, write

OWN = 'layer { name: "own" type: "InnerProduct" bottom: "x" top: "z" include { phase: TEST } inner_product_param { '


def weights(path: Path, **layers: float) -> Path:
    """A file of InnerProduct layers with 5 inputs, all of whose values are the number given."""
    net = "".join(
        f'layer {{ name: "{name}" type: "InnerProduct" inner_product_param {{ num_output: 6 }} }}' for name in layers
    )
    blobs = {name: [np.full((6, 5), x, np.float32), np.full(6, x, np.float32)] for name, x in layers.items()}
    write_caffemodel(path, parse(net), blobs)
    return path


def test_files_in_the_solver_stand_after_commas_too_and_the_last_counts(tmp_path: Path) -> None:
    for name, layers in {"a": {"ip1": 1.0, "own": 2.0}, "b": {"ip1": 3.0}, "c": {"other": 4.0, "own": 5.0}}.items():
        weights(tmp_path / name, **layers)
    net = NET + OWN + "num_output: 6 } }"
    path = write(tmp_path, 'weights: "a,b" weights: "c" test_iter: 1 test_interval: 1', net=net)
    with pytest.warns(UserWarning, match="c: no layer has the name of one of the net's"):
        solver = Solver(read_settings(path, root=tmp_path))
    for net_, name, value in (
        (solver.train.net, "ip1", 3.0),
        (solver.tests[0].net, "ip1", 3.0),
        (solver.tests[0].net, "own", 5.0),
    ):
        assert all(bool((blob == value).all()) for _, blob in net_.layers()[name].blob_items()), name


def test_a_test_net_has_the_layers_of_the_training_net_themselves(tmp_path: Path) -> None:
    path = write(tmp_path, "test_iter: 1 test_interval: 1", net=NET + OWN + "num_output: 2 } }")
    solver = Solver(read_settings(path, root=tmp_path))
    mine, theirs = (net.layers()["ip1"].blob_items() for net in (solver.train.net, solver.tests[0].net))
    assert [id(blob) for _, blob in mine] == [id(blob) for _, blob in theirs]


def test_a_solver_without_iterations_is_told(tmp_path: Path) -> None:
    path = write(tmp_path)
    path.write_text(path.read_text().replace("max_iter: 10", ""))
    with pytest.warns(UserWarning, match=r"solver\.prototxt: has no max_iter: nothing is trained"):
        Solver(read_settings(path, root=tmp_path)).solve()
