#!/usr/bin/env python
"""Fetch the weights of a model: ``python tools/download_weights.py NAME`` (or ``--all``)."""

import sys

from caffe2torch.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["download", *sys.argv[1:]]))
