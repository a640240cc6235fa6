"""Layers that are one matrix product or a table: InnerProduct, Embed, Parameter, DummyData."""

from __future__ import annotations

from torch import Tensor

from caffe2torch.export.names import number
from caffe2torch.export.printing import Call, printer
from caffe2torch.layers.embed import Embed
from caffe2torch.layers.inner_product import InnerProduct
from caffe2torch.layers.learned import Parameter
from caffe2torch.layers.source import DummyData


@printer(InnerProduct, nests=True)
def inner_product(layer: InnerProduct, call: Call) -> str:
    flat = call.x if len(call.shape) == layer.axis + 1 else f"{call.x}.flatten({layer.axis})"
    if call.borrows() or (layer.transpose and call.shares()):
        weight, bias = call.value("weight"), call.value("bias")
        return f"F.linear({flat}, {weight}{'.t()' * layer.transpose}, {bias})"
    outputs, inputs = layer.weight.shape[::-1] if layer.transpose else layer.weight.shape
    plain = "" if layer.bias is not None else ", bias=False"
    blobs: dict[str, str | Tensor] = {"weight": layer.weight.detach().t() if layer.transpose else "weight"}
    if layer.bias is not None:
        blobs["bias"] = layer.bias.detach() if layer.transpose else "bias"
    module = call.module(f"nn.Linear({inputs}, {outputs}{plain})", **blobs)
    return f"{module}({flat})"


@printer(Embed)
def embed(layer: Embed, call: Call) -> str:
    rows, columns = layer.weight.shape
    table = call.module(f"nn.Embedding({rows}, {columns})", weight="weight")
    looked_up = f"{table}({call.x}.long())"
    return looked_up if layer.bias is None else f"{looked_up} + {call.parameter('bias')}"


@printer(Parameter)
def parameter(layer: Parameter, call: Call) -> str:
    return call.parameter("weight")


@printer(DummyData)
def dummy_data(layer: DummyData, call: Call) -> list[str]:
    if any(filler.type != "constant" for filler in layer.fillers):
        call.refuse("it draws new random values in every pass; only constants can be written down")
    values = [(tuple(s), number(float(f.value))) for s, f in zip(layer.shapes, layer.fillers, strict=True)]
    return [f"torch.full({shape}, {value}, dtype=torch.float32)" for shape, value in values]
