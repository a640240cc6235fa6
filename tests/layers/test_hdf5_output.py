"""HDF5Output writes Caffe's file, and more than one batch."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import caffe2torch
from caffe2torch.errors import LayerError, OutputError

from .messages import layer

TEXT = 'type: "HDF5Output" hdf5_output_param { file_name: "out.h5" }'


def stored(path: Path) -> dict[str, np.ndarray]:
    with h5py.File(path) as file:
        return {name: file[name][()] for name in file}


def test_the_net_writes_the_file_caffe_wrote(reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = reference / "goldens" / "layers" / "hdf5_output"
    monkeypatch.chdir(tmp_path)
    net = caffe2torch.load(shutil.copy(case / "net.prototxt", tmp_path))
    blobs = np.load(case / "blobs.npz")
    net({name: torch.from_numpy(blobs[f"in:{name}"]) for name in net.inputs})
    found, expected = stored(tmp_path / "out.h5"), stored(case / "out.h5")
    assert found.keys() == expected.keys() == {"data", "label"}
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, strict=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_pass_adds_its_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out.h5").write_bytes(b"an older file, which the first pass replaces")
    made = layer(TEXT, [(2, 3), (2,)])
    batches = [(torch.rand(n, 3, dtype=dtype), torch.arange(n, dtype=dtype)) for n in (2, 1, 4)]
    for batch in batches:
        assert made(*batch) == ()
    data, label = (torch.cat(parts).numpy() for parts in zip(*batches, strict=True))
    found = stored(tmp_path / "out.h5")
    np.testing.assert_array_equal(found["data"], data.reshape(7, 3, 1, 1), strict=True)
    np.testing.assert_array_equal(found["label"], label.reshape(7, 1, 1, 1), strict=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out.h5"]


def test_items_of_another_shape_are_refused_and_leave_the_file_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = layer(TEXT, [(2, 3), (2,)])
    made(torch.ones(2, 3), torch.ones(2))
    with pytest.raises(
        LayerError, match=r"holds data of shape \(2, 3, 1, 1\), which takes no items of shape \(4, 1, 1\)"
    ):
        made(torch.ones(2, 4), torch.ones(2))
    assert stored(tmp_path / "out.h5")["data"].shape == (2, 3, 1, 1)


def test_a_file_that_cannot_be_written_is_an_output_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out.h5").mkdir()
    with pytest.raises(OutputError, match="cannot be written: it is a folder"):
        layer(TEXT, [(2, 3), (2,)])(torch.ones(2, 3), torch.ones(2))
