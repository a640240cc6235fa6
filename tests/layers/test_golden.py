"""Every small net of the reference material: values, gradients and changed parameters equal real Caffe's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from caffe2torch.errors import UnsupportedLayerError
from caffe2torch.layers import registry
from caffe2torch.net import CaffeNet
from caffe2torch.prototxt import read_net
from conftest import reference_folder

from .golden import Case, assert_close, backward

PENDING = frozenset(
    [
        "BatchReindex",
        "Crop",
        "Deconvolution",
        "Embed",
        "Filter",
        "HDF5Output",
        "HingeLoss",
        "Im2col",
        "InfogainLoss",
        "MVN",
        "MultinomialLogisticLoss",
        "Parameter",
        "Reduction",
        "SPP",
        "Swish",
        "Tile",
    ]
)
"""Layer types that no class computes yet."""

CANCELLED = {("bn_scale_train", "grad_param:c:1"): 1e-5}
"""Gradients that are 0 but for rounding, with the error allowed: a bias that BatchNorm subtracts again."""


def cases() -> list[Case]:
    folder = reference_folder()
    return [Case(path) for path in sorted((folder / "goldens" / "layers").iterdir())] if folder else []


def ids(case: Case) -> str:
    return case.name


def load(case: Case) -> CaffeNet:
    try:
        return case.load()
    except UnsupportedLayerError:
        types = {layer.type for layer in read_net(case.folder / "net.prototxt").layer}
        pending = sorted(types & PENDING)
        if not pending:
            raise
        pytest.skip(f"no class computes {', '.join(pending)} yet")


def test_pending_types_are_not_registered() -> None:
    assert not PENDING & set(registry.types())


@pytest.mark.usefixtures("reference")
def test_there_are_cases() -> None:
    assert len(cases()) > 200


@pytest.mark.parametrize("case", [c for c in cases() if not c.random], ids=ids)
def test_forward_equals_caffe(case: Case) -> None:
    net = load(case)
    with torch.no_grad():
        for inputs, expected in case.passes(net):
            missing = set(expected) - set(net.blob_shapes)
            assert not missing
            outputs = net.select(*expected)({b: x for b, x in inputs.items() if b in net.inputs})
            for blob, value in expected.items():
                assert_close(outputs[blob].numpy(), value, blob)
    for key, value in case.blobs.items():
        kind, _, name = key.partition(":")
        if kind == "param_after":
            layer, _, index = name.rpartition(":")
            assert_close(net.layers()[layer].blob_items()[int(index)][1].numpy(), value, key)


@pytest.mark.parametrize("case", [c for c in cases() if c.gradients and not c.random], ids=ids)
def test_gradients_equal_caffe(case: Case) -> None:
    net = load(case)
    expected = {k: v for k, v in case.gradients.items() if k.startswith("grad_")}
    found = backward(case, net)
    assert set(found) == set(expected)
    for key, value in expected.items():
        assert_close(found[key], value, key, absolute=CANCELLED.get((case.name, key), 0.0))


def test_dropout_mask_has_caffes_values_and_rate(reference: Path) -> None:
    net = Case(reference / "goldens" / "layers" / "dropout_train").load()
    torch.manual_seed(0)
    x = torch.ones(64, 8, 8, 8, requires_grad=True)
    y = net(x)["y"]
    y.sum().backward()
    assert set(np.unique(y.detach().numpy())) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs((y == 0).float().mean().item() - 0.25) < 0.01
    assert x.grad is not None
    assert torch.equal(x.grad, y.detach())
