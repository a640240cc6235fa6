"""FlowNet's layers that prepare images inside the net: DataAugmentation, as deploy nets use it, and Mean."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from caffe2torch.errors import LayerError
from caffe2torch.layers.registry import Layer, Message, Shape, enum_name, register
from caffe2torch.layers.resample import Taps, weighted

Pair = tuple[int, int]


@register("DataAugmentation")
class DataAugmentation(Layer):
    """FlowNet's, in the test phase and without random changes: subtracts the mean of the training images; no gradient.

    With ``recompute_mean`` three blobs hold how many batches went into the mean, the mean image, of any size, and the
    mean of each channel. The latter is subtracted, with ``mean_per_pixel`` the image (or, where its size is not the
    bottom's, its own mean). While fewer than ``recompute_mean`` batches are counted the batch at hand goes into the
    mean before, as the fork has it: without weights its own mean is subtracted. The fork would go on counting; here
    every pass is the first. Without ``recompute_mean``, three values of ``mean`` are subtracted, unless mean_per_pixel.

    With ``crop_width`` and ``crop_height`` the middle is cut out first, at half a place bilinearly, and nothing is read
    beyond 1.05 before the end: of the last column of an uncropped plane 5 % come from the one before, and so for rows.
    """

    blobs = ("count", "mean", "channel_mean")
    no_gradient = (0,)
    count: Tensor
    mean: Tensor | None
    channel_mean: Tensor | None

    def __init__(
        self,
        channels: int,
        size: Pair,
        *,
        batches: int = 0,
        per_pixel: bool = True,
        crop: bool = False,
        values: Sequence[float] = (),
    ) -> None:
        """``size``: rows and columns of the top; ``batches``: ``recompute_mean``; ``values``: to subtract without."""
        super().__init__()
        self.size, self.batches, self.per_pixel, self.crop, self.values = size, batches, per_pixel, crop, tuple(values)
        self.register_buffer("count", torch.empty(1, 1, 1, 1))
        self.register_buffer("mean", torch.empty(1, channels, *size) if batches else None)
        self.register_buffer("channel_mean", torch.empty(1, channels, 1, 1) if batches else None)

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> DataAugmentation:
        p, shape = layer.augmentation_param, bottom_shapes[0]
        if len(shape) != 4:
            raise LayerError(f"the bottom has shape {shape}: expected 4 axes (N, C, H, W)")
        crop = p.HasField("crop_width") and p.HasField("crop_height")
        size: Pair = (p.crop_height, p.crop_width) if crop else (shape[2], shape[3])
        if crop and not all(1 <= cut <= n for cut, n in zip(size, shape[2:], strict=True)):
            raise LayerError(f"crop_height and crop_width are {size[0]} and {size[1]}: expected 1 to {shape[2:]}")
        changes = [f.name for f, _ in p.ListFields() if f.message_type and f.message_type.name.startswith("Random")]
        if changes and crop and p.augment_during_test:
            raise LayerError(
                f"augmentation_param has augment_during_test and {', '.join(changes)}: random changes are not "
                "supported; remove them"
            )
        values = list(p.mean) if len(p.mean) == 3 and not p.mean_per_pixel and not p.recompute_mean else []
        if values and shape[1] != 3:
            raise LayerError(f"augmentation_param has 3 values of mean, the bottom {shape[1]} channels: expected 3")
        return cls(shape[1], size, batches=p.recompute_mean, per_pixel=p.mean_per_pixel, crop=crop, values=values)

    def fill(self, layer: Message, generator: torch.Generator | None = None) -> None:
        for _, blob in self.blob_items():
            blob.zero_()

    def adapt(self, shapes: Sequence[Shape]) -> None:
        if self.mean is None or len(shapes) != 3:
            return
        image, now = tuple(shapes[1]), tuple(self.mean.shape)
        if len(image) == 4 and image[:2] == now[:2] and image != now:
            self.mean = self.mean.new_empty(image)

    def forward(self, x: Tensor) -> Tensor:
        if self.training and not x.is_meta:  # shapes are known in both phases
            raise LayerError("DataAugmentation runs in the test phase alone: augment images before they enter the net")
        x = x.detach()
        if self.crop:
            rows, columns = (_middle(n, cut, x.device) for n, cut in zip(x.shape[2:], self.size, strict=True))
            x = weighted(x, rows, columns)
        if self.batches:
            return x - self._subtracted(x)
        if self.values:
            return x - x.new_tensor(self.values).reshape(1, 3, 1, 1)
        return x

    def _subtracted(self, x: Tensor) -> Tensor:
        """What is subtracted, (1, C, H, W) or (1, C, 1, 1); which is a matter of the count alone, without a branch."""
        assert self.mean is not None
        assert self.channel_mean is not None
        number = self.count.trunc() + 1
        batch = x.mean(0, keepdim=True)
        if not self.per_pixel:  # the fork then loads no mean image
            return torch.where(number <= self.batches, batch.mean((2, 3), keepdim=True) / number, self.channel_mean)
        stored = self.mean if self.mean.shape[2:] == x.shape[2:] else self.mean.mean((2, 3), keepdim=True)
        return torch.where(number <= self.batches, (stored * (number - 1) + batch) / number, stored)

    def extra_repr(self) -> str:
        return f"batches={self.batches}, per_pixel={self.per_pixel}, crop={self.size if self.crop else None}"


def _middle(size: int, cut: int, device: torch.device) -> Taps:
    """Which two places make each place of the middle ``cut`` of ``size``."""
    at = torch.arange(cut, device=device, dtype=torch.float32) + (size - cut) / 2
    at = at.clamp(max=size - 1.05).clamp(min=0)
    first = at.floor()
    part = at - first
    return torch.stack((first, first + 1), 1), torch.stack((1 - part, part), 1)


@register("Mean")
class Mean(Layer):
    """FlowNet's: output_scale (input_scale x + mean_scale m) for each bottom, -m with ``operation: SUBTRACT``.

    The channels take the numbers of ``value`` as m in turn, from the first again after the last. A mean file is not
    supported. A gradient that would flow through the layer stops the fork; here it ends.
    """

    bottoms = (1, None)
    tops = (1, None)

    def __init__(
        self, values: Sequence[float], *, bottoms: int = 1, input_scale: float = 1.0, output_scale: float = 1.0
    ) -> None:
        """``values``: what is added, with the sign and mean_scale."""
        super().__init__()
        self.values, self.input_scale, self.output_scale = tuple(values), input_scale, output_scale
        self.no_gradient = tuple(range(bottoms))

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> Mean:
        p = layer.mean_param
        if not p.HasField("operation"):
            raise LayerError("mean_param has no operation: expected ADD or SUBTRACT")
        if p.file:
            raise LayerError(f"mean_param has the file {p.file!r}, which is not supported: give the mean as value")
        if not p.value or any(len(s) != 4 or s[1] % len(p.value) for s in bottom_shapes):
            raise LayerError(
                f"mean_param has {len(p.value)} values, the bottoms have shapes {', '.join(map(str, bottom_shapes))}: "
                "expected 4 axes, and a number of channels that the number of values divides"
            )
        if len(layer.top) != len(bottom_shapes):
            raise LayerError(f"found {len(bottom_shapes)} bottoms and {len(layer.top)} tops: expected as many")
        sign = -1 if enum_name(p, "operation") == "SUBTRACT" else 1
        return cls(
            [sign * p.mean_scale * value for value in p.value],
            bottoms=len(bottom_shapes),
            input_scale=p.input_scale,
            output_scale=p.output_scale,
        )

    def forward(self, *bottoms: Tensor) -> Tensor | tuple[Tensor, ...]:
        tops = tuple(self._one(x.detach()) for x in bottoms)
        return tops[0] if len(tops) == 1 else tops

    def _one(self, x: Tensor) -> Tensor:
        mean = x.new_tensor(self.values).repeat(x.shape[1] // len(self.values)).reshape(1, -1, 1, 1)
        return self.output_scale * (self.input_scale * x + mean)

    def extra_repr(self) -> str:
        return f"{self.values}, input_scale={self.input_scale:g}, output_scale={self.output_scale:g}"
