"""CaffeNet: the plan, selection, sharing, names, losses."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from caffe2torch.build import attribute_name, build
from caffe2torch.errors import GraphError, LayerError, UnsupportedLayerError, UsageError
from caffe2torch.graph import build_graph
from caffe2torch.loading import fill, load
from caffe2torch.net import CaffeNet
from caffe2torch.prototxt import parse
from caffe2torch.upgrade import upgrade_net

INPUT = 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } } '


def net(text: str, phase: str = "test", shape: tuple[int, ...] = (2, 3)) -> CaffeNet:
    made = build(build_graph(upgrade_net(parse(INPUT + text)), phase=phase), {"x": shape})
    fill(made)
    return made


def product(bottom: str, top: str, outputs: int, extra: str = "", name: str = "", bias: str = "true") -> str:
    return (
        f'layer {{ name: "{name or top}" type: "InnerProduct" bottom: "{bottom}" top: "{top}" {extra} '
        f'inner_product_param {{ num_output: {outputs} bias_term: {bias} weight_filler {{ type: "xavier" }} }} }} '
    )


def relu(bottom: str, top: str, name: str = "") -> str:
    return f'layer {{ name: "{name or top + "_relu"}" type: "ReLU" bottom: "{bottom}" top: "{top}" }} '


def test_forward_returns_the_output_blobs_by_name() -> None:
    made = net(product("x", "a", 4) + relu("a", "a") + product("a", "b", 2))
    outputs = made(torch.ones(5, 3))
    assert {k: tuple(v.shape) for k, v in outputs.items()} == {"b": (5, 2)}


def test_inputs_may_be_given_by_name() -> None:
    made, x = net(product("x", "a", 4)), torch.randn(2, 3)
    assert torch.equal(made({"x": x})["a"], made(x)["a"])


@pytest.mark.parametrize("inputs", [(), (torch.ones(2, 3),) * 2, ({"y": torch.ones(2, 3)},)])
def test_wrong_inputs_name_the_right_ones(inputs: tuple[object, ...]) -> None:
    with pytest.raises(UsageError, match="x"):
        net(product("x", "a", 4))(*inputs)


def test_a_blob_of_another_size_names_the_layer_it_does_not_fit() -> None:
    with pytest.raises(LayerError, match=r"layer 'a' \(InnerProduct\) takes 3 values an item and was given 4"):
        net(product("x", "a", 4))(torch.ones(2, 4))


def test_select_prunes_to_what_a_blob_needs() -> None:
    made = net(product("x", "a", 4) + product("a", "b", 5) + product("a", "c", 6))
    cut = made.select("b")
    assert list(cut.layers()) == ["a", "b"]
    assert cut.layer("a") is made.layer("a")
    assert list(cut(torch.ones(2, 3))) == ["b"]


def test_select_of_an_unknown_blob_suggests() -> None:
    with pytest.raises(GraphError, match="did you mean 'conv1'"):
        net(product("x", "conv1", 4)).select("conv_1")


def test_select_beyond_an_earlier_cut_says_which_layers_are_gone() -> None:
    made = net(product("x", "a", 4) + product("a", "b", 5))
    with pytest.raises(GraphError, match="needs the layers b"):
        made.select("a").select("b")


def test_in_place_blob_has_the_last_writers_value() -> None:
    made = net(product("x", "a", 4) + relu("a", "a"))
    assert (made(torch.randn(8, 3))["a"] >= 0).all()


def test_blobs_are_dropped_after_their_last_use() -> None:
    made = net(product("x", "a", 4) + product("a", "b", 4) + product("b", "c", 4))
    assert [step.free for step in made.plan] == [("x",), ("a",), ("b",)]


def test_shared_parameters_are_one_and_their_gradients_add_up() -> None:
    share = 'param { name: "w" } param { name: "v" }'
    made = net(product("x", "a", 3, share) + product("a", "b", 3, share))
    assert made.layer("a").weight is made.layer("b").weight
    assert len(list(made.parameters())) == 2
    x = torch.randn(2, 3)
    made(x)["b"].sum().backward()
    w = made.layer("a").weight.detach().clone().requires_grad_()
    first = x @ w.T
    ((first @ w.T).sum()).backward()
    assert torch.allclose(made.layer("a").weight.grad, w.grad, atol=1e-6)  # type: ignore[arg-type]


def test_sharing_with_another_shape_is_refused_unless_permissive() -> None:
    one, two = 'param { name: "w" }', 'param { name: "w" share_mode: PERMISSIVE }'
    with pytest.raises(GraphError, match=r"shape \(3, 2\).*\(2, 3\)"):
        net(product("x", "a", 2, one) + product("a", "b", 3, one))
    made = net(product("x", "a", 2, one, bias="false") + product("a", "b", 3, two, bias="false"))
    made(torch.randn(2, 3))["b"].sum().backward()
    assert made.layer("b").weight.shape == (3, 2)
    assert made.layer("b").weight.data_ptr() == made.layer("a").weight.data_ptr()
    again = pickle.loads(pickle.dumps(made))
    x = torch.randn(4, 3)
    assert torch.equal(again(x)["b"], made(x)["b"])


def test_shared_statistics_stay_one_when_the_net_is_cast() -> None:
    share = " ".join(f'param {{ name: "{name}" lr_mult: 0 }}' for name in "mvs")
    norm = 'layer {{ name: "{0}" type: "BatchNorm" bottom: "x" top: "{0}" {1} }} '
    made = net(norm.format("a", share) + norm.format("b", share), phase="train").double()
    made(torch.randn(2, 3, dtype=torch.float64))
    assert made.layer("a").scale_factor.item() == made.layer("b").scale_factor.item() == pytest.approx(1.999)


def test_sharers_have_the_multipliers_that_any_of_them_states() -> None:
    one, two = 'param { name: "w" }', 'param { name: "w" lr_mult: 3 }'
    made = net(product("x", "a", 3, one) + product("a", "b", 3, two))
    assert made.parameter_specs()["a.weight"].lr_mult == 3.0


@pytest.mark.parametrize("field", ["lr_mult", "decay_mult"])
def test_sharers_that_state_different_multipliers_are_refused(field: str) -> None:
    with pytest.raises(GraphError, match=f"'w' has {field} 1 in layer 'a' and 3 in 'b'"):
        net("".join(product("x", top, 3, f'param {{ name: "w" {field}: {v} }}') for top, v in (("a", 1), ("b", 3))))


def test_a_rate_of_zero_means_no_gradient() -> None:
    made = net(product("x", "a", 3, "param { lr_mult: 0 }"))
    assert not made.layer("a").weight.requires_grad  # type: ignore[union-attr]
    assert made.layer("a").bias.requires_grad  # type: ignore[union-attr]


def test_gradient_of_storage_changed_in_place_by_a_sharer_skips_the_in_place_layer() -> None:
    flatten = 'layer { name: "f" type: "Flatten" bottom: "p" top: "f" } ' + relu("f", "f")
    made = net(
        'layer { name: "p" type: "Power" bottom: "x" top: "p" power_param { scale: 2 } } '
        + flatten
        + 'layer { name: "q" type: "Power" bottom: "p" top: "q" power_param { shift: 1 } }'
    )
    x = torch.full((2, 3), -1.0, requires_grad=True)
    y = made(x)["q"]
    y.sum().backward()
    assert torch.equal(y, torch.ones(2, 3))  # q reads what the ReLU left in p
    assert x.grad is not None
    assert torch.equal(x.grad, torch.full((2, 3), 2.0))


def test_select_takes_along_the_owner_of_a_shared_parameter() -> None:
    one, two = 'param { name: "w" }', 'param { name: "w" share_mode: PERMISSIVE }'
    made = net(
        product("x", "a", 2, one, bias="false")
        + product("x", "b", 2, two, bias="false").replace("bias_term", "transpose: true bias_term")
    )
    cut = made.select("b").double()
    assert list(cut(torch.ones(2, 3, dtype=torch.float64))) == ["b"]
    assert list(cut.state_dict()) == ["a.weight"]


def test_more_params_than_blobs_are_refused() -> None:
    with pytest.raises(LayerError, match="3 param"):
        net(product("x", "a", 2, "param { } param { } param { }"))


@pytest.mark.parametrize(
    "name, attribute",
    [
        ("conv1", "conv1"),
        ("loss: 50%-fire-rate", "loss__50__fire_rate"),
        ("inception_3a/1x1", "inception_3a_1x1"),
        ("type", "type_"),
        ("half", "half_"),
        ("forward", "forward_"),
        ("1st", "layer_1st"),
        ("class", "class_"),
        ("training", "training_"),
        ("report", "report_"),
        ("_parameters", "_parameters_"),
        ("a.b", "a_b"),
        ("ä", "_"),
    ],
)
def test_layer_names_become_attribute_names(name: str, attribute: str) -> None:
    assert attribute_name(name) == attribute


def test_names_that_meet_in_one_attribute_are_numbered() -> None:
    made = net(product("x", "a", 3, name="f/c") + product("a", "b", 3, name="f.c"))
    assert sorted(made.state_dict()) == ["f_c.bias", "f_c.weight", "f_c_2.bias", "f_c_2.weight"]


def test_unknown_layer_types_are_listed_at_once() -> None:
    text = 'layer { name: "p" type: "Poolling" bottom: "x" top: "p" } layer { name: "q" type: "Zzz" bottom: "p" }'
    with pytest.raises(UnsupportedLayerError, match=r"(?s)'Poolling'.*did you mean 'Pooling'.*'Zzz'.*custom-layers"):
        net(text)


def test_a_layer_that_cannot_take_its_bottom_is_named() -> None:
    text = 'layer { name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param { axis: 2 } }'
    with pytest.raises(LayerError, match=r"layer 'c' \(Convolution\)"):
        net(text)


def test_wrong_number_of_bottoms_is_named() -> None:
    with pytest.raises(LayerError, match=r"'s' \(Sigmoid\) has 2 bottoms \(x, a\), expected 1"):
        net(relu("x", "a") + 'layer { name: "s" type: "Sigmoid" bottom: "x" bottom: "a" top: "s" }')


def test_a_loss_layer_without_top_gets_one_and_counts() -> None:
    text = relu("x", "a") + 'layer { name: "l" type: "EuclideanLoss" bottom: "a" bottom: "x" loss_weight: 3 }'
    made = net(text.replace("loss_weight: 3", ""))
    assert made.loss_weights == {"(automatic)": 1.0}
    outputs = made(-torch.ones(2, 3))
    assert made.loss(outputs).item() == pytest.approx(6 / 4)
    made = net(text)
    assert made.loss_weights == {"(automatic)": 3.0}
    with pytest.raises(GraphError, match="loss_weight is given 2 times, expected none or 1"):
        net(text.replace("loss_weight: 3", "loss_weight: 3 loss_weight: 1"))


READ = """layer { name: "s" type: "Scale" bottom: "x" top: "y" }
layer { name: "l" type: "EuclideanLoss" bottom: "y" bottom: "x" top: "l" WEIGHT } """
TWICE = 'layer { name: "p" type: "Power" bottom: "l" top: "p" loss_weight: 1 power_param { scale: 2 } }'


@pytest.mark.parametrize(
    "weight, reader, factor",
    [
        ("", "", 1),
        ("", TWICE, 2),  # the reader's gradient is written over the 1
        ("loss_weight: 1", TWICE, 3),
        ("", 'layer { name: "q" type: "Silence" bottom: "l" }', 0),  # so Caffe takes the loss to need no backward
        ("loss_weight: 1", 'layer { name: "q" type: "Silence" bottom: "l" }', 1),
        ("", TWICE + 'layer { name: "q" type: "Silence" bottom: "l" }', 2),
        ("", TWICE.replace("loss_weight: 1", "loss_weight: 1 propagate_down: false"), 0),
        # In place nothing is lost; Power's two factors are one buffer then: 2 * 2.
        ("", TWICE.replace('top: "p"', 'top: "l"').replace("loss_weight: 1", ""), 4),
    ],
)
def test_a_loss_that_another_layer_reads_keeps_only_a_weight_that_is_stated(
    weight: str, reader: str, factor: float
) -> None:
    made = net(READ.replace("WEIGHT", weight) + reader)
    made.layer("s").get_parameter("weight").data.fill_(3.0)
    loss = made.loss(made(torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 1.0]])))
    if factor == 0:
        assert not loss.requires_grad
        return
    loss.backward()
    # d/dw of sum((w x - x)^2) / 2 / N, channel by channel
    expected = factor * 2 * torch.tensor([1.0, 4.0, 1.0]) / 2
    torch.testing.assert_close(made.layer("s").get_parameter("weight").grad, expected)


def test_propagate_down_false_cuts_the_gradient() -> None:
    text = (
        'layer { name: "e" type: "Eltwise" bottom: "a" bottom: "b" top: "e" '
        "propagate_down: true propagate_down: false }"
    )
    made = net(product("x", "a", 2) + product("x", "b", 2) + text)
    made(torch.randn(2, 3))["e"].sum().backward()
    assert made.layer("a").weight.grad is not None
    assert made.layer("b").weight.grad is None


def test_what_no_gradient_reaches_depends_on_the_layers_own_bottoms() -> None:
    chosen = 'layer { name: "f" type: "Filter" bottom: "a" bottom: "s" top: "f" }'
    made = net(product("x", "a", 2) + product("x", "s", 1) + chosen)
    assert made.plan[-1].detached == (False, True)


def test_parameter_specs_carry_the_multipliers() -> None:
    made = net(product("x", "a", 2, "param { lr_mult: 10 decay_mult: 0.5 }"))
    specs = {name: (s.lr_mult, s.decay_mult) for name, s in made.parameter_specs().items()}
    assert specs == {"a.weight": (10.0, 0.5), "a.bias": (1.0, 1.0)}


def test_compiles_and_exports_in_one_graph() -> None:
    made = net(product("x", "a", 4) + relu("a", "a") + product("a", "b", 2))
    x = torch.randn(3, 3)
    compiled = torch.compile(made, fullgraph=True, backend="eager")
    assert torch.allclose(compiled(x)["b"], made(x)["b"])
    exported = torch.export.export(made, (x,), dynamic_shapes=(((torch.export.Dim("batch"), None),),))
    more = torch.randn(7, 3)
    assert torch.allclose(exported.module()(more)["b"], made(more)["b"])


def test_phase_sets_training_mode(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(INPUT + 'layer { name: "d" type: "Dropout" bottom: "x" top: "d" }', "utf-8")
    assert load(path, phase="train").training
    assert not load(path).training


def test_a_layer_keeps_the_phase_its_prototxt_gives_it() -> None:
    made = net('layer { name: "d" type: "Dropout" phase: TEST bottom: "x" top: "d" }', phase="train")
    x = torch.randn(2, 3)
    assert torch.equal(made.train()(x)["d"], x)
