"""Names of a net are a stranger's: whatever they hold, what is written is a program of ours in the folder of ours."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
import torch

from caffe2torch.export import Settings, convert, names
from caffe2torch.export.embed import HELPERS
from caffe2torch.export.source import namespace, write_source

from .running import run_written, text_net

HOSTILE = [
    '"); __import__("os").system("touch owned"); ("',
    "'''); raise SystemExit; ('''",
    '"""\nimport os; os.system("touch owned")\n"""',
    "x\nself.y = open('owned', 'w')",
    "# a comment\rprint('owned')",
    "end of docstring\\",
    "{__import__('os').getcwd()}",
    "../../../owned",
    "/tmp/owned",
    "C:\\owned",
    "con",
    "class",
    "self",
    "torch",
    "F",
    "Tensor",
    "forward",
    "training",
    "_parameters",
    "report",
    "state_dict",
    "preprocess",
    "print",
    "__import__",
    "größe\u2028x",
    "\U0001f600",
    "a/b",
    "a-b",
    "a_b",
    "a b",
    "1x1",
    "",
    " ",
    "match",
    "x" * 500,
    "\x0cimport os",
    "\N{FULLWIDTH LATIN SMALL LETTER S}elf",
    "%s {0} \\N{DIGIT ONE} \\x41",
]


def hostile_text(name: str = "net") -> str:
    """A chain of convolutions in which every layer and blob has one of the names, and two outputs."""
    lines = [f"name: {json.dumps(name, ensure_ascii=False)}"]
    first = quoted(HOSTILE[-1] + "!")
    shape = "input_param { shape { dim: 1 dim: 2 dim: 3 dim: 3 } }"
    lines.append(f'layer {{ name: {first} type: "Input" top: {first} {shape} }}')
    bottom = first
    for index, name in enumerate(HOSTILE):
        top = quoted(name + f"{index}" if not name.strip() else name)
        lines.append(
            f'layer {{ name: {quoted(name)} type: "Convolution" bottom: {bottom} top: {top} '
            f"convolution_param {{ num_output: 2 kernel_size: 1 }} }}"
        )
        lines.append(f'layer {{ name: {quoted(name)} type: "ReLU" bottom: {top} top: {top} }}')
        bottom = top
    middle = quoted(HOSTILE[2])
    lines.append(f'layer {{ name: "out" type: "Sigmoid" bottom: {middle} top: {quoted(chr(10) + "out")} }}')
    return "\n".join(lines)


def quoted(name: str) -> str:
    """A string of a prototxt, in octal escapes where need be."""
    return '"' + "".join(c if c.isalnum() and c.isascii() else octal(c) for c in name) + '"'


def octal(character: str) -> str:
    return "".join(f"\\{byte:03o}" for byte in character.encode())


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_net_name_is_a_class_name_and_a_word_of_the_docstring(name: str, tmp_path: Path) -> None:
    text = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 2 } } }\n'
    text += 'layer { name: "r" type: "ReLU" bottom: "data" top: "r" }\n'
    source, check = run_written(text_net(tmp_path, f"name: {quoted(name)}\n{text}"))
    assert check.equal
    assert source.class_name.isidentifier()
    assert source.class_name.isascii()
    check_program(source.text)


def test_hostile_layer_and_blob_names_are_identifiers_or_strings(tmp_path: Path) -> None:
    source, check = run_written(text_net(tmp_path, hostile_text()))
    assert check.equal
    assert len(source.outputs) == 2
    assert len(source.state) == 2 * len(HOSTILE)  # no name took another's place
    check_program(source.text)


@pytest.mark.parametrize("name", ["a,b", "c(", "d)]}", "e'\"[", 'f",\n', "g, {0}: [", "h\\", "#,"])
@pytest.mark.parametrize("length", [1, 70], ids=["short", "long"])
def test_names_of_outputs_are_kept_to_the_letter(name: str, length: int, tmp_path: Path) -> None:
    """Also where the line that returns them is broken: brackets and commas in strings are not code."""
    names = (name, "z" * length, f"{name},{name}")
    text = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 2 } } }\n'
    text += "".join(
        f'layer {{ name: "r{i}" type: "ReLU" bottom: "data" top: {quoted(n)} }}\n' for i, n in enumerate(names)
    )
    net = text_net(tmp_path, text)
    source, check = run_written(net)
    assert check.equal
    check_program(source.text)
    assert tuple(namespace(source)()(torch.zeros(1, 2))) == names


def check_program(text: str) -> None:
    """The text holds one class of plain statements, and calls nothing but torch, itself and helpers."""
    assert text.isascii()
    tree = ast.parse(text)
    allowed = {ast.Expr, ast.ImportFrom, ast.Import, ast.ClassDef, ast.FunctionDef}
    assert {type(node) for node in tree.body} <= allowed
    assert [node for node in tree.body if isinstance(node, ast.Expr)] == tree.body[:1]  # the docstring
    (made,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name not in HELPERS]
    for node in ast.walk(made):
        assert not isinstance(node, (ast.Import, ast.ImportFrom, ast.Lambda, ast.Global, ast.JoinedStr, ast.Raise))
        if isinstance(node, ast.Call):
            root = node.func
            while isinstance(root, (ast.Attribute, ast.Call)):
                root = root.value if isinstance(root, ast.Attribute) else root.func
            assert isinstance(root, ast.Name)
            local = {arg.arg for f in made.body if isinstance(f, ast.FunctionDef) for arg in f.args.args}
            assert root.id in {"torch", "nn", "F", "self", "super", *HELPERS, *local}, root.id


def test_a_hostile_net_writes_only_its_own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    net = text_net(tmp_path, hostile_text(HOSTILE[2]))
    before = {path.relative_to(tmp_path) for path in tmp_path.rglob("*")}
    result = convert(net, tmp_path / "out", settings=Settings(("source", "safetensors", "pt", "onnx")))
    written = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")} - {p.as_posix() for p in before}
    names = {"README.md", "model.py", "model.safetensors", "model.pt", "model.onnx"}
    assert written == {"out", *(f"out/{name}" for name in names)}
    assert all(file.check is not None and file.check.relative < 1e-5 for file in result.files)
    assert (tmp_path / "out" / "README.md").read_text("utf-8").count("```") == 4


def test_outputs_have_the_blobs_own_names(tmp_path: Path) -> None:
    net = text_net(tmp_path, hostile_text())
    source = write_source(net)
    from caffe2torch.export.forms import module

    with torch.no_grad():
        found = module(source, source.state)(torch.zeros(1, 2, 3, 3))
    assert tuple(found) == net.outputs


def test_a_number_is_the_shortest_text_of_its_float32() -> None:
    assert names.number(0.10000000149011612) == "0.1"
    assert names.number(2.0) == "2"
    assert names.number(9.999999747378752e-06) == "1e-05"
    assert float(names.number(1 / 62)) == pytest.approx(1 / 62, rel=1e-7)
    assert eval(names.number(float("-inf"))) == float("-inf")
