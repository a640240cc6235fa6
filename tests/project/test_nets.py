"""The nets of a project against those of the zoo they come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from caffe2torch import prototxt
from caffe2torch.errors import UsageError
from caffe2torch.graph import build_graph
from caffe2torch.loading import build_net, fill
from caffe2torch.project import nets
from caffe2torch.project.bases import BASES, Base, base
from caffe2torch.project.plan import plan
from caffe2torch.project.text import WIDTH, readable
from caffe2torch.upgrade import upgrade_net

SMALL = base("ssdh_small")
CASES = [(one, several) for one in BASES.values() for several in (False, True)]


def shape(of: Base, *, bits: int = 13, classes: int = 7, several: bool = False) -> nets.Shape:
    return nets.Shape("birds", bits, classes, several, "../photos/", None if of.mean_image else (1.0, 2.0, 3.5))


def by_name(net: Any, phase: int) -> dict[str, Any]:
    return {x.name: x for x in net.layer if not x.include or x.include[0].phase == phase}


@pytest.mark.parametrize(("of", "several"), CASES, ids=lambda v: getattr(v, "name", str(v)))
def test_nothing_but_data_bits_and_classes_differs_from_the_zoo(of: Base, several: bool) -> None:
    made = nets.train_val(of, shape(of, several=several), plan(of, 100, 20))
    assert made == upgrade_net(made)  # V2, as written
    zoo = prototxt.read_net(of.entry.train_val)
    for phase in (0, 1):
        ours, theirs = by_name(made, phase), by_name(zoo, phase)
        losses = (
            {x.name for x in zoo.layer if x.type in ("SoftmaxWithLoss", "Accuracy", "Softmax")} if several else set()
        )
        new = {"labels", "row"} if several else set()
        assert set(ours) - new == set(theirs) - ({"prob"} if several else set())
        changed = {name for name in set(ours) - new if ours[name] != theirs[name]}
        pooling = {name for name, x in theirs.items() if x.type == "Pooling" and x.pooling_param.kernel_w}
        batch_norms = {name for name, x in theirs.items() if x.type == "BatchNorm"}
        assert changed <= {"data", of.entry.code_layer, nets.classifier_name(of)} | pooling | losses | batch_norms
        assert ours[of.entry.code_layer].inner_product_param.num_output == 13
        assert ours[nets.classifier_name(of)].inner_product_param.num_output == 7
        for name in pooling:
            assert ours[name].pooling_param.kernel_w == 13


@pytest.mark.parametrize(("of", "several"), CASES, ids=lambda v: getattr(v, "name", str(v)))
@pytest.mark.parametrize("bits", [1, 48, 100])
def test_nets_are_read_back_equal_and_fit_together(of: Base, several: bool, bits: int) -> None:
    wanted = shape(of, bits=bits, several=several)
    for made in (
        nets.train_val(of, wanted, plan(of, 100, 20)),
        nets.deploy(of, wanted),
        nets.deploy(of, wanted, classifier=True),
    ):
        text = readable(made, "about")
        assert prototxt.parse(text) == made
        assert max(map(len, text.splitlines())) <= WIDTH
        build_graph(made, phase="test")
    graph = build_graph(nets.deploy(of, wanted, classifier=True), phase="test")
    assert graph.outputs == (list(by_name(made, 1).values())[-1].top[0],)


def test_deploy_net_of_any_bits_runs_to_its_scores() -> None:
    import torch

    net = build_net(build_graph(nets.deploy(SMALL, shape(SMALL), classifier=True), phase="test"), Path())
    fill(net)
    with torch.no_grad():
        assert net(torch.zeros(2, 3, 32, 32))["classifier"].shape == (2, 7)


def test_data_layers_take_lists_with_crop_and_mirror_in_training() -> None:
    of = base("ssdh")
    made = nets.train_val(of, shape(of), plan(of, 100, 20))
    train, test = (next(x for x in made.layer if x.include and x.include[0].phase == phase) for phase in (0, 1))
    for layer, source in ((train, "train.txt"), (test, "test.txt")):
        p, t = layer.image_data_param, layer.transform_param
        assert (layer.type, p.source, p.root_folder) == ("ImageData", source, "../photos/")
        assert (p.new_height, p.new_width, t.crop_size, t.mean_file) == (256, 256, 227, "mean.binaryproto")
    assert (train.transform_param.mirror, test.transform_param.mirror) == (True, False)
    assert (train.image_data_param.shuffle, test.image_data_param.shuffle) == (True, False)


def test_channel_means_and_scale_of_the_small_net() -> None:
    made = nets.train_val(SMALL, shape(SMALL), plan(SMALL, 100, 20))
    t = made.layer[0].transform_param
    assert (list(t.mean_value), t.mean_file) == ([1.0, 2.0, 3.5], "")
    assert t.scale == pytest.approx(1 / 62)


def test_several_labels_come_in_step_and_unshuffled() -> None:
    made = nets.train_val(SMALL, shape(SMALL, several=True), plan(SMALL, 100, 20))
    for phase in (0, 1):
        found = by_name(made, phase)
        assert found["data"].image_data_param.shuffle is False
        assert found["labels"].hdf5_data_param.shuffle is False
        assert found["labels"].hdf5_data_param.batch_size == found["data"].image_data_param.batch_size
    assert {x.type for x in made.layer if "label" in x.bottom} == {"MultiLabelSigmoidLoss", "MultiLabelAccuracy"}


@pytest.mark.parametrize("of", BASES.values(), ids=lambda of: of.name)
def test_solvers_are_read_back_equal(of: Base) -> None:
    made = nets.solver(of, plan(of, 1000, 100), "birds", 5)
    assert prototxt.parse(readable(made, ""), "SolverParameter") == made
    assert (made.net, list(made.test_iter), made.random_seed) == ("train_val.prototxt", [100 // of.test_batch], 5)
    assert (made.lr_policy, made.stepsize) == (("step", made.max_iter // 2) if of.halve else ("poly", 0))


def test_layout_of_the_text() -> None:
    net = prototxt.parse('name: "a{ }" layer { name: "x" top: "y" input_param { shape { dim: 1 } } }')
    assert readable(net, "one\ntwo") == (
        '# one\n# two\n\nname: "a{ }"\nlayer { name: "x" top: "y" input_param { shape { dim: 1 } } }\n'
    )


@pytest.mark.parametrize("odd", ["x {", "}", " }", '\\"', "é\n}", "#"])
def test_odd_strings_survive_the_layout(odd: str) -> None:
    net = prototxt.parse("layer { } layer { }")
    net.name = odd
    for layer in net.layer:
        layer.name = odd * 30
        layer.bottom.extend([odd, odd * 50])
        layer.transform_param.mean_file = odd
    assert prototxt.parse(readable(net, odd)) == net


def test_an_unknown_base_is_named_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"resnet.*ssdh_small, ssdh, kevinnet, ssdh_vgg16"):
        base("resnet")
