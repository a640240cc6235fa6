"""One use or more of every layer type: its text, the shapes of its bottoms, and which of them hold labels."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from caffe2torch.layers.registry import Layer, Shape

from .messages import layer

IMAGE: Shape = (4, 6, 9, 8)
MATRIX: Shape = (4, 6)


@dataclass(frozen=True)
class Use:
    """A layer in use. Labels are whole numbers from 0 to 2."""

    text: str
    shapes: tuple[Shape, ...] = (IMAGE,)
    labels: tuple[int, ...] = ()
    training: bool = False

    @property
    def type(self) -> str:
        return self.text.split('"')[1]

    def build(self) -> Layer:
        return layer(self.text, self.shapes, training=self.training)

    def bottoms(self, dtype: torch.dtype = torch.float32) -> list[Tensor]:
        generator = torch.Generator().manual_seed(1)
        return [
            torch.randint(3, shape, generator=generator).to(dtype)
            if index in self.labels
            # Positive, so that Log and Power have values.
            else torch.rand(shape, generator=generator, dtype=torch.float64).to(dtype) + 0.1
            for index, shape in enumerate(self.shapes)
        ]

    def __str__(self) -> str:
        settings = re.sub(r"\W+", "-", self.text.partition("_param")[2]).strip("-")
        bottoms = f"{len(self.shapes)}-bottoms" if len(self.shapes) != 1 else ""
        return "-".join(filter(None, (self.type, settings, bottoms, "train" if self.training else "")))


def pool(settings: str) -> Use:
    return Use(f'type: "Pooling" pooling_param {{ {settings} }}')


USES = [
    Use('type: "Convolution" convolution_param { num_output: 4 kernel_size: 3 stride: 2 pad: 1 group: 2 }'),
    Use('type: "Convolution" convolution_param { num_output: 2 kernel_size: 3 axis: 2 }', ((4, 2, 6, 9, 8),)),
    Use('type: "Convolution" convolution_param { num_output: 4 axis: 3 group: 2 }'),
    Use('type: "Convolution" convolution_param { num_output: 2 kernel_size: 2 stride: 2 }', ((2, 3, 3, 4, 3, 5),)),
    Use('type: "Convolution" top: "a" top: "b" convolution_param { num_output: 2 kernel_size: 3 }', (IMAGE, IMAGE)),
    Use('type: "InnerProduct" inner_product_param { num_output: 5 }'),
    Use('type: "InnerProduct" inner_product_param { num_output: 5 transpose: true axis: -1 }'),
    pool("kernel_size: 3 stride: 2"),
    pool("kernel_size: 3 stride: 2 pad: 2 pool: AVE"),
    pool("kernel_size: 2 stride: 3 pool: AVE"),
    pool("kernel_size: 2 stride: 5"),
    pool("kernel_size: 3 stride: 2 pool: STOCHASTIC"),
    Use('type: "Pooling" pooling_param { kernel_size: 2 stride: 3 pool: STOCHASTIC }', training=True),
    pool("global_pooling: true"),
    pool("global_pooling: true pool: AVE"),
    Use('type: "Pooling" top: "a" top: "mask" pooling_param { kernel_size: 3 pad: 2 stride: 2 }'),
    Use('type: "LRN" lrn_param { local_size: 3 }'),
    Use('type: "LRN" lrn_param { local_size: 3 beta: 0.6 norm_region: WITHIN_CHANNEL }'),
    Use('type: "BatchNorm"'),
    Use('type: "BatchNorm"', training=True),
    Use('type: "Scale" scale_param { bias_term: true }'),
    Use('type: "Scale"', (IMAGE, (6,))),
    Use('type: "Bias"'),
    Use('type: "ReLU"'),
    Use('type: "ReLU" relu_param { negative_slope: 0.1 }'),
    Use('type: "PReLU"'),
    Use('type: "PReLU" prelu_param { channel_shared: true }'),
    Use('type: "ELU"'),
    Use('type: "Sigmoid"'),
    Use('type: "TanH"'),
    Use('type: "AbsVal"'),
    Use('type: "BNLL"'),
    Use('type: "Power" power_param { power: 2 scale: 0.5 shift: 1 }'),
    Use('type: "Power" power_param { power: 0 }'),
    Use('type: "Exp" exp_param { base: 2 }'),
    Use('type: "Log" log_param { base: 2 }'),
    Use('type: "Threshold"'),
    Use('type: "Dropout"'),
    Use('type: "Dropout"', training=True),
    Use('type: "Dropout" dropout_param { sample_weights_test: true }'),
    Use('type: "Dropout" dropout_param { dropout_ratio: 1 }', training=True),
    Use('type: "Softmax"'),
    Use('type: "ArgMax" argmax_param { top_k: 2 out_max_val: true }'),
    Use('type: "Accuracy" top: "a" top: "b" accuracy_param { ignore_label: 1 }', (MATRIX, (4,)), (1,)),
    Use(
        'type: "MarginInnerProduct" top: "a" top: "b" margin_inner_product_param { num_output: 3 }', (IMAGE, (4,)), (1,)
    ),
    Use(
        'type: "MarginInnerProduct" top: "a" top: "b" margin_inner_product_param { num_output: 3 type: QUADRUPLE }',
        (MATRIX, (4, 1)),
        (1,),
        training=True,
    ),
    *(
        Use(
            'type: "LargeMarginInnerProduct" top: "a" top: "b" '
            f"largemargin_inner_product_param {{ num_output: 3 type: {kind} base: 2 gamma: 1 }}",
            (MATRIX, (4,)),
            (1,),
            training=training,
        )
        for kind, training in (("SINGLE", False), ("DOUBLE", True), ("TRIPLE", True), ("QUADRUPLE", False))
    ),
    Use('type: "SegAccuracy" seg_accuracy_param { ignore_label: 1 ignore_label: 9 }', (IMAGE, (4, 1, 9, 8)), (1,)),
    Use('type: "SegAccuracy" seg_accuracy_param { reset: false }', (IMAGE, (4, 1, 9, 8)), (1,)),
    Use('type: "SoftmaxWithLoss" loss_param { ignore_label: 1 }', (IMAGE, (4, 9, 8)), (1,)),
    Use(
        'type: "SoftmaxWithLoss" '
        "loss_param { ignore_label: 1 weight_by_label_freqs: true class_weighting: [1, 2, 3, 4, 5, 6] }",
        (IMAGE, (4, 9, 8)),
        (1,),
    ),
    Use('type: "SoftmaxWithLoss" top: "a" top: "b" loss_param { normalization: BATCH_SIZE }', (MATRIX, (4, 1)), (1,)),
    Use('type: "SigmoidCrossEntropyLoss" loss_param { ignore_label: 2 }', (MATRIX, MATRIX), (1,)),
    Use('type: "EuclideanLoss"', (MATRIX, MATRIX)),
    Use('type: "K1_EuclideanLoss"', (MATRIX, MATRIX)),
    Use('type: "K2_EuclideanLoss"', (MATRIX, MATRIX)),
    Use('type: "ContrastiveLoss"', (MATRIX, MATRIX, (4,)), (2,)),
    Use('type: "ContrastiveLoss" contrastive_loss_param { legacy_version: true }', (MATRIX, MATRIX, (4,)), (2,)),
    Use('type: "FocalLoss" focal_loss_param { alpha: 0.25 }', (MATRIX, (4,)), (1,)),
    Use(
        'type: "FocalLoss" top: "a" top: "b" loss_param { ignore_label: 1 } focal_loss_param { alpha: 1 gamma: 0.5 }',
        (IMAGE, (4, 9, 8)),
        (1,),
    ),
    Use('type: "CenterLoss" center_loss_param { num_output: 3 }', (MATRIX, (4,)), (1,)),
    Use('type: "CenterLoss" center_loss_param { num_output: 5 axis: -3 }', (IMAGE, (4, 1, 1, 1)), (1,)),
    Use('type: "Concat"', (IMAGE, (4, 2, 9, 8))),
    Use('type: "Slice" top: "a" top: "b" slice_param { slice_point: 2 }'),
    Use('type: "Slice" top: "a" top: "b"'),
    Use('type: "Flatten"'),
    Use('type: "Reshape" reshape_param { shape { dim: 0 dim: 3 dim: -1 } }'),
    Use('type: "Split" top: "a" top: "b"'),
    Use('type: "Silence" top: "unused"'),
    Use('type: "Reshape" reshape_param { shape { } }', ((1, 1),)),
    Use('type: "Eltwise" eltwise_param { coeff: 2 coeff: -1 }', (IMAGE, IMAGE)),
    Use('type: "Eltwise" eltwise_param { coeff: 0.05 }'),
    Use('type: "Eltwise" eltwise_param { operation: MAX coeff: [2, 3] }', (IMAGE, IMAGE)),  # ignored there
    Use('type: "Eltwise" eltwise_param { operation: MAX }', (IMAGE, IMAGE, IMAGE)),
    Use('type: "Eltwise" eltwise_param { operation: PROD }', (IMAGE, IMAGE)),
    Use('type: "Eltwise" eltwise_param { operation: PROD stable_prod_grad: false }', (IMAGE, IMAGE)),
    # Axis 0 is time, unrolled: not a batch that could change.
    Use('type: "RNN" recurrent_param { num_output: 3 }', ((3, 2, 5), (3, 2))),
    Use('type: "LSTM" recurrent_param { num_output: 3 }', ((3, 2, 5), (3, 2))),
    Use('type: "LSTM" recurrent_param { num_output: 3 }', ((3, 2, 5), (3, 2), (2, 6))),
    Use(
        'type: "LSTM" top: "a" top: "b" top: "c" recurrent_param { num_output: 3 expose_hidden: true }',
        ((3, 2, 5), (3, 2), (2, 6), (1, 2, 3), (1, 2, 3)),
    ),
    Use('type: "Lstm" lstm_param { num_output: 3 clipping_threshold: 1 }', ((3, 2, 5),)),
    Use('type: "Lstm" lstm_param { num_output: 3 }', ((3, 2, 5, 2),)),
    Use('type: "Reverse" reverse_param { axis: 0 }', ((3, 2, 5),)),
    Use('type: "Reverse" reverse_param { axis: -1 axis: 1 }'),
    Use('type: "Transpose" transpose_param { dim: 3 dim: 2 dim: 0 dim: 1 }'),
    Use('type: "ContinuationIndicator" continuation_indicator_param { time_step: 3 batch_size: 2 }', ()),
    Use('type: "ContinuationIndicator" continuation_indicator_param { time_step: 1 }'),
    Use('type: "LSTMUnit" top: "c" top: "h"', ((1, 2, 3), (1, 2, 12), (1, 2))),
    Use('type: "Deconvolution" convolution_param { num_output: 4 kernel_size: 3 stride: 2 pad: 1 group: 2 }'),
    Use('type: "Deconvolution" convolution_param { num_output: 2 kernel_size: 3 axis: 2 }', ((4, 2, 6, 9, 8),)),
    Use('type: "Deconvolution" convolution_param { num_output: 2 kernel_size: 2 stride: 2 }', ((2, 3, 3, 4, 3, 5),)),
    Use('type: "Im2col" convolution_param { kernel_size: 3 stride: 2 pad: 1 dilation: 2 }'),
    Use('type: "Im2col" convolution_param { kernel_size: 2 axis: 2 }'),
    Use('type: "SPP" spp_param { pyramid_height: 3 }'),
    Use('type: "SPP" spp_param { pyramid_height: 1 pool: AVE }'),
    Use('type: "MVN"'),
    Use('type: "MVN" mvn_param { across_channels: true normalize_variance: false }'),
    Use('type: "Crop" crop_param { offset: [2, 1] }', (IMAGE, (4, 1, 5, 6)), (1,)),
    Use('type: "Embed" embed_param { input_dim: 3 num_output: 5 }', (MATRIX,), (0,)),
    Use('type: "Reduction" reduction_param { axis: 1 operation: ASUM coeff: 2 }'),
    Use('type: "Reduction" reduction_param { axis: -1 operation: MEAN }'),
    Use('type: "Reduction" reduction_param { operation: SUMSQ }'),
    Use('type: "Tile" tile_param { tiles: 2 }'),
    Use('type: "BatchReindex"', (IMAGE, (7,)), (1,)),
    Use('type: "Filter" top: "a" top: "b"', (IMAGE, MATRIX, (4, 1)), (2,)),
    Use('type: "HDF5Output" top: "unused" hdf5_output_param { file_name: "out.h5" }', (MATRIX, (4,))),
    Use('type: "Parameter" parameter_param { shape { dim: 2 dim: 3 } }', ()),
    Use('type: "Swish"'),
    Use('type: "Swish" swish_param { beta: 2 }'),
    Use('type: "Clip" clip_param { min: 0.2 max: 0.8 }'),
    Use('type: "HingeLoss"', (MATRIX, (4,)), (1,)),
    Use('type: "HingeLoss" hinge_loss_param { norm: L2 }', (IMAGE, (4, 1)), (1,)),
    Use('type: "InfogainLoss" top: "a" top: "b"', (IMAGE, (4, 9, 8), (6, 6)), (1,)),
    Use(
        'type: "InfogainLoss" infogain_loss_param { source: "H" } loss_param { ignore_label: 0 }', (MATRIX, (4,)), (1,)
    ),
    Use('type: "MultinomialLogisticLoss"', (MATRIX, (4,)), (1,)),
    Use('type: "DummyData" dummy_data_param { shape { dim: 2 } data_filler { value: 1.5 } }', ()),
    Use('type: "DummyData" dummy_data_param { shape { dim: 2 } data_filler { type: "uniform" } }', ()),
    Use('type: "Upsample"', (IMAGE, IMAGE), (1,)),
    Use('type: "Upsample" upsample_param { upsample_h: 17 upsample_w: 16 }', (IMAGE, IMAGE), (1,)),
    Use('type: "Upsample" upsample_param { scale: 2 }'),
    Use('type: "Unpooling" unpooling_param { kernel_size: 2 unpool_h: 17 unpool_w: 16 }', (IMAGE, IMAGE), (1,)),
    Use('type: "BN" bn_param { bn_mode: INFERENCE }'),
    Use('type: "BN" top: "a" top: "b" top: "c" bn_param { bn_mode: LEARN }'),
    Use('type: "BN" bn_param { frozen: false }'),
    Use('type: "BN" bn_param { frozen: false }', training=True),
    Use('type: "BN" bn_param { frozen: true }', training=True),
    Use('type: "Interp" interp_param { height: 12 width: 5 }'),
    Use('type: "Interp" interp_param { shrink_factor: 2 zoom_factor: 3 pad_beg: -1 }'),
    Use('type: "Interp"', (IMAGE, (4, 1, 12, 5))),
    Use('type: "BatchNorm" batch_norm_param { scale_bias: true }'),
    Use('type: "BatchNorm" batch_norm_param { scale_bias: true }', training=True),
    Use('type: "ConvolutionDepthwise" convolution_param { kernel_size: 3 stride: 2 pad: 1 }'),
    Use('type: "DepthwiseConvolution" convolution_param { num_output: 12 group: 6 kernel_size: 3 }'),
    Use('type: "ConvolutionDepthWise" convolution_param { num_output: 6 kernel_size: 3 bias_term: false }'),
    Use('type: "DepthwiseConv" convolution_param { num_output: 6 kernel_size: 3 }'),
    Use('type: "ShuffleChannel" shuffle_channel_param { group: 3 }'),
    Use('type: "ChannelShuffle" shuffle_channel_param { group: 2 }'),
    Use('type: "Axpy"', ((4, 6, 1, 1), IMAGE, IMAGE)),
    Use('type: "ReLU6"'),
    Use('type: "ReLU6" relu6_param { threshold: 0.5 negative_slope: 0.1 }'),
    Use('type: "CReLU"'),
    Use('type: "CReLU" crelu_param { concat_axis: 2 negative_slope: 0.1 }'),
    Use('type: "HSigmoid"'),
    Use('type: "HSwish"'),
    Use('type: "HardSwish"'),
    Use('type: "Reorg" reorg_param { stride: 2 }', ((4, 8, 4, 6),)),
    Use('type: "Reorg" reorg_param { stride: 2 reverse: true }', ((4, 8, 3, 2),)),
    Use('type: "MultiLabelSigmoidLoss"', (MATRIX, MATRIX), (1,)),
    Use('type: "MultiLabelL2SVMLoss"', (MATRIX, MATRIX), (1,)),
    Use('type: "MultiLabelAccuracy"', (MATRIX, MATRIX), (1,)),
    Use('type: "HashingLoss" hashing_loss_param { bi_margin: 12 }', (MATRIX, (4, 1)), (1,)),
    Use('type: "HashingLoss"', (MATRIX, (4, 3)), (1,)),
    Use('type: "PairwiseLoss" pairwise_param { threshold: 15 }', (MATRIX, (4, 3)), (1,)),
    Use('type: "PairwiseLoss" pairwise_param { l_threshold: 15 q_threshold: 15 q_gamma: 0.1 }', (MATRIX, (4, 3)), (1,)),
    Use(
        'type: "PairwiseLoss" pairwise_param { class_num: 5 sigmoid_param: 0.2 continous_similarity: true }',
        (MATRIX, (4, 3), MATRIX, (4, 3)),
        (1, 3),
    ),
    Use('type: "QuantizationLoss" quantization_param { threshold: 15 }', (MATRIX,)),
    Use('type: "ScaleTanH" scale_tanh_param { step_size: 2 gamma: 0.005 power: 0.5 }', (MATRIX,)),
    Use('type: "Normalize" normalize_param { normalize_type: "L1" }', (MATRIX,)),
    Use('type: "Normalize" top: "a" top: "b" normalize_param { bp_norm: true }'),
    Use('type: "Normalize"'),
    Use('type: "Normalize" norm_param { across_spatial: false channel_shared: false }'),
    Use('type: "Permute" permute_param { order: 0 order: 2 order: 3 }'),
    Use('type: "PriorBox" prior_box_param { min_size: 3 max_size: 7 aspect_ratio: 2 }', (IMAGE, (4, 3, 36, 32))),
    Use('type: "PriorBox" prior_box_param { min_size: 3 img_size: 36 clip: true }'),
    Use('type: "DetectionOutput" detection_output_param { num_classes: 3 }', ((4, 40), (4, 30), (1, 2, 40))),
    Use(
        'type: "DetectionEvaluate" detection_evaluate_param { num_classes: 3 background_label_id: 2 }',
        ((1, 1, 6, 7), (1, 1, 5, 8)),
    ),
    Use(
        'type: "YoloDetectionOutput" yolo_detection_output_param { num_classes: 3 num_box: 1 biases: 1 biases: 2 }',
        ((4, 8, 5, 5),),
    ),
    Use(
        'type: "Yolov3DetectionOutput" yolov3_detection_output_param { num_classes: 1 num_box: 1 biases: 9 biases: 5 '
        "mask: 0 mask: 0 anchors_scale: 8 anchors_scale: 4 }",
        ((4, 6, 3, 3), (4, 6, 6, 6)),
    ),
    Use(
        'type: "MultiBoxLoss" multibox_loss_param { num_classes: 3 background_label_id: 2 }',
        ((4, 40), (4, 30), (1, 2, 40), (1, 1, 5, 8)),
    ),
    Use(
        'type: "MultiBoxLoss" multibox_loss_param { num_classes: 3 background_label_id: 2 mining_type: NONE }',
        ((4, 40), (4, 30), (1, 2, 40), (1, 1, 5, 8)),
    ),
    Use('type: "SmoothL1Loss" smooth_l1_loss_param { sigma: 3 }', (MATRIX, MATRIX)),
    Use('type: "SmoothL1Loss"', (MATRIX, MATRIX, MATRIX, MATRIX)),
    Use('type: "ROIPooling" roi_pooling_param { pooled_h: 2 pooled_w: 3 spatial_scale: 2 }', (IMAGE, (5, 5)), (1,)),
    Use('type: "ROIAlign" roi_align_param { pooled_h: 2 pooled_w: 3 sampling_ratio: 2 }', (IMAGE, (5, 5)), (1,)),
    Use(
        'type: "PSROIPooling" psroi_pooling_param { output_dim: 2 group_size: 2 spatial_scale: 2 }',
        ((4, 8, 9, 8), (5, 5)),
        (1,),
    ),
    Use(
        'type: "Proposal" top: "a" top: "b" proposal_param { ratio: 1 scale: 1 scale: 2 min_size: 1 }',
        ((4, 4, 3, 5), (4, 8, 3, 5), (4, 3)),
    ),
    Use(
        'type: "Correlation" correlation_param { pad: 3 kernel_size: 3 max_displacement: 3 stride_2: 2 }',
        (IMAGE, IMAGE),
    ),
    Use(
        'type: "Correlation" '
        "correlation_param { pad: 1 kernel_size: 1 max_displacement: 2 stride_1: 2 correlation_type: SUBTRACT }",
        (IMAGE, IMAGE),
    ),
    Use(
        'type: "Correlation1D" correlation_param { pad: 3 kernel_size: 1 max_displacement: 2 single_direction: -1 }',
        (IMAGE, IMAGE),
    ),
    Use('type: "FlowWarp"', (IMAGE, (4, 2, 9, 8))),
    Use('type: "FlowWarp" flow_warp_param { fill_value: NOT_A_NUMBER }', (IMAGE, (4, 2, 9, 8))),
    Use('type: "ChannelNorm"'),
    Use('type: "Resample" resample_param { height: 5 width: 11 }'),
    Use('type: "Resample" resample_param { type: CUBIC antialias: false }', (IMAGE, (4, 1, 18, 16)), (1,)),
    Use('type: "Resample" resample_param { type: NEAREST }', (IMAGE, (4, 1, 18, 16)), (1,)),
    Use('type: "Downsample" downsample_param { top_height: 4 top_width: 5 }'),
    Use('type: "Downsample"', (IMAGE, IMAGE), (1,)),
    Use('type: "Accum"', (IMAGE, (4, 2, 4, 5))),
    Use('type: "Accum" accum_param { have_reference: true }', (IMAGE, (4, 1, 18, 16)), (1,)),
    Use('type: "DataAugmentation" augmentation_param { recompute_mean: 1000 mean_per_pixel: false }'),
    Use('type: "DataAugmentation" augmentation_param { recompute_mean: 1 crop_height: 6 crop_width: 8 }'),
    Use('type: "DataAugmentation" augmentation_param { mean: [1, 2, 3] mean_per_pixel: false }', ((4, 3, 5, 6),)),
    Use('type: "Mean" top: "a" top: "b" mean_param { operation: SUBTRACT value: [1, 2] }', (IMAGE, IMAGE)),
    Use('type: "L1Loss"', (IMAGE, IMAGE)),
    Use('type: "L1Loss" l1_loss_param { l2_per_location: true normalize_by_num_entries: true plateau: 0.3 }'),
]
