"""MAP and precision at k as in the papers: `python tools/evaluate_cifar10.py`, the same as `caffe2torch evaluate`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from caffe2torch.cli import program

if __name__ == "__main__":
    raise SystemExit(program(["evaluate", *sys.argv[1:]]))
