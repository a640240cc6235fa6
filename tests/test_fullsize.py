"""The four published hashing nets at full size, against values of real Caffe."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from caffe2torch.loading import load
from fullsize import NETS, FullSize, input_batch, prototxt, sha256, write_weights


@pytest.mark.parametrize("case", NETS, ids=lambda c: c.name)
def test_full_size_net_equals_caffe(case: FullSize, reference: Path, tmp_path: Path) -> None:
    golden = np.load(reference / "goldens" / "fullsize" / f"{case.name}.npz")
    weights = tmp_path / f"{case.name}.caffemodel"
    made = write_weights(case, reference, weights)
    for name, blobs in made.items():
        for index, blob in enumerate(blobs):
            assert sha256(blob) == golden[f"wsha256:{name}:{index}"].tobytes(), (name, index)
    del made

    net = load(prototxt(case, reference), weights)
    size = net.input_shapes["data"][2]
    x = input_batch(case, size)
    assert sha256(x) == golden["input_sha256"].tobytes()
    with torch.inference_mode():
        outputs = net.select(*net.blob_shapes)(torch.from_numpy(x))

    code = net.outputs[0]
    expected = golden[f"out:{code}"]
    assert np.array_equal(outputs[code].numpy() > 0.5, expected > 0.5)
    assert np.abs(outputs[code].numpy() - expected).max() <= 1e-5
    for key in golden.files:
        kind, _, blob = key.partition(":")
        if kind == "shape":
            assert tuple(outputs[blob].shape) == tuple(golden[key]), blob
        elif kind == "out":
            assert np.abs(outputs[blob].numpy() - golden[key]).max() <= 1e-4 * np.abs(golden[key]).max(), blob
        elif kind == "sum":
            value = outputs[blob].numpy().astype(np.float64)
            ours = np.concatenate([[value.mean(), value.std()], value.ravel()[:8]])
            assert np.abs(ours - golden[key]).max() <= 1e-4 * max(np.abs(value).max(), 1e-30), blob
    _check_opencv(case, reference, weights, x, outputs[code].numpy())
    assert {k.partition(":")[2] for k in golden.files if k.startswith("sum:")} == set(net.blob_shapes)


def _check_opencv(case: FullSize, reference: Path, weights: Path, x: np.ndarray, code: np.ndarray) -> None:
    """OpenCV 4 reads Caffe's files with code of its own: a second oracle, on the file that we wrote."""
    if hasattr(cv2.dnn, "readNetFromCaffe"):
        oracle = cv2.dnn.readNetFromCaffe(str(prototxt(case, reference)), str(weights))
        oracle.setInput(x)
        assert np.abs(oracle.forward() - code).max() <= 1e-4
