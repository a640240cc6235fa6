"""Pooling: torch's modules where they have just Caffe's windows, otherwise functions that pad explicitly."""

from __future__ import annotations

from caffe2torch.export import helpers
from caffe2torch.export.printers.conv import same
from caffe2torch.export.printing import Call, printer
from caffe2torch.layers.pooling import Pooling
from caffe2torch.layers.spp import SPP


@printer(Pooling, nests=True)
def pooling(layer: Pooling, call: Call) -> str:
    if layer.method == "STOCHASTIC" and layer.training:
        call.refuse("it draws at random although the net is in its test phase")
    if layer.kernel is None and layer.method != "STOCHASTIC" and not layer.mask:
        kind = "AdaptiveAvgPool2d" if layer.method == "AVE" else "AdaptiveMaxPool2d"
        module = call.module(f"nn.{kind}(1)")
        return f"{module}({call.x})"
    kernel = layer.kernel or (call.shape[2], call.shape[3])
    if layer.mask or layer._explicit:
        return _by_function(layer, call, kernel)
    settings = [same(kernel)] + [f"stride={same(layer.stride)}"] * (layer.stride != kernel)
    settings += [f"padding={same(layer.pad)}"] * any(layer.pad) + ["ceil_mode=True"] * (
        layer.ceil and layer.stride != (1, 1)
    )
    kind = "AvgPool2d" if layer.method == "AVE" else "MaxPool2d"
    module = call.module(f"nn.{kind}({', '.join(settings)})")
    return f"{module}({call.x})"


def _by_function(layer: Pooling, call: Call, kernel: tuple[int, int]) -> str:
    if layer.method == "STOCHASTIC":
        name = call.helper(helpers.stochastic_pool)
        return f"{name}({call.x}, {kernel}, {layer.stride}, ceil={layer.ceil})"
    function = helpers.max_pool_with_mask if layer.mask else helpers.max_pool
    name = call.helper(helpers.avg_pool if layer.method == "AVE" else function)
    return f"{name}({call.x}, {kernel}, {layer.stride}, {layer.pad}, ceil={layer.ceil})"


@printer(SPP)
def spp(layer: SPP, call: Call) -> str:
    parts = []
    for pool in layer.levels:
        assert isinstance(pool, Pooling)
        parts.append(pooling(pool, call))
    if len(parts) == 1:
        return parts[0]
    call.note(f"its windows are written for planes of {call.shape[2]} x {call.shape[3]}")
    return f"torch.cat([{', '.join(f'{part}.flatten(1)' for part in parts)}], 1)"
