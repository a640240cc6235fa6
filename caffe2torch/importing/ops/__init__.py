"""What makes Caffe's layers of torch's functions, one file per family; importing this package registers them all."""

from __future__ import annotations

from caffe2torch.importing.ops import (
    activation,
    arithmetic,
    convolution,
    indexing,
    lookup,
    norm,
    pooling,
    product,
    reduction,
    refused,
    shape,
)

__all__ = [
    "activation",
    "arithmetic",
    "convolution",
    "indexing",
    "lookup",
    "norm",
    "pooling",
    "product",
    "reduction",
    "refused",
    "shape",
]
