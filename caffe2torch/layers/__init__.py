"""Caffe's layers as torch modules, one file per family; importing this package registers them all."""

from __future__ import annotations

from caffe2torch.layers import (
    accuracy,
    activation,
    conv,
    eltwise,
    inner_product,
    loss,
    lstm,
    mobile,
    norm,
    pooling,
    python,
    recurrent,
    scale,
    segmentation,
    shape,
    softmax,
    source,
    yolo,
)

__all__ = [
    "accuracy",
    "activation",
    "conv",
    "eltwise",
    "inner_product",
    "loss",
    "lstm",
    "mobile",
    "norm",
    "pooling",
    "python",
    "recurrent",
    "scale",
    "segmentation",
    "shape",
    "softmax",
    "source",
    "yolo",
]
