"""Fillers against statistics and kernels that real Caffe gave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from caffe2torch import prototxt
from caffe2torch.errors import LayerError
from caffe2torch.fillers import Filler, fill
from conftest import reference_folder


def samples() -> list[dict[str, Any]]:
    folder = reference_folder()
    if folder is None:
        return []
    text = (folder / "goldens" / "formats" / "fillers" / "fillers.json").read_text("utf-8")
    return list(json.loads(text))


def sample_id(sample: dict[str, Any]) -> str:
    words = sample["filler"].replace('"', "").replace(":", "").split()
    return "-".join([*words, "x".join(map(str, sample["shape"]))])


@pytest.mark.usefixtures("reference")
def test_there_are_samples() -> None:
    assert len(samples()) > 20


@pytest.mark.parametrize("sample", samples(), ids=sample_id)
def test_moments_equal_caffes(sample: dict[str, Any]) -> None:
    blob = torch.empty(sample["shape"])
    filler = prototxt.parse(sample["filler"], "FillerParameter")
    values = fill(blob, filler, generator=torch.Generator().manual_seed(1)).double().numpy()
    # Both are samples: allow five standard errors of either's mean, and 3 % of the spread.
    error = 5 * sample["std"] * np.sqrt(2 / sample["count"]) + 1e-7
    assert abs(values.mean() - sample["mean"]) <= error
    assert values.std() == pytest.approx(sample["std"], rel=0.03, abs=1e-9)
    assert (values == 0).mean() == pytest.approx(sample["zero_fraction"], abs=0.005)
    if any(name in sample["filler"] for name in ("uniform", "xavier", "constant")):
        span = sample["max"] - sample["min"]
        assert values.min() == pytest.approx(sample["min"], abs=0.003 * span + 1e-7)
        assert values.max() == pytest.approx(sample["max"], abs=0.003 * span + 1e-7)
    if "unitball" in sample["filler"]:
        np.testing.assert_allclose(values.reshape(values.shape[0], -1).sum(1), sample["sum_per_item"], rtol=1e-5)


def test_bilinear_kernels_equal_caffes(reference: Path) -> None:
    kernels = np.load(reference / "goldens" / "formats" / "fillers" / "blobs.npz")
    for name in kernels.files:
        found = fill(torch.empty(kernels[name].shape), Filler("bilinear")).numpy()
        np.testing.assert_allclose(found, kernels[name], atol=2e-7, err_msg=name)


@pytest.mark.parametrize("kind", ["gaussian", "uniform", "xavier", "msra", "positive_unitball"])
def test_equal_generators_give_equal_values(kind: str) -> None:
    first, second = (
        fill(torch.empty(4, 5), Filler(kind, sparse=2), generator=torch.Generator().manual_seed(7)) for _ in range(2)
    )
    assert torch.equal(first, second)
    assert first.abs().sum() > 0


@pytest.mark.parametrize(
    "filler, shape, reason",
    [
        (Filler("gauss"), (2, 2), "no filler of type 'gauss': expected one of bilinear, constant"),
        (Filler("diagonal"), (2,), "expected 2 or more axes"),
        (Filler("bilinear"), (2, 2), "expected 4 axes and a square kernel"),
        (Filler("bilinear"), (1, 1, 3, 4), "expected 4 axes and a square kernel"),
        (Filler("gaussian", std=-1.0), (2, 2), "has std -1.0: expected 0 or more"),
        (Filler("gaussian", sparse=3), (2, 2), "sparse 3"),
        (Filler("uniform", min=2.0, max=1.0), (2, 2), "min 2.0 above max 1.0"),
        (Filler("gaussian", std=float("nan")), (2, 3), "std nan: expected 0 or more"),
        (Filler("gaussian", std=float("inf")), (2, 3), "std inf: expected 0 or more"),
        (Filler("uniform", min=float("nan")), (2, 3), "expected a finite range"),
        (Filler("uniform", min=-3e38, max=3e38), (2, 3), "expected a finite range"),
    ],
)
def test_impossible_fillers_are_refused(filler: Filler, shape: tuple[int, ...], reason: str) -> None:
    with pytest.raises(LayerError, match=reason):
        fill(torch.empty(shape), filler)


@pytest.mark.parametrize("kind", ["constant", "gaussian", "uniform", "xavier", "msra", "positive_unitball"])
def test_scalars_and_float64_can_be_filled(kind: str) -> None:
    blob = torch.full((), torch.nan, dtype=torch.float64)
    assert torch.isfinite(fill(blob, Filler(kind)))


def test_a_filler_that_names_a_file_is_refused() -> None:
    with pytest.raises(LayerError, match=r"names the file 'w\.bin'"):
        fill(torch.empty(2), prototxt.parse('file: "w.bin"', "FillerParameter"))


@pytest.mark.parametrize("shape", [(2, 3, 1, 1), (3, 2, 2, 3), (4, 4)])
def test_diagonal_spreads_its_values_over_the_kernels(shape: tuple[int, ...]) -> None:
    message = prototxt.parse('type: "diagonal" diag_val: 0.5 diag_val: 6', "FillerParameter")
    expected = np.zeros(shape, np.float32)
    for n in range(min(shape[:2])):
        expected[n, n] = ([0.5, 6.0, 1.0, 1.0][n]) / np.prod(shape[2:])
    np.testing.assert_array_equal(fill(torch.full(shape, 7.0), message), expected)
