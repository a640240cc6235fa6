"""FlowNet's layers: two maps compared, one moved along a flow, planes of another size, means of images."""

from __future__ import annotations

from caffe2torch.export import helpers_flow
from caffe2torch.export.names import number
from caffe2torch.export.printing import Call, printer
from caffe2torch.layers.augmentation import DataAugmentation, Mean
from caffe2torch.layers.flow import ChannelNorm, Correlation, Correlation1D, FlowWarp
from caffe2torch.layers.resample import Accum, Resample


@printer(Correlation, Correlation1D)
def correlation(layer: Correlation, call: Call) -> str:
    if layer.subtract:
        call.refuse("its correlation_type is SUBTRACT")
    pads, margins = layer.borders()
    settings = [f"kernel={layer.kernel_size}"] * (layer.kernel_size != 1)
    settings += [f"stride={layer.stride[0]}"] * (layer.stride[0] != 1)
    arguments = [*call.bottoms, str(pads), str(margins), str(layer.down), str(layer.across), *settings]
    return f"{call.helper(helpers_flow.correlation)}({', '.join(arguments)})"


@printer(FlowWarp)
def flow_warp(layer: FlowWarp, call: Call) -> str:
    fill = "" if layer.fill_value == 0 else ", torch.nan"
    return f"{call.helper(helpers_flow.flow_warp)}({', '.join(call.bottoms)}{fill})"


@printer(ChannelNorm, nests=True)
def channel_norm(layer: ChannelNorm, call: Call) -> str:
    return f"torch.sqrt(torch.sum(torch.square({call.x}), 1, keepdim=True))"


@printer(Resample)
def resample(layer: Resample, call: Call) -> str:
    height, width = layer.size or (f"{call.bottoms[-1]}.shape[{axis}]" for axis in (2, 3))
    settings = [f'"{layer.kind.lower()}"'] * (layer.kind != "LINEAR") + ["antialias=False"] * (not layer.antialias)
    return f"{call.helper(helpers_flow.resample)}({', '.join([call.x, str(height), str(width), *settings])})"


@printer(Accum)
def accum(layer: Accum, call: Call) -> str:
    size = str(layer.size) if layer.size else f"{call.bottoms[-1]}.shape[2:]"
    planes = call.top_shapes[0][2:]
    joined = [
        bottom if shape[2:] == planes else f'F.interpolate({bottom}, {size}, mode="bilinear", align_corners=True)'
        for bottom, shape in zip(call.bottoms, call.shapes, strict=True)
    ]
    return f"torch.cat([{', '.join(joined if layer.size else joined[:-1])}], 1)"


@printer(DataAugmentation)
def data_augmentation(layer: DataAugmentation, call: Call) -> str:
    if layer.crop:
        call.refuse("crop_height and crop_width mix the last rows and columns")
    if not layer.batches:
        return f"{call.x} - {_numbers(call, layer.values)}" if layer.values else call.x
    if layer.count.item() < layer.batches:
        call.refuse("its mean is of too few batches, so that it takes in each batch; load trained weights")
    assert layer.mean is not None
    if not layer.per_pixel:
        return f"{call.x} - {call.parameter('channel_mean')}"
    if layer.mean.shape[2:] != call.shape[2:]:
        call.refuse("its mean image has another size than its bottom")
    return f"{call.x} - {call.parameter('mean')}"


@printer(Mean)
def mean(layer: Mean, call: Call) -> list[str]:
    tops = []
    for x, shape in zip(call.bottoms, call.shapes, strict=True):
        scaled = x if layer.input_scale == 1 else f"{number(layer.input_scale)} * {x}"
        repeats = shape[1] // len(layer.values)
        sums = f"{scaled} + {_numbers(call, layer.values * repeats, x)}"
        tops.append(sums if layer.output_scale == 1 else f"{number(layer.output_scale)} * ({sums})")
    return tops


def _numbers(call: Call, values: tuple[float, ...], x: str = "") -> str:
    """A number for each channel."""
    return f"{x or call.x}.new_tensor([{', '.join(map(repr, values))}]).reshape(1, -1, 1, 1)"
