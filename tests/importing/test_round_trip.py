"""There and back: Caffe's files, plain PyTorch as `caffe2torch convert` writes it, Caffe's files again."""

from __future__ import annotations

import types
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import caffe2torch
from caffe2torch.errors import Caffe2TorchError, UnsupportedLayerError
from caffe2torch.export import write_source
from caffe2torch.net import CaffeNet
from conftest import ROOT

GOLDENS = ROOT / "tests" / "goldens" / "layers"
MODELS = {
    "cifar10_full": "cifar10_full_iter_60000",
    "cifar10_quick": "cifar10_quick_iter_5000",
    "lenet": "lenet_iter_10000",
    "squeezenet_v1.0": "squeezenet_v1.0",
}
CANNOT = ("batch_reindex", "embed_bias", "scale_two_bottom_scalar")
"""Their inputs are numbers of rows, which random values are not, or have no axes."""


def plain(net: CaffeNet) -> nn.Module:
    """The net as the module that `caffe2torch convert` writes."""
    source = write_source(net)
    written = types.ModuleType("written")
    exec(compile(source.text, "model.py", "exec"), written.__dict__)
    module: nn.Module = getattr(written, source.class_name)()
    module.load_state_dict(source.state, strict=False)
    return module.eval()


def given(net: CaffeNet) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return {blob: torch.rand(net.input_shapes[blob], generator=generator) + 0.5 for blob in net.inputs}


def assert_equal(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    for ours, theirs in zip(found.values(), wanted.values(), strict=True):
        scale = max(float(theirs.abs().max()), 1e-6) if theirs.numel() else 1.0
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6 * scale, equal_nan=True)


def back(net: CaffeNet) -> None:
    """Assert that the way back gives a net that computes the same."""
    x = given(net)
    made = caffe2torch.to_caffe(plain(net), list(x.values()), input_names=list(x))
    with torch.no_grad():
        assert_equal(made.net()(x), net(x))


def test_the_bundled_model_comes_back_with_its_own_weights() -> None:
    net = caffe2torch.load(
        ROOT / "prototxt/ssdh48_small/deploy.prototxt", ROOT / "weights/ssdh48_small.caffemodel", ignore_extra=True
    )
    made = caffe2torch.to_caffe(plain(net), torch.rand(2, 3, 32, 32), output_names=["latent_sigmoid"])
    types_of = {layer.name: layer.type for layer in made.message.layer}
    assert types_of["conv1"] == "Convolution"
    assert made.outputs == ("latent_sigmoid",)
    with caffe2torch.open_weights(ROOT / "weights/ssdh48_small.caffemodel") as file:
        stored = {layer.name: [blob.read() for blob in layer.blobs] for layer in file.layers}
    for name in ("conv1", "scale_conv1", "res4b", "latent"):
        for ours, theirs in zip(made.weights[name], stored[name], strict=True):
            np.testing.assert_array_equal(ours, theirs.reshape(ours.shape))


@pytest.mark.parametrize("name", MODELS)
def test_real_models_come_back(name: str, reference: Path) -> None:
    folder = reference / "models"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        back(caffe2torch.load(folder / f"{name}.prototxt", folder / f"{MODELS[name]}.caffemodel"))


def test_golden_nets_come_back_or_are_refused_by_name() -> None:
    """Small nets of all of Caffe's own layers, those that can be written as plain PyTorch: 151 of 170 come back."""
    equal, refused = [], {}
    for folder in sorted(GOLDENS.iterdir()):
        try:
            net = caffe2torch.load(folder / "net.prototxt")
            plain(net)
        except Caffe2TorchError:
            continue
        if folder.name in CANNOT or not net.inputs:
            continue
        try:
            back(net)
            equal.append(folder.name)
        except UnsupportedLayerError as error:
            refused[folder.name] = str(error)
    assert len(equal) >= 150
    assert len(refused) <= 30
    assert all("cannot become a Caffe net:\n  " in why for why in refused.values())
