"""Matching weights to nets: strict, complete, and helpful."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from caffe2torch.caffemodel import write_caffemodel
from caffe2torch.errors import GraphError, LayerError, WeightsError
from caffe2torch.loading import load
from caffe2torch.prototxt import read_net

TEXT = """
name: "two"
layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "one" type: "InnerProduct" bottom: "x" top: "a" inner_product_param { num_output: 4 } }
layer { name: "two" type: "InnerProduct" bottom: "a" top: "b" inner_product_param {
  num_output: 2 bias_filler { type: "constant" value: 7 } } }
"""


@pytest.fixture
def net(tmp_path: Path) -> Path:
    path = tmp_path / "net.prototxt"
    path.write_text(TEXT, "utf-8")
    return path


def weights(path: Path, net: Path, **layers: tuple[tuple[int, ...], ...]) -> Path:
    """Write weights of the given shapes, counting up from 1 in every blob."""
    text = net.read_text("utf-8")
    for name in layers:
        text = text if f'name: "{name}"' in text else text + f'layer {{ name: "{name}" type: "ReLU" top: "{name}" }}'
    named = path.with_suffix(".prototxt")
    named.write_text(text, "utf-8")
    made = {
        n: [np.arange(1, np.prod(s) + 1, dtype=np.float32).reshape(s) for s in shapes] for n, shapes in layers.items()
    }
    write_caffemodel(path, read_net(named), made)
    return path


FIT = {"one": ((4, 3), (4,)), "two": ((2, 4), (2,))}


def test_every_blob_is_loaded(net: Path, tmp_path: Path) -> None:
    made = load(net, weights(tmp_path / "w.caffemodel", net, **FIT))
    assert made.state_dict()["one.weight"].tolist() == np.arange(1, 13).reshape(4, 3).tolist()
    assert made.report.loaded == ("one", "two")


def test_all_mismatches_are_listed_with_near_names(net: Path, tmp_path: Path) -> None:
    path = weights(tmp_path / "w.caffemodel", net, one=((5, 3), (5,)), two_=((2, 4), (2,)))
    with pytest.raises(WeightsError) as caught:
        load(net, path)
    text = str(caught.value)
    assert "layer 'one' (InnerProduct): weight is 4x3 in the net, 5x3 in the weights" in text
    assert "no weights for layer 'two'" in text
    assert "did you mean 'two_'" in text
    assert "weights for layer 'two_', which the net does not have" in text
    assert "--ignore-extra" in text
    assert "--allow-missing" in text


def test_extra_layers_may_be_ignored_and_are_reported(net: Path, tmp_path: Path) -> None:
    path = weights(tmp_path / "w.caffemodel", net, **FIT, three=((1, 1),))
    assert load(net, path, ignore_extra=True).report.ignored == ("three",)
    assert load(net, path, ignore_extra=["three"]).report.ignored == ("three",)
    with pytest.raises(WeightsError, match="'three'"):
        load(net, path, ignore_extra=["four"])


def test_missing_layers_may_be_filled_and_are_reported(net: Path, tmp_path: Path) -> None:
    made = load(net, weights(tmp_path / "w.caffemodel", net, one=FIT["one"]), allow_missing=True)
    assert made.report.filled == ("two",)
    assert made.state_dict()["two.bias"].tolist() == [7, 7]


def test_wrong_number_of_blobs_is_named(net: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="has 2 blobs, the weights of 'one' have 1"):
        load(net, weights(tmp_path / "w.caffemodel", net, one=((4, 3),), two=FIT["two"]))


def test_aliases_name_the_layer_in_the_file(net: Path, tmp_path: Path) -> None:
    path = weights(tmp_path / "w.caffemodel", net, one=FIT["one"], deux=FIT["two"])
    assert load(net, path, aliases={"two": "deux"}).state_dict()["two.bias"].tolist() == [1, 2]


def test_layers_with_weights_need_different_names(net: Path, tmp_path: Path) -> None:
    file = weights(tmp_path / "w.caffemodel", net, **FIT)
    net.write_text(TEXT.replace('name: "two" type', 'name: "one" type'), "utf-8")
    with pytest.raises(WeightsError, match="several layers with weights named 'one'"):
        load(net, file)


def test_the_first_layer_fills_a_shared_parameter(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    two = TEXT.split("layer")[:2]
    layer = (
        'layer {{ name: "{0}" type: "InnerProduct" bottom: "x" top: "{0}" param {{ name: "w" }} '
        'inner_product_param {{ num_output: 4 weight_filler {{ type: "constant" value: {1} }} }} }} '
    )
    path.write_text("layer".join(two) + layer.format("a", 2) + layer.format("b", 5), "utf-8")
    assert (load(path).layer("b").weight == 2).all()


def test_no_weights_means_the_fillers(net: Path) -> None:
    made = load(net)
    assert made.report.filled == ("one", "two")
    assert made.state_dict()["two.bias"].tolist() == [7, 7]


def test_half_precision_and_double(net: Path, tmp_path: Path) -> None:
    path = weights(tmp_path / "w.caffemodel", net, **FIT)
    assert load(net, path, dtype=torch.float64).state_dict()["one.weight"].dtype == torch.float64


def test_input_shapes_replace_the_prototxts(net: Path) -> None:
    assert load(net, input_shapes={"x": (9, 3)}).blob_shapes["b"] == (9, 2)


@pytest.mark.parametrize(
    "shape, message", [((0, 3), "at least 1"), ((-1, 3), "at least 1"), ((2**20, 2**20), "Caffe's limit")]
)
def test_impossible_input_shapes_are_refused(net: Path, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        load(net, input_shapes={"x": shape})


def test_unknown_input_is_refused(net: Path) -> None:
    with pytest.raises(GraphError, match="the net's inputs are x"):
        load(net, input_shapes={"y": (1, 3)})


def test_data_layer_without_data_asks_for_its_shape(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text('layer { name: "d" type: "Data" top: "data" data_param { source: "gone" batch_size: 2 } }', "utf-8")
    with pytest.raises(GraphError, match=r"input_shapes=\{'data'"):
        load(path)
    assert load(path, input_shapes={"data": (2, 3, 8, 8)}).input_shapes == {"data": (2, 3, 8, 8)}


def test_channels_that_had_to_be_assumed_are_said(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(
        'layer { name: "d" type: "Data" top: "data" transform_param { crop_size: 4 } data_param { source: "gone" '
        "batch_size: 2 } }",
        "utf-8",
    )
    with pytest.warns(UserWarning, match="taken to have 3 channels"):
        assert load(path).input_shapes == {"data": (2, 3, 4, 4)}


ANNOTATED = (
    'layer {{ name: "d" type: "AnnotatedData" top: "data" top: "label" data_param {{ source: "gone" batch_size: 2 }} '
    "transform_param {{ {} }} annotated_data_param {{ {} }} }}"
)
MEAN = "mean_value: [1, 2, 3]"


@pytest.mark.parametrize(
    "transform, size",
    [
        (f"{MEAN} resize_param {{ height: 5 width: 6 }}", (5, 6)),
        (f"{MEAN} resize_param {{ height: 5 width: 6 resize_mode: FIT_LARGE_SIZE_AND_PAD }}", (5, 6)),
        (f"{MEAN} resize_param {{ height: 5 width: 6 }} crop_size: 4", (4, 4)),
        (f"{MEAN} resize_param {{ height: 5 width: 6 }} crop_h: 3", (3, 6)),
        (f"{MEAN} resize_param {{ height: 5 width: 6 resize_mode: FIT_SMALL_SIZE }} crop_h: 3 crop_w: 4", (3, 4)),
    ],
)
def test_the_shapes_of_annotated_data_are_those_of_its_pictures_and_of_boxes(
    transform: str, size: tuple[int, int], tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(ANNOTATED.format(transform, "anno_type: BBOX"), "utf-8")
    assert load(path).input_shapes == {"data": (2, 3, *size), "label": (1, 1, 1, 8)}
    assert not recwarn


def test_what_annotated_data_is_taken_to_hold_is_said(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(ANNOTATED.format("resize_param { height: 5 width: 6 }", ""), "utf-8")
    with pytest.warns(
        UserWarning, match=r"'data' is taken to have 3 channels; .*'label' is taken to hold boxes, \(1, 1, "
    ):
        assert load(path).input_shapes == {"data": (2, 3, 5, 6), "label": (1, 1, 1, 8)}


@pytest.mark.parametrize(
    "transform", [MEAN, f"{MEAN} resize_param {{ height: 5 width: 6 resize_mode: FIT_SMALL_SIZE }}"]
)
def test_of_annotated_data_only_the_pictures_are_asked_for(transform: str, tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(ANNOTATED.format(transform, "anno_type: BBOX"), "utf-8")
    with pytest.raises(GraphError, match=r"input_shapes=\{'data': \(batch, channels, height, width\)\}") as caught:
        load(path)
    assert "label" not in str(caught.value)


PUBLISHED = Path("published") / "prototxt"
NEEDS_SHAPE = {
    "hdf5_nonlinear_train_val.prototxt": {"data": (10, 4), "label": (10,)},
    "mnist_autoencoder.prototxt": {"data": (100, 1, 28, 28)},
    "siamese_train_test.prototxt": {"pair_data": (64, 2, 28, 28), "sim": (64,)},
    "cifar10_full_train_test.prototxt": {"data": (100, 3, 32, 32), "label": (100,)},
}


def nets(reference: Path) -> list[Path]:
    return [p for p in sorted((reference / PUBLISHED).rglob("*.prototxt")) if "solver" not in p.name]


@pytest.mark.filterwarnings("ignore:.*(taken to have 3 channels|mean nothing to)")
@pytest.mark.parametrize("phase", ["train", "test"])
def test_every_published_net_builds(phase: str, reference: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "python_layers"))
    for path in nets(reference):
        stages = ["test-on-test"] if path.name == "mnist_autoencoder.prototxt" and phase == "test" else []
        made = load(path, phase=phase, stages=stages, input_shapes=NEEDS_SHAPE.get(path.name))
        assert made.outputs, path.name


def test_hdf5_stores_a_shared_blob_once(net: Path, tmp_path: Path) -> None:
    """Caffe's HDF5 files hold a shared blob only under its owner: here layer two stores nothing but its bias."""
    text = TEXT.replace("num_output: 4", "num_output: 3").replace("num_output: 2", "num_output: 3")
    for name in ("one", "two"):
        text = text.replace(f'name: "{name}" type', f'name: "{name}" param {{ name: "w" }} type')
    net.write_text(text, "utf-8")
    path = tmp_path / "w.caffemodel.h5"
    with h5py.File(path, "w") as file:
        file["data/one/0"] = np.full((3, 3), 5, np.float32)
        file["data/one/1"] = np.full(3, 6, np.float32)
        file["data/two/1"] = np.full(3, 8, np.float32)
    made = load(net, path)
    assert made.layer("two").weight.flatten().tolist() == [5] * 9
    assert made.layer("two").bias.tolist() == [8] * 3
    with h5py.File(path, "a") as file:
        del file["data/two"]
    with pytest.raises(WeightsError, match=r"no weights for layer 'two' \(InnerProduct: bias 3\)"):
        load(net, path)


def test_an_impossible_filler_is_named_with_file_and_layer(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(TEXT.replace('"constant"', '"gauss"'), "utf-8")
    with pytest.raises(LayerError, match=r"net\.prototxt: layer 'two' \(InnerProduct\): there is no filler of type"):
        load(path)


def test_parameters_beyond_the_memory_are_refused_before_they_are_filled(
    net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = weights(tmp_path / "w.caffemodel", net, **FIT)
    monkeypatch.setattr("caffe2torch.loading._memory", lambda: 103)  # 26 values take 104 bytes
    with pytest.raises(LayerError, match=r"the parameters take .* GB, this machine has"):
        load(net)
    assert load(net, path).report.loaded == ("one", "two")
    monkeypatch.setattr("caffe2torch.loading._memory", lambda: 104)
    assert load(net).report.filled == ("one", "two")
