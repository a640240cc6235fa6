"""Two processes with torchrun: the same training as one with batches twice as large."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from torch import distributed

from caffe2torch.caffemodel import open_weights
from solver.nets import NET, weights, write
from solver.nets import solver as make

PLAIN = NET.replace("SHUFFLE", "").replace(
    'layer { name: "drop" type: "Dropout" bottom: "h" top: "h" dropout_param { dropout_ratio: 0.5 } }', ""
)


@pytest.mark.skipif(not distributed.is_available(), reason="this torch was built without distributed")
def test_two_processes_train_like_one_with_twice_the_batch(tmp_path: Path) -> None:
    alone, together = tmp_path / "alone", tmp_path / "together"
    for folder in (alone, together):
        folder.mkdir()
    one = make(alone, "random_seed: 5", net=PLAIN.replace("batch_size: 4", "batch_size: 8"), rows=48)
    one.step(10)
    path = write(together, "random_seed: 5 snapshot: 4 test_iter: 2 test_interval: 5", net=PLAIN, rows=48)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "caffe2torch"]
    subprocess.run(
        [sys.executable, *command, "train", "--solver", str(path), "--root", str(together), "--device", "cpu"],
        check=True,
        cwd=together,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
        timeout=300,
    )
    with open_weights(together / "out" / "snap_iter_10.caffemodel") as file:
        found = [blob.read() for layer in file.layers for blob in layer.blobs]
    for mine, theirs in zip(weights(one), found, strict=True):
        np.testing.assert_allclose(theirs, mine, rtol=0, atol=1e-5 * np.abs(mine).max())
    assert {path.name for path in (together / "out").glob("*.solverstate")} == {
        f"snap_iter_{n}.solverstate" for n in (4, 8, 10)
    }
