"""Caffe nets from torch modules: prototxt and caffemodel of what a module computes, verified on the spot."""

from __future__ import annotations

from caffe2torch.importing.check import Check
from caffe2torch.importing.convert import Imported, to_caffe

__all__ = ["Check", "Imported", "to_caffe"]
