"""Pictures into a database: `python tools/convert_imageset.py ROOT/ LIST DB`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from caffe2torch.cli import program

if __name__ == "__main__":
    raise SystemExit(program(["convert_imageset", *sys.argv[1:]]))
