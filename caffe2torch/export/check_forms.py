"""The check of each form but the source, in this process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from caffe2torch.export import onnx
from caffe2torch.export.checking import Check, compare, example_inputs, reference_outputs
from caffe2torch.export.forms import examples, module
from caffe2torch.export.source import Source
from caffe2torch.net import CaffeNet


def check(form: str, path: Path, net: CaffeNet, source: Source, pictures: bool) -> Check | str:
    """How far one written file is from the CaffeNet, or why that is not known."""
    inputs = example_inputs(net, source.batch)
    given = examples(source, inputs, pictures=pictures and form in ("pt2", "onnx"))
    if given is not inputs and pictures and form in ("pt2", "onnx"):
        inputs = [prepared(source, given[0])]
    expected = reference_outputs(net, inputs)
    if form == "source":
        return compare(expected, _run(module(source, source.state), given))
    if form == "pt":
        state = torch.load(path, weights_only=True)
        return compare(expected, _run(module(source, state), given))
    if form == "safetensors":
        try:
            from safetensors.torch import load_file
        except ImportError:
            return "safetensors is not installed"
        return compare(expected, _run(module(source, load_file(path)), given))
    if form == "pt2":
        return compare(expected, _run(torch.export.load(path).module(), given))
    names = onnx.input_names(source, pictures=pictures)
    return onnx.check(path, expected, dict(zip(names, given, strict=True)))


def prepared(source: Source, images: Tensor) -> Tensor:
    """RGB pictures as the package itself prepares them, not the written program."""
    assert source.preprocessing is not None
    assert source.preprocessing.prepare is not None
    flipped = images.flip(3).contiguous().numpy()
    return torch.from_numpy(np.stack([source.preprocessing.prepare(image) for image in flipped]))


def _run(net: nn.Module, inputs: Sequence[Tensor]) -> list[Tensor]:
    with torch.no_grad():
        found = net(*inputs)
    if isinstance(found, dict):
        return list(found.values())
    return list(found) if isinstance(found, (tuple, list)) else [found]
