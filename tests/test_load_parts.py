"""Nets of forks of which only a part can run here: wanted outputs, data layers fed from outside, unknown fields."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from caffe2torch import prototxt
from caffe2torch.caffemodel import write_caffemodel
from caffe2torch.cli import main
from caffe2torch.errors import (
    GraphError,
    LayerError,
    PrototxtError,
    UnsupportedLayerError,
    UsageError,
    WeightsError,
)
from caffe2torch.loading import load

TEXT = """
name: "fork"
layer { name: "data" type: "ForkData" top: "data" top: "label" include { phase: TEST } fork_data_param { height: 3 } }
layer { name: "train" type: "ForkData" top: "data" top: "label" include { phase: TRAIN } other_param { height: 3 } }
layer { name: "one" type: "InnerProduct" bottom: "data" top: "a" inner_product_param { num_output: 4 } }
layer { name: "relu" type: "ReLU" bottom: "a" top: "a" }
layer { name: "two" type: "InnerProduct" bottom: "a" top: "b" inner_product_param { num_output: 2 } }
layer { name: "fork" type: "ForkLoss" bottom: "b" bottom: "label" top: "loss" fork_loss_param { margin: 1 } }
"""
BLOBS = {"one": [(4, 3), (4,)], "two": [(2, 4), (2,)]}
SHAPES = {"data": (5, 3)}


@pytest.fixture
def net(tmp_path: Path) -> Path:
    path = tmp_path / "net.prototxt"
    path.write_text(TEXT, "utf-8")
    return path


def weights(net: Path, **more: list[tuple[int, ...]]) -> Path:
    path = net.with_suffix(".caffemodel")
    text = TEXT + "".join(f'layer {{ name: "{name}" type: "Other" }}' for name in more)
    random = np.random.RandomState(1)
    made = {n: [random.randn(*s).astype(np.float32) for s in shapes] for n, shapes in (BLOBS | more).items()}
    write_caffemodel(path, prototxt.parse(text, unknown=[]), made)
    return path


def test_only_the_layers_that_the_outputs_need_have_to_be_known(net: Path) -> None:
    made = load(net, weights(net), input_shapes=SHAPES, outputs=["b", "a"])
    assert (made.inputs, made.outputs, list(made.layers())) == (("data",), ("b", "a"), ["one", "relu", "two"])
    x = torch.randn(5, 3)
    one, two = made.layer("one"), made.layer("two")
    a = (x @ one.weight.T + one.bias).relu()
    torch.testing.assert_close(made(x)["a"], a)
    torch.testing.assert_close(made(x)["b"], a @ two.weight.T + two.bias)


def test_weights_of_layers_that_are_left_out_may_be_there_or_not(net: Path) -> None:
    made = load(net, weights(net), input_shapes=SHAPES, outputs=["a"])
    assert made.report.loaded == ("one",)
    with pytest.raises(WeightsError, match="'three', which the net does not have"):
        load(net, weights(net, three=[(1,)]), input_shapes=SHAPES, outputs=["a"])


def test_an_in_place_layer_behind_a_wanted_blob_is_part_of_it(net: Path) -> None:
    whole = load(net, weights(net), input_shapes=SHAPES, outputs=["b"]).select("a")
    alone = load(net, weights(net), input_shapes=SHAPES, outputs=["a"])
    x = torch.randn(5, 3)
    torch.testing.assert_close(alone(x)["a"], whole(x)["a"])
    assert (alone(x)["a"] >= 0).all()


def test_an_output_that_does_not_exist_is_named_with_near_ones(net: Path) -> None:
    with pytest.raises(GraphError, match=r"net\.prototxt: net 'fork' has no blob 'bb'; .*'b'"):
        load(net, outputs=["bb"], input_shapes=SHAPES)


def test_a_data_layer_of_a_fork_is_fed_if_its_shapes_are_given(net: Path) -> None:
    text = TEXT.replace('"ForkLoss"', '"SoftmaxWithLoss"').replace("fork_loss_param { margin: 1 }", "")
    net.write_text(text, "utf-8")
    made = load(net, weights(net), input_shapes={"data": (5, 3), "label": (5,)})
    assert made.inputs == ("data", "label")
    given = {"data": torch.randn(5, 3), "label": torch.tensor([0.0, 1, 1, 0, 1])}
    expected = torch.nn.functional.cross_entropy(made.select("b")(given)["b"], given["label"].long())
    torch.testing.assert_close(made(given)["loss"], expected)
    with pytest.raises(GraphError, match=r"the shape of 'label' of layer 'data' \(ForkData\)"):
        load(net, input_shapes={"data": (5, 3)})


def test_a_python_data_layer_is_fed_without_its_module(tmp_path: Path) -> None:
    net = tmp_path / "net.prototxt"
    net.write_text(
        'layer { name: "data" type: "Python" top: "x" python_param { module: "not_here" layer: "Data" } }'
        'layer { name: "relu" type: "ReLU" bottom: "x" top: "y" }',
        "utf-8",
    )
    assert load(net, input_shapes={"x": (2, 3)})(torch.tensor([[-1.0, 2, 3]]))["y"].tolist() == [[0, 2, 3]]
    with pytest.raises(
        LayerError, match=r"cannot import 'not_here'(.|\n)*give the shapes of what it makes: .*--input x=N,\.\.\."
    ):
        load(net)


def test_unknown_layers_without_bottoms_are_told_how_to_be_fed(tmp_path: Path) -> None:
    net = tmp_path / "net.prototxt"
    net.write_text('layer { name: "data" type: "ForkData" top: "x" top: "y" }', "utf-8")
    with pytest.raises(UnsupportedLayerError, match=r"'ForkData' of layer 'data'(.|\n)*--input x=N,\.\.\. --input y=N"):
        load(net)


def test_fields_of_layers_that_do_not_run_may_be_unknown(net: Path) -> None:
    """Those of another phase, of a source whose shapes are given, and behind the outputs."""
    load(net, input_shapes=SHAPES, outputs=["b"])
    load(net, phase="train", input_shapes=SHAPES, outputs=["b"])
    with pytest.raises(PrototxtError, match="fork_data_param"):
        load(net, outputs=["b"])
    with pytest.raises(PrototxtError, match="fork_loss_param"):
        load(net, input_shapes={"data": (5, 3), "label": (5,)})


def test_fields_of_layers_that_run_are_refused_and_so_are_those_of_the_net(net: Path) -> None:
    net.write_text(TEXT.replace("num_output: 4 }", "num_output: 4 fancy: true }"), "utf-8")
    with pytest.raises(PrototxtError, match="no field 'fancy' in InnerProductParameter") as caught:
        load(net, input_shapes=SHAPES, outputs=["a"])
    assert caught.value.line == 5
    net.write_text(TEXT + "fancy: true", "utf-8")
    with pytest.raises(PrototxtError, match="no field 'fancy' in NetParameter"):
        load(net, input_shapes=SHAPES, outputs=["a"])


def test_the_error_for_unknown_fields_names_unknown_layers_and_what_to_do(net: Path) -> None:
    with pytest.raises(PrototxtError) as caught:
        load(net)
    text = str(caught.value)
    assert ":3:" in text.splitlines()[0]
    assert "'ForkLoss' of layer 'fork'" in text
    assert "'ForkData' of layer 'data'" in text
    assert "--proto" in text
    assert "--allow-unknown" in text


@pytest.mark.parametrize(
    "text, names",
    [
        ('layer { foo: 1 name: "a" } layer { name: "b" bar { x: 1 } } foo: 1', ["a", "b", None]),
        ('layers { name: "a" foo: 1 } layers { layer { foo: 1 name: "b" } }', ["a", "b"]),
        ('layer [{ name: "a" foo: 1 }, { name: "b" convolution_param { foo: 1 } }]', ["a", "b"]),
        ("layer { foo: 1 }", [""]),
    ],
)
def test_unknown_fields_know_their_layer(text: str, names: list[str | None]) -> None:
    unknown: list[prototxt.UnknownField] = []
    prototxt.parse(text, unknown=unknown)
    assert [field.layer for field in unknown] == names


def test_the_image_shape_is_that_of_the_one_input_of_no_known_shape(net: Path, tmp_path: Path) -> None:
    made = load(net, outputs=["b"], image_shape=(1, 3))
    assert made.input_shapes == {"data": (1, 3)}
    known = tmp_path / "known.prototxt"
    known.write_text(
        'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 7 } } }'
        'layer { name: "relu" type: "ReLU" bottom: "x" top: "y" }',
        "utf-8",
    )
    assert load(known, image_shape=(1, 3)).input_shapes == {"x": (2, 7)}
    two = tmp_path / "two.prototxt"
    two.write_text('layer { name: "in" type: "Input" top: "x" top: "y" }', "utf-8")
    with pytest.raises(GraphError, match=r"the shape of 'x' .* 'y'"):
        load(two, image_shape=(1, 3))


@pytest.mark.parametrize("outputs", [[], "b"])
def test_outputs_are_a_list_of_names(net: Path, outputs: list[str] | str) -> None:
    with pytest.raises(UsageError, match="expected a list of blob names"):
        load(net, outputs=outputs, input_shapes=SHAPES)


def test_the_outputs_are_those_wanted_without_the_losses_before_them(net: Path) -> None:
    """As select has it: what is converted would give the loss as well."""
    net.write_text(
        'layer { name: "in" type: "Input" top: "x" top: "y" input_param { shape { dim: 2 dim: 3 } shape { dim: 2 } } }'
        'layer { name: "l" type: "SoftmaxWithLoss" bottom: "x" bottom: "y" top: "loss" top: "prob" }'
        'layer { name: "p" type: "Power" bottom: "loss" top: "more" }',
        "utf-8",
    )
    assert load(net).outputs == ("prob", "more", "loss")
    assert load(net, outputs=["prob"]).outputs == ("prob",)
    assert load(net, outputs=["more"]).outputs == ("more",)


def test_shapes_of_inputs_that_are_left_out_may_be_given(net: Path) -> None:
    given = {"data": (5, 3), "label": (5,)}
    assert load(net, outputs=["b"], input_shapes=given).input_shapes == SHAPES
    with pytest.raises(GraphError, match="input_shapes names 'lable'"):
        load(net, outputs=["b"], input_shapes={"data": (5, 3), "lable": (5,)})


PAIR = """
layer { name: "in" type: "Input" top: "x" top: "y" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "one" type: "InnerProduct" bottom: "x" top: "a" param { name: "w" lr_mult: 0 } param { name: "b" }
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } bias_filler { value: 3 } } }
layer { name: "two" type: "InnerProduct" bottom: "y" top: "b" param { name: "w" } param { name: "b" }
  inner_product_param { num_output: 4 } }
"""


def test_a_layer_whose_parameters_are_shared_with_it_is_left_out_last(net: Path) -> None:
    """Its filler, its multipliers and its weights are those of the layer that is wanted."""
    net.write_text(PAIR, "utf-8")
    made = load(net, outputs=["b"])
    assert (made.inputs, list(made.layers())) == (("y",), ["two"])
    two = made.layer("two")
    assert two.weight.abs().sum() > 0
    assert two.bias.tolist() == [3.0] * 4
    assert (two.weight.requires_grad, two.bias.requires_grad) == (False, True)
    path = net.with_suffix(".caffemodel")
    first = prototxt.parse(PAIR[: PAIR.index('layer { name: "two"')])
    write_caffemodel(path, first, {"one": [np.full((4, 3), 2, np.float32), np.full(4, 5, np.float32)]})
    made = load(net, path, outputs=["b"])
    assert made(torch.ones(1, 3))["b"].tolist() == [[11.0] * 4]


def test_a_python_layer_that_makes_constants_runs_where_there_is_another_input(net: Path) -> None:
    """Only where there is none do the pictures come from it."""
    (net.parent / "constants_of_parts.py").write_text(
        "import caffe\n"
        "class Seven(caffe.Layer):\n"
        "    def setup(self, bottom, top): pass\n"
        "    def reshape(self, bottom, top): top[0].reshape(1, 3)\n"
        "    def forward(self, bottom, top): top[0].data[...] = 7\n"
        "    def backward(self, top, propagate_down, bottom): pass\n",
        "utf-8",
    )
    constant = (
        'layer { name: "k" type: "Python" top: "k" python_param { module: "constants_of_parts" layer: "Seven" } }'
        'layer { name: "s" type: "Eltwise" bottom: "x" bottom: "k" top: "s" }'
    )
    net.write_text('layer { name: "in" type: "Input" top: "x" }' + constant, "utf-8")
    made = load(net, image_shape=(1, 3), outputs=["s"])
    assert made.inputs == ("x",)
    assert made(torch.ones(1, 3))["s"].tolist() == [[8.0] * 3]


def test_a_field_of_a_padding_layer_counts_although_the_upgrade_removes_the_layer(net: Path) -> None:
    net.write_text(
        'input: "x" input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 8 '
        'layers { layer { name: "pad" type: "padding" pad: 1 mode: 2 } bottom: "x" top: "p" } '
        'layers { layer { name: "c" type: "conv" num_output: 2 kernelsize: 3 } bottom: "p" top: "c" }',
        "utf-8",
    )
    with pytest.raises(PrototxtError, match="no field 'mode' in V0LayerParameter"):
        load(net)


@pytest.mark.parametrize(
    "layers, field, graph",
    [
        ('layer { name: "r" typ: "ReLU" bottom: "x" top: "y" }', "typ", "it has no type"),
        (
            'layer { name: "r" type: "ReLU" bottom: "x" tops: "y" } layer { name: "s" type: "ReLU" bottom: "y" }',
            "tops",
            "bottom 0 is 'y', which no layer before it makes",
        ),
    ],
)
def test_a_misspelt_field_is_named_before_what_comes_of_it(net: Path, layers: str, field: str, graph: str) -> None:
    net.write_text('layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 } } } ' + layers, "utf-8")
    with pytest.raises(PrototxtError, match=f"^[^\n]*no field '{field}' in LayerParameter; did you mean .*\n.*{graph}"):
        load(net)
    with pytest.raises(GraphError, match=f"^[^\n]*{graph}"):
        load(net, unknown_fields=[])


def test_the_multipliers_that_a_later_sharer_states_hold_without_it(net: Path) -> None:
    first, two, last = PAIR.partition('layer { name: "two"')
    net.write_text(
        first.replace(" lr_mult: 0", "") + two + last.replace('name: "b" }', 'name: "b" lr_mult: 0 }'), "utf-8"
    )
    made = load(net, outputs=["a"])
    assert [spec.lr_mult for spec in made.parameter_specs().values()] == [1.0, 0.0]
    assert not made.layer("one").bias.requires_grad


@pytest.mark.parametrize("source", ["Input", "HDF5Data"])
def test_tops_before_the_last_that_is_read_stay_and_those_behind_it_are_left_out(net: Path, source: str) -> None:
    """An Input keeps them all, because its shapes go by their number."""
    shapes = " ".join(f"shape {{ dim: 2 dim: {n} }}" for n in (3, 4, 5)) if source == "Input" else ""
    text = f'layer {{ name: "in" type: "{source}" top: "x" top: "y" top: "z" input_param {{ {shapes} }} }}'
    net.write_text(text + 'layer { name: "relu" type: "ReLU" bottom: "y" top: "r" }', "utf-8")
    given = None if shapes else {"x": (2, 3), "y": (2, 4)}
    made = load(net, outputs=["r", "x"], input_shapes=given)
    assert made.input_shapes == {"x": (2, 3), "y": (2, 4)}
    assert made.structure.graph.inputs == (("x", "y", "z") if shapes else ("x", "y"))


def test_commands_take_the_shapes_of_what_a_fork_feeds(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = TEXT.replace('"ForkLoss"', '"SoftmaxWithLoss"').replace("fork_loss_param { margin: 1 }", "")
    net.write_text(text.replace("fork_data_param { height: 3 }", "").replace("other_param { height: 3 }", ""), "utf-8")
    shapes = ["--input", "data=5,3", "--input", "label=5"]
    assert main(["info", str(net), *shapes]) == 0
    assert "5x4" in capsys.readouterr().out
    assert main(["draw", str(net), "-o", str(net.with_suffix(".dot")), *shapes]) == 0
    assert "without shapes" not in capsys.readouterr().err
    file = weights(net)
    x, y = torch.randn(5, 3), torch.zeros(5)
    values = load(net, file, input_shapes={"data": (5, 3), "label": (5,)}).select("a", "b", "loss")(x, y)
    dump = net.with_suffix(".npz")
    np.savez(dump, data=x.numpy(), label=y.numpy(), **{blob: value.detach().numpy() for blob, value in values.items()})
    assert main(["verify", str(net), str(file), "--against", str(dump), *shapes[:2]]) == 0  # the dump tells of labels
    assert "5 blobs agree, 0 differ" in capsys.readouterr().out


def test_a_second_input_of_no_known_shape_is_no_picture_where_another_takes_it(net: Path) -> None:
    """The im_info of Faster R-CNN: it is asked for, not taken to be a picture."""
    net.write_text(
        'layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }'
        'layer { name: "info" type: "Input" top: "im_info" }'
        'layer { name: "a" type: "Flatten" bottom: "data" top: "a" }'
        'layer { name: "b" type: "Concat" bottom: "a" bottom: "im_info" top: "b" }',
        "utf-8",
    )
    with pytest.raises(GraphError, match="the shape of 'im_info' of layer 'info'"):
        load(net, image_shape=(1, 3, 8, 8))
    given = {"im_info": (1, 3)}
    assert load(net, image_shape=(1, 3, 8, 8), input_shapes=given).blob_shapes["b"] == (1, 195)


def test_a_field_of_another_phases_layer_of_the_same_name_may_be_unknown(tmp_path: Path) -> None:
    net = tmp_path / "net.prototxt"
    net.write_text(
        'layer { name: "data" type: "Data" top: "x" include { phase: TRAIN } data_param { batch_size: 1 fancy: 3 } }'
        'layer { name: "data" type: "Input" top: "x" include { phase: TEST } input_param { shape { dim: 2 dim: 3 } } }'
        'layer { name: "relu" type: "ReLU" bottom: "x" top: "y" }',
        "utf-8",
    )
    assert load(net).input_shapes == {"x": (2, 3)}
    with pytest.raises(PrototxtError, match="no field 'fancy' in DataParameter"):
        load(net, phase="train")


def test_info_and_verify_of_the_part_that_runs(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    of_part = [str(net), str(weights(net)), "--input", "data=5,3", "--blob", "b"]
    assert main(["info", *of_part, "--allow-unknown"]) == 0
    out = capsys.readouterr().out
    assert "inputs   data 5x3\noutputs  b 5x2\n" in out
    assert "all that the net needs are loaded" in out
    made = load(net, net.with_suffix(".caffemodel"), input_shapes=SHAPES, outputs=["b"])
    x = torch.randn(5, 3)
    np.savez(net.with_suffix(".npz"), **{"in:data": x.numpy(), "out:b": made(x)["b"].detach().numpy()})
    assert main(["verify", *of_part, "--against", str(net.with_suffix(".npz"))]) == 0
    assert capsys.readouterr().out.endswith("1 blobs agree, 0 differ\n")
    assert main(["verify", *of_part[:-2], "--against", str(net.with_suffix(".npz"))]) == 1
    assert "(outputs, --blob)" in capsys.readouterr().err
