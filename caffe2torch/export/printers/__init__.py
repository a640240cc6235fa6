"""One function per layer class that writes it as plain PyTorch; importing this package registers them all."""

from __future__ import annotations

from caffe2torch.export.printers import activation, conv, dense, detection, flow, norm, pooling, recurrent, shape

__all__ = ["activation", "conv", "dense", "detection", "flow", "norm", "pooling", "recurrent", "shape"]
