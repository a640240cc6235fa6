"""Building one layer from prototxt text, without a net."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from caffe2torch import prototxt
from caffe2torch.layers import registry
from caffe2torch.layers.registry import Layer, Message, Shape


def message(text: str, *, bottoms: int = 1, phase: str = "TEST") -> Message:
    """A LayerParameter with bottoms b0, b1, ... (tops t where the text names none)."""
    tops = "" if "top:" in text else 'top: "t"'
    names = " ".join(f'bottom: "b{i}"' for i in range(bottoms))
    return prototxt.parse(f'name: "l" phase: {phase} {names} {tops} {text}', "LayerParameter")


def layer(text: str, shapes: Sequence[Shape], *, seed: int = 0, training: bool = False) -> Layer:
    """The layer the text describes, with random parameters, in the phase asked for."""
    made = message(text, bottoms=len(shapes), phase="TRAIN" if training else "TEST")
    cls = registry.find(made.type)
    assert cls is not None
    built = cls.from_caffe(made, shapes)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, blob in built.blob_items():
            blob.uniform_(0.5, 1.5, generator=generator)  # positive: some are variances
    return built.train(training)
