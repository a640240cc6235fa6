"""Caffe's layers as torch modules, one file per family; importing this package registers them all."""

from __future__ import annotations

from caffe2torch.layers import activation, conv, inner_product, norm, pooling, softmax

__all__ = ["activation", "conv", "inner_product", "norm", "pooling", "softmax"]
