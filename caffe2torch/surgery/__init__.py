"""Surgery on nets: every operation takes a net with its weights and returns a new one, checked by building it.

::

    from caffe2torch import surgery

    model = surgery.read("train_val.prototxt", "net.caffemodel")
    model = surgery.set_bits(surgery.deploy(model), 32)
    surgery.write(model, "deploy32.prototxt", "net32.caffemodel")

What an operation is given it leaves alone. Nets are whole (all phases) and in V2 form; comments of the prototxt are not
kept. ``model.notes`` tells what was done; ``compare`` compares two nets or weights files.
"""

from __future__ import annotations

from caffe2torch.surgery.batchnorm import fold_batchnorm
from caffe2torch.surgery.cut import cut, remove
from caffe2torch.surgery.insert import insert, replace_layer
from caffe2torch.surgery.measure import Difference, measure
from caffe2torch.surgery.merge import merge
from caffe2torch.surgery.model import Model, read
from caffe2torch.surgery.outputs import set_bits, set_classes, set_outputs
from caffe2torch.surgery.pairs import Comparison, compare, compare_pairs
from caffe2torch.surgery.phases import deploy, train
from caffe2torch.surgery.rename import rename
from caffe2torch.surgery.writing import write

__all__ = [
    "Comparison",
    "Difference",
    "Model",
    "compare",
    "compare_pairs",
    "cut",
    "deploy",
    "fold_batchnorm",
    "insert",
    "measure",
    "merge",
    "read",
    "remove",
    "rename",
    "replace_layer",
    "set_bits",
    "set_classes",
    "set_outputs",
    "train",
    "write",
]
