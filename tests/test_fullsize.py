"""The four published hashing nets at full size, against values of real Caffe and against OpenCV."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from caffe2torch.loading import load
from caffe2torch.verify.case import Case, bundled, discover
from caffe2torch.verify.fullsize import NETS, deploy, input_batch, write_weights
from caffe2torch.verify.report import failure_lines
from caffe2torch.verify.runner import run_case


@pytest.mark.parametrize("case", discover(bundled() / "fullsize"), ids=lambda case: case.path.stem)
def test_full_size_net_equals_caffe(case: Case) -> None:
    assert failure_lines(run_case(case)) == []


@pytest.mark.skipif(not hasattr(cv2.dnn, "readNetFromCaffe"), reason="OpenCV 5 has no Caffe importer")
@pytest.mark.parametrize("name", NETS)
def test_opencv_reads_the_weights_we_write(name: str, tmp_path: Path) -> None:
    size, weights = NETS[name], tmp_path / "x.caffemodel"
    write_weights(size, deploy(size), weights)
    net = load(deploy(size), weights)
    x = input_batch(size, net)
    oracle = cv2.dnn.readNetFromCaffe(str(deploy(size)), str(weights))
    oracle.setInput(x)
    with torch.inference_mode():
        (code,) = net(torch.from_numpy(x)).values()
    assert np.abs(oracle.forward() - code.numpy()).max() <= 1e-4
