"""Whole modules as Caffe nets: compared with the module, and with OpenCV, which reads files with its own code."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import caffe2torch
from caffe2torch.importing import Imported

from .modules import SSDH, VGG16, AlexNet, ResNet18, Siamese, settled

NETS = {
    "alexnet": (AlexNet, 224),
    "alexnet_rounding_down": (AlexNet, 227),
    "vgg16": (VGG16, 64),
    "resnet18": (ResNet18, 64),
    "ssdh": (SSDH, 32),
}


def expected(module: nn.Module, *x: Tensor) -> list[np.ndarray]:
    module.eval()
    with torch.no_grad():
        result = module(*x)
    return [y.numpy() for y in (result.values() if isinstance(result, dict) else (result,))]


def opencv(made: Imported, folder: Path, x: Tensor) -> list[np.ndarray]:
    """What OpenCV computes from the files."""
    if not hasattr(cv2.dnn, "readNetFromCaffe"):
        pytest.skip("this OpenCV has no Caffe importer")
    made.save(folder / "net.prototxt", folder / "net.caffemodel")
    net = cv2.dnn.readNetFromCaffe(str(folder / "net.prototxt"), str(folder / "net.caffemodel"))
    net.setInput(x.numpy(), made.inputs[0])
    # OpenCV names a blob by the last layer that writes it.
    layers = [[layer.name for layer in made.message.layer if blob in layer.top][-1] for blob in made.outputs]
    return list(net.forward(layers))


@pytest.mark.parametrize("name", NETS)
def test_net_computes_what_the_module_does(name: str, tmp_path: Path) -> None:
    make, size = NETS[name]
    torch.manual_seed(0)
    module, x = settled(make()), torch.randn(2, 3, size, size)
    made = caffe2torch.to_caffe(module, x)
    assert made.difference < 2e-6
    made.save(tmp_path / "a.prototxt", tmp_path / "a.caffemodel")
    loaded = caffe2torch.load(tmp_path / "a.prototxt", tmp_path / "a.caffemodel").select(*made.outputs)
    with torch.no_grad():
        found = loaded(x)
    for blob, wanted in zip(made.outputs, expected(module, x), strict=True):
        np.testing.assert_allclose(found[blob].numpy(), wanted, atol=2e-6 * np.abs(wanted).max())


@pytest.mark.parametrize("name", NETS)
def test_opencv_computes_the_same_from_the_files(name: str, tmp_path: Path) -> None:
    make, size = NETS[name]
    torch.manual_seed(1)
    module, x = settled(make(), seed=1), torch.randn(2, 3, size, size)
    made = caffe2torch.to_caffe(module, x)
    for found, wanted in zip(opencv(made, tmp_path, x), expected(module, x), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())


def test_layers_are_those_a_person_would_write() -> None:
    made = caffe2torch.to_caffe(ResNet18(), torch.randn(1, 3, 64, 64))
    assert Counter(layer.type for layer in made.message.layer) == {
        "Input": 1,
        "Convolution": 20,
        "BatchNorm": 20,
        "Scale": 20,
        "ReLU": 17,
        "Pooling": 2,
        "Slice": 2,
        "Eltwise": 8,
        "InnerProduct": 1,
        "Silence": 1,
    }
    assert list(made.weights)[:3] == ["conv1", "bn1", "bn1.scale"]
    assert "layer4.1.conv2" in made.weights
    assert made.notes == ()


def test_pooling_that_rounds_down_says_so_where_that_is_wanted() -> None:
    made = caffe2torch.to_caffe(ResNet18(), torch.randn(1, 3, 64, 64), round_mode=True)
    (pool, _) = (layer for layer in made.message.layer if layer.type == "Pooling")
    assert pool.pooling_param.round_mode == pool.pooling_param.FLOOR
    assert "Slice" not in {layer.type for layer in made.message.layer}
    assert made.notes == ("round_mode FLOOR is a setting of BVLC Caffe of 2018 and later: maxpool",)


def test_outputs_of_a_mapping_are_named_by_its_keys() -> None:
    made = caffe2torch.to_caffe(SSDH(bits=12), torch.randn(3, 3, 32, 32))
    assert made.outputs == ("fc7", "code", "prob")
    assert made.net()(torch.randn(5, 3, 32, 32))["code"].shape == (5, 12)  # another batch size serves as well


def test_a_tower_used_twice_shares_its_parameters() -> None:
    torch.manual_seed(0)
    pair = [torch.randn(4, 1, 8, 8), torch.randn(4, 1, 8, 8)]
    made = caffe2torch.to_caffe(settled(Siamese()), pair)
    assert made.inputs == ("left", "right")
    net = made.net()
    layers = net.layers()
    assert layers["tower.0"].weight is layers["tower.0_2"].weight
    assert layers["tower.5"].bias is layers["tower.5_2"].bias
    assert layers["tower.2.scale"].weight is layers["tower.2.scale_2"].weight
    assert made.notes[0].startswith("shared by several layers: tower.0.bias, tower.0.weight")


def test_gradients_are_the_modules_also_where_layers_work_in_place() -> None:
    torch.manual_seed(0)
    module, x = settled(ResNet18()).eval(), torch.randn(2, 3, 64, 64)
    net = caffe2torch.to_caffe(module, x).net()
    module(x).square().sum().backward()
    net(x)["fc"].square().sum().backward()
    layers = net.layers()
    for name in ("conv1", "layer2.0.downsample.0", "layer4.1.conv2", "fc"):
        theirs, ours = module.get_submodule(name).weight.grad, layers[name].weight.grad
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()))
    torch.testing.assert_close(layers["bn1.scale"].bias.grad, module.bn1.bias.grad, rtol=1e-4, atol=1e-4)
