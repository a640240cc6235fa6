"""From a CaffeNet to forms that need neither Caffe nor caffe2torch: PyTorch source, safetensors, pt2, ONNX."""

from __future__ import annotations

from caffe2torch.export.convert import DEFAULT, FORMATS, File, Result, Settings, convert
from caffe2torch.export.printing import Call, printer
from caffe2torch.export.source import Origin, Source, write_source

__all__ = [
    "DEFAULT",
    "FORMATS",
    "Call",
    "File",
    "Origin",
    "Result",
    "Settings",
    "Source",
    "convert",
    "printer",
    "write_source",
]
