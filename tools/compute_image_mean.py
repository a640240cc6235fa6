"""The mean of a database: `python tools/compute_image_mean.py DB mean.binaryproto`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from caffe2torch.cli import program

if __name__ == "__main__":
    raise SystemExit(program(["compute_image_mean", *sys.argv[1:]]))
