"""``caffe2torch convert``: the files of every form, their checks, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from caffe2torch import zoo
from caffe2torch.caffemodel import write_caffemodel
from caffe2torch.cli import main
from caffe2torch.errors import MissingPackageError, OutputError, UnsupportedLayerError, UsageError
from caffe2torch.export import Settings, convert, table, write_source
from caffe2torch.export.checking import compare
from caffe2torch.export.forms import module
from caffe2torch.export.models import from_zoo
from caffe2torch.net import CaffeNet
from caffe2torch.prototxt import read_net

from .running import text_net

SMALL = """name: "small"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 4 dim: 3 dim: 9 dim: 9 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 6 kernel_size: 3
  weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "norm" type: "LRN" bottom: "conv" top: "norm" lrn_param { local_size: 3 alpha: 0.1 } }
layer { name: "bn" type: "BatchNorm" bottom: "norm" top: "norm" }
layer { name: "scale" type: "Scale" bottom: "norm" top: "norm" scale_param { bias_term: true } }
layer { name: "pool" type: "Pooling" bottom: "norm" top: "pool" pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "fc" type: "InnerProduct" bottom: "pool" top: "fc" inner_product_param { num_output: 5
  weight_filler { type: "xavier" } } }
layer { name: "drop" type: "Dropout" bottom: "fc" top: "fc" }
layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }
"""


@pytest.fixture
def net(tmp_path: Path) -> CaffeNet:
    return text_net(tmp_path, SMALL)


def test_source_and_safetensors_run_without_caffe2torch_and_are_bit_equal(net: CaffeNet, tmp_path: Path) -> None:
    result = convert(net, tmp_path / "out")
    assert [file.path.name for file in result.files] == ["model.py", "model.safetensors"]
    assert all(file.check is not None and file.check.equal for file in result.files)
    assert "import caffe2torch" not in (tmp_path / "out" / "model.py").read_text("utf-8")


def test_the_readmes_lines_use_the_model(net: CaffeNet, tmp_path: Path) -> None:
    convert(net, tmp_path / "out", settings=Settings(check=False))
    text = (tmp_path / "out" / "README.md").read_text("utf-8")
    lines = text.split("```python\n")[1].split("```")[0]
    assert len(lines.splitlines()) == 3
    program = f"import torch\ndata = torch.zeros(2, 3, 9, 9)\n{lines}\nprint(tuple(output.shape))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path / "out", capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "(2, 5)"


@pytest.mark.parametrize("form, tolerance", [("pt", 0.0), ("pt2", 0.0), ("onnx", 1e-5)])
def test_the_other_forms_take_any_batch(net: CaffeNet, tmp_path: Path, form: str, tolerance: float) -> None:
    with torch.no_grad():
        net.layer("fc").weight.sub_(1.0)  # around 0: of logits in the hundreds a softmax would magnify the rounding
    result = convert(net, tmp_path / "out", settings=Settings((form,)))
    (file,) = result.files
    assert file.check is not None
    assert file.check.relative <= tolerance
    x = torch.randn(1, 3, 9, 9, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        (expected,) = net(x).values()
    if form == "pt2":
        found = torch.export.load(file.path).module()(x)[0]
        assert torch.equal(found, expected)
    if form == "onnx":
        onnxruntime = pytest.importorskip("onnxruntime")
        found = onnxruntime.InferenceSession(str(file.path)).run(["prob"], {"data": x.numpy()})[0]
        assert compare([expected], [torch.from_numpy(found)]).relative <= tolerance


def test_each_output_is_measured_by_its_own_largest_value() -> None:
    large, small = torch.tensor([1e4, -2e4]), torch.tensor([0.25, 0.5])
    check = compare([large, small], [large, small + 0.125])
    assert (check.equal, check.largest, check.scale, check.relative) == (False, 0.125, 0.5, 0.25)
    assert compare([large, small], [large, small.clone()]).equal


def test_a_state_dict_loads_with_weights_only(net: CaffeNet, tmp_path: Path) -> None:
    convert(net, tmp_path / "out", settings=Settings(("pt",)))
    state = torch.load(tmp_path / "out" / "model.pt", weights_only=True)
    assert torch.equal(state["conv.weight"], net.layer("conv").weight)


def test_safetensors_is_what_its_own_package_reads_and_writes(net: CaffeNet, tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    convert(net, tmp_path / "out", settings=Settings(("safetensors",)))
    state = write_source(net).state
    found = safetensors.load_file(tmp_path / "out" / "model.safetensors")
    assert {name: (v.dtype, v.shape) for name, v in found.items()} == {n: (v.dtype, v.shape) for n, v in state.items()}
    assert all(torch.equal(found[name], value) for name, value in state.items())
    theirs = safetensors.save({n: v.contiguous() for n, v in state.items()}, metadata={"format": "pt"})
    assert len(theirs) == (tmp_path / "out" / "model.safetensors").stat().st_size


@pytest.mark.parametrize("form", ["safetensors", "pt2", "onnx"])
def test_half_precision_halves_the_weights_and_says_how_far_off(net: CaffeNet, tmp_path: Path, form: str) -> None:
    whole = convert(net, tmp_path / "whole", settings=Settings((form,), check=False)).files[0]
    half = convert(net, tmp_path / "half", settings=Settings((form,), half=True)).files[0]
    assert half.size < whole.size or form != "safetensors"  # programs this small are mostly text
    assert half.check is not None
    assert 0 < half.check.relative < 1e-2


def test_half_precision_refuses_what_it_cannot_hold(net: CaffeNet, tmp_path: Path) -> None:
    with torch.no_grad():
        net.layer("conv").weight[0, 0, 0, 0] = 1e6
    with pytest.raises(OutputError, match=r"conv.weight holds 1e\+06, and float16 ends at 65504"):
        convert(net, tmp_path / "out", settings=Settings(half=True))


def test_existing_files_stay_unless_forced(net: CaffeNet, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("mine", "utf-8")
    with pytest.raises(OutputError, match="exists already; give --force"):
        convert(net, tmp_path, settings=Settings(check=False))
    assert (tmp_path / "model.py").read_text("utf-8") == "mine"
    assert not (tmp_path / "model.safetensors").exists()
    convert(net, tmp_path, settings=Settings(check=False, force=True))
    assert "class Small" in (tmp_path / "model.py").read_text("utf-8")


def test_a_layer_without_a_printer_is_refused_by_type_and_name_and_nothing_is_written(tmp_path: Path) -> None:
    text = SMALL + (
        'layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 4 } } }\n'
        'layer { name: "right" type: "Accuracy" bottom: "fc" bottom: "label" top: "right" }'
    )
    net = text_net(tmp_path, text)
    with pytest.raises(UnsupportedLayerError, match=r"'right' \(Accuracy\); choose outputs"):
        convert(net, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert convert(net.select("prob"), tmp_path / "out", settings=Settings(check=False)).files


def test_a_layer_of_another_phase_than_the_net_is_refused(tmp_path: Path) -> None:
    net = text_net(tmp_path, SMALL.replace('type: "Dropout"', 'type: "Dropout" phase: TRAIN'))
    with pytest.raises(UnsupportedLayerError, match=r"layer 'drop' \(Dropout\) has no plain PyTorch form"):
        write_source(net)


def test_layers_that_share_all_parameters_are_one_module(tmp_path: Path) -> None:
    text = """
    layer { name: "a" type: "Input" top: "a" top: "b" input_param { shape { dim: 2 dim: 3 } } }
    layer { name: "one" type: "InnerProduct" bottom: "a" top: "x" param { name: "w" } param { name: "v" }
      inner_product_param { num_output: 3 } }
    layer { name: "two" type: "InnerProduct" bottom: "b" top: "y" param { name: "w" } param { name: "v" }
      inner_product_param { num_output: 3 } }
    layer { name: "three" type: "InnerProduct" bottom: "b" top: "z" param { name: "w" }
      inner_product_param { num_output: 3 bias_term: false } }
    """
    source = write_source(text_net(tmp_path, text))
    assert "y = self.one(b)" in source.text
    assert "self.three.weight = self.one.weight  # one parameter" in source.text
    written = module(source, source.state)
    assert len(list(written.parameters())) == 2


def test_unknown_formats_and_pictures_without_preprocessing_are_usage_errors(net: CaffeNet, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="format keras is not known"):
        convert(net, tmp_path / "out", settings=Settings(("keras",)))
    with pytest.raises(UsageError, match="preprocessing cannot be built in"):
        convert(net, tmp_path / "out", settings=Settings(("pt2",), pictures=True))


def test_the_command_converts_a_prototxt_with_its_weights(
    net: CaffeNet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = {name: [b.detach().numpy() for _, b in layer.blob_items()] for name, layer in net.layers().items()}
    write_caffemodel(tmp_path / "small.caffemodel", read_net(tmp_path / "net.prototxt"), weights)
    files = [str(tmp_path / "net.prototxt"), str(tmp_path / "small.caffemodel")]
    arguments = ["convert", *files, "-o", str(tmp_path / "out"), "--json", "--format", "source", "--blob", "fc", "prob"]
    assert main(arguments) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [file["form"] for file in facts["files"]] == ["source"]
    assert facts["files"][0]["equal"] is True
    text = (tmp_path / "out" / "model.py").read_text("utf-8")
    assert "small.caffemodel, sha256 " in text
    assert 'return {"fc": fc, "prob": prob}' in text
    assert main(arguments) == 1
    assert "model.py, README.md exists already" in capsys.readouterr().err


def test_the_command_converts_every_model_that_is_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "--all", "-o", str(tmp_path), "--no-check"]) == 0
    here = [name for name in zoo.names() if zoo.is_here(zoo.entry(name).weights)]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(here)
    assert "not on this machine: " in capsys.readouterr().err or len(here) == len(zoo.names())


def test_one_model_that_fails_leaves_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zoo, "names", lambda: ("ssdh48_small", "ssdh48_small"))
    assert main(["convert", "--all", "-o", str(tmp_path), "--no-check"]) == 1  # the second finds the first one's files
    said = capsys.readouterr()
    assert "ssdh48_small: written in" in said.out
    assert "error: ssdh48_small: " in said.err
    assert "exists already" in said.err


def test_a_prototxt_alone_needs_weights_or_leave_to_fill_them(
    net: CaffeNet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["convert", str(tmp_path / "net.prototxt"), "-o", str(tmp_path / "out"), "--no-check"]
    assert main(arguments) == 2
    assert "give its WEIGHTS too; or --allow-missing" in capsys.readouterr().err
    assert main([*arguments, "--allow-missing"]) == 0
    assert (tmp_path / "out" / "model.safetensors").exists()


def test_options_that_a_model_of_the_zoo_would_pass_over_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for first in ("ssdh48_small", "--all"):
        assert main(["convert", first, "-o", str(tmp_path), "--preprocess", "crop=3,3", "--allow-unknown"]) == 2
        assert "--preprocess, --allow-unknown: for a prototxt" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_losses_are_refused_with_the_outputs_that_would_be_left(tmp_path: Path) -> None:
    text = SMALL + (
        'layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 4 } } }\n'
        'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }\n'
        'layer { name: "twice" type: "Power" bottom: "loss" top: "twice" power_param { scale: 2 } }'
    )
    with pytest.raises(UnsupportedLayerError, match=r"need none of them \(--blob prob, or net.select\)"):
        write_source(text_net(tmp_path, text))


def test_a_package_that_is_missing_is_told_before_anything_is_written(
    net: CaffeNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingPackageError, match="needs the package onnx"):
        convert(net, tmp_path / "out", settings=Settings(("source", "safetensors", "onnx")))
    assert not (tmp_path / "out").exists()


def test_the_command_wants_a_folder_and_a_net() -> None:
    assert main(["convert", "ssdh48_small"]) == 2
    assert main(["convert", "-o", "x"]) == 2


def test_pictures_go_into_the_exported_programs(tmp_path: Path) -> None:
    model = from_zoo("ssdh48_small")
    settings = Settings(("pt2", "onnx"), pictures=True)
    result = convert(model.load(), tmp_path / "out", settings=settings, preprocessing=model.preprocessing())
    for file in result.files:
        assert file.check is not None
        assert file.check.relative < 1e-5
    images = torch.randint(0, 256, (3, 40, 61, 3), dtype=torch.uint8)
    found = torch.export.load(tmp_path / "out" / "model.pt2").module()(images)[0]
    assert found.shape == (3, 48)


def test_the_table_replaces_what_stands_between_its_marks(
    net: CaffeNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table.zoo, "names", lambda: ())
    monkeypatch.setattr(table, "RUNS", (Settings(("source", "safetensors", "pt")), table.RUNS[1], table.RUNS[2]))
    models = tmp_path / "models"
    models.mkdir()
    (models / "small.prototxt").write_text(SMALL, "utf-8")
    weights = {name: [b.detach().numpy() for _, b in layer.blob_items()] for name, layer in net.layers().items()}
    for name in ("small.caffemodel", "small_b.caffemodel"):
        write_caffemodel(models / name, read_net(models / "small.prototxt"), weights)
    (models / "small_b.prototxt").write_text(SMALL, "utf-8")
    page = tmp_path / "page.md"
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n", "utf-8")
    said: list[str] = []
    table.write_table(page, models, say=said.append)
    text = page.read_text("utf-8")
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    rows = [line for line in text.splitlines() if line.startswith("| small")]
    assert [row.split("|")[1].strip() for row in rows] == ["small", "small_b"]
    assert rows[0].count("equal") == 2
    page.write_text("no marks", "utf-8")
    with pytest.raises(UsageError, match="has no place for the table"):
        table.write_table(page, models, say=said.append)
