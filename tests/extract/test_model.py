"""Which files, preprocessing and blobs a model's name or a user's options stand for."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from caffe2torch import preprocess, zoo
from caffe2torch.errors import FormatError, UsageError, ZooError
from caffe2torch.extract import Model
from caffe2torch.extract.model import check_blob_name, parse_spec

SPEC = preprocess.Spec.from_dict({"dialect": "matcaffe", "resize": 256, "crop": 227})


@pytest.fixture
def weights_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CAFFE2TORCH_WEIGHTS", str(tmp_path))
    return tmp_path


def test_settings_are_words_numbers_and_lists() -> None:
    items = [
        "dialect=transformer",
        "resize=256,300",
        "crop=227",
        "mean_values=104,117,123.5",
        "scale=0.5",
        "mirror=true",
    ]
    spec, mean = parse_spec(items)
    assert mean is None
    assert spec == preprocess.Spec(
        "transformer", resize=(256, 300), crop=(227, 227), mean_values=(104, 117, 123.5), scale=0.5, mirror=True
    )


def test_one_mean_value_is_a_list_of_one() -> None:
    assert parse_spec(["dialect=matcaffe", "resize=28", "mean_values=33"])[0].mean_values == (33.0,)


def test_a_zoo_model_lends_its_preprocessing_and_settings_go_over_it() -> None:
    spec, mean = parse_spec(["ssdh48_small", "scale=1"])
    assert mean is None
    assert (spec.resize, spec.scale, spec.mean_values) == ((32, 32), 1.0, (113.9, 123.0, 125.3))


def test_a_zoo_model_lends_its_mean_image_too(weights_folder: Path) -> None:
    file = zoo.entry("kevinnet_cifar10_48").mean
    assert file is not None
    with pytest.raises(ZooError, match="is not on this machine"):
        parse_spec(["kevinnet_cifar10_48"])
    (weights_folder / file.name).write_bytes(bytes(file.size))
    assert parse_spec(["kevinnet_cifar10_48"])[1] == weights_folder / file.name
    spec, mean = parse_spec(["kevinnet_cifar10_48", "mean_values=104,117,123", "mean_layout=hwc"])
    assert (spec.mean_file, mean) == (None, None)


def test_a_zoo_model_without_its_files_names_the_command_that_fetches_all(weights_folder: Path) -> None:
    with pytest.raises(ZooError, match="run `caffe2torch download kevinnet_cifar10_48`"):
        Model.from_zoo("kevinnet_cifar10_48")


@pytest.mark.parametrize(
    "items, error",
    [(["resize=256"], "no dialect"), (["dialect=matcaffe", "size=3"], "unknown key size"), (["crop="], "no dialect")],
)
def test_settings_that_mean_nothing(items: list[str], error: str) -> None:
    with pytest.raises(UsageError, match=error):
        parse_spec(items)


def test_a_mean_image_needs_no_setting() -> None:
    model = Model.from_files("net.prototxt", "w.caffemodel", SPEC, mean="some/mean.npy")
    assert (model.name, model.mean, model.spec.mean_file) == ("net", Path("some/mean.npy"), "mean.npy")


def test_identity_hashes_every_file(tmp_path: Path) -> None:
    for name in ("net.prototxt", "w.caffemodel", "mean.npy"):
        (tmp_path / name).write_text(name)
    model = Model.from_files(tmp_path / "net.prototxt", tmp_path / "w.caffemodel", SPEC, mean=tmp_path / "mean.npy")
    identity = model.identity()
    for key, name in (("net", "net.prototxt"), ("weights", "w.caffemodel"), ("mean", "mean.npy")):
        assert identity[f"{key}_sha256"] == hashlib.sha256(name.encode()).hexdigest()
    (tmp_path / "mean.npy").unlink()
    with pytest.raises(FormatError, match=r"mean\.npy: cannot be read"):
        model.identity()


def test_weights_of_a_published_model_may_hold_its_classifier(weights_folder: Path) -> None:
    entry = zoo.entry("ssdh_cifar10_48")
    assert entry.mean is not None
    for file in (entry.weights, entry.mean):
        (weights_folder / file.name).write_bytes(bytes(file.size) if file is entry.mean else b"")
    if entry.weights.bytes is not None:
        np.memmap(weights_folder / entry.weights.name, np.uint8, "w+", shape=(entry.weights.bytes,))
    model = Model.from_zoo("ssdh_cifar10_48")
    assert isinstance(model.ignore_extra, tuple)
    assert {"fc9", "fc8_classification"} <= set(model.ignore_extra)
    assert model.aliases == dict(entry.aliases)
    assert model.spec.mean_layout == "whc"


def test_the_blob_is_the_only_output_unless_named() -> None:
    assert check_blob_name(None, ("sigmoid",)) == "sigmoid"
    assert check_blob_name("fc7", ("a", "b")) == "fc7"
    with pytest.raises(UsageError, match="outputs a, b; say which one holds the code with --blob"):
        check_blob_name(None, ("a", "b"))
