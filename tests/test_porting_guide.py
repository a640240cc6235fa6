"""docs/porting.md works as it stands: its blocks run in order, as a reader would run them."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from conftest import ROOT

TEXT = (ROOT / "docs" / "porting.md").read_text("utf-8")
BLOCK = re.compile(r"```(python|sh)\n(.*?)```", re.DOTALL)

RUNNER = """
import sys
from caffe2torch import cli

{steps}
"""


def script() -> str:
    """The page as one program, so that torch is imported once; a failed block names its line of the page."""
    lines = []
    for match in BLOCK.finditer(TEXT):
        kind, code = match.groups()
        at = TEXT.count("\n", 0, match.start()) + 2
        if kind == "python":
            padded = "\n" * (at - 1) + code
            lines.append(f"exec(compile({padded!r}, 'porting.md', 'exec'), globals())")
            continue
        for command in code.splitlines():
            words = shlex.split(command)
            if "opencv" in words and not hasattr(cv2.dnn, "readNetFromCaffe"):
                continue  # OpenCV 5 reads no Caffe files
            lines.append(f"assert cli.main({words[1:]!r}) == 0, {command!r}")
    return RUNNER.format(steps="\n".join(lines))


def test_the_blocks_run_in_order(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    (tmp_path / "docs").mkdir()
    for folder in ("prototxt", "weights", "docs/samples"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    done = subprocess.run([sys.executable, "-c", script()], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    for file in ("codes.h5", "six_iter_10.caffemodel", "tuned/model.py", "small.caffemodel", "back.caffemodel"):
        assert (tmp_path / file).is_file()
    shown = TEXT.split("says whether the weights fit:\n\n```\n")[1].split("```")[0]
    assert all(line in done.stdout for line in shown.splitlines())


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([\w./-]+)\)", TEXT))))
def test_the_page_points_at_files_that_exist(path: str) -> None:
    assert (ROOT / "docs" / path).exists()


def test_every_command_of_the_page_is_one_of_ours() -> None:
    blocks = [code for kind, code in BLOCK.findall(TEXT) if kind == "sh"]
    assert all(line.startswith("caffe2torch ") for code in blocks for line in code.splitlines())
