"""The command line itself: what it writes where the terminal cannot show a name."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest

from caffe2torch.cli import main

NET = """name: "größe 日本" layer { name: "d" type: "Input" top: "d" input_param { shape { dim: 1 } } }"""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_names_the_terminal_lacks_are_escaped(
    encoding: str, errors: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = tmp_path / "net.prototxt"
    net.write_text(NET, "utf-8")
    written = {name: io.BytesIO() for name in ("stdout", "stderr")}
    for name, raw in written.items():
        monkeypatch.setattr(sys, name, io.TextIOWrapper(raw, encoding=encoding, errors=errors))
    assert main(["info", str(net)]) == 0
    assert main(["info", str(tmp_path / ("日本" + os.fsdecode(b"\xff")))]) == 1
    sys.stderr.flush()
    assert "größe 日本".encode(encoding, "backslashreplace") in written["stdout"].getvalue()
    assert "日本".encode(encoding, "backslashreplace") in written["stderr"].getvalue()
    assert rb"\udcff" in written["stderr"].getvalue()
