"""Renaming, cutting, removing, inserting and replacing: what the nets compute afterwards, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe2torch import surgery
from caffe2torch.errors import GraphError, UsageError
from surgery.nets import INPUT, model, names, trained, values

CHAIN = (
    INPUT
    + """
layer { name: "a" type: "InnerProduct" bottom: "data" top: "a" inner_product_param { num_output: 5 } }
layer { name: "relu" type: "ReLU" bottom: "a" top: "a" }
layer { name: "b" type: "InnerProduct" bottom: "a" top: "b" inner_product_param { num_output: 5 } }
layer { name: "square" type: "Power" bottom: "b" top: "square" power_param { power: 2 } }
layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "square" top: "sum" }
layer { name: "c" type: "InnerProduct" bottom: "sum" top: "c" inner_product_param { num_output: 3 } }
"""
)
SHARED = (
    INPUT
    + """
layer { name: "a" type: "InnerProduct" bottom: "data" top: "a" param { name: "w" } param { name: "v" }
  inner_product_param { num_output: 5 } }
layer { name: "b" type: "InnerProduct" bottom: "data" top: "b" param { name: "w" } param { name: "v" }
  inner_product_param { num_output: 5 } }
"""
)


def test_a_rename_reaches_layer_blob_and_weights() -> None:
    net = model(CHAIN)
    renamed = surgery.rename(net, {"a": "first"})
    assert names(renamed)[:3] == ["data", "first", "relu"]
    assert list(renamed.net.layer[5].bottom) == ["first", "square"]
    assert renamed.net.layer[2].top[0] == "first"
    assert list(renamed.weights or {}) == ["first", "b", "c"]
    np.testing.assert_array_equal(values(renamed, "c")[0], values(net, "c")[0])


def test_only_layers_or_only_blobs_are_renamed_where_that_is_asked() -> None:
    renamed = surgery.rename(model(CHAIN), layers={"b": "layer_b"}, blobs={"c": "scores"})
    assert names(renamed)[3:] == ["layer_b", "square", "sum", "c"]
    assert (renamed.net.layer[3].top[0], renamed.net.layer[6].top[0]) == ("b", "scores")


def test_shared_parameters_are_renamed_everywhere() -> None:
    renamed = surgery.rename(model(SHARED), params={"w": "weight"})
    assert [param.name for layer in renamed.net.layer for param in layer.param] == ["weight", "v", "weight", "v"]


def test_two_names_change_places() -> None:
    net = model(CHAIN)
    renamed = surgery.rename(net, {"a": "b", "b": "a"})
    assert names(renamed)[1:4] == ["b", "relu", "a"]
    np.testing.assert_array_equal(values(renamed, "c")[0], values(net, "c")[0])


@settings(max_examples=25, deadline=None)
@given(st.permutations(names(model(CHAIN))), st.text(min_size=1, max_size=4))
def test_renaming_there_and_back_is_the_same_net(order: list[str], ending: str) -> None:
    net = model(CHAIN)
    there = {
        old: new + ending for old, new in zip(["data", "a", "relu", "b", "square", "sum", "c"], order, strict=True)
    }
    back = surgery.rename(surgery.rename(net, there), {new: old for old, new in there.items()})
    assert back.net == net.net
    assert back.weights == net.weights


@pytest.mark.parametrize(
    "table, problem",
    [
        ({"aa": "x"}, "nothing called 'aa'"),
        ({"relv": "x"}, "nothing called 'relv'; did you mean 'relu'"),
        ({"a": "b"}, "layer 'a' cannot become 'b': another layer has that name"),
        ({"a": "x", "b": "x"}, "cannot become 'x': another layer has that name"),
    ],
)
def test_impossible_renames_are_refused(table: dict[str, str], problem: str) -> None:
    with pytest.raises(GraphError, match=problem):
        surgery.rename(model(CHAIN), table)


def test_a_cut_keeps_the_values_of_the_part() -> None:
    net = model(CHAIN)
    part = surgery.cut(net, "b", "sum")
    assert names(part) == ["a", "b", "square", "sum"]
    assert list(part.net.layer[0].input_param.shape[0].dim) == [2, 5]
    a, expected = values(net, "a", "sum")
    np.testing.assert_array_equal(values(part, "sum", a=a)[0], expected)
    assert list(part.weights or {}) == ["b"]


def test_a_cut_with_an_open_start_leaves_out_what_the_end_does_not_need() -> None:
    assert names(surgery.cut(trained(), "", "fc")) == ["data", "data", "conv", "relu", "pool", "latent", "code", "fc"]


def test_a_cut_with_an_open_end_keeps_all_that_follows() -> None:
    assert names(surgery.cut(model(CHAIN), "sum")) == ["a", "square", "sum", "c"]


def test_cuts_that_make_no_sense_are_refused() -> None:
    with pytest.raises(GraphError, match="'c' comes after 'a' in the file"):
        surgery.cut(model(CHAIN), "c", "a")
    with pytest.raises(GraphError, match="no layer 'sun'; did you mean 'sum'"):
        surgery.cut(model(CHAIN), "sun")
    with pytest.raises(UsageError, match="cut needs"):
        surgery.cut(model(CHAIN))


def test_removing_closes_the_gap() -> None:
    net = model(CHAIN)
    without = surgery.remove(net, "square")
    assert list(without.net.layer[4].bottom) == ["a", "b"]
    a, b = values(net, "a", "b")
    weight, bias = net.weights["c"] if net.weights else ()
    np.testing.assert_allclose(values(without, "c")[0], (a + b) @ weight.T + bias, rtol=1e-5)


def test_removing_an_in_place_layer_and_a_range() -> None:
    assert names(surgery.remove(model(CHAIN), "relu")) == ["data", "a", "b", "square", "sum", "c"]
    assert names(surgery.remove(model(CHAIN), "relu..square")) == ["data", "a", "sum", "c"]


def test_dangling_bottoms_are_refused_by_name() -> None:
    with pytest.raises(GraphError, match="bottoms that no layer makes: 'data' of layer 'a'"):
        surgery.remove(model(CHAIN), "data")
    with pytest.raises(GraphError, match="'sum' of layer 'c'"):
        surgery.remove(model(CHAIN), "sum")


def test_the_input_of_an_operation_is_left_alone() -> None:
    net = trained()
    before, arrays = net.net.SerializeToString(deterministic=True), dict(net.weights or {})
    surgery.rename(net, {"conv": "x"})
    surgery.remove(net, "relu")
    surgery.set_classes(net, 3)
    surgery.deploy(net)
    surgery.insert(net, "conv", 'layer { name: "n" type: "TanH" }')
    assert net.net.SerializeToString(deterministic=True) == before
    assert net.weights == arrays


def test_an_inserted_layer_stands_in_the_way() -> None:
    net = model(CHAIN)
    longer = surgery.insert(net, "a", 'layer { name: "half" type: "Power" power_param { scale: 0.5 } }')
    assert names(longer)[:4] == ["data", "a", "half", "relu"]
    assert list(longer.net.layer[3].top) == ["half"]
    np.testing.assert_allclose(values(longer, "half")[0], values(net, "a")[0] / 2)


def test_an_inserted_layer_with_a_top_is_a_branch() -> None:
    net = model(CHAIN)
    longer = surgery.insert(net, "b", 'layer { name: "t" type: "TanH" bottom: "b" top: "t" }')
    b, t, c = values(longer, "b", "t", "c")
    np.testing.assert_allclose(t, np.tanh(b), rtol=1e-6)
    np.testing.assert_array_equal(c, values(net, "c")[0])


def test_an_inserted_layer_gets_its_weights_from_its_fillers() -> None:
    text = """layer { name: "more" type: "InnerProduct" inner_product_param {
        num_output: 5 weight_filler { type: "constant" value: 2 } bias_filler { type: "constant" value: 3 } } }"""
    longer = surgery.insert(model(CHAIN), "b", text)
    assert longer.weights is not None
    assert [float(blob.max()) for blob in longer.weights["more"]] == [2, 3]
    assert any("makes all of them 2" in note for note in longer.notes)
    again = surgery.insert(model(CHAIN), "b", text.replace("constant", "uniform"), seed=5).weights
    same = surgery.insert(model(CHAIN), "b", text.replace("constant", "uniform"), seed=5).weights
    np.testing.assert_array_equal((again or {})["more"][0], (same or {})["more"][0])


@pytest.mark.parametrize(
    "layer, error, problem",
    [
        ('layer { name: "a" type: "TanH" }', GraphError, "named 'a': expected a name no layer of the net has"),
        ('layer { type: "TanH" }', GraphError, "named ''"),
        ('layer { name: "x" }', UsageError, "has no type"),
        ('layer { name: "x" type: "TanH" } layer { name: "y" type: "TanH" }', UsageError, "takes one layer"),
        ('layer { name: "x" type: "TanH" bottom: "nowhere" top: "x" }', GraphError, "'nowhere' of layer 'x'"),
    ],
)
def test_impossible_insertions_are_refused(layer: str, error: type[Exception], problem: str) -> None:
    with pytest.raises(error, match=problem):
        surgery.insert(model(CHAIN), "b", layer)


def test_a_replaced_layer_keeps_its_place_and_weights_of_the_same_shape() -> None:
    net = model(CHAIN)
    other = surgery.replace_layer(net, "b", "layer { param { lr_mult: 7 } inner_product_param { num_output: 5 } }")
    assert other.net.layer[3].param[0].lr_mult == 7
    assert list(other.net.layer[3].bottom) == ["a"]
    np.testing.assert_array_equal(values(other, "c")[0], values(net, "c")[0])


def test_a_replacement_of_another_type_starts_anew() -> None:
    net = model(CHAIN)
    other = surgery.replace_layer(net, "square", 'layer { type: "TanH" }')
    b, square = values(other, "b", "square")
    np.testing.assert_allclose(square, np.tanh(b), rtol=1e-6)
    new = surgery.replace_layer(net, "b", 'layer { name: "b2" type: "PReLU" top: "b" }')
    assert new.weights is not None
    assert "b" not in new.weights
    assert float(new.weights["b2"][0].max()) == 0.25


def test_a_replacement_that_leaves_a_bottom_unmade_is_refused() -> None:
    with pytest.raises(GraphError, match="'b' of layer 'square'"):
        surgery.replace_layer(model(CHAIN), "b", 'layer { type: "TanH" top: "other" }')


def test_an_edit_may_leave_a_phase_without_layers() -> None:
    text = INPUT[:-1] + 'include { phase: TEST } } layer { name: "t" type: "TanH" bottom: "data" top: "t" '
    text += 'include { phase: TEST } } layer { name: "d" type: "DummyData" top: "d" include { phase: TRAIN } '
    text += "dummy_data_param { shape { dim: 2 } } }"
    assert names(surgery.remove(model(text), "d")) == ["data", "t"]
    with pytest.raises(GraphError, match="the edit leaves no layer of the net"):
        surgery.remove(model(text), "d", "t", "data")
