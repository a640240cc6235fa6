"""Layers that rearrange, cut or join blobs, or combine them value by value."""

from __future__ import annotations

import math

from caffe2torch.export import helpers
from caffe2torch.export.names import number
from caffe2torch.export.printing import Call, printer
from caffe2torch.layers.accuracy import ArgMax
from caffe2torch.layers.eltwise import Eltwise
from caffe2torch.layers.pick import BatchReindex, Crop, Filter
from caffe2torch.layers.reduce import Reduction
from caffe2torch.layers.segmentation import Interp, Unpooling, Upsample
from caffe2torch.layers.sequence import Reverse, Transpose
from caffe2torch.layers.shape import Concat, Flatten, Reshape, Silence, Slice, Split, Tile
from caffe2torch.layers.softmax import Softmax
from caffe2torch.layers.ssd import Permute
from caffe2torch.layers.yolo import NearestUpsample, Reorg


@printer(Concat)
def concat(layer: Concat, call: Call) -> str:
    return call.x if len(call.bottoms) == 1 else f"torch.cat([{', '.join(call.bottoms)}], {layer.axis})"


@printer(Slice)
def slice_(layer: Slice, call: Call) -> str:
    if layer.pieces == 1:
        return call.x
    if layer.points:
        return f"torch.tensor_split({call.x}, {layer.points}, {layer.axis})"
    return f"torch.chunk({call.x}, {layer.pieces}, {layer.axis})"


@printer(Flatten, nests=True)
def flatten(layer: Flatten, call: Call) -> str:
    last = len(call.shape) - 1
    end = "" if layer.end_axis in (-1, last) else f", {layer.end_axis}"
    return f"torch.flatten({call.x}, {layer.axis}{end})"


@printer(Reshape)
def reshape(layer: Reshape, call: Call) -> str:
    axes = len(call.shape)
    end = axes if layer.end is None else layer.end
    kept = [f"{call.x}.shape[{i}]" for i in range(layer.start)]
    dims = [f"{call.x}.shape[{layer.start + i}]" if dim == 0 else str(dim) for i, dim in enumerate(layer.dims)]
    rest = [f"{call.x}.shape[{i}]" for i in range(end, axes)]
    return f"torch.reshape({call.x}, ({', '.join([*kept, *dims, *rest])}{',' * (len(kept + dims + rest) == 1)}))"


@printer(Tile)
def tile(layer: Tile, call: Call) -> str:
    return f"torch.cat([{call.x}] * {layer.tiles}, {layer.axis})"


@printer(Split)
def split(layer: Split, call: Call) -> list[str]:
    return [call.x] * layer.copies


@printer(Silence)
def silence(layer: Silence, call: Call) -> list[str]:
    return []


@printer(Eltwise)
def eltwise(layer: Eltwise, call: Call) -> str:
    if layer.operation == "PROD":
        return " * ".join(call.bottoms)
    if layer.operation == "MAX":
        top = ", ".join(call.bottoms[:2])
        for bottom in call.bottoms[2:]:
            top = f"{bottom}, {call.helper(helpers.larger)}({top})"
        return f"{call.helper(helpers.larger)}({top})"
    coefficients = layer.coefficients or (1.0,) * len(call.bottoms)
    if all(c == 1.0 for c in coefficients):
        return " + ".join(call.bottoms)
    first = call.x if coefficients[0] == 1.0 else f"{call.x} * {number(coefficients[0])}"
    for bottom, coefficient in zip(call.bottoms[1:], coefficients[1:], strict=True):
        first = f"torch.add({first}, {bottom}, alpha={number(coefficient)})"
    return first


@printer(Softmax, nests=True)
def softmax(layer: Softmax, call: Call) -> str:
    return f"F.softmax({call.x}, {layer.axis})"


@printer(ArgMax)
def argmax(layer: ArgMax, call: Call) -> str:
    settings = [f"top_k={layer.top_k}"] * (layer.top_k != 1) + [f"axis={layer.axis}"] * (layer.axis is not None)
    settings += ["values=True"] * layer.values
    return f"{call.helper(helpers.argmax)}({', '.join([call.x, *settings])})"


@printer(Reduction)
def reduction(layer: Reduction, call: Call) -> str:
    x = {"ASUM": f"torch.abs({call.x})", "SUMSQ": f"torch.square({call.x})"}.get(layer.operation, call.x)
    axes = tuple(range(layer.axis, len(call.shape)))
    total = f"torch.sum({x}, {axes})"
    coeff = layer.coeff
    if layer.operation == "MEAN":
        if layer.axis == 0:
            call.note(f"the mean of {math.prod(call.shape)} values, the batch included, as the input says")
        coeff = coeff / math.prod(call.shape[layer.axis :])
    return total if coeff == 1.0 else f"{total} * {number(coeff)}"


@printer(Crop)
def crop(layer: Crop, call: Call) -> str:
    x, window = call.bottoms
    parts = [":"] * layer.axis
    for axis, offset in enumerate(layer.offsets, start=layer.axis):
        size = f"{window}.shape[{axis}]"
        parts.append(f"{offset}: {offset} + {size}" if offset else f":{size}")
    return f"{x}[{', '.join(parts)}]"


@printer(BatchReindex)
def batch_reindex(layer: BatchReindex, call: Call) -> str:
    return f"torch.index_select({call.x}, 0, {call.bottoms[1]}.long())"


@printer(Filter)
def filter_(layer: Filter, call: Call) -> str | list[str]:
    *items, selector = call.bottoms
    return [f"{item}[{selector}.flatten() != 0]" for item in items]


@printer(Permute, Transpose, nests=True)
def permute(layer: Permute, call: Call) -> str:
    return f"torch.permute({call.x}, {layer.order}).contiguous()"


@printer(Reverse, nests=True)
def reverse(layer: Reverse, call: Call) -> str:
    return f"torch.flip({call.x}, {layer.axes})"


@printer(Reorg, nests=True)
def reorg(layer: Reorg, call: Call) -> str:
    return f"{call.helper(helpers.reorg)}({call.x}, {layer.stride}{', reverse=True' * layer.reverse})"


@printer(NearestUpsample)
def nearest(layer: NearestUpsample, call: Call) -> str:
    if layer.scale == 1:
        return call.x
    return f"{call.x}.repeat_interleave({layer.scale}, 2).repeat_interleave({layer.scale}, 3)"


@printer(Upsample)
def unpool(layer: Upsample, call: Call) -> str:
    x, mask = call.bottoms
    if layer.size is not None:
        height, width = str(layer.size[0]), str(layer.size[1])
    else:
        height, width = (
            f"{x}.shape[{axis}] * {layer.scale[axis - 2]}" + (f" - {pad}" if (pad := layer.pad_out[axis - 2]) else "")
            for axis in (2, 3)
        )
    return f"{call.helper(helpers.unpool)}({x}, {mask}, {height}, {width})"


@printer(Unpooling)
def unpool_to(layer: Unpooling, call: Call) -> str:
    x, mask = call.bottoms
    return f"{call.helper(helpers.unpool)}({x}, {mask}, {layer.size[0]}, {layer.size[1]})"


@printer(Interp)
def interp(layer: Interp, call: Call) -> str:
    x, sides = call.x, [f"{call.x}.shape[2]", f"{call.x}.shape[3]"]
    begin, end = layer.crop
    if begin or end:
        cut = ", ".join(f"{begin or ''}:{f' {side} - {end}' if end else ''}" for side in sides)
        x = f"{call.x}[:, :, {cut}]"
        sides = [f"({side} - {begin + end})" for side in sides]
    if layer.like:
        size = f"{call.bottoms[1]}.shape[2:]"
    elif layer.size is not None:
        size = str(layer.size)
    else:
        size = f"({', '.join(f'({side} - 1) // {layer.shrink} * {layer.zoom} + 1' for side in sides)})"
    return f'F.interpolate({x}, {size}, mode="bilinear", align_corners=True)'
