"""Writing a net as source and running the text beside the CaffeNet."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from caffe2torch import prototxt
from caffe2torch.build import build
from caffe2torch.export.checking import Check, compare, example_inputs, reference_outputs
from caffe2torch.export.forms import module
from caffe2torch.export.source import Source, write_source
from caffe2torch.graph import build_graph
from caffe2torch.loading import load
from caffe2torch.net import CaffeNet
from caffe2torch.upgrade import upgrade_net


def text_net(folder: Path, text: str) -> CaffeNet:
    """The net of a prototxt's text, with random parameters."""
    path = folder / "net.prototxt"
    path.write_text(text, "utf-8")
    net = load(path)
    randomise(net)
    return net


def layer_net(text: str, shapes: list[tuple[int, ...]], tops: int = 1) -> CaffeNet:
    """A net of inputs b0, b1, ... and one layer."""
    inputs = "".join(
        f'layer {{ name: "b{i}" type: "Input" top: "b{i}" input_param {{ shape {{ {dims(shape)} }} }} }}\n'
        for i, shape in enumerate(shapes)
    )
    bottoms = " ".join(f'bottom: "b{i}"' for i in range(len(shapes)))
    named = "" if "top:" in text else " ".join(f'top: "t{i}"' for i in range(tops))
    message = prototxt.parse(f'{inputs} layer {{ name: "l" {bottoms} {named} {text} }}')
    graph = build_graph(upgrade_net(message))
    net = build(graph, dict(zip(graph.inputs, shapes, strict=True)))
    randomise(net)
    return net


def dims(shape: tuple[int, ...]) -> str:
    return " ".join(f"dim: {dim}" for dim in shape)


def randomise(net: CaffeNet) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, layer in net.built():
            for _, blob in layer.blob_items():
                blob.uniform_(0.5, 1.5, generator=generator)  # positive: some are variances


def run_written(net: CaffeNet, inputs: list[Tensor] | None = None) -> tuple[Source, Check]:
    """The net's source, and how far its outputs are from the net's."""
    source = write_source(net)
    given = example_inputs(net, source.batch) if inputs is None else inputs
    written = module(source, source.state)
    with torch.no_grad():
        found = written(*given)
    values = list(found.values()) if isinstance(found, dict) else [found]
    return source, compare(reference_outputs(net, given), values)
