"""``python -m caffe2torch``."""

from __future__ import annotations

from caffe2torch.cli import program

raise SystemExit(program())
