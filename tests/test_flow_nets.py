"""A net of the form of FlowNet2's deploy nets: images are prepared in it, compared and warped, the flow enlarged."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import caffe2torch
from caffe2torch.export.convert import Settings, convert
from caffe2torch.net import CaffeNet

AUGMENTATION = "augmentation_param { augment_during_test: true recompute_mean: 1000 mean_per_pixel: false }"
HALF = """
layer { name: "scale%(i)d" type: "Eltwise" bottom: "img%(i)d" top: "small%(i)d" eltwise_param { coeff: 0.0039 } }
layer { name: "mean%(i)d" type: "DataAugmentation" bottom: "small%(i)d" top: "centred%(i)d" %(augmentation)s }
layer { name: "resize%(i)d" type: "Resample" bottom: "centred%(i)d" top: "input%(i)d"
  resample_param { width: 64 height: 32 } }
"""
REST = """
layer { name: "conv" type: "Convolution" bottom: "input0" bottom: "input1" top: "a" top: "b"
  convolution_param { num_output: 8 kernel_size: 3 pad: 1 stride: 4 weight_filler { type: "msra" } } }
layer { name: "corr" type: "Correlation" bottom: "a" bottom: "b" top: "corr"
  correlation_param { pad: 4 kernel_size: 1 max_displacement: 4 stride_1: 1 stride_2: 2 } }
layer { name: "flow" type: "Convolution" bottom: "corr" top: "flow"
  convolution_param { num_output: 2 kernel_size: 3 pad: 1 weight_filler { type: "msra" } } }
layer { name: "accum" type: "Accum" bottom: "flow" bottom: "input0" top: "large" accum_param { have_reference: true } }
layer { name: "warp" type: "FlowWarp" bottom: "input1" bottom: "large" top: "warped" }
layer { name: "difference" type: "Eltwise" bottom: "input0" bottom: "warped" top: "difference"
  eltwise_param { coeff: 1 coeff: -1 } }
layer { name: "error" type: "ChannelNorm" bottom: "difference" top: "error" }
layer { name: "near" type: "Resample" bottom: "flow" bottom: "input0" top: "near"
  resample_param { type: NEAREST antialias: false factor: 1.0 } }
layer { name: "concat" type: "Concat" bottom: "large" bottom: "near" bottom: "error" top: "concat" }
layer { name: "fuse" type: "Convolution" bottom: "concat" top: "fused"
  convolution_param { num_output: 2 kernel_size: 3 pad: 1 weight_filler { type: "msra" } } }
layer { name: "resize" type: "Resample" bottom: "fused" top: "resized" resample_param { width: 50 height: 30 } }
layer { name: "scale" type: "Convolution" bottom: "resized" top: "final" convolution_param { num_output: 2
  kernel_size: 1 weight_filler { type: "diagonal" diag_val: 0.78125 diag_val: 0.9375 } } }
"""


@pytest.fixture
def net(tmp_path: Path) -> CaffeNet:
    path = tmp_path / "deploy.prototxt"
    inputs = "".join(f'input: "img{i}" input_shape {{ dim: 1 dim: 3 dim: 30 dim: 50 }}\n' for i in range(2))
    halves = "".join(HALF % {"i": i, "augmentation": AUGMENTATION} for i in range(2))
    path.write_text(inputs + halves + REST, "utf-8")
    torch.manual_seed(0)
    return caffe2torch.load(path)


def images() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(1, 3, 30, 50, generator=generator) * 255 for _ in range(2)]


def test_it_gives_a_flow_of_the_size_of_the_images(net: CaffeNet) -> None:
    with torch.no_grad():
        final = net(*images())["final"]
    assert final.shape == (1, 2, 30, 50)
    assert final.isfinite().all()
    assert final.std() > 0


def test_it_compiles_to_one_graph(net: CaffeNet) -> None:
    torch.compiler.reset()
    with torch.no_grad():
        expected = net(*images())["final"]
        found = torch.compile(net, fullgraph=True, backend="eager")(*images())["final"]
    torch.testing.assert_close(found, expected)


def test_with_trained_means_it_is_written_as_plain_source(net: CaffeNet, tmp_path: Path) -> None:
    for _, layer in net.built():
        if layer.caffe_type == "DataAugmentation":
            layer.get_buffer("count").fill_(1000)
            layer.get_buffer("channel_mean").fill_(0.4)
    (*_, written) = convert(net, tmp_path / "out", settings=Settings(("source",))).files
    assert written.check is not None
    assert written.check.equal, written.check.text()
