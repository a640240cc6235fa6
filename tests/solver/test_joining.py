"""BatchNorm and Scale as one operation: the same values, gradients and statistics as one after the other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from caffe2torch import prototxt
from caffe2torch.graph import build_graph
from caffe2torch.loading import build_net, fill
from caffe2torch.net import CaffeNet
from caffe2torch.solver.joining import join_scales

HEAD = """
name: "n"
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 4 dim: 3 dim: 5 dim: 5 } } }
layer { name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param {
  num_output: 6 kernel_size: 3 weight_filler { type: "gaussian" std: 0.5 } } }
"""
NORM = 'layer { name: "n" type: "BatchNorm" bottom: "c" top: "%s" %s }'
SCALE = """layer { name: "s" type: "Scale" bottom: "%s" top: "%s" scale_param {
  bias_term: true filler { type: "uniform" min: -1 max: 1 } bias_filler { type: "gaussian" std: 1 } %s } }"""
RELU = 'layer { name: "r" type: "ReLU" bottom: "s" top: "s" }'
SUM = 'layer { name: "e" type: "Eltwise" bottom: "s" bottom: "%s" top: "e" }'

JOINED = {
    "in place": HEAD + NORM % ("c", "") + SCALE % ("c", "c", ""),
    "apart": HEAD + NORM % ("n", "") + SCALE % ("n", "s", "") + RELU,
    "apart, before a sum": HEAD + NORM % ("n", "") + SCALE % ("n", "s", "") + SUM % "c",
    "stored statistics": HEAD + NORM % ("n", "batch_norm_param { use_global_stats: true }") + SCALE % ("n", "s", ""),
    "Scale alone in place": HEAD + NORM % ("s", "") + SCALE % ("s", "s", "") + RELU,
}
KEPT = {
    "the top is read elsewhere": HEAD + NORM % ("n", "") + SCALE % ("n", "s", "") + SUM % "n",
    "no bias": HEAD + NORM % ("n", "") + (SCALE % ("n", "s", "")).replace("true", "false"),
    "per value": HEAD + NORM % ("n", "") + SCALE % ("n", "s", "num_axes: 3"),
    "per column": HEAD + NORM % ("n", "") + SCALE % ("n", "s", "axis: 3"),
    "no gradient": HEAD
    + NORM % ("n", "")
    + (SCALE % ("n", "s", "")).replace('top: "s"', 'top: "s" propagate_down: false'),
    "NVCaffe's": HEAD + NORM % ("n", "batch_norm_param { scale_bias: true }") + SCALE % ("n", "s", ""),
}


def build(text: str, phase: str = "train") -> CaffeNet:
    net = build_net(build_graph(prototxt.parse(text, "NetParameter"), phase=phase), Path())
    torch.manual_seed(3)
    fill(net)
    net.double()
    for name, buffer in net.named_buffers():
        buffer.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(len(name)))
    return net


def passes(net: CaffeNet) -> list[Tensor]:
    """Outputs and gradients of two passes, and the statistics after them."""
    found = []
    for seed in (5, 6):
        x = torch.randn(4, 3, 5, 5, dtype=torch.double, generator=torch.Generator().manual_seed(seed)).requires_grad_()
        net.zero_grad()
        outputs = net(x)
        torch.stack([(y * torch.arange(y.numel()).view_as(y).sin()).sum() for y in outputs.values()]).sum().backward()
        assert x.grad is not None
        found += [*outputs.values(), x.grad, *(p.grad for p in net.parameters() if p.grad is not None)]
    return found + list(net.buffers())


@pytest.mark.parametrize("phase", ["train", "test"])
@pytest.mark.parametrize("text", JOINED.values(), ids=JOINED.keys())
def test_joined_layers_answer_as_one_after_the_other(text: str, phase: str) -> None:
    plain, joined = build(text, phase), build(text, phase)
    join_scales(joined)
    assert len(joined.plan) == len(plain.plan) - 1
    for ours, expected in zip(passes(joined), passes(plain), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("text", KEPT.values(), ids=KEPT.keys())
def test_layers_stay_apart_where_a_scale_is_more_than_a_part_of_the_norm(text: str) -> None:
    net = build(text)
    plan = net.plan
    join_scales(net)
    assert net.plan == plan


def test_the_value_between_is_an_output() -> None:
    net = build(JOINED["apart"]).select("n", "s")
    plan = net.plan
    join_scales(net)
    assert net.plan == plan
