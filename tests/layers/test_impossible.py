"""Parameters that are impossible are refused with what was found and what is expected."""

from __future__ import annotations

import pytest

from caffe2torch.errors import LayerError

from .messages import layer

IMAGE = (2, 4, 6, 6)


def conv(settings: str) -> str:
    return f'type: "Convolution" convolution_param {{ {settings} }}'


def deconv(settings: str) -> str:
    return f'type: "Deconvolution" convolution_param {{ {settings} }}'


def pool(settings: str) -> str:
    return f'type: "Pooling" pooling_param {{ {settings} }}'


CASES = [
    (conv("num_output: 2"), "there is no kernel size: give kernel_size, or kernel_h and kernel_w"),
    (conv("num_output: 2 kernel_size: 0"), r"kernel size is \(0, 0\): expected 2 values of at least 1"),
    (conv("num_output: 2 kernel_size: 3 stride: 0"), r"stride is \(0, 0\)"),
    (conv("num_output: 2 kernel_size: 3 dilation: 0"), r"dilation is \(0, 0\)"),
    (conv("num_output: 2 kernel_h: 3"), r"kernel size is \(3, 0\)"),
    (conv("num_output: 2 kernel_size: 3 kernel_h: 3 kernel_w: 3"), "use them alone"),
    (conv("num_output: 2 kernel_size: [3, 3, 3]"), "kernel_size has 3 values .* expected 1, or 2"),
    (conv("kernel_size: 3"), "num_output is 0: expected at least 1"),
    (conv("num_output: 2 kernel_size: 3 group: 3"), "group is 3: expected a divisor of both the 4 input channels"),
    (conv("num_output: 3 kernel_size: 3 group: 2"), "and num_output 3"),
    (conv("num_output: 2 kernel_size: 3 group: 0"), "group is 0"),
    (conv("num_output: 2 kernel_size: 7"), r"covers 7 values .* has 6 \+ 2 x 0 padding"),
    (conv("num_output: 2 kernel_size: 3 dilation: 3"), "covers 7 values .* dilation 3"),
    (conv("num_output: 2 kernel_size: 3 axis: 4"), "axis is 4, but the bottom has 4 axes"),
    (conv("num_output: 4000000000 kernel_size: 3"), "at most 2147483647 values"),
    ('top: "a" top: "b" ' + conv("num_output: 2 kernel_size: 3"), "1 bottoms and 2 tops"),
    ('type: "InnerProduct"', "num_output 0: expected at least 1"),
    ('type: "InnerProduct" inner_product_param { num_output: 4294967295 }', "at most 2147483647 values"),
    ('type: "InnerProduct" inner_product_param { num_output: 1 axis: 4 }', "inner_product_param.axis is 4"),
    (pool(""), "given by nothing: expected kernel_size, or kernel_h and kernel_w"),
    (pool("kernel_h: 2"), r"given by \['kernel_h'\]"),
    (pool("kernel_size: 2 kernel_h: 2 kernel_w: 2"), r"given by \['kernel_size', 'kernel_h', 'kernel_w'\]"),
    (pool("kernel_size: 0"), "expected kernel and stride of at least 1"),
    (pool("kernel_size: 2 stride: 0"), "expected kernel and stride of at least 1"),
    (pool("kernel_size: 2 stride_h: 2"), "stride_h given: expected stride alone, or both stride_h and stride_w"),
    (pool("kernel_size: 2 pad: 1 pad_h: 1 pad_w: 1"), "expected pad alone"),
    (pool("kernel_size: 2 pad: 2"), "must be smaller than the kernel"),
    (pool("kernel_size: 20"), "no window of kernel .* fits a plane of 6 x 6"),
    (
        pool("kernel_size: 30000 pad: 29999 stride: 30000"),
        "pads the plane of 6 x 6 to 60000 x 60000: make them smaller",
    ),
    (pool("kernel_size: 30000 stride: 30000 pool: STOCHASTIC"), "to 30000 x 30000: make them smaller"),
    (pool("kernel_size: 2 pad: 1 pool: STOCHASTIC"), "pool: STOCHASTIC has no padding"),
    (pool("global_pooling: true pad: 1"), "expected pad 0 and stride 1"),
    (pool("global_pooling: true kernel_size: 2"), "global_pooling is given together with a kernel size"),
    ('top: "a" top: "b" ' + pool("kernel_size: 2 pool: AVE"), "exists for pool: MAX only"),
    ('type: "LRN" lrn_param { local_size: 2 }', "local_size is 2: expected an odd number"),
    ('type: "LRN" lrn_param { local_size: 0 }', "local_size is 0"),
    ('type: "Dropout" dropout_param { dropout_ratio: 1.5 }', "dropout_ratio is 1.5: expected 0 to 1"),
    ('type: "Dropout" dropout_param { dropout_ratio: -0.5 }', "dropout_ratio is -0.5"),
    ('type: "Dropout" dropout_param { dropout_ratio: nan }', "dropout_ratio is nan"),
    ('type: "Softmax" softmax_param { axis: -5 }', "softmax_param.axis is -5"),
    ('type: "Exp" exp_param { base: 0 }', "base is 0.0: expected a positive number, or -1 for e"),
    ('type: "Exp" exp_param { shift: 1000 }', "base -1 to the power of shift 1000 overflows"),
    ('type: "Log" log_param { base: 1 }', "base is 1: expected another positive number"),
    ('type: "Scale" scale_param { num_axes: 4 }', "spans 4 axes from axis 1"),
    ('type: "Scale" scale_param { num_axes: -2 }', "num_axes is -2"),
    ('type: "Slice" top: "a" top: "b" top: "c"', "4 values on axis 1 cannot be cut into 3 equal tops"),
    ('type: "Slice" top: "a" top: "b" slice_param { slice_point: 4 }', "expected 1 rising points between 0 and 4"),
    ('type: "Slice" top: "a" top: "b" slice_param { slice_dim: 1 axis: 1 }', "both axis and slice_dim"),
    ('type: "Flatten" flatten_param { axis: 2 end_axis: 1 }', "ends at axis 1, before its start 2"),
    ('type: "Reshape" reshape_param { shape { dim: 5 } }', "288 values do not fit"),
    ('type: "Reshape" reshape_param { shape { dim: -1 dim: -1 } }', "at most one -1"),
    ('type: "Reshape" reshape_param { shape { dim: 7 dim: -1 } }', "288 values do not fit"),
    ('type: "Reshape" reshape_param { shape { dim: 288 dim: 1 dim: 1 dim: 1 dim: 0 } }', "a dim of 0 copies an axis"),
    ('type: "Reshape" reshape_param { axis: 5 }', "reshape_param.axis is 5"),
    (deconv("num_output: 2 kernel_size: 2 pad: 4"), r"over 7 .* and pad 4 takes 8 of them: make pad smaller"),
    (deconv("num_output: 3 kernel_size: 3 group: 2"), "and num_output 3"),
    ('type: "Im2col" convolution_param { kernel_size: 7 }', r"covers 7 values .* has 6 \+ 2 x 0 padding"),
    ('type: "Im2col" convolution_param { kernel_size: 2 stride: 0 }', r"stride is \(0, 0\)"),
    ('type: "Im2col" convolution_param { kernel_size: 2 axis: 3 }', "has no axis after axis 3"),
    ('type: "SPP"', "pyramid_height is 0: expected at least 1"),
    ('type: "SPP" spp_param { pyramid_height: 4 }', "level 3 .* into 8 x 8 windows of 1 x 1"),
    ('type: "Tile" tile_param { axis: 1 }', "tiles is 0: expected at least 1"),
    ('type: "Tile" tile_param { tiles: 2 axis: 4 }', "tile_param.axis is 4"),
    ('type: "Reduction" reduction_param { axis: 4 }', "reduction_param.axis is 4"),
    ('type: "Embed" embed_param { num_output: 2 }', "input_dim is 0 and num_output 2"),
    ('type: "Parameter" parameter_param { shape { dim: -1 } }', r"shape \(-1,\) is impossible"),
    ('type: "ArgMax" argmax_param { top_k: 145 }', "top_k is 145: expected 1 to 144"),
    ('type: "Python" python_param { module: "no_such_module" layer: "C" }', "cannot import 'no_such_module'"),
    ('type: "Python" python_param { module: "math" layer: "C" }', r"module 'math' .* has no class 'C'"),
    ('type: "Python" python_param { module: "math" layer: "pi" }', "math.pi is no layer class"),
    ('type: "Python" python_param { module: "../x" layer: "C" }', "module is '../x': expected the name of a module"),
    ('type: "Python" python_param { module: "." layer: "C" }', "expected the name of a module"),
    ('type: "Python" python_param { module: "math" }', "expected the names of both"),
]


@pytest.mark.parametrize("text, reason", CASES)
def test_impossible_parameters_are_refused(text: str, reason: str) -> None:
    with pytest.raises(LayerError, match=reason):
        layer(text, [IMAGE])


SHAPES = [
    ('type: "Pooling" pooling_param { kernel_size: 2 }', [(2, 4, 6)], "expected 4 axes"),
    ('type: "LRN"', [(2, 4)], "expected 4 axes"),
    ('type: "PReLU"', [(2,)], "expected at least 2 axes"),
    ('type: "BatchNorm"', [()], "the bottom is a scalar"),
    ('type: "Concat"', [(2, 3, 4), (2, 3, 5)], "differ on other axes than 1"),
    ('type: "Concat"', [(2, 3, 4), (2, 3)], "differ on other axes than 1"),
    ('type: "Eltwise"', [(2, 3), (2, 4)], "different shapes"),
    ('type: "Eltwise" eltwise_param { operation: MAX }', [(2, 3)], "MAX of one bottom: expected at least 2"),
    ('type: "Eltwise" eltwise_param { operation: PROD }', [(2, 3)], "PROD of one bottom"),
    ('type: "Eltwise" eltwise_param { coeff: 1 }', [(2, 3), (2, 3)], "1 coeff for SUM of 2 bottoms"),
    ('type: "Eltwise" eltwise_param { operation: PROD coeff: [1, 1] }', [(2, 3), (2, 3)], "2 coeff for PROD"),
    ('type: "Scale"', [(2, 3, 4), (4,)], r"second bottom has shape \(4,\): expected \(3,\)"),
    ('type: "EuclideanLoss"', [(2, 3), (3, 2)], "equal first dimensions"),
    ('type: "EuclideanLoss"', [(2, 3), (2, 4)], "equally many values"),
    ('type: "K1_EuclideanLoss"', [(2, 3), (2, 4)], "equally many values"),
    ('type: "SigmoidCrossEntropyLoss"', [(2, 3), (2,)], "equally many values"),
    ('type: "SoftmaxWithLoss"', [(2, 3, 4), (2,)], "need 8 labels"),
    (
        'type: "SoftmaxWithLoss" loss_param { weight_by_label_freqs: true class_weighting: 2 }',
        [(2, 3), (2,)],
        "with 1 class_weighting .* expected the classes on axis 1 and one class_weighting for each of them",
    ),
    ('type: "SoftmaxWithLoss" loss_param { weight_by_label_freqs: true }', [(2, 3), (2,)], "with 0 class_weighting"),
    (
        'type: "SoftmaxWithLoss" softmax_param { axis: 2 } loss_param { weight_by_label_freqs: true }',
        [(2, 3, 3), (2, 3)],
        "classes on axis 2: expected the classes on axis 1",
    ),
    ('type: "SigmoidCrossEntropyLoss" loss_param { class_weighting: 2 }', [(2, 3), (2, 3)], "class_weighting"),
    ('type: "InfogainLoss" loss_param { weight_by_label_freqs: true }', [(2, 3), (2,), (3, 3)], "a fork's extension"),
    ('type: "Accuracy"', [(2, 3, 4), (2,)], "need 8 labels"),
    ('type: "Accuracy" accuracy_param { top_k: 4 }', [(2, 3), (2,)], "top_k is 4: expected 1 to 3"),
    ('type: "ContrastiveLoss"', [(2, 3), (2, 4), (2,)], r"expected \(N, C\), \(N, C\) and N labels"),
    (
        'type: "Convolution" top: "a" top: "b" convolution_param { num_output: 1 kernel_size: 1 }',
        [(2, 3, 4, 4), (2, 3, 5, 4)],
        "different shapes",
    ),
    ('type: "SPP" spp_param { pyramid_height: 1 }', [(2, 4)], "expected 4 axes"),
    ('type: "MVN"', [(2, 3, 4, 5, 6)], "at most 4 axes"),
    ('type: "Crop"', [(2, 3, 4, 5), (2, 3, 5, 5)], "a window of 5 at offset 0 does not fit the 4 values on axis 2"),
    ('type: "Crop" crop_param { offset: [0, 1] }', [(2, 3, 4, 5), (2, 3, 4, 5)], "a window of 5 at offset 1"),
    ('type: "Crop" crop_param { offset: [1, 1, 1] }', [(2, 3, 4, 5), (2, 3, 4, 5)], "3 offsets .* none, 1, or 2"),
    ('type: "Crop"', [(2, 3, 4, 5), (2, 3)], "as many axes in the second"),
    ('type: "BatchReindex"', [(2, 3), (2, 1)], "one axis of numbers"),
    ('type: "Filter"', [(2, 3), (2, 3)], "one value an item"),
    ('type: "Filter"', [(2, 3), (3,)], "expected 3 items, as many as the selector"),
    ('type: "Filter"', [(2, 3), (2, 3), (2,)], "3 bottoms and 1 tops"),
    ('type: "HingeLoss"', [(2, 3), (2, 3)], "one for each of the 2 items"),
    ('type: "MultinomialLogisticLoss"', [(2, 3), (3,)], "equal first dimensions"),
    ('type: "InfogainLoss"', [(2, 3), (2,)], "there is no matrix"),
    ('type: "InfogainLoss"', [(2, 3), (2,), (3, 2)], "the matrix has shape .* expected 3 x 3 values"),
    ('type: "InfogainLoss" loss_param { normalize: true }', [(2, 3), (2,), (3, 3)], "give normalization instead"),
    ('type: "HDF5Output"', [(2, 3), (2,)], "file_name is empty"),
    ('type: "HDF5Output" hdf5_output_param { file_name: "f" }', [(2, 3), (3,)], "equal batches"),
    ('type: "DummyData" top: "a" dummy_data_param { num: 2 shape { dim: 2 } }', [], "both shape and num"),
    ('type: "DummyData" top: "a" dummy_data_param { shape { dim: 2 } shape { dim: 2 } }', [], "2 of shape for 1 tops"),
    ('type: "DummyData" top: "a" dummy_data_param { shape { dim: -2 } }', [], r"shape \(-2,\) is impossible"),
    ('type: "DummyData" top: "a" dummy_data_param { }', [], "0 of shape for 1 tops: expected 1$"),
    ('type: "DummyData" top: "a" dummy_data_param { shape {' + "dim: 1 " * 33 + "} }", [], "33 axes: Caffe allows"),
    ('type: "Softmax"', [()], "softmax_param.axis is 1, but the bottom is a scalar"),
]


@pytest.mark.parametrize("text, shapes, reason", SHAPES)
def test_impossible_bottoms_are_refused(text: str, shapes: list[tuple[int, ...]], reason: str) -> None:
    with pytest.raises(LayerError, match=reason):
        layer(text, shapes)
