"""Caffe nets from torch modules: prototxt and caffemodel of what a module computes, verified on the spot."""

from __future__ import annotations

from caffe2torch.importing.check import Check
from caffe2torch.importing.convert import to_caffe
from caffe2torch.importing.imported import Imported

__all__ = ["Check", "Imported", "to_caffe"]
