"""Small nets for surgery, with weights, and their values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from caffe2torch import prototxt
from caffe2torch.surgery import Model
from caffe2torch.surgery.measure import runnable
from caffe2torch.surgery.model import layer_shapes, states
from caffe2torch.upgrade import upgrade_net

TRAIN = """
name: "small"
layer { name: "data" type: "HDF5Data" top: "data" top: "label" include { phase: TRAIN }
  hdf5_data_param { source: "list" batch_size: 4 } }
layer { name: "data" type: "HDF5Data" top: "data" top: "label" include { phase: TEST }
  hdf5_data_param { source: "list" batch_size: 4 } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "latent" type: "InnerProduct" bottom: "pool" top: "latent"
  inner_product_param { num_output: 8 weight_filler { type: "gaussian" std: 0.1 } } }
layer { name: "code" type: "Sigmoid" bottom: "latent" top: "code" }
layer { name: "binary" type: "EuclideanLoss" bottom: "code" bottom: "code" top: "binary" loss_weight: 0.5 }
layer { name: "fc" type: "InnerProduct" bottom: "code" top: "fc"
  param { lr_mult: 2 } inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "accuracy" type: "Accuracy" bottom: "fc" bottom: "label" top: "accuracy" include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }
"""

INPUT = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 4 dim: 6 dim: 6 } } }'


def model(text: str, *, seed: int = 0, **shapes: tuple[int, ...]) -> Model:
    """The net of a prototxt with random weights; variances are positive."""
    net = Model(upgrade_net(prototxt.parse(text)), input_shapes=shapes)
    rng = np.random.default_rng(seed)
    norms = {layer.name for layer in net.net.layer if layer.type == "BatchNorm"}
    weights = {
        name: tuple(
            (rng.random(shape) + 0.5 if name in norms else rng.standard_normal(shape)).astype(np.float32)
            for shape in blobs
        )
        for name, blobs in layer_shapes(net).items()
    }
    return replace(net, weights=weights)


def trained() -> Model:
    """The training net above."""
    return model(TRAIN, data=(4, 3, 8, 8), label=(4,))


def values(net: Model, *blobs: str, seed: int = 1, **inputs: Any) -> list[np.ndarray]:
    """Blobs of the net in test phase, on random input unless some is given."""
    chosen = runnable(net, next(iter(states(net.net)))).select(*blobs)
    generator = torch.Generator().manual_seed(seed)
    given = {
        blob: torch.as_tensor(inputs[blob]) if blob in inputs else torch.randn(shape, generator=generator)
        for blob, shape in chosen.input_shapes.items()
    }
    with torch.no_grad():
        found = chosen(given)
    return [found[blob].numpy() for blob in blobs]


def names(net: Model) -> list[str]:
    """The layers of the net in order."""
    return [layer.name for layer in net.net.layer]
