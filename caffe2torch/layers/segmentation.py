"""Layers of the segmentation forks: SegNet's Upsample and BN, DeconvNet's Unpooling, PSPNet's BN, DeepLab's Interp."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from caffe2torch.errors import LayerError
from caffe2torch.fillers import fill
from caffe2torch.layers.norm import normalise_batch
from caffe2torch.layers.registry import Layer, Message, Shape, enum_name, parameter, register
from caffe2torch.layers.yolo import NearestUpsample

Pair = tuple[int, int]


@register("Upsample")
class Upsample(Layer):
    """SegNet's: puts every value of the first bottom at the place in its plane that the mask names; the rest is 0.

    The mask is the second top of a MAX pooling: indices into the larger plane, as floats. Where it names a place twice
    the last value stands there (on a GPU any of them), and both get the gradient of that place. With one bottom this is
    the layer of that name in the YOLO forks, which repeats values (``NearestUpsample``).
    """

    bottoms = (1, 2)
    no_gradient = (1,)

    def __init__(self, size: Pair | None = None, *, scale: Pair = (2, 2), pad_out: Pair = (0, 0)) -> None:
        """``size`` is that of the top's planes; where it is None, ``scale`` times the bottom's less ``pad_out``."""
        super().__init__()
        if min(size or scale) < 2:
            what = f"size is {size}" if size else f"scale is {scale}"
            raise LayerError(f"the {what}: expected at least 2 on both axes, as SegNet requires")
        if size is None and any(pad and s != 2 for pad, s in zip(pad_out, scale, strict=True)):
            raise LayerError(f"pad_out with scale {scale}: expected scale 2 on that axis, as SegNet requires")
        self.size, self.scale, self.pad_out = size, scale, pad_out

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> Layer:
        p, shape = layer.upsample_param, bottom_shapes[0]
        if len(bottom_shapes) == 1:
            return NearestUpsample.from_caffe(layer, bottom_shapes)
        if len(shape) != 4 or bottom_shapes[1] != shape:
            raise LayerError(f"bottoms of shape {shape} and {bottom_shapes[1]}: expected values and mask, 4 axes each")
        if p.HasField("upsample_h") and p.HasField("upsample_w"):
            return cls((p.upsample_h, p.upsample_w))
        given = [name for name in ("scale", "scale_h", "scale_w") if p.HasField(name)]
        given += [name for name in ("upsample_h", "upsample_w") if p.HasField(name)]
        if given not in ([], ["scale"], ["scale_h", "scale_w"]):
            raise LayerError(
                f"upsample_param has {' and '.join(given)}: expected upsample_h and upsample_w, or scale, or scale_h "
                "and scale_w"
            )
        scale = (p.scale_h, p.scale_w) if len(given) == 2 else (p.scale, p.scale)
        return cls(scale=scale, pad_out=(int(p.pad_out_h), int(p.pad_out_w)))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        height, width = self.size or [
            n * s - pad for n, s, pad in zip(x.shape[2:], self.scale, self.pad_out, strict=True)
        ]
        return _unpool(x, mask, height, width)

    def extra_repr(self) -> str:
        return f"size={self.size}" if self.size else f"scale={self.scale}, pad_out={self.pad_out}"


@register("Unpooling")
class Unpooling(Layer):
    """DeconvNet's: puts every value at the place in its plane that the mask names, as SegNet's Upsample; the rest is 0.

    The planes get the size ``unpool_size``, or ``unpool_h`` x ``unpool_w``. Only ``unpool: MAX`` with a mask is
    supported; kernel and stride have no effect on it, but DeconvNet's Caffe wants a kernel.
    """

    bottoms = (2, 2)
    no_gradient = (1,)

    def __init__(self, size: Pair) -> None:
        super().__init__()
        if min(size) < 1:
            raise LayerError(f"the planes are to be {size[0]} x {size[1]}: expected at least 1 on both axes")
        self.size = size

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> Unpooling:
        p, shape = layer.unpooling_param, bottom_shapes[0]
        if len(shape) != 4 or bottom_shapes[1] != shape:
            raise LayerError(f"bottoms of shape {shape} and {bottom_shapes[1]}: expected values and mask, 4 axes each")
        if enum_name(p, "unpool") != "MAX":
            raise LayerError(f"unpool is {enum_name(p, 'unpool')}: only MAX, by a mask, is supported")
        if p.pad or p.pad_h or p.pad_w:
            raise LayerError("unpooling_param has padding: expected none, as DeconvNet's Caffe requires")
        _one_form(p, "kernel_size", "kernel_h", "kernel_w")
        _one_form(p, "unpool_size", "unpool_h", "unpool_w")
        if p.HasField("stride_h") != p.HasField("stride_w") or (p.HasField("stride") and p.HasField("stride_h")):
            raise LayerError("unpooling_param: expected stride alone, or both stride_h and stride_w")
        return cls((p.unpool_size, p.unpool_size) if p.HasField("unpool_size") else (p.unpool_h, p.unpool_w))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return _unpool(x, mask, *self.size)

    def extra_repr(self) -> str:
        return f"size={self.size}"


def _one_form(p: Message, both: str, height: str, width: str) -> None:
    """Raise LayerError unless the message gives one number for both axes, or two, of at least 1."""
    given = [name for name in (both, height, width) if p.HasField(name)]
    if given not in ([both], [height, width]) or min(getattr(p, name) for name in given) < 1:
        raise LayerError(
            f"unpooling_param gives {' and '.join(f'{name} {getattr(p, name)}' for name in given) or f'no {both}'}: "
            f"expected {both} alone, or both {height} and {width}, of at least 1"
        )


def _unpool(x: Tensor, mask: Tensor, height: int, width: int) -> Tensor:
    index = mask.detach().flatten(2).long()
    if not torch.compiler.is_compiling() and index.device.type == "cpu":
        _check_mask(index, height, width)
    planes = x.new_zeros((*x.shape[:2], height * width))
    return planes.scatter(2, index, x.flatten(2)).reshape(*x.shape[:2], height, width)


def _check_mask(index: Tensor, height: int, width: int) -> None:
    """SegNet stops there too; a compiled or exported net, and one on a GPU, gets torch's own error."""
    if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < height * width:
        raise LayerError(
            f"the mask names places {int(index.min())} to {int(index.max())}: expected 0 to {height * width - 1}, "
            f"those of a plane of {height} x {width}; the layer must undo the pooling that made the mask"
        )


_SEGNET = frozenset({"scale_filler", "shift_filler", "bn_mode"})
_PSPNET = frozenset({"slope_filler", "bias_filler", "momentum", "eps", "frozen", "engine"})


@register("BN")
class BN(Layer):
    """SegNet's batch normalisation: two blobs (1, C, 1, 1), ``weight`` (scale) and ``bias`` (shift).

    bn_mode LEARN normalises by the mean and variance of the batch in both phases, eps 1e-9; a second and a third top
    take these two (1, C, 1, 1), without a gradient. INFERENCE is x * scale + shift: SegNet's own tool has merged the
    statistics into the blobs. With PSPNet's fields in ``bn_param`` this is PSPNet's layer (``PSPNetBN``).
    """

    blobs = ("weight", "bias")
    tops = (1, 3)

    def __init__(self, channels: int, *, learn: bool = True, moments: int = 0) -> None:
        """``moments``: how many of mean and variance are tops."""
        super().__init__()
        if moments and not learn:
            raise LayerError("bn_mode INFERENCE computes no mean and variance: expected one top")
        self.learn, self.moments = learn, moments
        self.weight = parameter((1, channels, 1, 1))
        self.bias = parameter((1, channels, 1, 1))

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> Layer:
        p, shape = layer.bn_param, bottom_shapes[0]
        given = {field.name for field, _ in p.ListFields()}
        unknown = given - _SEGNET - _PSPNET
        if unknown:
            raise LayerError(f"bn_param has {', '.join(sorted(unknown))}, of a fork whose BN is not supported")
        if bool(given & _SEGNET) == bool(given & _PSPNET):
            raise LayerError(
                f"bn_param has {', '.join(sorted(given)) or 'no fields'}: expected fields that tell SegNet's BN "
                f"({', '.join(sorted(_SEGNET))}) from PSPNet's ({', '.join(sorted(_PSPNET))}), and not of both; "
                "add bn_mode: LEARN, or frozen: false"
            )
        if given & _PSPNET:
            return PSPNetBN.from_caffe(layer, bottom_shapes)
        if not 2 <= len(shape) <= 4:
            raise LayerError(f"the bottom has shape {shape}: expected 2 to 4 axes, channels second")
        return cls(shape[1], learn=enum_name(p, "bn_mode") == "LEARN", moments=len(layer.top) - 1)

    def fill(self, layer: Message, generator: torch.Generator | None = None) -> None:
        fill(self.weight, layer.bn_param.scale_filler, generator=generator)
        fill(self.bias, layer.bn_param.shift_filler, generator=generator)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        x = x.reshape(*x.shape, *(1,) * (4 - x.ndim))
        if not self.learn:
            return x * self.weight + self.bias
        cudnn = torch.backends.cudnn.enabled
        y = torch.batch_norm(x, self.weight.reshape(-1), self.bias.reshape(-1), None, None, True, 0.0, 1e-9, cudnn)
        if not self.moments:
            return y
        variance, mean = torch.var_mean(x.detach(), (0, 2, 3), correction=0, keepdim=True)
        return (y, mean, variance)[: 1 + self.moments]

    def extra_repr(self) -> str:
        return f"{self.weight.shape[1]}, {'LEARN' if self.learn else 'INFERENCE'}"


class PSPNetBN(Layer):
    """PSPNet's batch normalisation: four blobs (1, C, 1, 1), slope, bias, mean and variance.

    The last two are the statistics themselves; a training pass moves them ``1 - momentum`` of the way to the batch's.
    Test uses them, and so does training when ``frozen``, where slope and bias get no gradient. (In test, without
    ``frozen``, the fork's own backward pass is that of training; here it is the derivative.)
    """

    blobs = ("weight", "bias", "mean", "variance")
    mean: Tensor
    variance: Tensor

    def __init__(self, channels: int, *, momentum: float = 0.9, eps: float = 1e-5, frozen: bool = False) -> None:
        super().__init__()
        self.momentum, self.eps, self.frozen = momentum, eps, frozen
        shape = (1, channels, 1, 1)
        self.weight = parameter(shape).requires_grad_(not frozen)
        self.bias = parameter(shape).requires_grad_(not frozen)
        self.register_buffer("mean", torch.empty(shape))
        self.register_buffer("variance", torch.empty(shape))

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> PSPNetBN:
        p, shape = layer.bn_param, bottom_shapes[0]
        if len(shape) < 2:
            raise LayerError(f"the bottom has shape {shape}: expected at least 2 axes, channels second")
        if len(layer.top) != 1:
            raise LayerError(f"found {len(layer.top)} tops: expected 1 (only SegNet's BN has more)")
        return cls(shape[1], momentum=p.momentum, eps=p.eps, frozen=p.frozen)

    def fill(self, layer: Message, generator: torch.Generator | None = None) -> None:
        fill(self.weight, layer.bn_param.slope_filler, generator=generator)
        fill(self.bias, layer.bn_param.bias_filler, generator=generator)
        self.mean.zero_()
        self.variance.fill_(float(self.frozen))

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight.reshape(-1), self.bias.reshape(-1)
        if self.frozen or not self.training:
            mean, variance = self.mean.reshape(-1), self.variance.reshape(-1)
            cudnn = torch.backends.cudnn.enabled
            return torch.batch_norm(x, weight, bias, mean, variance, False, 0.0, self.eps, cudnn)
        y, mean, variance = normalise_batch(x, weight, bias, self.eps)
        count = x.numel() // weight.numel()
        with torch.no_grad():
            self.mean.lerp_(mean.view_as(self.mean), 1.0 - self.momentum)
            self.variance.lerp_(variance.view_as(self.variance) * ((count - 1) / count), 1.0 - self.momentum)
        return y

    def extra_repr(self) -> str:
        return f"{self.weight.shape[1]}, momentum={self.momentum:g}, eps={self.eps:g}, frozen={self.frozen}"


@register("Interp")
class Interp(Layer):
    """Bilinear interpolation of the planes whose corners stay where they are (torch's ``align_corners``).

    The size is, in this order of precedence: (n - 1) / shrink_factor + 1; n + (n - 1) (zoom_factor - 1); height and
    width; both factors, shrinking first; or that of a second bottom. ``crop`` rows and columns are left out of the
    bottom first, at its beginning and its end (``pad_beg``, ``pad_end``, which cannot be positive).
    """

    bottoms = (1, 2)
    no_gradient = (1,)

    def __init__(
        self, size: Pair | None = None, *, shrink: int = 1, zoom: int = 1, like: bool = False, crop: Pair = (0, 0)
    ) -> None:
        """``size`` overrides the factors; ``like`` takes the size of the second bottom."""
        super().__init__()
        if min(shrink, zoom, *(size or (1,))) < 1:
            raise LayerError(f"size {size}, shrink_factor {shrink}, zoom_factor {zoom}: expected at least 1")
        if min(crop) < 0:
            raise LayerError(f"pad_beg and pad_end are {-crop[0]} and {-crop[1]}: expected 0, or less to crop")
        self.size, self.shrink, self.zoom, self.like, self.crop = size, shrink, zoom, like, crop

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> Interp:
        p, shape = layer.interp_param, bottom_shapes[0]
        shrink, zoom = p.HasField("shrink_factor"), p.HasField("zoom_factor")
        sized = p.HasField("height") and p.HasField("width")
        if any(len(s) != 4 for s in bottom_shapes):
            raise LayerError(f"bottoms of shape {list(bottom_shapes)}: expected 4 axes (N, C, H, W)")
        crop = (-p.pad_beg, -p.pad_end)
        if min(shape[2:]) - sum(crop) < 1:
            raise LayerError(f"pad_beg {p.pad_beg} and pad_end {p.pad_end} leave nothing of planes of {shape[2:]}")
        if shrink != zoom:
            return cls(shrink=p.shrink_factor, zoom=p.zoom_factor, crop=crop)
        if sized:
            return cls((p.height, p.width), crop=crop)
        if shrink:
            return cls(shrink=p.shrink_factor, zoom=p.zoom_factor, crop=crop)
        if len(bottom_shapes) == 2:
            return cls(like=True, crop=crop)
        raise LayerError(
            "interp_param gives no size: expected height and width, zoom_factor, shrink_factor or a second bottom"
        )

    def forward(self, x: Tensor, reference: Tensor | None = None) -> Tensor:
        begin, end = self.crop
        if begin or end:
            x = x[:, :, begin : x.shape[2] - end, begin : x.shape[3] - end]
        if self.like:
            assert reference is not None
            height, width = reference.shape[2], reference.shape[3]
        else:
            height, width = self.size or [((n - 1) // self.shrink) * self.zoom + 1 for n in x.shape[2:]]
        return F.interpolate(x, (height, width), mode="bilinear", align_corners=True)

    def extra_repr(self) -> str:
        return f"size={self.size}, shrink={self.shrink}, zoom={self.zoom}, like={self.like}, crop={self.crop}"
