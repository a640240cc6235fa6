from __future__ import annotations

import torch
from torch import nn

import caffe2torch


def test_a_module_becomes_a_net() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
    made = caffe2torch.to_caffe(module, torch.randn(2, 3, 8, 8))
    assert [layer.type for layer in made.message.layer] == ["Input", "Convolution", "ReLU", "InnerProduct"]
    assert made.difference < 1e-6
