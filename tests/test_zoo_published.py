"""Our own prototxt files mean the same as the published ones, field by field in canonical form."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from caffe2torch import zoo
from caffe2torch.prototxt import parse, read, read_net, read_solver
from caffe2torch.schema import Message
from caffe2torch.upgrade import canonical, differences

# The released V0 nets set fields of another data layer; reading them says so.
pytestmark = pytest.mark.filterwarnings("ignore:.*mean nothing to a 'data' layer:UserWarning")

CVPRW15 = "published/prototxt/caffe-cvprw15"
BINARY = "published/prototxt/Caffe-DeepBinaryCode"
BITS = (12, 16, 32, 48, 64, 128)
TRAIN, TEST = 0, 1

DEPLOY = {
    "kevinnet_cifar10_48": f"{CVPRW15}/KevinNet_CIFAR10_48_deploy.prototxt",
    "ssdh_cifar10_48": f"{BINARY}/SSDH/deploy.prototxt",
    "ssdh_vgg16_48": f"{BINARY}/SSDH-VGG16-48/deploy.prototxt",
    "ssdh_vgg16_avg_48": f"{BINARY}/SSDH-VGG16-Avg-48/deploy.prototxt",
    "caffenet": f"{CVPRW15}/caffenet_deploy.prototxt",
    "alexnet": f"{CVPRW15}/alexnet_deploy.prototxt",
    "ssdh48_small": "models/ssdh48_small/deploy.prototxt",
}

# Model, phase, published net.
TRAINED = [
    ("kevinnet_cifar10_48", TRAIN, f"{CVPRW15}/train_CIFAR10_48.prototxt"),
    ("kevinnet_cifar10_48", TEST, f"{CVPRW15}/test_CIFAR10_48.prototxt"),
    *[
        (model, phase, f"{BINARY}/{folder}/train_val.prototxt")
        for model, folder in (
            ("ssdh_cifar10_48", "SSDH"),
            ("ssdh_vgg16_48", "SSDH-VGG16-48"),
            ("ssdh_vgg16_avg_48", "SSDH-VGG16-Avg-48"),
        )
        for phase in (TRAIN, TEST)
    ],
    ("caffenet", TRAIN, f"{CVPRW15}/caffenet_train_val.prototxt"),
    ("caffenet", TEST, f"{CVPRW15}/caffenet_train_val.prototxt"),
]

VGG = "../experiments/cifar-10/VGG16"
# Model -> published solver, and the fields in which ours differs: (ours, theirs), "" where a field is absent.
SOLVERS: dict[str, tuple[str, dict[str, tuple[str, str]]]] = {
    "kevinnet_cifar10_48": (
        f"{CVPRW15}/solver_CIFAR10_48.prototxt",
        {
            "net": ("train_val.prototxt", ""),
            "train_net": ("", "train_CIFAR10_48.prototxt"),
            "test_net": ("", "test_CIFAR10_48.prototxt"),
        },
    ),
    "ssdh_cifar10_48": (f"{BINARY}/SSDH/solver.prototxt", {}),
    "ssdh_vgg16_48": (
        f"{BINARY}/SSDH-VGG16-48/solver.prototxt",
        {
            "net": ("train_val.prototxt", f"{VGG}-SSDH-48/1-1-1/cfgs/train_val.prototxt"),
            "snapshot_prefix": ("VGG16-SSDH", f"{VGG}-SSDH-48/1-1-1/models/VGG16-SSDH"),
        },
    ),
    "ssdh_vgg16_avg_48": (
        f"{BINARY}/SSDH-VGG16-Avg-48/solver.prototxt",
        {
            "net": ("train_val.prototxt", f"{VGG}-Avg-SSDH-48/1-1-1/cfgs/train_val.prototxt"),
            "snapshot_prefix": ("VGG16-Avg-SSDH", f"{VGG}-Avg-SSDH-48/1-1-1/models/VGG16-Avg-SSDH"),
        },
    ),
    "caffenet": (
        f"{CVPRW15}/caffenet_solver.prototxt",
        {
            "net": ("train_val.prototxt", "models/bvlc_reference_caffenet/train_val.prototxt"),
            "snapshot_prefix": ("caffenet_train", "models/bvlc_reference_caffenet/caffenet_train"),
        },
    ),
}


def one_phase(net: Message, phase: int) -> Message:
    """The layers of one phase, in canonical form without their rules."""
    result = canonical(net)
    kept = [
        layer
        for layer in result.layer
        if (not layer.include or any(rule.phase == phase for rule in layer.include))
        and not any(rule.phase == phase for rule in layer.exclude)
    ]
    copies = [type(layer).FromString(layer.SerializeToString()) for layer in kept]
    del result.layer[:]
    for layer in copies:
        layer.ClearField("include")
        layer.ClearField("exclude")
        result.layer.append(layer)
    return result


def ours(model: str, which: str) -> Message:
    path = getattr(zoo.entry(model), which)
    assert path is not None
    return read_solver(path) if which == "solver" else read_net(path)


def rename_units(net: Message, layer: str, units: int) -> Message:
    """The net with another number of units in one inner product."""
    (found,) = (candidate for candidate in net.layer if candidate.name == layer)
    found.inner_product_param.num_output = units
    return net


@pytest.mark.parametrize(("model", "published"), DEPLOY.items(), ids=DEPLOY.keys())
def test_deploy_means_the_same(model: str, published: str, reference: Path) -> None:
    theirs = canonical(read_net(reference / published))
    assert differences(canonical(ours(model, "deploy")), theirs) == []


def test_with_classifier_means_the_same(reference: Path) -> None:
    theirs = canonical(read_net(reference / "models/ssdh48_small/with_classifier.prototxt"))
    assert differences(canonical(ours("ssdh48_small", "with_classifier")), theirs) == []


@pytest.mark.parametrize(
    ("model", "phase", "published"),
    TRAINED,
    ids=[f"{model}-{'TEST' if phase else 'TRAIN'}" for model, phase, _ in TRAINED],
)
def test_each_phase_of_train_val_means_the_same(model: str, phase: int, published: str, reference: Path) -> None:
    theirs = one_phase(read_net(reference / published), phase)
    assert differences(one_phase(ours(model, "train_val"), phase), theirs) == []


@pytest.mark.parametrize("model", SOLVERS)
def test_the_solver_differs_in_paths_only(model: str, reference: Path) -> None:
    published, allowed = SOLVERS[model]
    mine, theirs = ours(model, "solver"), read_solver(reference / published)
    for field, (here, there) in allowed.items():
        assert (text(mine, field), text(theirs, field)) == (here, there)
        for solver in (mine, theirs):
            solver.ClearField(field)
    assert differences(mine, theirs) == []


def text(solver: Message, field: str) -> str:
    value = getattr(solver, field)
    return value if isinstance(value, str) else "".join(value)  # test_net may be repeated


# --- the other bit lengths: only the 48-bit files are published


@pytest.mark.parametrize("bits", BITS)
def test_kevinnets_deploy_differs_in_the_number_of_units_only(bits: int, reference: Path) -> None:
    theirs = canonical(read_net(reference / DEPLOY["kevinnet_cifar10_48"]))
    mine = canonical(ours(f"kevinnet_cifar10_{bits}", "deploy"))
    assert differences(mine, rename_units(theirs, "fc8_kevin", bits)) == []


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize(("phase", "word"), [(TRAIN, "train"), (TEST, "test")], ids=["TRAIN", "TEST"])
def test_kevinnets_train_val_differs_in_the_number_of_units_only(
    bits: int, phase: int, word: str, reference: Path
) -> None:
    theirs = one_phase(read_net(reference / CVPRW15 / f"{word}_CIFAR10_48.prototxt"), phase)
    mine = one_phase(ours(f"kevinnet_cifar10_{bits}", "train_val"), phase)
    assert differences(mine, rename_units(theirs, "fc8_kevin", bits)) == []


@pytest.mark.parametrize("bits", BITS)
def test_kevinnets_solver_differs_in_the_snapshots_name_only(bits: int) -> None:
    mine, theirs = ours(f"kevinnet_cifar10_{bits}", "solver"), ours("kevinnet_cifar10_48", "solver")
    assert mine.snapshot_prefix == f"KevinNet_CIFAR10_{bits}"
    theirs.snapshot_prefix = mine.snapshot_prefix
    assert differences(mine, theirs) == []


# --- SSDH of 2016: what is published of its training is a log, which prints net and solver


def logged(reference: Path, heading: str, message_type: str) -> Message:
    """The message that Caffe printed into the training log below a line that ends with ``heading``."""
    log = (reference / "published/logs/SSDH-start.txt").read_text()
    match = re.search(rf"{heading} parameters: \n(.*?)^[IWEF]\d{{4}} ", log, re.DOTALL | re.MULTILINE)
    assert match is not None
    return parse(match[1], message_type)


def logged_net(reference: Path) -> Message:
    net = logged(reference, "Initializing net from", "NetParameter")
    net.ClearField("state")
    return net


def test_the_training_net_of_2016_is_the_one_in_the_log(reference: Path) -> None:
    theirs = one_phase(logged_net(reference), TRAIN)
    assert differences(one_phase(ours("ssdh_cifar10_48_2016", "train_val"), TRAIN), theirs) == []


def test_the_solver_of_2016_is_the_one_in_the_log(reference: Path) -> None:
    mine, theirs = (
        ours("ssdh_cifar10_48_2016", "solver"),
        logged(reference, "Initializing solver from", "SolverParameter"),
    )
    assert (mine.net, theirs.net) == ("train_val.prototxt", "./examples/SSDH/train_val.prototxt")
    assert (mine.snapshot_prefix, theirs.snapshot_prefix) == ("SSDH48", "./examples/SSDH/SSDH48")
    assert theirs.device_id == 0
    for solver in (mine, theirs):
        for field in ("net", "snapshot_prefix", "device_id"):  # the command line put device_id there
            solver.ClearField(field)
    assert differences(mine, theirs) == []


def test_the_deploy_net_of_2016_is_its_training_net_without_training(reference: Path) -> None:
    """No losses, classifier, fillers or rates; and the released deploy net leaves the last dropout out."""
    theirs = one_phase(logged_net(reference), TRAIN)
    kept = [
        layer for layer in theirs.layer if layer.type != "Data" and not layer.name.startswith(("loss", "fc8", "drop7"))
    ]
    mine = canonical(ours("ssdh_cifar10_48_2016", "deploy"))
    assert mine.layer[0].type == "Input"
    assert list(mine.layer[0].input_param.shape[0].dim) == [10, 3, 227, 227]
    assert len(mine.layer) == len(kept) + 1
    for here, there in zip(mine.layer[1:], kept, strict=True):
        there.ClearField("param")
        for parameters in (there.convolution_param, there.inner_product_param):
            if parameters.ListFields():
                parameters.ClearField("weight_filler")
                parameters.ClearField("bias_filler")
        assert differences(here, there) == []


# --- every file


@pytest.mark.parametrize(
    "path",
    sorted((zoo.data_root() / "prototxt").rglob("*.prototxt")),
    ids=lambda path: f"{path.parent.name}-{path.stem}",
)
def test_our_files_are_in_current_syntax(path: Path) -> None:
    """Upgrading changes nothing, so real Caffe reads them without a warning."""
    kind = "SolverParameter" if path.stem == "solver" else "NetParameter"
    upgraded = read_solver(path) if path.stem == "solver" else read_net(path)
    assert read(path, kind) == upgraded
