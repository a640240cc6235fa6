"""Convolutions: torch's modules are the same for up to three spatial axes."""

from __future__ import annotations

from torch import Tensor

from caffe2torch.export.printing import Call, printer
from caffe2torch.layers.conv import Convolution
from caffe2torch.layers.deconv import Deconvolution
from caffe2torch.layers.im2col import Im2col
from caffe2torch.layers.mobile import ConvolutionDepthwise


@printer(Convolution, ConvolutionDepthwise, Deconvolution, nests=True)
def convolution(layer: Convolution, call: Call) -> str | list[str]:
    spatial = len(layer.kernel)
    if spatial > 3:
        call.refuse(f"its kernel has {spatial} axes, and torch's modules have at most 3")
    _check_reach(layer, call)
    transposed = isinstance(layer, Deconvolution)
    shape = layer.weight.shape
    groups = layer.group
    ends = (shape[0], shape[1] * groups) if transposed else (shape[1] * groups, shape[0])
    settings = [str(ends[0]), str(ends[1]), same(layer.kernel) if spatial else "1"]
    settings += [
        f"{name}={same(values)}"
        for name, values, plain in (("stride", layer.stride, 1), ("padding", layer.pad, 0))
        if any(value != plain for value in values)
    ]
    settings += [f"groups={groups}"] * (groups != 1)
    settings += ["bias=False"] * (layer.bias is None)
    settings += [f"dilation={same(layer.dilation)}"] * any(value != 1 for value in layer.dilation)
    if call.borrows():
        return _borrowed(layer, call, transposed=transposed)
    kind = f"nn.Conv{'Transpose' * transposed}{spatial or 1}d"
    blobs: dict[str, str | Tensor] = {"weight": "weight"} if spatial else {"weight": layer.weight.detach().unsqueeze(2)}
    if layer.bias is not None:
        blobs["bias"] = "bias" if spatial else layer.bias.detach()
    module = call.module(f"{kind}({', '.join(settings)})", **blobs)
    tops = [_applied(module, bottom, layer.axis, spatial) for bottom in call.bottoms]
    return tops[0] if len(tops) == 1 else tops


def _borrowed(layer: Convolution, call: Call, *, transposed: bool) -> str:
    """With the parameter of another layer, in another shape."""
    if layer.axis != 1 or not layer.kernel or len(call.bottoms) > 1:
        call.refuse("it shares a blob with a layer that holds it in another shape")
    weight, bias = call.value("weight"), call.value("bias")
    groups, dilation = f"groups={layer.group}", f"dilation={layer.dilation}"
    last = f"{groups}, {dilation}" if transposed else f"{dilation}, {groups}"
    name = f"F.conv{'_transpose' * transposed}{len(layer.kernel)}d"
    return f"{name}({call.x}, {weight}, {bias}, stride={layer.stride}, padding={layer.pad}, {last})"


def _applied(module: str, x: str, axis: int, spatial: int) -> str:
    """The module on a blob whose channels are not second, or that has no axis after them."""
    if axis == 0:
        x = f"{x}.unsqueeze(0)"
    elif axis > 1:
        batch = f"{x}.shape[:{axis}]"
        x = f"{x}.flatten(0, {axis - 1})"
    y = f"{module}({x}.unsqueeze(2)).squeeze(2)" if not spatial else f"{module}({x})"
    if axis == 0:
        return f"{y}.squeeze(0)"
    return f"{y}.unflatten(0, {batch})" if axis > 1 else y


def _check_reach(layer: Convolution | Im2col, call: Call) -> None:
    if layer.beyond:
        call.refuse("its kernel is larger than the padded input, which Caffe allows and torch does not")


def same(values: tuple[int, ...]) -> str:
    """One number where all are equal, as torch's modules take it."""
    return str(values[0]) if len(set(values)) == 1 else str(values)


@printer(Im2col, nests=True)
def im2col(layer: Im2col, call: Call) -> str:
    if len(layer.kernel) != 2 or layer.axis != 1:
        call.refuse("torch's unfold has two spatial axes after the channels, this layer has others")
    _check_reach(layer, call)
    places = call.top_shapes[0][2:]
    arguments = f"{layer.kernel}, dilation={layer.dilation}, padding={layer.pad}, stride={layer.stride}"
    call.note(f"its result is written for planes of {call.shape[2]} x {call.shape[3]} only")
    return f"F.unfold({call.x}, {arguments}).unflatten(2, {tuple(places)})"
