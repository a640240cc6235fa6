"""Connection rules and net-state filtering."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from caffe2torch.errors import GraphError, UsageError
from caffe2torch.graph import Graph, build_graph
from caffe2torch.prototxt import parse, read_net
from caffe2torch.upgrade import upgrade_net

INPUT = 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } } '


def graph(text: str, **state: object) -> Graph:
    return build_graph(upgrade_net(parse(INPUT + text)), **state)  # type: ignore[arg-type]


def relu(bottom: str, top: str, extra: str = "") -> str:
    return f'layer {{ name: "{top}_" type: "ReLU" bottom: "{bottom}" top: "{top}" {extra} }} '


RULE_CASES = (
    "rules_deploy",
    "rules_deploy_fast",
    "rules_level3",
    "rules_net_state",
    "rules_test",
    "rules_train",
    "rules_train_level1_deploy",
    "rules_train_test_inputs",
)


@pytest.mark.parametrize("case", RULE_CASES)
def test_net_state_keeps_the_layers_caffe_keeps(case: str, reference: Path) -> None:
    folder = reference / "goldens" / "layers" / case
    state = json.loads((folder / "case.json").read_text("utf-8"))
    made = build_graph(
        read_net(folder / "net.prototxt"),
        phase=state["phase"],
        level=state.get("level", 0),
        stages=state.get("stages", ()),
    )
    expected = {key.partition(":")[2] for key in np.load(folder / "blobs.npz").files}
    assert set(made.blobs) == expected


def test_outputs_are_the_blobs_nobody_consumes() -> None:
    assert graph(relu("x", "a") + relu("a", "b") + relu("a", "c")).outputs == ("b", "c")


def test_a_blob_changed_in_place_is_an_output() -> None:
    assert graph(relu("x", "a") + relu("a", "a")).outputs == ("a",)


def test_needed_follows_the_value_at_the_time_of_reading() -> None:
    made = graph(relu("x", "a") + relu("a", "a") + relu("a", "b") + relu("x", "c"))
    assert [n.tops for n in made.needed(["b"])] == [("a",), ("a",), ("b",)]
    assert [n.tops for n in made.needed(["c"])] == [("c",)]


def test_in_place_on_a_reshape_changes_the_blob_beneath() -> None:
    reshape = 'layer { name: "r" type: "Flatten" bottom: "a" top: "b" } '
    made = graph(relu("x", "a") + reshape + relu("b", "b"))
    assert made.nodes[-1].refreshed == (("a", "b"),)


@pytest.mark.parametrize("kind", ["Concat", "Slice"])
def test_a_lone_concat_or_slice_shares_storage_too(kind: str) -> None:
    made = graph(relu("x", "a") + f'layer {{ name: "r" type: "{kind}" bottom: "a" top: "b" }} ' + relu("b", "b"))
    assert made.nodes[-1].refreshed == (("a", "b"),)


@pytest.mark.parametrize(
    "text, message",
    [
        (relu("y", "a"), "no layer before it makes"),
        (relu("b", "a") + relu("a", "b"), "bottom 0 is 'b'"),
        (relu("b", "a") + relu("a", "b", "include { phase: TEST }"), "makes; it has 'x'"),
        (relu("x", "a") + relu("x", "a"), "already made by layer 'a_'"),
        (relu("x", "a") + relu("a", "b") + relu("a", "a"), "reads that blob too"),
        (relu("x", "a", "propagate_down: true propagate_down: true"), "propagate_down is given 2 times, expected"),
        (relu("x", "a", "loss_weight: 1 loss_weight: 1"), "loss_weight is given 2 times"),
        (relu("x", "a", "include { phase: TRAIN } exclude { phase: TEST }"), "both include and exclude"),
        ('layer { name: "s" type: "Split" bottom: "x" top: "a" top: "a" }', "the same name"),
        ('layer { name: "s" bottom: "x" top: "a" }', "no type"),
    ],
)
def test_what_does_not_connect_is_refused(text: str, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        graph(text)


def test_unknown_bottom_suggests_a_near_name() -> None:
    with pytest.raises(GraphError, match="did you mean 'conv1'"):
        graph(relu("x", "conv1") + relu("cnv1", "b"))


def test_unknown_phase_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="'train' or 'test'"):
        graph(relu("x", "a"), phase="deploy")


def test_a_net_without_layers_in_its_phase_says_so() -> None:
    net = parse('name: "n" layer { name: "a" type: "ReLU" include { phase: TRAIN } }')
    with pytest.raises(GraphError, match="1 layers, none of them in phase test"):
        build_graph(net)


def test_stages_of_the_net_and_of_the_caller_add_up() -> None:
    text = relu("x", "a", 'include { stage: "one" stage: "two" }') + 'state { stage: "one" }'
    assert graph(text, stages=["two"]).outputs == ("a",)
    assert graph(text).outputs == ("x",)


def test_a_sink_is_kept_with_what_it_depends_on() -> None:
    made = graph(relu("x", "a") + relu("a", "b") + 'layer { name: "s" type: "Silence" bottom: "b" } ' + relu("x", "c"))
    assert [n.name for n in made.needed(["c"])] == ["c_"]
    assert [n.name for n in made.needed(["c"], sinks=[3])] == ["a_", "b_", "s", "c_"]


def test_a_bottom_of_another_net_state_names_the_rule() -> None:
    with pytest.raises(
        GraphError, match=r"in another phase, level or stage only \(layer 'a_': include \{ stage: \"s\" \}\)"
    ):
        graph(relu("x", "a", 'include { stage: "s" }') + relu("a", "b"))
