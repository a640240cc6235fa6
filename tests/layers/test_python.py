"""Python layers: the three kinds of classes a prototxt may name."""

from __future__ import annotations

import importlib
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from caffe2torch.errors import LayerError
from caffe2torch.layers import registry
from caffe2torch.layers.registry import Layer

from .messages import layer, message

CODE = '''
import caffe
import numpy as np
import torch
from torch import nn

from caffe2torch.layers.registry import Layer as TorchLayer, parameter


class Distance(caffe.Layer):
    """The sum of squared differences over 2 N, as many tutorials have it."""

    def setup(self, bottom, top):
        if len(bottom) != 2:
            raise Exception("Need two inputs to compute distance.")

    def reshape(self, bottom, top):
        self.diff = np.zeros_like(bottom[0].data, dtype=np.float32)
        top[0].reshape(1)

    def forward(self, bottom, top):
        self.diff[...] = bottom[0].data - bottom[1].data
        top[0].data[...] = np.sum(self.diff**2) / bottom[0].num / 2.

    def backward(self, top, propagate_down, bottom):
        for i in range(2):
            if not propagate_down[i]:
                continue
            bottom[i].diff[...] = (1, -1)[i] * self.diff / bottom[i].num * top[0].diff


class Times:
    def setup(self, bottom, top):
        self.blobs.add_blob(1)
        self.blobs[0].data[...] = float(self.param_str)

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        top[0].data[...] = self.blobs[0].data * bottom[0].data * (1 + self.phase)

    def backward(self, top, propagate_down, bottom):
        self.blobs[0].diff[...] = (top[0].diff * bottom[0].data).sum()
        bottom[0].diff[...] = self.blobs[0].data * top[0].diff


class Plain(nn.Module):
    def __init__(self, settings="1"):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(float(settings)))

    def forward(self, x):
        return x * self.factor


class Deep(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(2, 2)


class Own(TorchLayer):
    blobs = ("shift",)

    def __init__(self, channels):
        super().__init__()
        self.shift = parameter((channels,))

    @classmethod
    def from_caffe(cls, layer, bottom_shapes):
        return cls(bottom_shapes[0][1])

    def forward(self, x):
        return x + self.shift
'''


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "their_layers.py").write_text(textwrap.dedent(CODE), "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "their_layers", raising=False)
    yield "their_layers"
    monkeypatch.delitem(sys.modules, "their_layers", raising=False)


def python(module: str, name: str, shapes: list[tuple[int, ...]], param_str: str = "", training: bool = False) -> Layer:
    text = f'type: "Python" python_param {{ module: "{module}" layer: "{name}" param_str: "{param_str}" }}'
    return layer(text, shapes, training=training)


def test_pycaffe_layer_computes_value_and_gradients(module: str) -> None:
    built = python(module, "Distance", [(2, 3), (2, 3)])
    a = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]], requires_grad=True)
    b = torch.zeros(2, 3, requires_grad=True)
    loss = built(a, b)
    assert loss.tolist() == [(1 + 4 + 9) / 4]
    (3 * loss).sum().backward()
    assert a.grad is not None
    assert b.grad is not None
    assert a.grad.tolist() == [[1.5, 3.0, 4.5], [0.0, 0.0, 0.0]]
    assert torch.equal(b.grad, -a.grad)


def test_pycaffe_layer_follows_the_batch_size(module: str) -> None:
    built = python(module, "Times", [(2, 3)], "1")
    assert built(torch.ones(5, 3)).shape == (5, 3)


def test_pycaffe_layer_has_parameters_phase_and_param_str(module: str) -> None:
    built = python(module, "Times", [(2, 2)], "4")
    ((_, blob),) = built.blob_items()
    assert isinstance(blob, torch.nn.Parameter)
    with torch.no_grad():
        blob.fill_(2.5)
    x = torch.ones(2, 2, requires_grad=True)
    y = built(x)
    assert y.flatten().tolist() == [5.0] * 4  # phase TEST is 1
    y.sum().backward()
    assert blob.grad is not None
    assert x.grad is not None
    assert blob.grad.tolist() == [4.0]
    assert x.grad.flatten().tolist() == [2.5] * 4


def test_pycaffe_layer_starts_with_what_setup_left(module: str) -> None:
    text = f'type: "Python" python_param {{ module: "{module}" layer: "Times" param_str: "4" }}'
    cls = registry.find("Python")
    assert cls is not None
    ((_, blob),) = cls.from_caffe(message(text), [(2, 2)]).blob_items()
    assert blob.tolist() == [4.0]


def test_pycaffe_layer_finds_its_shapes_on_meta_tensors(module: str) -> None:
    with torch.device("meta"):
        found = python(module, "Times", [(2, 3)], "1")(torch.empty(7, 3))
    assert found.is_meta
    assert found.shape == (7, 3)


def test_the_stand_in_for_pycaffe_does_not_stay(module: str) -> None:
    python(module, "Distance", [(2, 3), (2, 3)])
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("caffe")


def test_torch_module_becomes_a_layer(module: str) -> None:
    built = python(module, "Plain", [(2, 3)], "3")
    assert [name for name, _ in built.blob_items()] == ["factor"]
    with torch.no_grad():
        built.blob_items()[0][1].fill_(2.0)
    assert built(torch.ones(1)).tolist() == [2.0]


def test_torch_module_with_parameters_in_submodules_is_refused(module: str) -> None:
    with pytest.raises(LayerError, match=r"parameters in submodules \(inner.weight, inner.bias\)"):
        python(module, "Deep", [(2, 2)])


def test_own_layer_class_builds_itself(module: str) -> None:
    built = python(module, "Own", [(2, 3)])
    with torch.no_grad():
        built.blob_items()[0][1].copy_(torch.arange(3))
    assert built(torch.zeros(1, 3)).tolist() == [[0.0, 1.0, 2.0]]
