"""Bits, classes, merging, deploy and train: which weights stay, which are new, and what the nets compute."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from caffe2torch import surgery
from caffe2torch.caffemodel import write_caffemodel
from caffe2torch.errors import GraphError, UsageError, WeightsError
from surgery.nets import INPUT, model, names, trained, values

TWO = (
    INPUT
    + """
layer { name: "a" type: "InnerProduct" bottom: "data" top: "a" param { name: "w" }
  inner_product_param { num_output: 5 } }
layer { name: "b" type: "InnerProduct" bottom: "data" top: "b" param { name: "w" }
  inner_product_param { num_output: 5 } }
layer { name: "c" type: "InnerProduct" bottom: "b" top: "c" inner_product_param { num_output: 3 } }
"""
)


def test_other_bits_start_the_code_and_its_readers_anew_and_keep_the_rest() -> None:
    net = trained()
    other = surgery.set_bits(net, 16)
    assert net.weights is not None
    assert other.weights is not None
    assert {name: [b.shape for b in blobs] for name, blobs in other.weights.items()} == {
        "conv": [(4, 3, 3, 3), (4,)],
        "latent": [(16, 36), (16,)],
        "fc": [(10, 16), (10,)],
    }
    assert all(a is b for a, b in zip(other.weights["conv"], net.weights["conv"], strict=True))
    assert 0.05 < float(other.weights["latent"][0].std()) < 0.15  # its filler's is 0.1
    assert float(np.abs(other.weights["fc"][0]).max()) <= np.sqrt(3 / 16) + 1e-6  # xavier's limit
    assert any("new weights from the fillers for layer fc (10x16, 10)" in note for note in other.notes)


def test_other_classes_change_the_classifier_alone() -> None:
    net = trained()
    other = surgery.set_classes(net, 20)
    np.testing.assert_array_equal(values(other, "code")[0], values(net, "code")[0])
    assert values(other, "fc")[0].shape == (4, 20)
    assert [note.partition(" has")[0] for note in other.notes][:1] == ["fc"]


def test_the_last_layer_of_a_net_to_use_is_its_classifier() -> None:
    assert values(surgery.set_classes(surgery.deploy(trained()), 3), "fc")[0].shape == (4, 3)


def test_the_same_number_keeps_everything() -> None:
    net = trained()
    assert surgery.set_classes(net, 10).weights == net.weights


def test_a_net_without_weights_is_changed_alone() -> None:
    other = surgery.set_bits(replace(trained(), weights=None), 16)
    assert other.weights is None
    assert [layer.inner_product_param.num_output for layer in other.net.layer if layer.name == "latent"] == [16]


def test_unclear_bits_and_classes_are_asked_for() -> None:
    with pytest.raises(GraphError, match="go into a Sigmoid are none, expected one; name the layer"):
        surgery.set_bits(model(TWO), 5)
    with pytest.raises(GraphError, match="at its end, are a, c, with 3, 5 outputs; name the classifier"):
        surgery.set_classes(model(TWO), 5)
    with pytest.raises(GraphError, match="layer 'relu' is a ReLU, which has no number of outputs"):
        surgery.set_outputs(trained(), 5, "relu")
    with pytest.raises(UsageError, match="0 outputs"):
        surgery.set_outputs(trained(), 0, "fc")
    assert surgery.set_bits(trained(), 12, "fc").net.layer[8].inner_product_param.num_output == 12


def _written(net: surgery.Model, path: Path) -> Path:
    write_caffemodel(path, net.net, net.weights or {})
    return path


def test_weights_are_merged_by_name_as_caffe_does(tmp_path: Path) -> None:
    net, other = trained(), model(TWO)
    theirs = surgery.rename(other, layers={"c": "fc", "a": "x", "b": "y"})
    path = _written(surgery.rename(surgery.set_outputs(trained(), 10, "fc"), layers={"latent": "old"}), tmp_path / "w")
    merged = surgery.merge(replace(net, weights=None), path)
    assert merged.weights is not None
    np.testing.assert_array_equal(merged.weights["conv"][0], (net.weights or {})["conv"][0])
    assert any("not in the net: old" in note for note in merged.notes)
    assert any("not in the file: latent" in note for note in merged.notes)
    assert merged.weights["latent"][0].shape == (8, 36)
    with pytest.raises(WeightsError, match="layer 'fc': blob 0 is 3x5 in the file, 10x8 in the net"):
        surgery.merge(net, _written(theirs, tmp_path / "w2"))


def test_aliases_give_a_layer_the_weights_of_another_name(tmp_path: Path) -> None:
    net = trained()
    path = _written(surgery.rename(model(TWO), {"c": "z"}), tmp_path / "w")
    small = surgery.set_outputs(model(TWO, seed=3), 3, "c")
    merged = surgery.merge(small, path, aliases={"c": "z"})
    np.testing.assert_array_equal((merged.weights or {})["c"][0], (model(TWO).weights or {})["c"][0])
    with pytest.raises(UsageError, match="the net has no layer 'latemt' with weights; did you mean 'latent'"):
        surgery.merge(net, path, aliases={"latemt": "z"})
    with pytest.raises(UsageError, match="has no weights for 'q'"):
        surgery.merge(net, path, aliases={"latent": "q"})
    with pytest.raises(WeightsError, match="no layer of the net is in the file"):
        surgery.merge(net, path)


def test_merged_weights_reach_all_that_share_them(tmp_path: Path) -> None:
    path = _written(surgery.rename(model(TWO, seed=7), layers={"b": "elsewhere", "c": "nowhere"}), tmp_path / "w")
    merged = surgery.merge(model(TWO), path).weights or {}
    np.testing.assert_array_equal(merged["a"][0], (model(TWO, seed=7).weights or {})["a"][0])
    np.testing.assert_array_equal(merged["b"][0], merged["a"][0])


def test_the_net_to_use_computes_what_the_net_to_train_did() -> None:
    net = trained()
    used = surgery.deploy(net, softmax="prob")
    assert names(used) == ["data", "conv", "relu", "pool", "latent", "code", "fc", "prob"]
    assert not any(layer.include for layer in used.net.layer)
    assert list(used.net.layer[0].input_param.shape[0].dim) == [4, 3, 8, 8]
    scores, prob = values(used, "fc", "prob")
    np.testing.assert_array_equal(scores, values(net, "fc")[0])
    e = np.exp(scores.astype(np.float64))
    np.testing.assert_allclose(prob, e / e.sum(1, keepdims=True), rtol=1e-5)


def test_the_batch_of_the_net_to_use_can_be_chosen() -> None:
    used = surgery.deploy(replace(trained(), input_shapes={"data": (1, 3, 8, 8)}))
    assert list(used.net.layer[0].input_param.shape[0].dim) == [1, 3, 8, 8]
    assert names(used)[-1] == "fc"


def test_deploy_refuses_what_it_cannot_do() -> None:
    with pytest.raises(GraphError, match="no SoftmaxWithLoss to put a Softmax"):
        surgery.deploy(model(TWO), softmax="prob")
    with pytest.raises(GraphError, match="has a blob 'code' already"):
        surgery.deploy(trained(), softmax="code")


def test_there_and_back_again() -> None:
    used = surgery.deploy(trained(), softmax="prob")
    again = surgery.train(used)
    assert names(again)[:3] == ["data", "label", "conv"]
    assert [layer.type for layer in again.net.layer][-2:] == ["Accuracy", "SoftmaxWithLoss"]
    labels = np.array([1, 2, 3, 4], np.float32)
    scores, loss, accuracy = values(again, "fc", "loss", "accuracy", label=labels)
    shifted = scores.astype(np.float64) - scores.max(1, keepdims=True)
    expected = np.mean(np.log(np.exp(shifted).sum(1)) - shifted[range(4), [1, 2, 3, 4]])
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(accuracy, np.mean(scores.argmax(1) == labels))


def test_data_layers_take_the_place_of_inputs() -> None:
    data = """layer { name: "d" type: "HDF5Data" top: "data" top: "label"
        hdf5_data_param { source: "list" batch_size: 4 } }"""
    again = surgery.train(surgery.deploy(trained()), data)
    assert names(again)[:2] == ["d", "conv"]
    with pytest.raises(UsageError, match="make 'label'; they make"):
        surgery.train(surgery.deploy(trained()), data.replace('"label"', '"other"'))


def test_a_net_without_class_scores_is_not_trained() -> None:
    with pytest.raises(GraphError, match=r"ends in code \(Sigmoid\), expected class scores"):
        surgery.train(surgery.cut(surgery.deploy(trained()), "", "code"))


def test_deploy_ends_a_detector_in_its_detections() -> None:
    net = model(
        """
layer { name: "in" type: "Input" top: "data" top: "label"
  input_param { shape { dim: 1 dim: 1 dim: 4 dim: 7 } shape { dim: 1 dim: 1 dim: 1 dim: 8 } } }
layer { name: "found" type: "Power" bottom: "data" top: "found" }
layer { name: "eval" type: "DetectionEvaluate" bottom: "found" bottom: "label" top: "eval"
  detection_evaluate_param { num_classes: 3 } }
"""
    )
    assert names(surgery.deploy(net)) == ["data", "found"]
