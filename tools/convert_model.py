"""A net as plain PyTorch: `python tools/convert_model.py NET WEIGHTS -o DIR`, the same as `caffe2torch convert`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from caffe2torch.cli import program

if __name__ == "__main__":
    raise SystemExit(program(["convert", *sys.argv[1:]]))
