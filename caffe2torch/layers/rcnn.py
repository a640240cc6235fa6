"""Faster R-CNN's layers: SmoothL1Loss and Proposal. Its pooling layers are in roi.py."""

from __future__ import annotations

import ast
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from caffe2torch.errors import LayerError
from caffe2torch.layers.boxes import suppress
from caffe2torch.layers.loss import Loss, check_counts
from caffe2torch.layers.registry import Layer, Message, Shape, register


@register("SmoothL1Loss")
class SmoothL1Loss(Loss):
    """Sum of f(w (a - b)) over the batch size; f(d) is (sigma d)^2 / 2 up to 1 / sigma^2, then |d| - 1 / (2 sigma^2).

    Bottoms: a, b, and maybe the inside weights w, and maybe the outside weights that multiply f. With inside weights
    alone the gradient leaves w out, as in Fast R-CNN and SSD, where weights are 0 or 1.
    """

    bottoms = (2, 4)
    no_gradient = (2, 3)

    def __init__(self, sigma: float = 1.0) -> None:
        super().__init__()
        self.sigma = sigma

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> SmoothL1Loss:
        cls.check_batch(bottom_shapes[:2])
        for shape in bottom_shapes[1:]:
            check_counts((bottom_shapes[0], shape))
        if layer.loss_param.HasField("normalization") or layer.loss_param.HasField("normalize"):
            raise LayerError(
                "loss_param gives a normalization: only some forks read it for SmoothL1Loss; remove it (the sum is "
                "divided by the batch size), or register a class of your own for the layer"
            )
        return cls(layer.smooth_l1_loss_param.sigma)

    def forward(self, a: Tensor, b: Tensor, inside: Tensor | None = None, outside: Tensor | None = None) -> Tensor:
        b = b.reshape(a.shape)
        if inside is not None:
            distance = a - b
            weighted = distance * inside.detach().reshape(a.shape)
            a = weighted if outside is not None else weighted.detach() + (distance - distance.detach())
            b = torch.zeros_like(a)
        loss = F.smooth_l1_loss(a, b, reduction="none", beta=1 / self.sigma**2)
        if outside is not None:
            loss = loss * outside.detach().reshape(a.shape)
        return loss.sum() / a.shape[0]

    def extra_repr(self) -> str:
        return f"sigma={self.sigma:g}"


@register("Proposal")
class Proposal(Layer):
    """Regions that may hold an object: rows (image, x1, y1, x2, y2) in pixels, best first; a second top: their scores.

    Bottoms: probabilities (N, 2 anchors, H, W), the second half those of objects; offsets (N, 4 anchors, H, W);
    per image its height, width and scale. Boxes that come out smaller than ``min_size`` (times the scale) get score 0,
    as in PVANet's layer; with ``drop_small`` they go, as in Faster R-CNN's Python layer.
    Not captured by torch.export because the number of regions depends on the values.
    """

    bottoms = (3, 3)
    tops = (1, 2)
    no_gradient = (0, 1, 2)

    def __init__(
        self,
        anchors: Sequence[Sequence[float]],
        stride: int = 16,
        *,
        min_size: float = 16,
        before: int = 6000,
        after: int = 300,
        overlap: float = 0.7,
        scores: bool = False,
        drop_small: bool = False,
    ) -> None:
        """``before`` and ``after``: the most boxes before and after suppression (0: all)."""
        super().__init__()
        self.anchors, self.stride, self.min_size = tuple(map(tuple, anchors)), stride, min_size
        self.before, self.after, self.overlap = before, after, overlap
        self.scores, self.drop_small = scores, drop_small

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> Proposal:
        p = layer.proposal_param
        anchors = make_anchors(p.base_size, p.ratio, p.scale)
        check_bottoms(bottom_shapes, len(anchors))
        return cls(
            anchors,
            p.feat_stride,
            min_size=p.min_size,
            before=p.pre_nms_topn,
            after=p.post_nms_topn,
            overlap=p.nms_thresh,
            scores=len(layer.top) > 1,
        )

    @classmethod
    def from_python(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> Proposal:
        """Faster R-CNN's ``rpn.proposal_layer``, with the settings its configuration has unless changed there."""
        settings = parse_settings(layer.python_param.param_str)
        stride, scales = settings.get("feat_stride"), settings.get("scales", (8, 16, 32))
        known = not set(settings) - {"feat_stride", "scales"}
        if not known or not isinstance(stride, int) or not isinstance(scales, list | tuple):
            raise LayerError(f"param_str is {layer.python_param.param_str!r}: expected feat_stride and maybe scales")
        anchors = make_anchors(16, (0.5, 1, 2), scales)
        check_bottoms(bottom_shapes, len(anchors))
        before, after = (12000, 2000) if layer.phase == 0 else (6000, 300)
        return cls(anchors, stride, before=before, after=after, scores=len(layer.top) > 1, drop_small=True)

    def top_shapes(self, bottom_shapes: Sequence[Shape]) -> list[Shape]:
        images, _, rows, columns = bottom_shapes[0]
        most = images * min([n for n in (self.before, self.after) if n] + [len(self.anchors) * rows * columns])
        score: Shape = (most, 1) if self.drop_small else (most,)
        return [(most, 5), score] if self.scores else [(most, 5)]

    def forward(self, probabilities: Tensor, offsets: Tensor, info: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        regions, scores = [], []
        for image in range(len(probabilities)):
            boxes, values = self._propose(probabilities[image].detach(), offsets[image].detach(), info[image].detach())
            regions.append(torch.cat((torch.full_like(boxes[:, :1], image), boxes), 1))
            scores.append(values[:, None] if self.drop_small else values)
        return (torch.cat(regions), torch.cat(scores)) if self.scores else torch.cat(regions)

    def _propose(self, probabilities: Tensor, offsets: Tensor, info: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes and scores of one image; ``info`` is its height, width and scale (or scales of height and width)."""
        info = info.flatten()
        size, scale = info[:2].flip(0), info[2:4].flip(0)  # x before y, like the boxes
        scores = probabilities[len(self.anchors) :].permute(1, 2, 0).reshape(-1)
        boxes = self._boxes(offsets, size)
        large = ((boxes[:, 2:] - boxes[:, :2] + 1) >= self.min_size * scale).all(1)
        scores = scores * large
        if self.drop_small:
            boxes, scores = boxes[large], scores[large]
        scores, order = scores.sort(descending=True, stable=True)
        if self.before:
            scores, order = scores[: self.before], order[: self.before]
        boxes = boxes[order]
        everything = torch.ones_like(scores, dtype=torch.bool)[None]
        kept = suppress(boxes[None], everything, self.overlap, edge=1.0, most=self.after or None)[0]
        return boxes[kept], scores[kept]

    def _boxes(self, offsets: Tensor, size: Tensor) -> Tensor:
        """The anchors of all places moved by their offsets and cut to the image; rows by y, x, anchor."""
        rows, columns = offsets.shape[1:]
        y = torch.arange(rows, device=offsets.device, dtype=offsets.dtype) * self.stride
        x = torch.arange(columns, device=offsets.device, dtype=offsets.dtype) * self.stride
        places = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).repeat(1, 1, 2)
        anchors = (places[:, :, None] + torch.tensor(self.anchors, device=y.device, dtype=y.dtype)).reshape(-1, 4)
        moves = offsets.permute(1, 2, 0).reshape(-1, 4)
        sides = anchors[:, 2:] - anchors[:, :2] + 1
        centre = moves[:, :2] * sides + (anchors[:, :2] + 0.5 * sides)
        half = 0.5 * (moves[:, 2:].exp() * sides)
        corners = torch.stack((centre - half, centre + half), 1)
        return torch.minimum(corners, size - 1).clamp(min=0).flatten(1)

    def extra_repr(self) -> str:
        return (
            f"{len(self.anchors)} anchors, stride={self.stride}, min_size={self.min_size:g}, "
            f"before={self.before}, after={self.after}, overlap={self.overlap:g}"
        )


def check_bottoms(shapes: Sequence[Shape], anchors: int) -> None:
    """Raise LayerError unless the bottoms are probabilities and offsets for the anchors, and the images' sizes."""
    probabilities, offsets, info = shapes
    images = probabilities[0] if probabilities else 0
    wanted = [(images, n * anchors, *probabilities[2:]) for n in (2, 4)]
    if len(probabilities) != 4 or [probabilities, offsets] != wanted:
        raise LayerError(
            f"the bottoms have shapes {probabilities} and {offsets}: expected (N, {2 * anchors}, H, W) and "
            f"(N, {4 * anchors}, H, W) for {anchors} anchors"
        )
    if len(info) < 2 or info[0] != images or math.prod(info[1:]) < 3:
        raise LayerError(f"the third bottom has shape {info}: expected height, width and scale of each of {images}")


def make_anchors(base: int, ratios: Sequence[float], scales: Sequence[float]) -> list[tuple[float, ...]]:
    """Boxes around the first place, x1, y1, x2, y2: one for each ratio (height to width), and of it each scale."""
    if not ratios or not scales or min(*ratios, *scales) <= 0:
        raise LayerError(f"ratio is {list(ratios)} and scale is {list(scales)}: expected positive numbers")
    centre, anchors = 0.5 * (base - 1), list[tuple[float, ...]]()
    for ratio in ratios:
        width = math.floor(math.sqrt(base * base / ratio) + 0.5)
        height = math.floor(width * ratio + 0.5)
        for scale in scales:
            x, y = 0.5 * (width * scale - 1), 0.5 * (height * scale - 1)
            anchors.append((centre - x, centre - y, centre + x, centre + y))
    return anchors


def parse_settings(text: str) -> dict[str, object]:
    """The settings of a ``param_str``: lines or comma-separated pairs ``'name': value`` of numbers and lists."""
    pairs = text.strip().removeprefix("{").removesuffix("}").replace("!!python/tuple", "")
    try:
        lines = [line.strip().rstrip(",") for line in pairs.splitlines() if line.strip()]
        value = ast.literal_eval("{" + ",".join(lines) + "}")
    except (SyntaxError, ValueError) as error:
        raise LayerError(f"param_str is {text!r}: expected lines 'name': value") from error
    if not isinstance(value, dict):
        raise LayerError(f"param_str is {text!r}: expected lines 'name': value")
    return value
