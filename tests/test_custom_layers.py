"""docs/custom-layers.md works as it stands; so do --proto, --import and protos=."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import caffe2torch
from caffe2torch import cli
from caffe2torch.errors import LayerError, PrototxtError, UsageError
from caffe2torch.extract.model import Model
from caffe2torch.layers import registry
from caffe2torch.layers.imports import import_layers, modules_from
from caffe2torch.preprocess import Spec
from caffe2torch.schema import Schema
from conftest import ROOT

TEXT = (ROOT / "docs" / "custom-layers.md").read_text("utf-8")
NAMED = re.compile(r"\*\*`([\w.]+)`\*\*\n\n```\w*\n(.*?)```", re.DOTALL)
FILES = dict(NAMED.findall(TEXT))
REST = NAMED.sub("", TEXT)
EXAMPLES = re.findall(r"```python\n(.*?)```", REST, re.DOTALL)
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", REST, re.DOTALL) for line in block.splitlines()]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The files of the page, in the current folder; the registry and the modules are as before afterwards."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_registry", dict(registry._registry))
    before = set(sys.modules)
    yield tmp_path
    for name in ("gate", "times", "layers_of_net"):
        if name not in before:
            sys.modules.pop(name, None)


def test_the_page_has_its_examples() -> None:
    assert set(FILES) == {"gate.proto", "gate.py", "net.prototxt", "python.prototxt", "times.py"}
    assert len(EXAMPLES) == len(COMMANDS) == 2


@pytest.mark.parametrize("example", EXAMPLES, ids=["registered", "python"])
def test_example_of_the_page_runs(folder: Path, example: str) -> None:
    done = subprocess.run([sys.executable, "-c", example], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.usefixtures("folder")
def test_command_of_the_page_runs(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    program, *arguments = command.split()
    assert program == "caffe2torch"
    assert cli.main(arguments) == 0
    assert "gate" in (capsys.readouterr().out + Path("net.dot").read_text("utf-8") if "draw" in command else "gate")


@pytest.mark.usefixtures("folder")
def test_without_the_proto_its_field_is_refused() -> None:
    import_layers("gate.py")
    with pytest.raises(PrototxtError, match="gate_param"):
        caffe2torch.load("net.prototxt")


def test_without_the_import_the_type_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", "net.prototxt", "--proto", "gate.proto"]) == 1
    assert "'ChannelGate' of layer 'gate'" in capsys.readouterr().err


@pytest.mark.usefixtures("folder")
def test_weights_of_a_custom_layer_come_from_a_caffemodel() -> None:
    import_layers("gate.py")
    net = caffe2torch.read_net("net.prototxt", schema=Schema(["gate.proto"]))
    weight, bias = torch.tensor([1.0, 2.0]), torch.tensor([0.5, -0.5])
    caffe2torch.write_caffemodel("net.caffemodel", net, {"gate": [weight.numpy(), bias.numpy()]})
    loaded = caffe2torch.load("net.prototxt", "net.caffemodel", protos=["gate.proto"])
    assert [blob.tolist() for _, blob in loaded.layer("gate").blob_items()] == [weight.tolist(), bias.tolist()]


@pytest.mark.parametrize("against", ["blobs.npz", "opencv"])
@pytest.mark.usefixtures("folder")
def test_verify_takes_custom_layers(against: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = (
        FILES["net.prototxt"]
        + 'layer { name: "half" type: "Power" bottom: "data" top: "y" power_param { scale: 0.5 } }'
    )
    Path("net.prototxt").write_text(text, "utf-8")
    net = caffe2torch.read_net("net.prototxt", schema=Schema(["gate.proto"]))
    caffe2torch.write_caffemodel("net.caffemodel", net, {"gate": [np.ones(2, np.float32), np.zeros(2, np.float32)]})
    x = np.ones((1, 2, 4, 4), np.float32)
    np.savez("blobs.npz", **{"in:data": x, "out:y": x / 2, "out:out": x / (1 + np.exp(-x / 2))})
    command = ["verify", "net.prototxt", "net.caffemodel", "--against", against]
    assert cli.main([*command, "--proto", "gate.proto", "--import", "gate.py"]) == 0
    assert "0 differ" in capsys.readouterr().out


@pytest.mark.usefixtures("folder")
def test_import_of_a_file_happens_once() -> None:
    assert import_layers("gate.py") is import_layers("./gate.py")


@pytest.mark.usefixtures("folder")
def test_import_of_a_module_by_name() -> None:
    with modules_from(Path()):
        assert import_layers("gate").__name__ == "gate"


@pytest.mark.parametrize(
    "source, text, problem",
    [
        ("missing.py", None, "there is no such file"),
        ("no_such_module", None, "No module named 'no_such_module'"),
        ("broken.py", "x = (", "broken.py:1"),
        ("needs.py", "import no_such_module", "No module named 'no_such_module'"),
        ("json.py", "", "a module 'json' is already imported"),
    ],
)
def test_import_refuses(folder: Path, source: str, text: str | None, problem: str) -> None:
    if text is not None:
        (folder / source).write_text(text, "utf-8")
    with pytest.raises(UsageError, match=problem):
        import_layers(source)


def net_with_python(folder: Path, factor: int) -> Path:
    folder.mkdir()
    code = (
        f"from torch import nn\n\n\nclass Times(nn.Module):\n    def forward(self, x):\n        return {factor} * x\n"
    )
    (folder / "layers_of_net.py").write_text(code, "utf-8")
    text = FILES["python.prototxt"].replace('"times"', '"layers_of_net"').replace(' param_str: "2.5"', "")
    (folder / "net.prototxt").write_text(text.replace('name: "layers_of_net" type', 'name: "times" type'), "utf-8")
    return folder / "net.prototxt"


def test_python_layer_is_found_beside_the_prototxt(folder: Path) -> None:
    path = list(sys.path)
    net = caffe2torch.load(net_with_python(folder / "one", 3))
    assert net(torch.ones(2, 3))["out"].unique().tolist() == [3.0]
    assert sys.path == path


def test_second_module_of_the_same_name_is_refused(folder: Path) -> None:
    caffe2torch.load(net_with_python(folder / "one", 3))
    with pytest.raises(LayerError, match=r"two.*is already imported under that name"):
        caffe2torch.load(net_with_python(folder / "two", 4))


def test_extract_names_custom_files_in_its_provenance(folder: Path) -> None:
    (folder / "net.caffemodel").write_bytes(b"x")
    spec = Spec.from_dict({"dialect": "transformer", "crop": 4})
    plain = Model.from_files("net.prototxt", "net.caffemodel", spec)
    assert "custom_sha256" not in plain.identity()
    custom = Model(**{**plain.__dict__, "protos": (Path("gate.proto"),), "imports": ("gate.py",)})
    assert len(custom.identity()["custom_sha256"]) == 2
