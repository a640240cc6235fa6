"""Every operation: the layers it becomes, and their values against torch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import caffe2torch
from caffe2torch.importing import registry

from .modules import Does

C = torch.tensor([0.5, 1.0, 2.0]).reshape(3, 1, 1)
W = torch.linspace(-1, 1, 42).reshape(6, 7)
K = torch.linspace(-1, 1, 54).reshape(2, 3, 3, 3)

# name: (function of x (2, 3, 5, 7) between -1 and 1, types of the layers it becomes)
ONE: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "relu": (F.relu, "ReLU"),
    "leaky_relu": (lambda x: F.leaky_relu(x, 0.2), "ReLU"),
    "prelu": (lambda x: F.prelu(x, torch.tensor([0.1, 0.2, 0.3])), "PReLU"),
    "prelu_shared": (lambda x: F.prelu(x, torch.tensor([0.1])), "PReLU"),
    "elu": (lambda x: F.elu(x, 0.5), "ELU"),
    "selu": (F.selu, "ELU Power"),
    "sigmoid": (torch.sigmoid, "Sigmoid"),
    "tanh": (torch.tanh, "TanH"),
    "relu6": (lambda x: F.relu6(9 * x), "Power ReLU6"),
    "hardtanh": (lambda x: F.hardtanh(x, -0.5, 0.3), "Clip"),
    "hardswish": (lambda x: F.hardswish(5 * x), "Power HSwish"),
    "hardsigmoid": (lambda x: F.hardsigmoid(5 * x), "Power HSigmoid"),
    "silu": (F.silu, "Swish"),
    "softplus": (F.softplus, "BNLL"),
    "softplus_beta": (lambda x: F.softplus(x, 2.0), "Power BNLL Power"),
    "clamp": (lambda x: x.clamp(-0.2, 0.3), "Clip"),
    "clamp_above_0": (lambda x: x.clamp(min=0), "ReLU"),
    "clamp_min": (lambda x: x.clamp_min(0.1), "Clip"),
    "clamp_max": (lambda x: torch.clamp_max(x, 0.1), "Clip"),
    "abs": (torch.abs, "AbsVal"),
    "exp": (torch.exp, "Exp"),
    "log": (lambda x: torch.log(x + 2), "Power Log"),
    "sqrt": (lambda x: (x + 2).sqrt(), "Power Power"),
    "rsqrt": (lambda x: (x + 2).rsqrt(), "Power Power"),
    "square": (lambda x: x**2, "Power"),
    "power": (lambda x: (x + 2) ** 1.5, "Power Power"),
    "power_of_a_number": (lambda x: 2**x, "Exp"),
    "reciprocal": (lambda x: 1 / (x + 3), "Power Power"),
    "number_over_x": (lambda x: 5 / (x + 3), "Power Power"),
    "neg": (lambda x: -x, "Power"),
    "threshold": (lambda x: (x > 0.2).float(), "Threshold"),
    "softmax": (lambda x: x.softmax(1), "Softmax"),
    "softmax_last": (lambda x: F.softmax(x, -1), "Softmax"),
    "dropout": (lambda x: F.dropout(x, 0.3, training=False), "Dropout"),
    # arithmetic
    "add_number": (lambda x: x + 3, "Power"),
    "number_minus_x": (lambda x: 3 - x, "Power"),
    "times_1": (lambda x: F.relu(x) * 1, "ReLU"),
    "add_constant": (lambda x: x + C, "Bias"),
    "multiply_constant": (lambda x: x * C, "Scale"),
    "scale_and_bias": (lambda x: torch.addcmul(C, x, C * 2), "Scale"),
    "addcmul": (lambda x: torch.addcmul(x, x, x.relu(), value=2), "ReLU Eltwise Eltwise"),
    "divide_by_constant": (lambda x: x / C, "Scale"),
    "constant_minus_x": (lambda x: C - x, "Power Bias"),
    "constant_over_x": (lambda x: C / (x + 3), "Power Power Scale"),
    "normalise_pictures": (lambda x: (x - C) / C, "Bias Scale"),
    "constant_of_last_axis": (lambda x: x + torch.arange(7.0), "Bias"),
    "constant_of_two_axes": (lambda x: x * torch.arange(35.0).reshape(5, 7), "Scale"),
    "constant_with_a_gap": (lambda x: x * torch.arange(21.0).reshape(3, 1, 7), "Scale"),
    "uniform_constant": (lambda x: x + torch.full((3, 5, 7), 2.0), "Power"),
    "subtract": (lambda x: x - x.relu(), "ReLU Eltwise"),
    "add_with_alpha": (lambda x: torch.add(x, x.relu(), alpha=0.3), "ReLU Eltwise"),
    "multiply_itself": (lambda x: x * x, "Eltwise"),
    "divide_blobs": (lambda x: x / (x + 3), "Power Power Eltwise"),
    "maximum": (lambda x: torch.max(x, -x), "Power Eltwise"),
    "minimum": (lambda x: torch.minimum(x, -x), "Power Power Power Eltwise Power"),
    "squeeze_and_excite": (lambda x: x * x.mean((2, 3), True).sigmoid(), "Pooling Sigmoid Flatten Scale"),
    "gate_of_2_axes": (lambda x: x * x.mean((2, 3))[..., None, None], "Pooling Flatten Reshape Flatten Scale"),
    "add_means": (lambda x: x - x.mean((2, 3), True), "Pooling Power Flatten Bias"),
    "gate_of_items": (lambda x: x * x.mean((1, 2, 3), True), "Reduction Reshape Reshape Scale"),
    "spread_over_channels": (lambda x: x + x.mean(1, True), "Permute Reduction Reshape Tile Eltwise"),
    "spread_by_fewer_values_in_more_axes": (
        lambda x: x.mean((2, 3)) + x.mean((1, 2, 3)).reshape(2, 1, 1),
        "Pooling Flatten Reduction Reshape Reshape Tile Tile Tile Eltwise",
    ),
    # axes
    "mean_of_planes": (lambda x: x.mean((2, 3)), "Pooling Flatten"),
    "mean_of_channels": (lambda x: x.mean(1), "Permute Reduction"),
    "mean_of_all": (lambda x: x.mean(), "Reduction"),
    "sum_last": (lambda x: x.sum(-1), "Reduction"),
    "sum_some": (lambda x: x.sum((1, 3)), "Permute Reduction"),
    "length": (lambda x: x.norm(dim=1), "Permute Reduction Power"),
    "length_1": (lambda x: torch.norm(x, 1, -1), "Reduction"),
    "vector_norm": (lambda x: torch.linalg.vector_norm(x, dim=(1, 2, 3)), "Reduction Power"),
    "amax": (lambda x: x.amax((2, 3)), "Pooling Flatten"),
    "normalize": (F.normalize, "Permute Reduction Power Clip Power Scale Permute"),
    "normalize_rows": (lambda x: F.normalize(x.flatten(1)), "Flatten Reduction Power Clip Power Scale"),
    "distance": (lambda x: F.pairwise_distance(x, x.relu()), "ReLU Eltwise Power Reduction Power"),
    "flatten": (lambda x: torch.flatten(x, 1), "Flatten"),
    "flatten_some": (lambda x: x.flatten(1, 2), "Flatten"),
    "flatten_planes": (lambda x: x.view(2, 3, -1), "Flatten"),
    "view": (lambda x: x.view(x.size(0), -1), "Flatten"),
    "reshape": (lambda x: x.reshape(2, 7, 15), "Reshape"),
    "reshape_batch": (lambda x: x.reshape(-1, 5, 7), "Reshape"),
    "permute": (lambda x: x.permute(0, 2, 3, 1), "Permute"),
    "transpose": (lambda x: x.transpose(1, 3), "Permute"),
    "movedim": (lambda x: x.movedim(1, -1), "Permute"),
    "squeeze": (lambda x: F.adaptive_avg_pool2d(x, 1).squeeze(3), "Pooling Flatten"),
    "unsqueeze": (lambda x: x.unsqueeze(2), "Reshape"),
    "unflatten": (lambda x: x.unflatten(1, (3, 1)), "Reshape"),
    "channel_shuffle": (lambda x: F.channel_shuffle(torch.cat((x, x), 1), 2), "Concat ShuffleChannel"),
    "cat": (lambda x: torch.cat((x, x.relu()), 1), "ReLU Concat"),
    "cat_batch": (lambda x: torch.cat((x, x.relu())), "ReLU Concat"),
    "stack": (lambda x: torch.stack((x, x.relu()), 1), "ReLU Reshape Reshape Concat"),
    "chunk": (lambda x: x.chunk(3, 1), "Slice"),
    "split": (lambda x: torch.split(x, [1, 2], 1), "Slice"),
    "tensor_split": (lambda x: x.tensor_split((2, 5), 3), "Slice"),
    "tensor_split_unequal": (lambda x: torch.tensor_split(x, 3, dim=2), "Slice"),
    "split_first": (lambda x: x.split(2, dim=2)[0], "Slice Silence"),
    "range": (lambda x: x[:, 1:], "Slice Silence"),
    "ranges_and_numbers": (lambda x: x[:, 0, ..., 2:4], "Slice Slice Flatten Silence"),
    "one_item": (lambda x: x[0], "Slice Reshape Silence"),
    "new_axis": (lambda x: x[:, None], "Reshape"),
    "select": (lambda x: x.select(2, -1), "Slice Flatten Silence"),
    "narrow": (lambda x: x.narrow(3, 1, 2), "Slice Silence"),
    "unbind": (lambda x: x.unbind(1)[2], "Slice Flatten Silence"),
    "repeat": (lambda x: x.repeat(1, 2, 1, 3), "Tile Tile"),
    "expand": (lambda x: x[:, :1].expand(-1, 4, -1, -1), "Slice Tile Silence"),
    # windows
    "conv_pad": (lambda x: F.conv2d(F.pad(x, (1, 1, 2, 2)), K, padding=1), "Convolution"),
    "conv_same": (lambda x: F.conv2d(x, K, padding="same", dilation=(1, 2)), "Convolution"),
    "conv_stride": (lambda x: F.conv2d(x, K, torch.ones(2), stride=(2, 1), padding=(0, 1)), "Convolution"),
    "conv_depthwise": (lambda x: F.conv2d(x, K[0].unsqueeze(1), groups=3), "Convolution"),
    "conv1d": (lambda x: F.conv1d(x.flatten(2), K.flatten(2)[..., :4], stride=2, padding=1), "Flatten Convolution"),
    "conv3d": (lambda x: F.conv3d(x[:, :, None], K[:, :, None], padding=(1, 0, 0)), "Reshape Convolution"),
    "deconv": (lambda x: F.conv_transpose2d(x, K.transpose(0, 1), stride=2, padding=1), "Deconvolution"),
    "deconv_groups": (lambda x: F.conv_transpose2d(x, torch.ones(3, 2, 2, 2), groups=3), "Deconvolution"),
    "deconv1d": (lambda x: F.conv_transpose1d(x.flatten(2), K.flatten(2).transpose(0, 1)), "Flatten Deconvolution"),
    "nearest": (lambda x: F.interpolate(x, scale_factor=2), "Deconvolution"),
    "max_pool": (lambda x: F.max_pool2d(x, 3, 2, 1), "Pooling"),
    "max_pool_down": (lambda x: F.max_pool2d(x, 2), "Pooling Slice Slice Silence"),
    "max_pool_down_rows": (lambda x: F.max_pool2d(x, (2, 3), (2, 1)), "Pooling Slice Silence"),
    "max_pool_up": (lambda x: F.max_pool2d(x, 2, ceil_mode=True), "Pooling"),
    "max_pool_gaps": (lambda x: F.max_pool2d(x, 1, 4), "Pooling Slice Silence"),
    "avg_pool": (lambda x: F.avg_pool2d(x, 3, 2, 1), "Pooling"),
    "avg_pool_down": (lambda x: F.avg_pool2d(x, 2), "Pooling Slice Slice Silence"),
    "avg_pool_up": (lambda x: F.avg_pool2d(x, 4, 3, 1, ceil_mode=True), "Pooling"),
    "max_pool1d": (lambda x: F.max_pool1d(x.flatten(2), 3, 2), "Flatten Reshape Pooling Flatten"),
    "avg_pool1d": (lambda x: F.avg_pool1d(x.flatten(2), 5), "Flatten Reshape Pooling Flatten"),
    "adaptive_avg": (lambda x: F.adaptive_avg_pool2d(x, 1), "Pooling"),
    "adaptive_rows": (lambda x: F.adaptive_avg_pool2d(x, (1, None)), "Pooling"),
    "adaptive_max": (lambda x: F.adaptive_max_pool2d(x, (5, 1)), "Pooling"),
    "adaptive_same": (lambda x: F.adaptive_avg_pool2d(x, (5, 7)).relu(), "ReLU"),
    "adaptive_1d": (lambda x: F.adaptive_avg_pool1d(x.flatten(2), 7), "Flatten Reshape Pooling Flatten"),
    "lrn_written_out": (lambda x: x * (_sums(x * x) * (2e-4 / 3) + 2).rsqrt(), "LRN"),
    "lrn_by_roots": (lambda x: x * ((root := (_sums(x**2) * 0.1 + 1).rsqrt()) * root.sqrt()), "LRN"),
    "lrn_one_by_one": (lambda x: x * (_sums_one_by_one(x * x) * 0.1 + 1).rsqrt(), "LRN"),
    "lrn_of_one": (lambda x: x * ((x * x).unfold(1, 1, 1).unbind(-1)[0] * 0.1 + 1).rsqrt(), "LRN"),
    "lrn_that_is_none": (lambda x: x + (_sums(x * x) + 1).rsqrt(), "Eltwise Convolution Power Power Eltwise"),
    "sums_of_channels": (lambda x: _sums(x), "Convolution"),
    "lrn": (lambda x: F.local_response_norm(x, 3, 0.01, 0.6, 2.0), "LRN"),
    "batch_norm_of_the_batch": (lambda x: F.batch_norm(x, None, None, training=True), "BatchNorm"),
    # products
    "linear": (lambda x: F.linear(x, W, torch.arange(6.0)), "InnerProduct"),
    "linear_flat": (lambda x: F.linear(x.flatten(1), torch.ones(4, 105)), "InnerProduct"),
    "matmul": (lambda x: x @ W.t(), "InnerProduct"),
    "matmul_vector": (lambda x: x @ torch.arange(7.0), "InnerProduct Flatten"),
    "addmm": (lambda x: torch.addmm(torch.arange(3.0), x.flatten(1), torch.ones(105, 3)), "InnerProduct"),
    # what is nothing in Caffe
    "same": (lambda x: x.contiguous().clone().detach().to(torch.float32).float().relu(), "ReLU"),
    "the_input_itself": (lambda x: x, "Split"),
    "twice_the_same": (lambda x: (y := x.relu(), y), "ReLU Split"),
    "in_place": (lambda x: x.clone().relu_().add_(1).mul_(x), "ReLU Power Eltwise"),
    "operators_in_place": (lambda x: _added(x.sigmoid(), x), "Sigmoid Eltwise"),
}  # fmt: skip


def _sums(x: Tensor) -> Tensor:
    return F.pad(x, (0, 0, 0, 0, 1, 1)).unfold(1, 3, 1).sum(-1)


def _sums_one_by_one(x: Tensor) -> Tensor:
    first, *others = F.pad(x, (0, 0, 0, 0, 1, 1)).unfold(1, 3, 1).unbind(-1)
    return sum(others, first)


def _added(y: Tensor, x: Tensor) -> Tensor:
    y += x
    return y


@pytest.mark.parametrize("name", ONE)
def test_operation_becomes_layers_of_equal_values(name: str) -> None:
    function, layers = ONE[name]
    x = torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(3)) * 2 - 1
    made = caffe2torch.to_caffe(Does(function), x)
    assert made.difference < 1e-6
    assert [layer.type for layer in made.message.layer] == ["Input", *layers.split()]


def test_every_converter_stands_on_the_table_of_torch() -> None:
    """A misspelt name would never be called."""
    homes = (torch, F, Tensor, torch._C._linalg, torch._C._special)
    known = {name for home in homes for name in dir(home)} | {"__div__", "__idiv__"}
    unknown = {name.split(".")[0] for name in registry.names()} - known
    assert not unknown


def test_embedding_and_a_tied_product() -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(9, 4)

        def forward(self, words: Tensor) -> Tensor:
            return F.linear(self.table(words).mean(1), self.table.weight)

    made = caffe2torch.to_caffe(Words(), torch.tensor([[1, 2, 3], [8, 0, 8]]))
    assert [layer.type for layer in made.message.layer] == ["Input", "Embed", "Permute", "Reduction", "InnerProduct"]
    assert [layer.param[0].name for layer in made.message.layer if layer.param] == ["table.weight"] * 2
    assert made.difference < 1e-6


def test_batch_norm_becomes_statistics_with_a_factor_of_1_and_a_scale() -> None:
    norm = nn.BatchNorm2d(3, eps=1e-3, momentum=0.2)
    norm.running_mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
    norm.running_var.copy_(torch.tensor([4.0, 5.0, 6.0]))
    made = caffe2torch.to_caffe(norm, torch.randn(2, 3, 4, 4))
    mean, variance, factor = made.weights["batch_norm"]
    assert (mean.tolist(), variance.tolist(), factor.tolist()) == ([1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [1.0])
    settings = made.message.layer[1].batch_norm_param
    assert (settings.eps, settings.moving_average_fraction) == (pytest.approx(1e-3), pytest.approx(0.8))
    assert [w.tolist() for w in made.weights["batch_norm.scale"]] == [[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]


def test_weights_computed_from_others_are_taken_as_they_are() -> None:
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))
    made = caffe2torch.to_caffe(nn.Sequential(layer), torch.randn(2, 4))
    torch.testing.assert_close(torch.from_numpy(made.weights["0"][0]), layer.weight.detach())
    assert not made.message.layer[1].param  # they are learned, so Caffe learns them too


def test_buffers_and_frozen_parameters_are_not_learned_in_caffe_either() -> None:
    class Normalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.tensor([1.0, 2.0]))
            self.fc = nn.Linear(2, 3)
            self.fc.weight.requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x - self.mean)

    made = caffe2torch.to_caffe(Normalised(), torch.randn(2, 2))
    _, shift, fc = made.message.layer
    assert [(p.lr_mult, p.decay_mult) for p in shift.param] == [(0.0, 0.0)]
    assert [(p.lr_mult, p.decay_mult) for p in fc.param] == [(0.0, 0.0)]


def test_a_learned_number_is_a_blob() -> None:
    class Gain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.tensor([3.0]))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.gain

    made = caffe2torch.to_caffe(Gain(), torch.randn(2, 4))
    assert made.weights["mul"][0].tolist() == 3.0
