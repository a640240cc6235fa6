"""Fetch a model's weights: `python tools/download_weights.py NAME` (or `--all`), the same as `caffe2torch download`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from caffe2torch.cli import program

if __name__ == "__main__":
    raise SystemExit(program(["download", *sys.argv[1:]]))
