"""The papers' CIFAR-10: `python tools/make_cifar10.py OUT --download`, the same as `caffe2torch cifar10`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from caffe2torch.cli import program

if __name__ == "__main__":
    raise SystemExit(program(["cifar10", *sys.argv[1:]]))
