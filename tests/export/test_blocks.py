"""Groups that a net repeats are one class in its source; what it computes stays the same to the bit."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch
from torch import nn

from caffe2torch.export import Settings, convert
from caffe2torch.export.forms import halved, module
from caffe2torch.export.source import Source

from .running import run_written, text_net

DATA = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 9 dim: 9 } } }\n'


def conv(name: str, bottom: str, count: int, kernel: int = 1, more: str = "", setting: str = "") -> str:
    """A convolution and the ReLU on it."""
    pad = kernel // 2
    return (
        f'layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}" {more} '
        f"convolution_param {{ num_output: {count} kernel_size: {kernel} pad: {pad} {setting} }} }}\n"
        f'layer {{ name: "{name}_relu" type: "ReLU" bottom: "{name}" top: "{name}" }}\n'
    )


def fire(name: str, bottom: str, small: int, large: int, **settings: str) -> str:
    """SqueezeNet's block: a squeeze, two expansions, and their concatenation."""
    return (
        conv(f"{name}/squeeze", bottom, small, **settings)
        + conv(f"{name}/1x1", f"{name}/squeeze", large)
        + conv(f"{name}/3x3", f"{name}/squeeze", large, kernel=3)
        + f'layer {{ name: "{name}/concat" type: "Concat" bottom: "{name}/1x1" bottom: "{name}/3x3" '
        f'top: "{name}/concat" }}\n'
    )


def classes(source: Source) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in ast.parse(source.text).body if isinstance(node, ast.ClassDef)}


def written(text: str, folder: Path) -> Source:
    """The source of a net, which gives what the net gives."""
    source, check = run_written(text_net(folder, text))
    assert check.equal
    return source


def test_groups_that_differ_in_numbers_are_one_class(tmp_path: Path) -> None:
    source = written(DATA + fire("fire2", "data", 2, 4) + fire("fire3", "fire2/concat", 3, 5), tmp_path)
    assert list(classes(source)) == ["Fire", "Net"]
    assert "self.fire2 = Fire(3, 2, 4)\n" in source.text
    assert "self.fire3 = Fire(8, 3, 5)\n" in source.text
    assert "fire3_concat = self.fire3(fire2_concat)" in source.text
    made = module(source, source.state)
    assert set(source.state) == {
        f"fire{n}.{c}.{b}" for n in (2, 3) for c in ("squeeze", "conv_1x1", "conv_3x3") for b in ("weight", "bias")
    }
    assert isinstance(made.fire2.conv_3x3, nn.Conv2d)  # type: ignore[union-attr]


def test_a_group_that_stands_alone_or_is_short_stays_among_the_lines(tmp_path: Path) -> None:
    text = DATA + fire("fire2", "data", 2, 4) + conv("a/x", "fire2/concat", 3) + conv("b/x", "a/x", 3)
    assert list(classes(written(text, tmp_path))) == ["Net"]


@pytest.mark.parametrize("setting", ["bias_term: false", "dilation: 2"])
def test_other_settings_are_another_class_unless_they_are_numbers(setting: str, tmp_path: Path) -> None:
    text = DATA + fire("a1", "data", 2, 4) + fire("a2", "a1/concat", 2, 4) + fire("a3", "a2/concat", 2, 4)
    text += fire("b1", "a3/concat", 2, 4, setting=setting) + fire("b2", "b1/concat", 2, 4, setting=setting)
    assert list(classes(written(text, tmp_path))) == ["A", "B", "Net"]


def test_the_stride_may_be_1_in_some_of_the_groups(tmp_path: Path) -> None:
    text = DATA + fire("a1", "data", 2, 4) + fire("a2", "a1/concat", 2, 4, setting="stride: 2")
    source = written(text, tmp_path)
    assert "self.squeeze = nn.Conv2d(inputs, 2, 1, stride=squeeze_stride)" in source.text
    assert "self.a1 = A(3, 1)" in source.text
    assert "self.a2 = A(8, 2)" in source.text


def residual(tag: str, bottom: str, *, branch: bool, stride: int = 1) -> str:
    """A block of a ResNet with the names of the published ones; ``branch``: with a convolution on the short way."""
    text, ends = "", []
    for way, count in ((("branch1", 1),) if branch else ()) + (("branch2", 2),):
        top = bottom
        for letter in "ab"[:count]:
            name, own = (
                f"{way}{letter * (count > 1)}",
                f"stride: {stride}" if letter == "a" else "pad: 1 kernel_size: 3",
            )
            kernel = "kernel_size: 1" if letter == "a" else ""
            text += (
                f'layer {{ name: "res{tag}_{name}" type: "Convolution" bottom: "{top}" top: "res{tag}_{name}" '
                f"convolution_param {{ num_output: 3 {kernel} {own} bias_term: false }} }}\n"
            )
            top = f"res{tag}_{name}"
            for kind, layer in (("BatchNorm", "bn"), ("Scale", "scale"), ("ReLU", "res")):
                last = f"{name}_relu" if kind == "ReLU" else name
                text += f'layer {{ name: "{layer}{tag}_{last}" type: "{kind}" bottom: "{top}" top: "{top}" }}\n'
        ends.append(top)
    short = ends[0] if branch else bottom
    text += f'layer {{ name: "res{tag}" type: "Eltwise" bottom: "{short}" bottom: "{ends[-1]}" top: "res{tag}" }}\n'
    return text + f'layer {{ name: "res{tag}_relu" type: "ReLU" bottom: "res{tag}" top: "res{tag}" }}\n'


def test_the_blocks_of_a_resnet_are_told_by_their_usual_names(tmp_path: Path) -> None:
    text = DATA + residual("2a", "data", branch=True) + residual("2b", "res2a", branch=False)
    text += residual("3a", "res2b", branch=True, stride=2) + residual("3b10", "res3a", branch=False)
    source = written(text, tmp_path)
    assert list(classes(source)) == ["Scale", "Residual", "Residual2", "Net"]
    assert "self.bn_branch2a = nn.BatchNorm2d(3, momentum=0.001, affine=False)" in source.text
    assert "return F.relu(branch1 + branch2b)" in source.text
    assert "return F.relu(x + branch2b)" in source.text
    assert "res3a = self.res3a(res2b)" in source.text
    assert {"res2a.branch1.weight", "res3b10.scale_branch2b.weight"} <= set(source.state)


def test_a_setting_that_is_a_number_becomes_an_argument(tmp_path: Path) -> None:
    text = DATA + fire("a1", "data", 2, 4, setting="stride: 2") + fire("a2", "a1/concat", 2, 4, setting="stride: 3")
    source = written(text, tmp_path)
    assert "self.squeeze = nn.Conv2d(inputs, 2, 1, stride=squeeze_stride)" in source.text
    assert "self.a2 = A(8, 3)" in source.text


def test_a_group_whose_inside_is_read_elsewhere_or_shared_stays_open(tmp_path: Path) -> None:
    groups = DATA + fire("f1", "data", 3, 4) + fire("f2", "f1/concat", 3, 4)
    reads = groups + conv("side", "f1/squeeze", 2)
    assert list(classes(written(reads, tmp_path))) == ["Net"]
    shared = DATA.replace("dim: 3", "dim: 8") + fire("f1", "data", 3, 4, more='param { name: "w" }')
    shared += fire("f2", "f1/concat", 3, 4, more='param { name: "w" }')
    source = written(shared, tmp_path)
    assert list(classes(source)) == ["Net"]
    assert "# one parameter" in source.text


def test_the_result_of_a_group_may_be_changed_in_place_after_it(tmp_path: Path) -> None:
    text = DATA + fire("f1", "data", 3, 4) + fire("f2", "f1/concat", 3, 4)
    text += 'layer { name: "last" type: "Sigmoid" bottom: "f2/concat" top: "f2/concat" }'
    source = written(text, tmp_path)
    assert list(classes(source)) == ["F2", "Net"]
    assert "f2_concat = torch.sigmoid(f2_concat)" in source.text


def test_a_group_may_change_its_input_in_place(tmp_path: Path) -> None:
    lines = (
        'layer {{ name: "{0}/relu" type: "ReLU" bottom: "{1}" top: "{1}" }}\n'
        'layer {{ name: "{0}/bn" type: "BatchNorm" bottom: "{1}" top: "{0}/bn" }}\n'
        'layer {{ name: "{0}/sum" type: "Eltwise" bottom: "{0}/bn" bottom: "{1}" top: "{0}/sum" }}\n'
    )
    text = DATA + lines.format("r1", "data") + lines.format("r2", "r1/sum")
    assert list(classes(written(text, tmp_path))) == ["R", "Net"]
    text += 'layer { name: "late" type: "Eltwise" bottom: "data" bottom: "r2/sum" top: "late" }'  # reads ReLU(data)
    written(text, tmp_path)


def test_hostile_group_names_make_classes_of_ours(tmp_path: Path) -> None:
    names = ["self/1", "self/2", "torch", "F", "__import__('os')", "class", "Net", "1", "2", "x" * 90, "x" * 91]
    text, bottom = 'name: "Net"\n' + DATA, "data"
    for name in names:
        text += fire(name, bottom, 2, 3)
        bottom = f"{name}/concat"
    source = written(text, tmp_path)
    assert all(name.isidentifier() for name in classes(source))
    assert len(source.state) == 6 * len(names)


def test_statistics_in_blocks_stay_float32_in_half_precision(tmp_path: Path) -> None:
    lines = conv("{0}/a", "{1}", 3).replace("{ ", "{{ ").replace(" }", " }}")
    lines += 'layer {{ name: "{0}/bn" type: "BatchNorm" bottom: "{0}/a" top: "{0}/a" }}\n'
    lines += conv("{0}/b", "{0}/a", 3).replace("{ ", "{{ ").replace(" }", " }}")
    lines += 'layer {{ name: "{0}/sum" type: "Eltwise" bottom: "{0}/a" bottom: "{0}/b" top: "{0}/sum" }}\n'
    net = text_net(tmp_path, DATA + lines.format("r1", "data") + lines.format("r2", "r1/sum"))
    with torch.no_grad():
        for name in ("r1/bn", "r2/bn"):
            net.layer(name).variance.fill_(1e6)  # type: ignore[operator, union-attr]
    (file,) = convert(net, tmp_path / "out", settings=Settings(("pt2",), half=True)).files
    assert file.check is not None
    assert file.check.relative < 1e-2
    source, _ = run_written(net)
    made = module(source, halved(source.state), half=True)
    assert made.get_submodule("r1.bn").inner.running_var.dtype == torch.float32  # type: ignore[union-attr]
