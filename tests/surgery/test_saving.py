"""Back to Caffe: to the byte where a file was only read, and nothing but the changed numbers where it was not."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

import caffe2torch
from caffe2torch.caffemodel import open_weights, write_caffemodel
from caffe2torch.errors import LayerError, OutputError, UsageError, WeightsError
from caffe2torch.layers.inner_product import InnerProduct
from caffe2torch.net import CaffeNet
from caffe2torch.saving import to_caffe
from weights_files import golden_files, layers_of, parsed

MODELS = {
    "cifar10_full_iter_60000": "cifar10_full",
    "cifar10_quick_iter_5000": "cifar10_quick",
    "cifar10_quick_dmsh_iter_5000": "cifar10_quick_dmsh",
    "lenet_iter_10000": "lenet",
    "squeezenet_v1.0": "squeezenet_v1.0",
}


def _prototxt(weights: Path) -> Path:
    """The net that belongs to a weights file of the reference."""
    if weights.parent.name == "models":
        return weights.parent / f"{MODELS[weights.name.removesuffix('.h5').removesuffix('.caffemodel')]}.prototxt"
    named = sorted(weights.parent.glob("*.prototxt"))
    return next(path for path in named if path.name in ("net.prototxt", "deploy.prototxt"))


def _load(weights: Path) -> CaffeNet:
    """The net of a golden case in its own state, with the weights as far as they fit."""
    case = weights.parent / "case.json"
    facts: dict[str, Any] = json.loads(case.read_text()) if case.is_file() else {}
    training = "solvers" in weights.parts or weights.parent.name.startswith("state_")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return caffe2torch.load(
            _prototxt(weights),
            weights,
            phase=facts.get("phase", "TRAIN" if training else "TEST").lower(),
            level=facts.get("level", 0),
            stages=facts.get("stages", ()),
            allow_missing=True,
            ignore_extra=True,
        )


def _all_files(reference: Path) -> list[Path]:
    return golden_files(reference) + golden_files(reference, ".caffemodel.h5")


def test_every_file_of_the_reference_is_loaded_and_saved_to_the_byte(reference: Path, tmp_path: Path) -> None:
    files = _all_files(reference)
    assert len(files) > 150
    for path in files:
        target = tmp_path / path.name
        caffe2torch.save(_load(path), weights=target, like=path, allow_missing=True, force=True)
        assert target.read_bytes() == path.read_bytes(), path


def test_the_settings_of_the_net_are_those_that_caffe_writes(reference: Path, tmp_path: Path) -> None:
    """Without a file to be like: what Caffe's snapshot holds beside its own Split layers and split blobs."""
    for name in ("v1_net", "bn_scale_train", "conv_group_nobias_chain", "lstm_basic", "net_legacy_input_dim"):
        path = reference / "goldens" / "layers" / name / "weights.caffemodel"
        net = _load(path)
        caffe2torch.save(net, weights=tmp_path / name)
        ours, theirs = parsed((tmp_path / name).read_bytes()), parsed(path.read_bytes())
        values = {layer: blobs for layer, blobs in layers_of(ours) if blobs}
        expected = {layer: blobs for layer, blobs in layers_of(theirs) if blobs}
        assert list(values) == list(expected)
        for layer, blobs in expected.items():
            for got, blob in zip(values[layer], blobs, strict=True):
                np.testing.assert_array_equal(got.ravel(), blob.ravel())


# Written by other programs, in doubles, from a net of another phase, or for a net with layers it has not.
OTHER = {"v1_net_v1_weights", "weights_double", "weights_extra_missing", "weights_split_packed", "weights_unpacked"}


def test_a_net_alone_gives_the_file_that_caffe_wrote(reference: Path, tmp_path: Path) -> None:
    """Without a file to be like, to the byte: phases, loss weights, multipliers; only Split layers are not ours."""
    files = [path for path in golden_files(reference) if "goldens" in path.parts and path.parent.name not in OTHER]
    whole = [path for path in files if all(x.type != "Split" for x in parsed(path.read_bytes()).layer)]
    assert len(whole) >= 145
    for path in whole:
        caffe2torch.save(_load(path), weights=tmp_path / "again", force=True)
        assert (tmp_path / "again").read_bytes() == path.read_bytes(), path


def test_new_numbers_change_nothing_but_the_numbers(reference: Path, tmp_path: Path) -> None:
    """Every encoding: protobuf's own parse of the new file is that of the old one with the values doubled."""
    for name in ("weights_unpacked", "weights_split_packed", "weights_double", "v1_net_v1_weights", "conv_hw"):
        path = reference / "goldens" / "layers" / name / "weights.caffemodel"
        net = _load(path)
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.mul_(2)
        caffe2torch.save(net, weights=tmp_path / name, like=path)
        assert (tmp_path / name).stat().st_size == path.stat().st_size
        ours, theirs = parsed((tmp_path / name).read_bytes()), parsed(path.read_bytes())
        for (_, got), (_, before) in zip(layers_of(ours), layers_of(theirs), strict=True):
            for a, b in zip(got, before, strict=True):
                np.testing.assert_array_equal(a, 2 * b)
        for layer in (*ours.layer, *ours.layers, *theirs.layer, *theirs.layers):
            layer.ClearField("blobs")
        assert ours == theirs


def test_new_numbers_in_hdf5_stand_in_their_datasets(reference: Path, tmp_path: Path) -> None:
    path = reference / "models" / "cifar10_quick_dmsh_iter_5000.caffemodel.h5"
    net = _load(path)
    with torch.no_grad():
        net.layer("conv2").bias.add_(1)
    caffe2torch.save(net, weights=tmp_path / "net.h5", like=path)
    with h5py.File(path) as before, h5py.File(tmp_path / "net.h5") as after:
        names: list[str] = []
        before.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        assert len(names) == 10
        for name in names:
            np.testing.assert_array_equal(after[name][()], before[name][()] + (name == "data/conv2/1"))


NET = """
name: "small" force_backward: true
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 5 dim: 5 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" include { phase: TEST } }
layer { name: "fc" type: "InnerProduct" bottom: "conv" top: "fc"
  inner_product_param { num_output: 6 weight_filler { type: "xavier" } } }
"""


@pytest.fixture
def net(tmp_path: Path) -> CaffeNet:
    (tmp_path / "small.prototxt").write_text(NET)
    return caffe2torch.load(tmp_path / "small.prototxt")


@pytest.mark.parametrize("syntax", ["V1", "V2"])
@pytest.mark.parametrize("name", ["new.caffemodel", "new.caffemodel.h5"])
def test_saved_files_load_as_the_same_net(net: CaffeNet, tmp_path: Path, syntax: str, name: str) -> None:
    report = caffe2torch.save(net, tmp_path / "new.prototxt", tmp_path / name, syntax=syntax)
    assert report.saved == ("conv", "fc")
    text = (tmp_path / "new.prototxt").read_text()
    assert ("layers {" in text) == (syntax == "V1")
    assert "include" not in text
    assert "force_backward: true" in text
    again = caffe2torch.load(tmp_path / "new.prototxt", tmp_path / name)
    x = torch.randn(2, 3, 5, 5)
    assert torch.equal(again(x)["fc"], net(x)["fc"])


def test_a_double_keeps_its_bits_unless_the_net_changed_it(net: CaffeNet, tmp_path: Path) -> None:
    message, arrays = to_caffe(net)
    doubles = {name: [np.random.default_rng(0).random(a.shape) / 3 for a in blobs] for name, blobs in arrays.items()}
    write_caffemodel(tmp_path / "double", message, doubles)
    loaded = caffe2torch.load(tmp_path / "small.prototxt", tmp_path / "double")
    with torch.no_grad():
        loaded.layer("fc").bias[2] = 7.0
    caffe2torch.save(loaded, weights=tmp_path / "again", like=tmp_path / "double")
    doubles["fc"][1][2] = 7.0
    with open_weights(tmp_path / "again") as file:
        for layer in file.layers:
            for blob, expected in zip(layer.blobs, doubles.get(layer.name, []), strict=True):
                np.testing.assert_array_equal(blob.read(np.float64), expected)


def test_a_net_in_double_precision_is_written_in_doubles(net: CaffeNet, tmp_path: Path) -> None:
    net.double()
    with torch.no_grad():
        net.layer("fc").bias.fill_(1 / 3)
    caffe2torch.save(net, weights=tmp_path / "double")
    layer = parsed((tmp_path / "double").read_bytes()).layer[3]
    assert list(layer.blobs[1].double_data) == [1 / 3] * 6


def test_values_that_the_stored_type_cannot_hold_are_refused(net: CaffeNet, tmp_path: Path) -> None:
    caffe2torch.save(net, weights=tmp_path / "single")
    net.double()
    with torch.no_grad():
        net.layer("fc").bias.fill_(1 / 3)
    with pytest.raises(WeightsError, match="'fc', blob 1 is stored as float32, which cannot hold 6 of the new values"):
        caffe2torch.save(net, weights=tmp_path / "again", like=tmp_path / "single")
    assert not (tmp_path / "again").exists()


def test_layers_the_net_lacks_stay_as_they_are(net: CaffeNet, tmp_path: Path) -> None:
    caffe2torch.save(net, weights=tmp_path / "whole")
    part = net.select("conv")
    with torch.no_grad():
        part.layer("conv").bias.fill_(5)
    report = caffe2torch.save(part, weights=tmp_path / "again", like=tmp_path / "whole")
    assert (report.saved, report.kept) == (("conv",), ("fc",))
    again = caffe2torch.load(tmp_path / "small.prototxt", tmp_path / "again")
    assert bool((again.layer("conv").bias == 5).all())
    assert torch.equal(again.layer("fc").weight, net.layer("fc").weight)


def test_a_selected_net_is_saved_as_what_it_is(net: CaffeNet, tmp_path: Path) -> None:
    caffe2torch.save(net.select("conv"), tmp_path / "part.prototxt", tmp_path / "part")
    again = caffe2torch.load(tmp_path / "part.prototxt", tmp_path / "part")
    assert list(again.layers()) == ["conv", "relu"]
    x = torch.randn(2, 3, 5, 5)
    assert torch.equal(again(x)["conv"], net.select("conv")(x)["conv"])


def test_layers_the_form_has_no_place_for_are_refused(net: CaffeNet, tmp_path: Path) -> None:
    caffe2torch.save(net.select("conv"), weights=tmp_path / "part")
    with pytest.raises(WeightsError, match="no place for the weights of layer 'fc'"):
        caffe2torch.save(net, weights=tmp_path / "again", like=tmp_path / "part")
    caffe2torch.save(net, weights=tmp_path / "again", like=tmp_path / "part", allow_missing=True)
    assert (tmp_path / "again").read_bytes() == (tmp_path / "part").read_bytes()


def test_other_shapes_than_the_forms_are_refused(net: CaffeNet, tmp_path: Path) -> None:
    caffe2torch.save(net, weights=tmp_path / "old")
    net.fc = InnerProduct(36, 20)
    with pytest.raises(WeightsError, match=r"'fc', blob 0 is \(6, 36\) there, \(20, 36\) in the net"):
        caffe2torch.save(net, weights=tmp_path / "again", like=tmp_path / "old")


def test_a_layer_put_in_place_of_another_changes_the_settings(net: CaffeNet, tmp_path: Path) -> None:
    net.fc = InnerProduct(36, 20, bias=False)
    with torch.no_grad():
        net.fc.weight.normal_()
    caffe2torch.save(net, tmp_path / "new.prototxt", tmp_path / "new")
    again = caffe2torch.load(tmp_path / "new.prototxt", tmp_path / "new")
    x = torch.randn(2, 3, 5, 5)
    assert torch.equal(again(x)["fc"], net(x)["fc"])


def test_a_torch_module_in_place_of_a_layer_is_refused(net: CaffeNet, tmp_path: Path) -> None:
    net.fc = torch.nn.Linear(36, 20)
    with pytest.raises(LayerError, match=r"layer 'fc' \(InnerProduct\) was replaced by a torch\.nn\.modules\.linear"):
        caffe2torch.save(net, tmp_path / "new.prototxt")
    assert not (tmp_path / "new.prototxt").exists()


def test_settings_changed_in_the_module_alone_are_refused(net: CaffeNet, tmp_path: Path) -> None:
    net.layer("conv").stride = (2, 2)
    with pytest.raises(LayerError, match=r"layer 'conv' \(Convolution\): its stride is \(2, 2\), and \(1, 1\) in its"):
        caffe2torch.save(net, tmp_path / "new.prototxt")


def test_blobs_that_do_not_fit_the_settings_are_refused(net: CaffeNet, tmp_path: Path) -> None:
    net.layer("fc").weight = torch.nn.Parameter(torch.zeros(6, 35))
    with pytest.raises(WeightsError, match=r"layer 'fc' \(InnerProduct\) should have blobs of shapes"):
        caffe2torch.save(net, weights=tmp_path / "new")


def test_files_that_are_there_are_not_replaced(net: CaffeNet, tmp_path: Path) -> None:
    (tmp_path / "new").write_bytes(b"mine")
    with pytest.raises(OutputError, match="new: already there"):
        caffe2torch.save(net, tmp_path / "new.prototxt", tmp_path / "new")
    assert (tmp_path / "new").read_bytes() == b"mine"
    assert not (tmp_path / "new.prototxt").exists()
    caffe2torch.save(net, weights=tmp_path / "new", force=True)
    assert (tmp_path / "new").read_bytes() != b"mine"


def test_a_file_may_be_replaced_in_its_own_form(net: CaffeNet, tmp_path: Path) -> None:
    caffe2torch.save(net, weights=tmp_path / "new", syntax="V1")
    with torch.no_grad():
        net.layer("fc").bias.fill_(3)
    caffe2torch.save(net, weights=tmp_path / "new", like=tmp_path / "new", force=True)
    with open_weights(tmp_path / "new") as file:
        assert file.syntax == "V1"
    again = caffe2torch.load(tmp_path / "small.prototxt", tmp_path / "new")
    assert torch.equal(again.layer("fc").bias, net.layer("fc").bias)


def test_options_that_contradict_each_other_are_refused(net: CaffeNet, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs a path"):
        caffe2torch.save(net)
    with pytest.raises(UsageError, match="like gives the form of the weights"):
        caffe2torch.save(net, tmp_path / "x", like=tmp_path / "y")
    with pytest.raises(UsageError, match="syntax 'V3', expected 'V1' or 'V2'"):
        caffe2torch.save(net, tmp_path / "x", syntax="V3")
    with pytest.raises(UsageError, match="would be the same file"):
        caffe2torch.save(net, tmp_path / "x", tmp_path / "x")


def test_both_files_or_none(net: CaffeNet, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", "utf-8")
    for prototxt, weights in (("file/x.prototxt", "x.caffemodel"), ("x.prototxt", "file/x.caffemodel")):
        with pytest.raises(OutputError):
            caffe2torch.save(net, tmp_path / prototxt, tmp_path / weights)
        assert not list(tmp_path.glob("x.*"))
