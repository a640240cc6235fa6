"""OpenCV's Caffe importer as an oracle: one layer, its bottoms and its blobs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from caffe2torch import prototxt
from caffe2torch.caffemodel import write_caffemodel

Array = NDArray[Any]


def run(folder: Path, text: str, bottoms: Sequence[Array], blobs: Sequence[Array] = ()) -> Array:
    """What OpenCV makes of the bottoms b0, b1, ... with the layer ``text`` (``type: ...``).

    Skips the test where OpenCV no longer reads Caffe's files, as from its version 5.
    """
    if not hasattr(cv2.dnn, "readNetFromCaffe"):
        pytest.skip("this OpenCV has no Caffe importer")
    inputs = [
        f'input: "b{i}" input_shape {{ {" ".join(f"dim: {dim}" for dim in x.shape)} }}' for i, x in enumerate(bottoms)
    ]
    names = " ".join(f'bottom: "b{i}"' for i in range(len(bottoms)))
    net = folder / "net.prototxt"
    net.write_text("\n".join([*inputs, f'layer {{ name: "l" {names} top: "t" {text} }}']), "utf-8")
    files = [str(net)]
    if blobs:
        weights = folder / "net.caffemodel"
        write_caffemodel(weights, prototxt.read_net(net), {"l": list(blobs)})
        files.append(str(weights))
    loaded = cv2.dnn.readNetFromCaffe(*files)
    for index, x in enumerate(bottoms):
        loaded.setInput(x, f"b{index}")
    return np.asarray(loaded.forward())
