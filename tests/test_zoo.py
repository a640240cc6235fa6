"""The manifest, the lookup of models and files, and the ``zoo`` command."""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
from pathlib import Path

import pytest

from caffe2torch import zoo
from caffe2torch.commands import zoo as command
from caffe2torch.errors import ZooError
from caffe2torch.graph import build_graph
from caffe2torch.preprocess import Spec, load_mean
from caffe2torch.prototxt import read_net, read_solver
from caffe2torch.schema import Message
from caffe2torch.zoo_manifest import FileEntry, Source, read_manifest

MODELS = zoo.names()
HASHING = [name for name in MODELS if zoo.entry(name).bits]


@pytest.fixture
def chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder as CAFFE2TORCH_WEIGHTS, and an empty cache."""
    folder = tmp_path / "chosen"
    folder.mkdir()
    monkeypatch.setenv("CAFFE2TORCH_WEIGHTS", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


# --- what the zoo holds


def test_the_zoo_holds_the_published_nets() -> None:
    kevinnet = {f"kevinnet_cifar10_{bits}" for bits in (12, 16, 32, 48, 64, 128)}
    ssdh = {"ssdh_cifar10_48", "ssdh_cifar10_48_2016", "ssdh_vgg16_48", "ssdh_vgg16_avg_48"}
    assert set(MODELS) == kevinnet | ssdh | {"caffenet", "alexnet", "ssdh48_small"}


def test_every_net_of_the_folder_belongs_to_a_model() -> None:
    nets = {
        path
        for entry in map(zoo.entry, MODELS)
        for path in (entry.deploy, entry.train_val, entry.solver, entry.with_classifier)
    }
    assert set((zoo.data_root() / "prototxt").rglob("*.prototxt")) == nets - {None}


@pytest.mark.parametrize("name", MODELS)
def test_the_preprocessing_is_a_spec_that_makes_the_nets_input(name: str) -> None:
    entry = zoo.entry(name)
    spec = Spec.from_dict(entry.preprocessing)
    dims = tuple(layer_of(entry.deploy, "Input").input_param.shape[0].dim)
    assert (spec.channels, *(spec.crop or spec.resize or ())) == dims[1:]


@pytest.mark.parametrize("phase", ["train", "test"])
@pytest.mark.parametrize("name", MODELS)
def test_every_net_connects_in_both_phases(name: str, phase: str) -> None:
    entry = zoo.entry(name)
    for net in (entry.deploy, entry.train_val, entry.with_classifier):
        if net is not None:
            assert build_graph(read_net(net), phase=phase).inputs[0] == "data"


@pytest.mark.parametrize("name", HASHING)
def test_the_code_is_a_sigmoid_of_as_many_units_as_bits(name: str) -> None:
    entry = zoo.entry(name)
    layers = {layer.name: layer for layer in read_net(entry.deploy).layer}
    code = layers[entry.code_blob or ""]
    latent = layers[entry.code_layer or ""]
    assert (code.type, list(code.top)) == ("Sigmoid", [entry.code_blob])
    assert list(code.bottom) == list(latent.top)
    assert latent.inner_product_param.num_output == entry.bits


@pytest.mark.parametrize("name", MODELS)
def test_the_feature_blob_is_what_the_classifying_part_reads(name: str) -> None:
    entry = zoo.entry(name)
    layers = read_net(entry.deploy).layer
    readers = [layer for layer in layers if entry.feature_blob in layer.bottom and layer.type == "InnerProduct"]
    assert [layer.name for layer in readers] == [entry.code_layer or "fc8"]


@pytest.mark.parametrize("name", [name for name in MODELS if zoo.entry(name).train_val])
def test_extra_layers_are_those_only_training_has(name: str) -> None:
    entry = zoo.entry(name)
    assert entry.train_val is not None
    trained = {layer.name for layer in read_net(entry.train_val).layer if layer.type in ("Convolution", "InnerProduct")}
    extra = trained - {layer.name for layer in read_net(entry.deploy).layer}
    assert extra == set(entry.extra_layers) - set(entry.aliases.values())


@pytest.mark.parametrize("name", [name for name in MODELS if zoo.entry(name).solver])
def test_the_solver_trains_the_train_val_beside_it(name: str) -> None:
    entry = zoo.entry(name)
    assert entry.solver is not None
    assert entry.solver.parent / read_solver(entry.solver).net == entry.train_val


def test_the_weights_of_2016_fit_the_net_of_2017_by_aliases() -> None:
    new, old = zoo.entry("ssdh_cifar10_48"), zoo.entry("ssdh_cifar10_48_2016")
    assert new.train_val is not None
    assert old.train_val is not None
    with_blobs = ("Convolution", "InnerProduct")
    mine = [layer.name for layer in read_net(new.train_val).layer if layer.type in with_blobs]
    theirs = [layer.name for layer in read_net(old.train_val).layer if layer.type in with_blobs]
    assert [new.aliases.get(name, name) for name in mine] == theirs


@pytest.mark.parametrize("name", MODELS)
def test_the_estimated_size_is_four_bytes_per_parameter(name: str) -> None:
    entry = zoo.entry(name)
    net = read_net(entry.train_val or entry.with_classifier or entry.deploy)
    size = 4 * sum(parameters(net, Spec.from_dict(entry.preprocessing)))
    if entry.weights.bytes is None:
        assert entry.weights.approx_bytes == size
    else:
        assert size <= entry.weights.bytes < 1.01 * size


def parameters(net: Message, spec: Spec) -> list[int]:
    """Learned numbers per layer of a chain of layers, from the definitions; ours has three blobs in a BatchNorm."""
    side = (spec.crop or spec.resize or (0, 0))[0]
    shapes: dict[str, tuple[int, int]] = {"data": (3, side)}  # channels, height = width
    counts = []
    for layer in net.layer:
        if not layer.bottom or layer.bottom[0] not in shapes or layer.type in ("Accuracy", "Reshape"):
            continue
        channels, side = shapes[layer.bottom[0]]
        if layer.type == "Convolution":
            p = layer.convolution_param
            kernel, pad, stride = p.kernel_size[0], sum(p.pad[:1]), (list(p.stride) or [1])[0]
            counts.append(p.num_output * (channels // p.group * kernel * kernel + p.bias_term))
            channels, side = p.num_output, (side + 2 * pad - kernel) // stride + 1
        elif layer.type == "Pooling":
            q = layer.pooling_param
            side = 1 if q.global_pooling else math.ceil((side - q.kernel_size) / q.stride) + 1
        elif layer.type == "InnerProduct":
            count = layer.inner_product_param.num_output
            counts.append(count * (channels * side * side + 1))
            channels, side = count, 1
        elif layer.type in ("BatchNorm", "Scale"):
            counts.append(2 * channels + (layer.type == "BatchNorm"))
        if layer.top:
            shapes[layer.top[0]] = (channels, side)
    return counts


def layer_of(net: Path, kind: str) -> Message:
    (found,) = (layer for layer in read_net(net).layer if layer.type == kind)
    return found


# --- what the manifest says, against the facts


def test_the_bundled_weights_are_the_ones_described() -> None:
    file = zoo.entry(zoo.default_name()).weights
    data = zoo.find_file(file).read_bytes()
    assert (len(data), hashlib.sha256(data).hexdigest()) == (file.bytes, file.sha256)


def test_only_the_bundled_weights_come_without_a_source() -> None:
    files = {file for name in MODELS for file in zoo.entry(name).files}
    assert {file.name for file in files if not file.sources} == {"ssdh48_small.caffemodel"}


@pytest.mark.parametrize("name", MODELS)
def test_the_mean_image_is_the_one_described(name: str, reference: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mean = zoo.entry(name).mean
    if mean is None:
        return
    monkeypatch.setenv("CAFFE2TORCH_WEIGHTS", str(reference / "published" / "means"))
    path = zoo.find_file(mean)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == mean.sha256
    assert load_mean(path).shape == (3, 256, 256)


@pytest.mark.parametrize(
    ("name", "folder"), [("kevinnet_cifar10_48", "kevinnet48"), ("ssdh_cifar10_48_2016", "ssdh48")]
)
def test_published_map_is_the_published_file(name: str, folder: str, reference: Path) -> None:
    text = (reference / "published" / folder / "map.txt").read_text()
    assert round(float(text.split()[-1]), 6) == zoo.entry(name).published[0].value


@pytest.mark.parametrize("name", ["ssdh_vgg16_48", "ssdh_vgg16_avg_48"])
def test_published_accuracy_is_the_last_of_the_training_log(name: str, reference: Path) -> None:
    log = name.replace("ssdh_vgg16", "SSDH-VGG16").replace("_avg", "-Avg").replace("_48", "-48") + ".txt"
    lines = (reference / "published" / "logs" / log).read_text().splitlines()
    (last,) = [line for line in lines if "Test net output" in line and "accuracy = " in line][-1:]
    assert float(last.rsplit(" ", 1)[1]) == zoo.entry(name).published[0].value


# --- names


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("kevinnet_cifar10_49", "kevinnet_cifar10_48"),
        ("KevinNet-CIFAR10-12", "kevinnet_cifar10_12"),
        ("alexnt", "alexnet"),
    ],
)
def test_an_unknown_name_brings_near_ones(wrong: str, near: str) -> None:
    with pytest.raises(ZooError, match=f"no model called '{wrong}'; did you mean .*{near}"):
        zoo.entry(wrong)


def test_a_name_near_nothing_brings_all() -> None:
    with pytest.raises(ZooError, match=r"known: ssdh48_small, kevinnet"):
        zoo.entry("???")


def test_the_default_comes_first_and_is_bundled() -> None:
    assert zoo.names()[0] == zoo.default_name() == "ssdh48_small"
    assert zoo.entry("ssdh48_small").weights.bundled


def test_wanted_takes_a_model_or_a_file() -> None:
    files = [file.name for file, _ in zoo.wanted("kevinnet_cifar10_48")]
    assert files == ["KevinNet_CIFAR10_48.caffemodel", "kevinnet-ilsvrc_2012_mean.mat"]
    assert [file.name for file, _ in zoo.wanted("imagenet_mean.binaryproto")] == ["imagenet_mean.binaryproto"]


# --- where files are


MEAN = "kevinnet-ilsvrc_2012_mean.mat"


def mean_file() -> FileEntry:
    mean = zoo.entry("kevinnet_cifar10_48").mean
    assert mean is not None
    return mean


def test_the_chosen_folder_comes_first_then_the_bundled_one_then_the_cache(chosen: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache" / "caffe2torch"
    assert zoo.folders() == (chosen, zoo.data_root() / "weights", cache)


def test_a_file_is_found_in_the_chosen_folder(chosen: Path) -> None:
    (chosen / MEAN).write_bytes(bytes(786640))
    assert zoo.find_file(mean_file()) == chosen / MEAN


def test_a_file_is_found_in_the_cache(chosen: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache" / "caffe2torch"
    cache.mkdir(parents=True)
    file = FileEntry("only-in-cache.mat", "none", bytes=3, sources=(Source("direct", "http://x"),))
    (cache / file.name).write_bytes(b"abc")
    assert zoo.find_file(file) == cache / file.name


def test_a_file_of_the_wrong_size_is_refused(chosen: Path) -> None:
    (chosen / MEAN).write_bytes(b"short")
    with pytest.raises(ZooError, match="has 5 bytes, expected 786,640"):
        zoo.find_file(mean_file())


@pytest.mark.usefixtures("chosen")
def test_a_missing_file_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(ZooError) as caught:
        zoo.find_file(FileEntry("gone.mat", "none", bytes=1, sources=(Source("direct", "http://x"),)))
    message = str(caught.value)
    assert "`caffe2torch download gone.mat`" in message
    assert "`python tools/download_weights.py gone.mat`" in message
    assert str(tmp_path / "chosen") in message


@pytest.mark.usefixtures("chosen")
@pytest.mark.parametrize("name", [name for name in MODELS if not zoo.entry(name).weights.bundled])
def test_every_missing_model_says_how_to_get_it(name: str) -> None:
    file = zoo.entry(name).weights
    how = zoo.how_to_get(file)
    if any(source.automatic for source in file.sources):
        assert f"caffe2torch download {name}" in how
    for source in file.sources:
        if not source.automatic:
            assert source.url in how
            assert file.name in how


def test_downloads_go_to_the_chosen_folder(chosen: Path) -> None:
    assert zoo.download_folder() == chosen


def test_downloads_go_beside_the_manifest_of_a_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CAFFE2TORCH_WEIGHTS", raising=False)
    monkeypatch.setattr(zoo, "data_root", lambda: Path("/somewhere"))
    assert zoo.download_folder() == Path("/somewhere/weights")


def test_downloads_of_an_installed_package_go_to_the_cache(chosen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CAFFE2TORCH_WEIGHTS")
    monkeypatch.setattr(zoo, "data_root", lambda: Path("/site-packages/caffe2torch/_zoo"))
    assert zoo.download_folder() == zoo.cache_folder() != chosen


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {}, "/home/me/.cache/caffe2torch"),
        ("linux", {"XDG_CACHE_HOME": "/cache"}, "/cache/caffe2torch"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "/home/me/.cache/caffe2torch"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/caffe2torch"),
        ("win32", {"XDG_CACHE_HOME": "/cache"}, "/home/me/AppData/Local/caffe2torch"),
    ],
)
def test_the_cache_is_where_the_platform_keeps_caches(
    platform: str, variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(Path, "home", lambda: Path("/home/me"))
    assert zoo.cache_folder() == Path(expected)


def test_an_installed_packages_own_folder_is_preferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for root in (tmp_path / "site" / "caffe2torch" / "_zoo", tmp_path / "site"):
        (root / "weights").mkdir(parents=True)
        (root / "prototxt").mkdir()
        (root / "weights" / "manifest.toml").write_text("")
    monkeypatch.setattr(zoo, "__file__", str(tmp_path / "site" / "caffe2torch" / "zoo.py"))
    assert zoo.data_root() == (tmp_path / "site" / "caffe2torch" / "_zoo").resolve()


def test_an_installation_without_the_zoo_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "__file__", str(tmp_path / "caffe2torch" / "zoo.py"))
    with pytest.raises(ZooError, match="install caffe2torch again"):
        zoo.data_root()


# --- damaged manifests

GOOD = """
schema = 1
default = "m"
[preprocessing.p]
dialect = "matcaffe"
[files."w.caffemodel"]
licence = "none"
bytes = 5
sources = [{ kind = "direct", url = "https://x.invalid/w" }]
[models.m]
title = "t"
paper = "p"
deploy = "net.prototxt"
weights = "w.caffemodel"
preprocessing = "p"
feature_blob = "fc7"
published = [{ metric = "MAP", value = 0.5, k = 1000, source = "s" }]
"""

DAMAGE = {
    "not TOML": ("schema = 1", "schema =", "is not TOML"),
    "another schema": ("schema = 1", "schema = 2", "schema is 2, this version of caffe2torch reads 1"),
    "default unknown": ('default = "m"', 'default = "x"', "no model is called 'x'"),
    "unknown key": ("licence", 'colour = "red"\nlicence', "files.w.caffemodel: unknown keys: colour"),
    "unknown top key": ("schema = 1", "schema = 1\nextra = 1", "manifest: unknown keys: extra"),
    "missing key": ('title = "t"\n', "", r"models.m: title is missing \(str\)"),
    "wrong type": ("bytes = 5", 'bytes = "5"', "bytes: expected int, found '5'"),
    "bool for int": ("bytes = 5", "bytes = true", "bytes: expected int, found True"),
    "two sizes": ("bytes = 5", "bytes = 5\napprox_bytes = 5", "exactly one of bytes and approx_bytes"),
    "no size": ("bytes = 5\n", "", "exactly one of bytes and approx_bytes"),
    "negative size": ("bytes = 5", "bytes = -5", "must be positive"),
    "bad hash": ("bytes = 5", 'bytes = 5\nsha256 = "XYZ"', "sha256: expected 64 lower-case hexadecimal digits"),
    "path as file": ('files."w.caffemodel"', 'files."../w"', "a file's name has letters"),
    "bad source kind": ('"direct"', '"ftp"', r"files.w.caffemodel.sources\[0\]: kind: expected one of direct"),
    "bad url": ("https://x.invalid/w", "file:///etc/passwd", "url: expected http:// or https://"),
    "no source": ('sources = [{ kind = "direct", url = "https://x.invalid/w" }]', "", "at least one source"),
    "unknown file": ('weights = "w.caffemodel"', 'weights = "v"', "weights: there is no"),
    "unknown mean": ('dialect = "matcaffe"', 'mean_file = "v"', "preprocessing.p.mean_file: there is no"),
    "mean of wrong type": ('dialect = "matcaffe"', "mean_file = []", "preprocessing.p.mean_file: there is no"),
    "unknown preprocessing": ('preprocessing = "p"', 'preprocessing = "q"', "there is no .preprocessing.q."),
    "net outside": ("net.prototxt", "../net.prototxt", "expected a relative path to a .prototxt"),
    "net missing": ("net.prototxt", "gone.prototxt", "gone.prototxt does not exist"),
    "bits without code": ('feature_blob = "fc7"', 'feature_blob = "fc7"\nbits = 48', "go together"),
    "percent for fraction": ("value = 0.5", "value = 89.7", "expected a fraction of 1"),
    "alias of wrong type": ('feature_blob = "fc7"', 'feature_blob = "fc7"\naliases = { a = 1 }', "aliases.a: expected"),
    "row of wrong type": (
        'published = [{ metric = "MAP", value = 0.5, k = 1000, source = "s" }]',
        "published = [1]",
        "table",
    ),
}


def manifest(folder: Path, text: str) -> Path:
    (folder / "net.prototxt").write_text("")
    path = folder / "manifest.toml"
    path.write_text(text)
    return path


def test_the_undamaged_manifest_is_read(tmp_path: Path) -> None:
    assert list(read_manifest(manifest(tmp_path, GOOD), tmp_path).models) == ["m"]


@pytest.mark.parametrize(("old", "new", "message"), DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_manifest_is_refused_with_its_place(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    path = manifest(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(ZooError, match=message) as caught:
        read_manifest(path, tmp_path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("data", [None, b"\xff\xfe\x00"], ids=["missing", "not UTF-8"])
def test_an_unreadable_manifest_is_refused(tmp_path: Path, data: bytes | None) -> None:
    path = tmp_path / "manifest.toml"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(ZooError, match="cannot be read"):
        read_manifest(path, tmp_path)


# --- the command


def call(*words: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([*words]))


@pytest.mark.usefixtures("chosen")
def test_the_list_names_every_model_and_what_is_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert call() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1 : 1 + len(MODELS)]] == list(MODELS)
    assert lines[1].split()[:3] == ["ssdh48_small", "48", "here"]
    assert "by hand" in next(line for line in lines if line.startswith("kevinnet_cifar10_12 "))


@pytest.mark.usefixtures("chosen")
@pytest.mark.parametrize("name", MODELS)
def test_one_model_is_shown_with_its_files_and_figures(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(name) == 0
    out, entry = capsys.readouterr().out, zoo.entry(name)
    for fact in (entry.title, str(entry.deploy), entry.weights.name, entry.licence, entry.feature_blob):
        assert fact in out
    for figure in entry.published:
        assert f"{figure.value:.6g}" in out


def test_json_has_the_same_models(capsys: pytest.CaptureFixture[str]) -> None:
    call("--json")
    assert [model["name"] for model in json.loads(capsys.readouterr().out)] == list(MODELS)


def test_json_of_one_model_names_its_files(capsys: pytest.CaptureFixture[str]) -> None:
    call("ssdh48_small", "--json")
    model = json.loads(capsys.readouterr().out)
    assert [file["name"] for file in model["files"]] == ["ssdh48_small.caffemodel"]
    assert Path(model["files"][0]["path"]).is_file()
