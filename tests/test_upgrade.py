"""Upgrades against what Caffe's rules make of each old form, written out by hand."""

from __future__ import annotations

import pytest

from caffe2torch import schema
from caffe2torch.errors import PrototxtError
from caffe2torch.prototxt import parse, to_text
from caffe2torch.upgrade import V0_TYPES, V2_TYPES, canonical, differences, syntax_of, upgrade_net, upgrade_solver


def upgraded(text: str) -> schema.Message:
    return upgrade_net(parse(text), path="net")


def check(old: str, new: str) -> None:
    result, expected = upgraded(old), parse(new)
    assert to_text(result) == to_text(expected)
    assert upgrade_net(result) == result


# ------------------------------------------------------------------------------------------- generations


@pytest.mark.parametrize(
    "text, syntax",
    [
        ("layers { layer { type: 'relu' } }", "V0"),
        ("layers { type: RELU }", "V1"),
        ("layer { type: 'ReLU' }", "V2"),
        ("", "V2"),
    ],
)
def test_syntax_is_told_by_the_layers(text: str, syntax: str) -> None:
    assert syntax_of(parse(text)) == syntax


def test_the_net_given_is_left_alone() -> None:
    net = parse("input: 'a' input_dim: [1, 2, 3, 4] layers { name: 'r' type: RELU }")
    before = net.SerializeToString()
    upgrade_net(net)
    assert net.SerializeToString() == before


def test_old_and_new_layers_in_one_net_are_refused() -> None:
    with pytest.raises(PrototxtError, match=r"net: both 'layers' \(1, old syntax\) and 'layer' \(2\)"):
        upgraded("layers { type: RELU } layer { type: 'ReLU' } layer { type: 'ReLU' }")


# ------------------------------------------------------------------------------------------- V1 to V2


@pytest.mark.parametrize("name", sorted(V2_TYPES))
def test_v1_type_has_its_current_name(name: str) -> None:
    squeezed = {"SOFTMAX_LOSS": "softmaxwithloss"}.get(name, name.replace("_", "").lower())
    assert upgraded(f"layers {{ type: {name} }}").layer[0].type.lower() == squeezed


def test_every_v1_type_but_none_has_a_current_name() -> None:
    enum = schema.message_type("V1LayerParameter").LayerType
    assert set(enum.keys()) - {"NONE"} == set(V2_TYPES)


def test_v1_parameter_lists_become_param_messages() -> None:
    check(
        "layers { name: 'c' type: CONVOLUTION bottom: 'a' top: 'b' blobs_lr: 1 blobs_lr: 2 weight_decay: 1"
        " weight_decay: 0 param: 'w' blob_share_mode: [STRICT, PERMISSIVE, STRICT] }",
        "layer { name: 'c' type: 'Convolution' bottom: 'a' top: 'b'"
        " param { name: 'w' share_mode: STRICT lr_mult: 1 decay_mult: 1 }"
        " param { share_mode: PERMISSIVE lr_mult: 2 decay_mult: 0 }"
        " param { share_mode: STRICT } }",
    )


def test_v1_decay_alone_fills_the_params_before_it() -> None:
    check(
        "layers { type: INNER_PRODUCT weight_decay: [1, 0] blobs_lr: 3 }",
        "layer { type: 'InnerProduct' param { lr_mult: 3 decay_mult: 1 } param { decay_mult: 0 } }",
    )


def test_v1_rest_is_kept() -> None:
    common = (
        "name: 'x' bottom: 'a' bottom: 'b' top: 'l' loss_weight: 0.5 include { phase: TEST } exclude { stage: 's' }"
        " blobs { shape { dim: 2 } data: [1, 2] } loss_param { ignore_label: 3 } softmax_param { axis: 2 }"
    )
    check(
        f"name: 'n' force_backward: true state {{ level: 2 }} layers {{ type: SOFTMAX_LOSS {common} }}",
        f"name: 'n' force_backward: true state {{ level: 2 }} layer {{ type: 'SoftmaxWithLoss' {common} }}",
    )


def test_every_v1_setting_moves_to_the_field_of_its_name() -> None:
    old = schema.new("V1LayerParameter")
    names = [field.name for field in old.DESCRIPTOR.fields if field.name.endswith("_param") and field.message_type]
    assert len(names) == 30
    for name in names:
        getattr(old, name).SetInParent()
    old.type = old.LayerType.Value("ABSVAL")
    net = schema.new("NetParameter")
    net.layers.append(old)
    assert sorted(field.name for field, _ in upgrade_net(net).layer[0].ListFields()) == sorted([*names, "type"])


@pytest.mark.parametrize("text", ["layers { name: 'a' }", "layers { name: 'a' type: NONE }"])
def test_v1_layer_without_type_is_refused(text: str) -> None:
    with pytest.raises(PrototxtError, match=r"net: the layer 'a' has (no type|the type NONE), expected"):
        upgraded(text)


@pytest.mark.parametrize(
    "kind, message, current", [("DATA", "data", "Data"), ("IMAGE_DATA", "image_data", "ImageData"),
                               ("WINDOW_DATA", "window_data", "WindowData")],
)  # fmt: skip
def test_transformation_fields_move_out_of_data_layers(kind: str, message: str, current: str) -> None:
    check(
        f"layers {{ type: {kind} {message}_param {{ source: 's' scale: 0.5 mean_file: 'm' crop_size: 7 mirror: true"
        " batch_size: 2 } transform_param { mean_value: 3 } }",
        f"layer {{ type: '{current}' {message}_param {{ source: 's' batch_size: 2 }}"
        " transform_param { scale: 0.5 mean_file: 'm' crop_size: 7 mirror: true mean_value: 3 } }",
    )


def test_transformation_fields_of_a_foreign_message_stay() -> None:
    check(
        "layers { type: DUMMY_DATA data_param { scale: 0.5 } }",
        "layer { type: 'DummyData' data_param { scale: 0.5 } }",
    )


def test_transformation_field_given_twice_is_refused() -> None:
    with pytest.raises(PrototxtError, match="layer 'd' has 'scale' in both data_param and transform_param"):
        upgraded("layers { name: 'd' type: DATA data_param { scale: 0.5 } transform_param { scale: 2 } }")


# ------------------------------------------------------------------------------------------- V0 to V2


@pytest.mark.parametrize("name", sorted(V0_TYPES))
def test_v0_type_has_its_current_name(name: str) -> None:
    expected = {
        "conv": "Convolution", "euclidean_loss": "EuclideanLoss", "images": "ImageData", "innerproduct": "InnerProduct",
        "infogain_loss": "InfogainLoss", "multinomial_logistic_loss": "MultinomialLogisticLoss", "pool": "Pooling",
        "softmax_loss": "SoftmaxWithLoss", "hdf5_data": "HDF5Data", "hdf5_output": "HDF5Output", "lrn": "LRN",
        "window_data": "WindowData", "bnll": "BNLL", "relu": "ReLU", "tanh": "TanH",
    }.get(name, name.capitalize())  # fmt: skip
    assert upgraded(f"layers {{ layer {{ type: '{name}' }} }}").layer[0].type == expected


V0_LAYERS = {
    "conv": (
        (
            "num_output: 4 biasterm: false weight_filler { type: 'gaussian' std: 2 } bias_filler { value: 1 } pad: 1"
            " kernelsize: 3 group: 2 stride: 2 blobs_lr: [1, 2] weight_decay: [1, 0] blobs { data: 1 num: 1 }"
        ),
        (
            "layer { name: 'x' type: 'Convolution' bottom: 'a' top: 'b' param { lr_mult: 1 decay_mult: 1 }"
            " param { lr_mult: 2 decay_mult: 0 } blobs { data: 1 num: 1 } convolution_param { num_output: 4"
            " bias_term: false weight_filler { type: 'gaussian' std: 2 } bias_filler { value: 1 } pad: 1 kernel_size: 3"
            " group: 2 stride: 2 } }"
        ),
    ),
    "innerproduct": (
        "num_output: 4 biasterm: true weight_filler { type: 'xavier' } bias_filler { value: 1 }",
        (
            "layer { name: 'x' type: 'InnerProduct' bottom: 'a' top: 'b' inner_product_param { num_output: 4"
            " bias_term: true weight_filler { type: 'xavier' } bias_filler { value: 1 } } }"
        ),
    ),
    "pool": (
        "pool: STOCHASTIC pad: 1 kernelsize: 3 stride: 2",
        (
            "layer { name: 'x' type: 'Pooling' bottom: 'a' top: 'b'"
            " pooling_param { pool: STOCHASTIC pad: 1 kernel_size: 3 stride: 2 } }"
        ),
    ),
    "lrn": (
        "local_size: 3 alpha: 2 beta: 0.5 k: 4",
        "layer { name: 'x' type: 'LRN' bottom: 'a' top: 'b' lrn_param { local_size: 3 alpha: 2 beta: 0.5 k: 4 } }",
    ),
    "dropout": (
        "dropout_ratio: 0.25",
        "layer { name: 'x' type: 'Dropout' bottom: 'a' top: 'b' dropout_param { dropout_ratio: 0.25 } }",
    ),
    "concat": (
        "concat_dim: 0",
        "layer { name: 'x' type: 'Concat' bottom: 'a' top: 'b' concat_param { concat_dim: 0 } }",
    ),
    "data": (
        "source: 's' scale: 0.5 meanfile: 'm' batchsize: 8 cropsize: 7 mirror: true rand_skip: 3",
        (
            "layer { name: 'x' type: 'Data' bottom: 'a' top: 'b' data_param { source: 's' batch_size: 8 rand_skip: 3 }"
            " transform_param { scale: 0.5 mean_file: 'm' crop_size: 7 mirror: true } }"
        ),
    ),
    "images": (
        "source: 's' batchsize: 8 rand_skip: 3 shuffle_images: true new_height: 5 new_width: 6",
        (
            "layer { name: 'x' type: 'ImageData' bottom: 'a' top: 'b' image_data_param { source: 's' batch_size: 8"
            " rand_skip: 3 shuffle: true new_height: 5 new_width: 6 } }"
        ),
    ),
    "hdf5_data": (
        "source: 's' batchsize: 8",
        "layer { name: 'x' type: 'HDF5Data' bottom: 'a' top: 'b' hdf5_data_param { source: 's' batch_size: 8 } }",
    ),
    "window_data": (
        (
            "source: 's' batchsize: 8 det_fg_threshold: 0.6 det_bg_threshold: 0.4 det_fg_fraction: 0.3"
            " det_context_pad: 16 det_crop_mode: 'square'"
        ),
        (
            "layer { name: 'x' type: 'WindowData' bottom: 'a' top: 'b' window_data_param { source: 's' batch_size: 8"
            " fg_threshold: 0.6 bg_threshold: 0.4 fg_fraction: 0.3 context_pad: 16 crop_mode: 'square' } }"
        ),
    ),
    "infogain_loss": (
        "source: 's'",
        "layer { name: 'x' type: 'InfogainLoss' bottom: 'a' top: 'b' infogain_loss_param { source: 's' } }",
    ),
    "hdf5_output": (
        "hdf5_output_param { file_name: 'f' }",
        "layer { name: 'x' type: 'HDF5Output' bottom: 'a' top: 'b' hdf5_output_param { file_name: 'f' } }",
    ),
}


@pytest.mark.parametrize("kind", V0_LAYERS)
def test_v0_fields_move_to_the_message_of_their_type(kind: str) -> None:
    fields, new = V0_LAYERS[kind]
    old = f"layers {{ layer {{ name: 'x' type: '{kind}' {fields} }} bottom: 'a' top: 'b' }}"
    check(f"input: 'a' input_dim: [1, 1, 9, 9] {old}", f"{INPUT} {new}")


INPUT = "layer { name: 'input' type: 'Input' top: 'a' input_param { shape { dim: [1, 1, 9, 9] } } }"


@pytest.mark.parametrize(
    "kind, field, words",
    [
        ("relu", "num_output: 3", "'num_output' has no meaning for the type 'relu'; conv and innerproduct layers have"),
        ("relu", "kernelsize: 3", "'kernelsize' .*; conv and pool"),
        ("innerproduct", "group: 2", "'group' .*; conv layers"),
        ("conv", "dropout_ratio: 0.1", "'dropout_ratio' .*; dropout"),
        ("conv", "source: 's'", "'source' .*data and hdf5_data"),
        ("conv", "det_context_pad: 1", "'det_context_pad' .*; window_data"),
        ("data", "shuffle_images: true", "'shuffle_images' .*; images"),
        ("conv", "hdf5_output_param { }", "'hdf5_output_param' has no meaning"),
        ("flatten", "new_num: 3", "'new_num' has no meaning for the type 'flatten'$"),
        ("conv", "concat_dim: 0", "'concat_dim' .*; concat"),
    ],
)
def test_v0_field_of_another_type_is_refused(kind: str, field: str, words: str) -> None:
    with pytest.raises(PrototxtError, match=rf"^net: the layer 'x': {words}"):
        upgraded(f"layers {{ layer {{ name: 'x' type: '{kind}' {field} }} }}")


def test_v0_window_settings_on_a_data_layer_are_left_out_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="net: det_fg_threshold, det_context_pad of the layer 'd' mean nothing"):
        net = upgraded("layers { layer { name: 'd' type: 'data' det_fg_threshold: 0.5 det_context_pad: 16 } top: 'd' }")
    assert net == parse("layer { name: 'd' type: 'Data' top: 'd' }")


@pytest.mark.parametrize(
    "text, words",
    [
        ("layers { layer { name: 'x' type: 'reshape' } }", "the layer 'x' has the type 'reshape', expected a V0 type"),
        ("layers { layer { name: 'x' } }", "the layer 'x' has no type"),
        ("layers { layer { type: 'relu' } } layers { name: 'r' type: RELU }", "the layer 'r' is in V1 form"),
        ("layers { layer { name: 'x' type: 'relu' } blobs_lr: 1 }", "the layer 'x' has blobs_lr beside its inner"),
        ("layers { layer { name: 'x' type: 'relu' } bottom: 'q' }", "the layer 'x' reads the blob 'q', which no layer"),
    ],
)
def test_malformed_v0_layer_is_refused(text: str, words: str) -> None:
    with pytest.raises(PrototxtError, match=f"^net: {words}"):
        upgraded(text)


# ------------------------------------------------------------------------------------------- padding layers

PAD = "input: 'a' input_dim: [1, 1, 9, 9] layers { layer { name: 'p' type: 'padding' pad: 2 } bottom: 'a' top: 'p' }"


@pytest.mark.parametrize("kind, message", [("conv", "convolution"), ("pool", "pooling")])
def test_padding_becomes_the_pad_of_its_reader(kind: str, message: str) -> None:
    name = {"conv": "Convolution", "pool": "Pooling"}[kind]
    check(
        f"{PAD} layers {{ layer {{ name: 'c' type: '{kind}' kernelsize: 3 }} bottom: 'p' top: 'c' }}",
        f"{INPUT} layer {{ name: 'c' type: '{name}' bottom: 'a' top: 'c' "
        f"{message}_param {{ pad: 2 kernel_size: 3 }} }}",
    )


def test_padding_with_two_readers_goes_to_both() -> None:
    reader = "layers {{ layer {{ name: '{0}' type: 'conv' }} bottom: 'p' top: '{0}' }}"
    net = upgraded(PAD + reader.format("c") + reader.format("d"))
    assert [(list(layer.bottom), list(layer.convolution_param.pad)) for layer in net.layer[1:]] == [(["a"], [2])] * 2


def test_padding_that_is_overwritten_in_place_is_not_folded() -> None:
    net = upgraded(
        PAD + "layers { layer { name: 'i' type: 'conv' } bottom: 'a' top: 'p' }"
        "layers { layer { name: 'c' type: 'conv' } bottom: 'p' top: 'c' }"
    )
    assert list(net.layer[2].bottom) == ["p"]
    assert not net.layer[2].convolution_param.pad


@pytest.mark.parametrize(
    "layers, words",
    [
        (
            "layers { layer { name: 'r' type: 'relu' } bottom: 'p' top: 'p' }",
            "'r' .type 'relu'. reads the padding layer",
        ),
        (
            "layers { layer { name: 'q' type: 'padding' } bottom: 'p' top: 'q' }",
            "'q' .type 'padding'. reads the padding",
        ),
        (
            "layers { layer { name: 'c' type: 'conv' } bottom: 'p' bottom: 'a' top: 'c' }",
            "expected a conv or pool with",
        ),
        ("layers { layer { name: 'c' type: 'conv' pad: 1 } bottom: 'p' top: 'c' }", "has pad: 1 and reads the padding"),
        (
            (
                "layers { layer { name: 'q' type: 'padding' } bottom: 'a' top: 'q' top: 'q2' }"
                "layers { layer { name: 'c' type: 'conv' } bottom: 'q' top: 'c' }"
            ),
            "'q' pads 1 bottoms into 2 tops",
        ),
    ],
)
def test_padding_that_cannot_be_folded_is_refused(layers: str, words: str) -> None:
    with pytest.raises(PrototxtError, match=words):
        upgraded(PAD + layers)


# ------------------------------------------------------------------------------------------- inputs

RELU = "layer { name: 'r' type: 'ReLU' bottom: 'a' top: 'b' }"


@pytest.mark.parametrize(
    "sizes", ["input_dim: [1, 1, 9, 9]", "input_shape { dim: [1, 1, 9, 9] }",
              "input_dim: [1, 1, 9, 9] input_shape { dim: [1, 1, 9, 9] }"],
)  # fmt: skip
def test_input_fields_become_a_layer_at_the_front(sizes: str) -> None:
    check(f"{RELU} input: 'a' {sizes}", f"{INPUT} {RELU}")


def test_several_inputs_share_one_layer() -> None:
    check(
        f"input: 'a' input: 'b' input_dim: [1, 2, 3, 4, 5, 6, 7, 8] {RELU}",
        "layer { name: 'input' type: 'Input' top: 'a' top: 'b'"
        f" input_param {{ shape {{ dim: [1, 2, 3, 4] }} shape {{ dim: [5, 6, 7, 8] }} }} }} {RELU}",
    )


def test_input_shapes_may_have_any_number_of_dims() -> None:
    net = upgraded(f"input: 'a' input: 's' input_shape {{ dim: 3 }} input_shape {{ }} {RELU}")
    assert [list(shape.dim) for shape in net.layer[0].input_param.shape] == [[3], []]


def test_input_without_size_becomes_a_layer_without_shape() -> None:
    check(f"input: 'a' {RELU}", f"layer {{ name: 'input' type: 'Input' top: 'a' input_param {{ }} }} {RELU}")


@pytest.mark.parametrize(
    "header, words",
    [
        ("input: 'a' input: 'b' input_shape { dim: 1 }", "2 'input' but 1 'input_shape'"),
        ("input: 'a' input_dim: [1, 2, 3]", "1 'input' but 3 'input_dim', expected four"),
        ("input: 'a' input_dim: [1, 2, 3, 4] input_shape { dim: [1, 2, 3, 5] }", "disagree"),
    ],
)
def test_inputs_that_do_not_add_up_are_refused(header: str, words: str) -> None:
    with pytest.raises(PrototxtError, match=f"^net: .*{words}"):
        upgraded(f"{header} {RELU}")


# ------------------------------------------------------------------------------------------- BatchNorm, solver


def test_three_params_of_batch_norm_are_switched_off() -> None:
    check(
        "layer { type: 'BatchNorm' param { lr_mult: 1 name: 'm' } param { } param { decay_mult: 3 } }",
        "layer { type: 'BatchNorm' param { name: 'm' lr_mult: 0 decay_mult: 0 } param { lr_mult: 0 decay_mult: 0 }"
        " param { lr_mult: 0 decay_mult: 0 } }",
    )


@pytest.mark.parametrize("text", ["layer { type: 'BatchNorm' param { lr_mult: 1 } param { } }",
                                  "layer { type: 'Scale' param { } param { } param { } }"])  # fmt: skip
def test_other_params_stay(text: str) -> None:
    check(text, text)


@pytest.mark.parametrize(
    "old, new",
    [("SGD", "SGD"), ("NESTEROV", "Nesterov"), ("ADAGRAD", "AdaGrad"), ("RMSPROP", "RMSProp"),
     ("ADADELTA", "AdaDelta"), ("ADAM", "Adam"), ("2", "AdaGrad")],
)  # fmt: skip
def test_solver_type_becomes_a_string(old: str, new: str) -> None:
    solver = upgrade_solver(parse(f"net: 'n' solver_type: {old}", "SolverParameter"))
    assert solver == parse(f"net: 'n' type: '{new}'", "SolverParameter")
    assert upgrade_solver(solver) == solver


def test_solver_with_both_types_is_refused() -> None:
    with pytest.raises(PrototxtError, match=r"^<solver>: both 'solver_type'"):
        upgrade_solver(parse("solver_type: SGD type: 'SGD'", "SolverParameter"))


@pytest.mark.parametrize("field", ["net_param", "train_net_param", "test_net_param"])
def test_nets_inside_a_solver_are_upgraded(field: str) -> None:
    solver = upgrade_solver(parse(f"{field} {{ layers {{ type: RELU }} }}", "SolverParameter"))
    assert solver == parse(f"{field} {{ layer {{ type: 'ReLU' }} }}", "SolverParameter")


# ------------------------------------------------------------------------------------------- equal meaning

EQUAL = {
    "pad_0": ("convolution_param { pad: 0 kernel_size: 3 }", "convolution_param { kernel_size: 3 }"),
    "pairs": (
        "convolution_param { kernel_h: 3 kernel_w: 3 stride_h: 2 stride_w: 2 pad_h: 1 pad_w: 1 }",
        "convolution_param { kernel_size: 3 stride: 2 pad: 1 }",
    ),
    "per_axis": (
        "convolution_param { kernel_size: [3, 3] stride: [1, 1] dilation: 1 }",
        "convolution_param { kernel_size: 3 }",
    ),
    "pool_pairs": (
        "pooling_param { kernel_h: 3 kernel_w: 3 pad_h: 0 pad_w: 0 }",
        "pooling_param { kernel_size: 3 stride: 1 }",
    ),
    "defaults": ("lrn_param { local_size: 5 beta: 0.75 norm_region: ACROSS_CHANNELS }", ""),
    "zero_filler": ("inner_product_param { bias_filler { type: 'constant' value: 0 } }", ""),
    "param_1": ("param { lr_mult: 2 } param { lr_mult: 1 decay_mult: 1 }", "param { lr_mult: 2 }"),
    "concat_dim": ("concat_param { concat_dim: 2 }", "concat_param { axis: 2 }"),
    "concat_default": ("concat_param { concat_dim: 1 }", ""),
    "slice_dim": ("slice_param { slice_dim: 0 slice_point: 3 }", "slice_param { axis: 0 slice_point: 3 }"),
}  # fmt: skip


@pytest.mark.parametrize("one, other", EQUAL.values(), ids=EQUAL.keys())
def test_equal_meaning_is_equal_form(one: str, other: str) -> None:
    left, right = (canonical(parse(f"layer {{ name: 'l' {text} }}")) for text in (one, other))
    assert differences(left, right) == []
    assert left == right


DIFFERENT = {
    "pad_1": ("convolution_param { pad: 1 }", "convolution_param { }"),
    "pairs_unequal": ("convolution_param { kernel_h: 3 kernel_w: 1 }", "convolution_param { kernel_size: 3 }"),
    "pool_pad_pair": ("pooling_param { pad_h: 0 pad_w: 2 }", "pooling_param { pad_w: 2 }"),
    "prelu_filler": ("prelu_param { filler { value: 0 } }", "prelu_param { }"),
    "scale_filler": ("scale_param { filler { value: 0 } }", ""),
    "normalization": ("loss_param { normalization: VALID }", ""),
    "rule_phase": ("include { phase: TRAIN }", "include { }"),
    "param_middle": ("param { } param { lr_mult: 0 }", "param { lr_mult: 0 }"),
    "loss_weight": ("loss_weight: 1", ""),
    "propagate": ("propagate_down: true", ""),
    "axis": ("concat_param { axis: 2 }", "concat_param { axis: 3 }"),
}


@pytest.mark.parametrize("one, other", DIFFERENT.values(), ids=DIFFERENT.keys())
def test_different_meaning_stays_different(one: str, other: str) -> None:
    left, right = (canonical(parse(f"layer {{ name: 'l' {text} }}")) for text in (one, other))
    assert left != right
    assert len(differences(left, right)) >= 1


def test_order_of_fields_comments_and_generation_do_not_matter() -> None:
    old = "input: 'a' input_dim: [1, 1, 9, 9] layers { type: RELU # old\n top: 'b' bottom: 'a' name: 'r' }"
    assert canonical(parse(old)) == canonical(parse(f"{INPUT} {RELU}"))


def test_unnamed_params_of_batch_norm_do_not_matter() -> None:
    with_params = parse("layer { type: 'BatchNorm' param { lr_mult: 0 } param { lr_mult: 0 } param { lr_mult: 0 } }")
    assert canonical(with_params) == canonical(parse("layer { type: 'BatchNorm' }"))


def test_order_of_layers_matters() -> None:
    left, right = parse(f"{INPUT} {RELU}"), parse(f"{RELU} {INPUT}")
    assert canonical(left) != canonical(right)


def test_differences_name_each_place() -> None:
    left = parse(f"name: 'n' {RELU} layer {{ name: 'p' pooling_param {{ pool: AVE kernel_size: 3 }} }}")
    right = parse(f"{RELU} layer {{ name: 'p' pooling_param {{ kernel_size: 2 stride: 1 }} bottom: 'x' }}")
    assert differences(left, right) == [
        "name: 'n', not absent",
        "layer[1] 'p'.bottom: absent, not 'x'",
        "layer[1] 'p'.pooling_param.pool: AVE, not absent",
        "layer[1] 'p'.pooling_param.kernel_size: 3, not 2",
        "layer[1] 'p'.pooling_param.stride: absent, not 1",
    ]


def test_differences_name_missing_layers() -> None:
    assert differences(parse(RELU), parse(f"{INPUT} {RELU}")) == ["layer: 1, not 2 with 'input'"]
