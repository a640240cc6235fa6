"""Layers that torch's exporters say wrongly or not at all when left alone, as programs and as ONNX."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from caffe2torch.errors import OutputError
from caffe2torch.export import convert, forms, onnx
from caffe2torch.export.checking import compare, reference_outputs
from caffe2torch.export.convert import Settings
from caffe2torch.export.source import write_source
from layers.table import USES, Use

from .running import layer_net, text_net

INTRICATE = {"Pooling", "SPP", "ArgMax", "Upsample", "ShuffleChannel", "PriorBox", "LSTM", "RNN", "Lstm", "Unpooling"}
INTRICATE |= {"Correlation", "Correlation1D", "FlowWarp", "Resample", "Accum", "Mean"}
IN_ONNX = [u for u in USES if u.type in INTRICATE and not u.training and "STOCHASTIC" not in u.text]
IN_ONNX = [u for u in IN_ONNX if "correlation_type: SUBTRACT" not in u.text]
AS_PROGRAM = [u for u in IN_ONNX if u.type in ("LSTM", "RNN", "Lstm")]
AS_PROGRAM += [
    u for u in USES if u.type in ("Parameter", "DummyData", "ContinuationIndicator") and "uniform" not in u.text
]


@pytest.mark.parametrize("use", IN_ONNX, ids=str)
def test_an_intricate_layer_in_onnx_gives_what_the_layer_gives(use: Use, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    net, inputs = layer_net(use.text, list(use.shapes)), use.bottoms()
    source = write_source(net)
    onnx.write_onnx(tmp_path / "l.onnx", source, source.state, half=False, pictures=False)
    given = dict(zip(source.arguments, inputs, strict=True))
    check = onnx.check(tmp_path / "l.onnx", reference_outputs(net, inputs), given)
    assert not isinstance(check, str)
    assert check.relative <= 1e-5, check.text()


@pytest.mark.parametrize("use", AS_PROGRAM, ids=str)
def test_time_and_nets_without_inputs_are_captured(use: Use, tmp_path: Path) -> None:
    net, inputs = layer_net(use.text, list(use.shapes)), use.bottoms()
    source = write_source(net)
    if torch.__version__.startswith("2.4.") and not (source.inputs or source.state):
        with pytest.raises(OutputError, match="neither inputs nor weights: use a later torch"):
            forms.write_pt2(tmp_path / "l.pt2", source, source.state, half=False, pictures=False)
        pytest.skip("torch.export.save of torch 2.4 cannot write a net that has neither inputs nor weights")
    forms.write_pt2(tmp_path / "l.pt2", source, source.state, half=False, pictures=False)
    found = list(torch.export.load(tmp_path / "l.pt2").module()(*inputs))
    assert compare(reference_outputs(net, inputs), found).relative <= 1e-5


def test_of_equal_values_onnx_takes_the_last_as_caffe_does(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    source = write_source(layer_net('type: "ArgMax" argmax_param { axis: 1 }', [(2, 9, 1, 1)]))
    onnx.write_onnx(tmp_path / "l.onnx", source, source.state, half=False, pictures=False)
    x = torch.tensor([[1.0, 5, 2, 5, 5, 0, 1, 1, 1], [0.0] * 9]).reshape(2, 9, 1, 1)
    (found,) = onnxruntime.InferenceSession(str(tmp_path / "l.onnx")).run(None, {"b0": x.numpy()})
    assert found.reshape(-1).tolist() == [4.0, 8.0]


def test_what_an_exporter_cannot_say_is_refused_with_its_reason(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    setting = "pooling_param { pool: STOCHASTIC kernel_size: 3 stride: 2 }"
    net = layer_net(f'type: "Pooling" {setting}', [(1, 2, 8, 8)])
    with pytest.raises(OutputError, match=r"torch.onnx cannot express the net: .*Unfold"):
        convert(net, tmp_path / "out", settings=Settings(("onnx",)))
    assert not (tmp_path / "out" / "model.onnx").exists()


def test_a_check_feeds_the_inputs_that_are_left_in_the_file(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    text = "".join(
        f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ dim: 2 dim: 3 }} }} }}\n'
        for name in "ab"
    )
    text += 'layer { name: "r" type: "ReLU" bottom: "b" top: "r" } layer { name: "s" type: "Silence" bottom: "a" }'
    net = text_net(tmp_path, text)
    (file,) = convert(net, tmp_path / "out", settings=Settings(("onnx",))).files
    assert file.check is not None
    assert file.check.equal


def test_half_precision_stays_half_in_onnx_behind_a_scale(tmp_path: Path) -> None:
    onnx_package = pytest.importorskip("onnx")
    text = 'layer { name: "a" type: "Input" top: "a" input_param { shape { dim: 2 dim: 3 dim: 5 dim: 5 } } }\n'
    text += 'layer { name: "s" type: "Scale" bottom: "a" top: "s" scale_param { bias_term: true } }\n'
    text += 'layer { name: "c" type: "Convolution" bottom: "s" top: "c" '
    text += "convolution_param { num_output: 4 kernel_size: 3 } }"
    source = write_source(text_net(tmp_path, text))
    onnx.write_onnx(tmp_path / "l.onnx", source, forms.halved(source.state), half=True, pictures=False)
    kernels = [t for t in onnx_package.load(tmp_path / "l.onnx").graph.initializer if len(t.dims) == 4]
    assert [t.data_type for t in kernels] == [onnx_package.TensorProto.FLOAT16]
