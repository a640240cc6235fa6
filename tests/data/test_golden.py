"""Data layers and the nets behind them equal real Caffe's, batch after batch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from caffe2torch import prototxt
from caffe2torch.data import open_feed
from caffe2torch.graph import build_graph
from caffe2torch.loading import load
from conftest import reference_folder

GREY_LEVELS = {"lmdb_jpeg": 4.0, "image_data_resize": 1.0, "window_data_context": 1.0, "window_data_warp": 1.0}
"""Where decoders and resizers may differ; everything else is exact."""


def cases() -> list[Path]:
    folder = reference_folder()
    if folder is None:
        return []
    layers = [folder / "goldens" / "layers" / name for name in ("hdf5_data", "hdf5_data_types", "memory_data")]
    return sorted((folder / "goldens" / "data").iterdir()) + layers


@pytest.mark.usefixtures("reference")
def test_there_are_cases() -> None:
    assert len(cases()) >= 22


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_net_fed_from_its_files_equals_caffe(case: Path) -> None:
    facts = json.loads((case / "case.json").read_text("utf-8"))
    blobs = dict(np.load(case / "blobs.npz"))
    phase = facts["phase"].lower()
    arrays = {k.removeprefix("in:memory_"): v for k, v in blobs.items() if k.startswith("in:memory_")}
    feed = open_feed(build_graph(prototxt.read_net(case / "net.prototxt"), phase=phase), case, arrays=arrays)
    net = load(case / "net.prototxt", phase=phase)
    for number in range(1, facts.get("passes", 1) + 1):
        expected = {
            k.partition(":")[2]: v for k, v in blobs.items() if k.startswith(f"out{number if number > 1 else ''}:")
        }
        batch = next(feed)
        assert feed.shapes == {blob: array.shape for blob, array in batch.items()}
        values = {blob: torch.from_numpy(array) for blob, array in batch.items()}
        assert {blob: net.blob_shapes[blob] for blob in batch} == feed.shapes
        computed = [blob for blob in expected if blob not in batch]
        if computed:
            values |= net.select(*computed)(values)
        assert set(values) == set(expected)
        for blob, value in expected.items():
            assert values[blob].shape == value.shape, blob
            np.testing.assert_allclose(values[blob].numpy(), value, 1e-6, GREY_LEVELS.get(case.name, 0.0), blob)
