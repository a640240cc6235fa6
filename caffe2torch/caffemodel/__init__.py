"""``.caffemodel`` files: reading by memory map, streaming writing.

``open_weights(path)`` opens binary and HDF5 weights alike; ``write_caffemodel(path, net, weights)`` writes what
Caffe reads.
"""

from __future__ import annotations

from caffe2torch.blobs import Blob, LayerWeights, WeightsFile
from caffe2torch.caffemodel.read import open_weights
from caffe2torch.caffemodel.write import write_caffemodel

__all__ = ["Blob", "LayerWeights", "WeightsFile", "open_weights", "write_caffemodel"]
