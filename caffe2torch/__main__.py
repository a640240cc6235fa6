"""``python -m caffe2torch``."""

from __future__ import annotations

from caffe2torch.cli import main

raise SystemExit(main())
