"""Hash codes for a folder of pictures: `python tools/extract_codes.py images/`, the same as `caffe2torch extract`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from caffe2torch.cli import program

if __name__ == "__main__":
    raise SystemExit(program(["extract", *sys.argv[1:]]))
