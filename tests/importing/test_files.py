"""Names, places and files of an imported net."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import caffe2torch
from caffe2torch.errors import OutputError, WeightsError

from .modules import Does

SMALL = """\
name: "Small"
layer {
  name: "data"
  type: "Input"
  top: "data"
  input_param {
    shape {
      dim: 2
      dim: 3
      dim: 8
      dim: 8
    }
  }
}
layer {
  name: "features.0"
  type: "Convolution"
  bottom: "data"
  top: "features.0"
  convolution_param {
    num_output: 4
    bias_term: false
    pad: 1
    kernel_size: 3
    stride: 2
  }
}
layer {
  name: "features.1"
  type: "ReLU"
  bottom: "features.0"
  top: "features.0"
}
layer {
  name: "fc"
  type: "InnerProduct"
  bottom: "features.0"
  top: "fc"
  inner_product_param {
    num_output: 5
  }
}
layer {
  name: "prob"
  type: "Softmax"
  bottom: "fc"
  top: "prob"
}
"""


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1, bias=False), nn.ReLU())
        self.fc = nn.Linear(64, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x).flatten(1)).softmax(1)


def test_prototxt_is_as_a_person_writes_it() -> None:
    made = caffe2torch.to_caffe(Small(), torch.randn(2, 3, 8, 8), output_names=["prob"])
    assert made.prototxt == SMALL


def test_files_are_written_and_not_replaced(tmp_path: Path) -> None:
    module, x = Small(), torch.randn(2, 3, 8, 8)
    made = caffe2torch.to_caffe(module, x, name="mine")
    prototxt, weights = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    made.save(prototxt, weights)
    with pytest.raises(OutputError, match="already there"):
        made.save(prototxt, weights)
    made.save(prototxt, weights, force=True)
    with caffe2torch.open_weights(weights) as file:
        assert file.net_name == "mine"
        assert {layer.name: len(layer.blobs) for layer in file.layers if layer.blobs} == {"features.0": 1, "fc": 2}
        stored = {layer.name: layer.blobs[0].read() for layer in file.layers if layer.blobs}
    torch.testing.assert_close(torch.from_numpy(stored["fc"]), module.fc.weight.detach(), rtol=0, atol=0)


def test_hdf5_and_the_old_syntax(tmp_path: Path) -> None:
    module, x = Small().eval(), torch.randn(2, 3, 8, 8)
    made = caffe2torch.to_caffe(module, x)
    made.save(tmp_path / "a.prototxt", tmp_path / "a.caffemodel.h5")
    made.save(tmp_path / "b.prototxt", tmp_path / "b.caffemodel", syntax="V1")
    assert "layers {" in (tmp_path / "b.prototxt").read_text("utf-8")
    for weights in ("a.caffemodel.h5", "b.caffemodel"):
        net = caffe2torch.load(tmp_path / f"{weights[0]}.prototxt", tmp_path / weights)
        with torch.no_grad():
            torch.testing.assert_close(net(x)[made.outputs[0]], module(x))
    normed = caffe2torch.to_caffe(nn.BatchNorm1d(3), torch.randn(2, 3))
    with pytest.raises(WeightsError, match="BatchNorm"):
        normed.save(tmp_path / "c.prototxt", tmp_path / "c.caffemodel", syntax="V1")


def test_names_that_mean_something_elsewhere_are_only_names(tmp_path: Path) -> None:
    class Hostile(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.names = ['//up"', 'a"\n}\nlayer { type: "Python"', "loss: 50%", "forward"]
            for name in self.names[:3]:
                self.add_module(name, nn.Linear(4, 4))

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            for name in self.names[:3]:
                x = self._modules[name](x)
            return {'../x"y\n': x}

    folder = tmp_path / "inside"
    folder.mkdir()
    made = caffe2torch.to_caffe(Hostile(), torch.randn(2, 4), name='../"')
    made.save(folder / "net.prototxt", folder / "net.caffemodel")
    assert [layer.type for layer in caffe2torch.read_net(folder / "net.prototxt").layer] == [
        "Input",
        *["InnerProduct"] * 3,
    ]
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["net.caffemodel", "net.prototxt"]
    assert made.outputs == ('../x"y\n',)


def test_the_module_is_left_as_it_was() -> None:
    module = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(3))
    module[0].eval()
    caffe2torch.to_caffe(module, torch.randn(2, 3))
    assert [child.training for child in module.modules()] == [True, False, True]
    assert module[1].num_batches_tracked == 0
    assert not module._forward_hooks
    assert not module[1]._forward_pre_hooks


def test_inputs_by_name_of_whole_numbers_and_unread() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(5, 3)

        def forward(self, words: Tensor, *, picture: Tensor, mask: Tensor | None = None) -> Tensor:
            return self.table(words).sum(1) + picture

    inputs = {"words": torch.tensor([[0, 4], [1, 1]]), "picture": torch.randn(2, 3), "mask": torch.randn(2, 3)}
    made = caffe2torch.to_caffe(Two(), inputs)
    assert made.inputs == ("words", "picture", "mask")
    (silence,) = (layer for layer in made.message.layer if layer.type == "Silence")
    assert list(silence.bottom) == ["mask"]


def test_what_no_output_needs_is_left_out_and_noted() -> None:
    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            self.b(x)
            return self.a(x)

    made = caffe2torch.to_caffe(Head(), torch.randn(2, 3))
    assert list(made.weights) == ["a"]
    assert made.notes == ("left out, since no output depends on them: b",)


def test_layers_that_not_every_caffe_has_are_noted() -> None:
    made = caffe2torch.to_caffe(nn.Sequential(nn.ReLU6(), nn.Dropout2d()), torch.randn(2, 3, 4, 4))
    assert made.notes == (
        "module '1' (Dropout2d): dropout2d does nothing in evaluation, and Caffe has none in training; left out",
        "ReLU6 is a layer of forks for mobile nets: 0",
    )


def test_layers_keep_their_own_blobs_where_that_is_wanted() -> None:
    made = caffe2torch.to_caffe(Small(), torch.randn(2, 3, 8, 8), in_place=False)
    assert [list(layer.top) for layer in made.message.layer][2] == ["features.1"]


def test_what_is_read_before_dropout_is_not_what_comes_after_it() -> None:
    """In evaluation torch's dropout returns its input itself."""
    drop = nn.Dropout().eval()
    made = caffe2torch.to_caffe(Does(lambda x: {"before": (y := x * 2), "after": drop(y).relu()}), torch.randn(2, 3))
    assert [(layer.name, layer.type) for layer in made.message.layer][1:] == [
        ("before", "Power"),
        ("dropout", "Dropout"),
        ("after", "ReLU"),
    ]


def test_a_blob_that_is_read_twice_is_not_overwritten() -> None:
    conv = nn.Conv2d(3, 3, 1)
    made = caffe2torch.to_caffe(Does(lambda x: (y := conv(x)) + y.relu()), torch.randn(2, 3, 4, 4))
    assert [list(layer.top) for layer in made.message.layer] == [["data"], ["conv2d"], ["relu"], ["add"]]


def test_a_sigmoid_is_not_overwritten_since_caffes_gradient_reads_it() -> None:
    made = caffe2torch.to_caffe(Does(lambda x: torch.sigmoid(x * 2).relu()), torch.randn(2, 3))
    assert [list(layer.top) for layer in made.message.layer][2:] == [["sigmoid"], ["relu"]]


def test_a_module_of_one_operation_names_its_layer() -> None:
    class Gain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.weight

    class Twice(Gain):
        def forward(self, x: Tensor) -> Tensor:
            return (x * self.weight).abs()

    made = caffe2torch.to_caffe(nn.Sequential(nn.Linear(3, 3), Gain(), Twice()), torch.randn(2, 3))
    assert [layer.name for layer in made.message.layer] == ["data", "0", "1", "2.mul", "2.abs"]
    assert made.outputs == ("2.abs",)
