"""Every prototxt of the papers, of the trained models and of the golden cases: read, upgraded, printed, read again."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from google.protobuf import text_format

from caffe2torch import prototxt, schema
from caffe2torch.upgrade import canonical, differences, syntax_of, upgrade_net, upgrade_solver
from conftest import reference_folder

FOLDER = reference_folder()
FOUND = sorted(FOLDER.rglob("*.prototxt")) if FOLDER else []
SOLVERS = [path for path in FOUND if "solver" in path.name]
NETS = [path for path in FOUND if "solver" not in path.name]
GOLDEN = [path for path in NETS if "goldens" in path.parts]
PUBLISHED = [path for path in NETS if "goldens" not in path.parts]


def ids(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(FOLDER)) for path in paths] if FOLDER else []


def check_net(path: Path) -> None:
    net = prototxt.read(path)
    assert net == text_format.Parse(path.read_text(encoding="utf-8"), schema.new("NetParameter"))
    assert prototxt.parse(prototxt.to_text(net)) == net
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # KevinNet's window settings on its data layers
        upgraded = prototxt.read_net(path)
    assert syntax_of(upgraded) == "V2"
    assert all(layer.type for layer in upgraded.layer)
    assert upgrade_net(upgraded) == upgraded
    assert prototxt.parse(prototxt.to_text(upgraded)) == upgraded
    reduced = canonical(upgraded)
    assert canonical(reduced) == reduced
    assert differences(reduced, canonical(prototxt.parse(prototxt.to_text(upgraded)))) == []


def test_all_files_are_here(reference: Path) -> None:
    assert len(list((reference / "goldens/layers").glob("*/net.prototxt"))) == 225
    assert len(PUBLISHED) >= 28
    assert len(SOLVERS) >= 37


@pytest.mark.parametrize("path", PUBLISHED, ids=ids(PUBLISHED))
def test_published_net(path: Path) -> None:
    check_net(path)


@pytest.mark.parametrize("path", SOLVERS, ids=ids(SOLVERS))
def test_solver(path: Path) -> None:
    solver = prototxt.read_solver(path)
    assert prototxt.parse(prototxt.to_text(solver), "SolverParameter") == solver
    assert upgrade_solver(solver) == solver
    assert not solver.HasField("solver_type")
    raw = prototxt.read(path, "SolverParameter")
    assert raw == text_format.Parse(path.read_text(encoding="utf-8"), schema.new("SolverParameter"))


def test_golden_nets(reference: Path) -> None:
    paths = sorted((reference / "goldens").rglob("net.prototxt"))
    assert len(paths) > 225
    for path in paths:
        check_net(path)


@pytest.mark.parametrize(
    "name, syntax",
    [
        ("published/prototxt/caffe-cvprw15/train_CIFAR10_48.prototxt", "V0"),
        ("published/prototxt/caffe-cvprw15/KevinNet_CIFAR10_48_deploy.prototxt", "V1"),
        ("published/prototxt/Caffe-DeepBinaryCode/SSDH/deploy.prototxt", "V2"),
        ("goldens/layers/v0_net/net.prototxt", "V0"),
        ("goldens/layers/v1_net/net.prototxt", "V1"),
    ],
)
def test_generation_is_recognised(reference: Path, name: str, syntax: str) -> None:
    assert syntax_of(prototxt.read(reference / name)) == syntax


def test_oldest_form_means_the_net_real_caffe_ran(reference: Path) -> None:
    net = prototxt.read_net(reference / "goldens/layers/v0_net/net.prototxt")
    expected = prototxt.parse("""
        name: "v0net"
        layer { name: "input" type: "Input" top: "data" input_param { shape { dim: [1, 2, 9, 9] } } }
        layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
                convolution_param { num_output: 4 kernel_size: 3 stride: 2 group: 2 pad: 2 } }
        layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
        layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1"
                pooling_param { pool: AVE kernel_size: 3 stride: 2 } }
        layer { name: "norm1" type: "LRN" bottom: "pool1" top: "norm1" lrn_param { local_size: 3 alpha: 0.5 } }
        layer { name: "fc" type: "InnerProduct" bottom: "norm1" top: "fc"
                inner_product_param { num_output: 3 bias_term: false } }
        layer { name: "drop" type: "Dropout" bottom: "fc" top: "fc" dropout_param { dropout_ratio: 0.4 } }
        layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }
    """)
    assert differences(canonical(net), canonical(expected)) == []


def test_two_spellings_of_one_published_net_mean_the_same(reference: Path) -> None:
    """The small net is written by Caffe as one line and with every optional form of the text format."""
    for name in ("prototxt_syntax", "prototxt_no_newlines"):
        path = reference / "goldens/layers" / name / "net.prototxt"
        printed = prototxt.parse(prototxt.to_text(prototxt.read_net(path)))
        assert differences(canonical(printed), canonical(prototxt.read(path))) == []
