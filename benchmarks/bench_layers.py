"""Every layer on the CPU against what one would write for it in plain torch, forward and forward with backward.

The two sides take turns in one thread; each figure is CPU time and the median of the ratios of neighbouring turns, so
that what else the machine does weighs little and on both. A layer not listed moves no data (Silence, Split), reads
files, or has no counterpart in torch alone (ROIPooling, PriorBox, MultiBoxLoss). Eltwise MAX takes the second bottom
where either is NaN, which torch.where can say and torch.maximum, much faster, cannot: it is compared with both.

Small layers are faster or slower from process to process, as their memory happens to lie: so it is several of them.

Run: ``python benchmarks/bench_layers.py [--only LRN] [--rounds 15] [--processes 3]``. Target: at most 1.3 x anywhere.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from caffe2torch import prototxt
from caffe2torch.layers import registry

TARGET = 1.3
VIEW = 0.02
"""Milliseconds below which a layer moves no data: only Python's calls would be compared."""
IMAGE = (8, 64, 28, 28)
ROWS = (256, 1000)
PLANE = (8, 28, 28)


@dataclass(frozen=True)
class Row:
    """One layer: its text, ``plain(layer, *bottoms)`` to compare it with, the shapes of its bottoms.

    ``whole`` are the bottoms of whole numbers from 0 on: labels, markers, indices, below the number given.
    """

    text: str
    plain: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...] = (IMAGE,)
    whole: dict[int, int] | None = None
    training: bool = False
    differs: str = ""
    """What ``plain`` answers differently."""

    @property
    def type(self) -> str:
        return self.text.split('"')[1]

    def build(self) -> registry.Layer:
        tops = "" if "top:" in self.text else 'top: "t"'
        bottoms = " ".join(f'bottom: "b{index}"' for index in range(len(self.shapes)))
        phase = "TRAIN" if self.training else "TEST"
        message = prototxt.parse(f'name: "l" phase: {phase} {bottoms} {tops} {self.text}', "LayerParameter")
        cls = registry.find(message.type)
        if cls is None:
            raise SystemExit(f"no class is registered for {message.type!r}")
        layer = cls.from_caffe(message, self.shapes)
        with torch.no_grad():
            for _, blob in layer.blob_items():
                blob.uniform_(0.01, 0.02)
        return layer.train(self.training)

    def inputs(self) -> list[Tensor]:
        whole = self.whole or {}
        return [
            torch.randint(whole[index], shape).float() if index in whole else torch.rand(shape).requires_grad_()
            for index, shape in enumerate(self.shapes)
        ]

    def __str__(self) -> str:
        settings = " ".join(self.text.partition("{")[2].rpartition("}")[0].split())
        return " ".join(filter(None, (self.type, settings, "(training)" if self.training else "", self.differs)))


def per_channel(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1)


def ceil_average(layer: Any, x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, 2, 1, ceil_mode=True)


def within_channel(layer: Any, x: Tensor) -> Tensor:
    return x / (1 + F.avg_pool2d(x * x, 3, 1, 1)) ** 0.75


def normalize_variance(layer: Any, x: Tensor) -> Tensor:
    centred = x - x.mean((2, 3), keepdim=True)
    return centred / (centred.square().mean((2, 3), keepdim=True).sqrt() + 1e-9)


def lstm_unit(layer: Any, c: Tensor, gates: Tensor, cont: Tensor) -> tuple[Tensor, Tensor]:
    i, f, o, g = gates.chunk(4, 2)
    c = cont.unsqueeze(2) * f.sigmoid() * c + i.sigmoid() * g.tanh()
    return c, o.sigmoid() * c.tanh()


def contrastive(layer: Any, a: Tensor, b: Tensor, same: Tensor) -> Tensor:
    d2 = (a - b).square().sum(1)
    return (same * d2 + (1 - same) * (1 - d2.sqrt()).clamp(min=0).square()).mean() / 2


def hinge(layer: Any, x: Tensor, y: Tensor) -> Tensor:
    signs = 1 - 2 * F.one_hot(y.long(), x.shape[1])
    return (1 + signs * x).clamp(min=0).sum() / len(x)


def pyramid(layer: Any, x: Tensor) -> Tensor:
    return torch.cat([F.adaptive_max_pool2d(x, bins).flatten(1) for bins in (1, 2, 4)], 1)


def running_batch_norm(layer: Any, x: Tensor) -> Tensor:
    mean, variance = torch.zeros_like(layer.mean), torch.ones_like(layer.variance)
    return F.batch_norm(x, mean, variance, training=True, momentum=0.001)


class Recurrence:
    """torch's own module as the other side, made once."""

    def __init__(self, module: nn.Module, after: Callable[[Tensor], Tensor]) -> None:
        self.module, self.after = module, after

    def __call__(self, layer: Any, x: Tensor, cont: Tensor) -> Tensor:
        return self.after(self.module(x)[0])


def recurrences() -> list[Row]:
    text = "recurrent_param {{ num_output: {} }}"
    sequence = ((50, 16, 256), (50, 16))
    output, lstm = nn.Linear(256, 256), nn.LSTM(256, 256)
    return [
        Row(
            f'type: "RNN" {text.format(256)}',
            Recurrence(nn.RNN(256, 256), lambda h: output(h).tanh()),
            sequence,
            {1: 2},
        ),
        Row(f'type: "LSTM" {text.format(256)}', Recurrence(nn.LSTM(256, 256), lambda h: h), sequence, {1: 1}),
        Row(
            'type: "Lstm" lstm_param { num_output: 256 }',
            lambda m, x: lstm(x)[0],
            ((50, 16, 256),),
        ),
        Row('type: "LSTMUnit" top: "c" top: "h"', lstm_unit, ((1, 256, 256), (1, 256, 1024), (1, 256)), {2: 2}),
    ]


def conv(settings: str, plain: Callable[..., Any], type: str = "Convolution", **other: Any) -> Row:
    return Row(f'type: "{type}" convolution_param {{ {settings} }}', plain, **other)


WEIGHTED = [
    conv("num_output: 64 kernel_size: 3 pad: 1", lambda m, x: F.conv2d(x, m.weight, m.bias, 1, 1)),
    conv(
        "num_output: 64 kernel_size: 5 pad: 2 stride: 2 group: 2",
        lambda m, x: F.conv2d(x, m.weight, m.bias, 2, 2, 1, 2),
    ),
    conv("num_output: 128 kernel_size: 1", lambda m, x: F.conv2d(x, m.weight, m.bias)),
    conv(
        "num_output: 32 kernel_size: 4 stride: 2 pad: 1",
        lambda m, x: F.conv_transpose2d(x, m.weight, m.bias, 2, 1),
        "Deconvolution",
    ),
    conv(
        "num_output: 64 kernel_size: 3 pad: 1",
        lambda m, x: F.conv2d(x, m.weight, m.bias, 1, 1, 1, 64),
        "ConvolutionDepthwise",
    ),
    conv("kernel_size: 3 pad: 1", lambda m, x: F.unfold(x, 3, 1, 1), "Im2col"),
    Row(
        'type: "InnerProduct" inner_product_param { num_output: 1000 }',
        lambda m, x: F.linear(x, m.weight, m.bias),
        (ROWS,),
    ),
    Row(
        'type: "Embed" embed_param { input_dim: 1000 num_output: 256 }',
        lambda m, x: F.embedding(x.long(), m.weight) + m.bias,
        ((256, 50),),
        {0: 1000},
    ),
    Row('type: "Scale"', lambda m, x: x * per_channel(m.weight)),
    Row(
        'type: "Scale" scale_param { bias_term: true }',
        lambda m, x: torch.addcmul(per_channel(m.bias), x, per_channel(m.weight)),
    ),
    Row('type: "Bias"', lambda m, x: x + per_channel(m.bias)),
    Row('type: "PReLU"', lambda m, x: F.prelu(x, m.weight)),
]
POOLED = [
    Row(
        'type: "Pooling" pooling_param { kernel_size: 3 stride: 2 }', lambda m, x: F.max_pool2d(x, 3, 2, ceil_mode=True)
    ),
    Row('type: "Pooling" pooling_param { kernel_size: 3 stride: 2 pad: 1 pool: AVE }', ceil_average),
    Row('type: "Pooling" pooling_param { global_pooling: true pool: AVE }', lambda m, x: F.adaptive_avg_pool2d(x, 1)),
    Row(
        'type: "Pooling" top: "t" top: "mask" pooling_param { kernel_size: 2 stride: 2 }',
        lambda m, x: F.max_pool2d(x, 2, 2, return_indices=True),
    ),
    Row('type: "SPP" spp_param { pyramid_height: 3 }', pyramid),
    Row('type: "LRN" lrn_param { local_size: 5 alpha: 0.0001 }', lambda m, x: F.local_response_norm(x, 5, 1e-4)),
    Row('type: "LRN" lrn_param { local_size: 3 norm_region: WITHIN_CHANNEL }', within_channel),
    Row('type: "MVN"', normalize_variance),
    Row('type: "BatchNorm"', lambda m, x: F.batch_norm(x, m.mean, m.variance)),
    Row('type: "BatchNorm"', running_batch_norm, training=True),
    Row(
        'type: "BN" bn_param { bn_mode: LEARN }',
        lambda m, x: F.batch_norm(x, None, None, m.weight.flatten(), m.bias.flatten(), True),
        training=True,
    ),
    Row('type: "Normalize"', lambda m, x: F.normalize(x.flatten(1)).view_as(x) * per_channel(m.scale)),
]
ELEMENTWISE = [
    Row('type: "ReLU"', lambda m, x: F.relu(x)),
    Row('type: "ReLU" relu_param { negative_slope: 0.1 }', lambda m, x: F.leaky_relu(x, 0.1)),
    Row('type: "ReLU6"', lambda m, x: F.relu6(x)),
    Row('type: "ELU"', lambda m, x: F.elu(x)),
    Row('type: "Sigmoid"', lambda m, x: x.sigmoid()),
    Row('type: "TanH"', lambda m, x: x.tanh()),
    Row('type: "AbsVal"', lambda m, x: x.abs()),
    Row('type: "BNLL"', lambda m, x: F.softplus(x)),
    Row('type: "Swish"', lambda m, x: F.silu(x)),
    Row('type: "HSwish"', lambda m, x: F.hardswish(x)),
    Row('type: "HSigmoid"', lambda m, x: F.hardsigmoid(x)),
    Row('type: "Clip" clip_param { min: 0.2 max: 0.8 }', lambda m, x: x.clamp(0.2, 0.8)),
    Row('type: "Power" power_param { power: 2 scale: 0.5 shift: 1 }', lambda m, x: (1 + 0.5 * x) ** 2),
    Row('type: "Exp"', lambda m, x: x.exp()),
    Row('type: "Log"', lambda m, x: x.log()),
    Row('type: "Threshold"', lambda m, x: (x > 0).to(x.dtype)),
    Row('type: "Dropout"', lambda m, x: F.dropout(x, 0.5, True), training=True),
    Row('type: "CReLU"', lambda m, x: torch.cat((x, -x), 1).relu()),
    Row('type: "Eltwise"', lambda m, a, b: a + b, (IMAGE, IMAGE)),
    Row('type: "Eltwise" eltwise_param { operation: PROD }', lambda m, a, b: a * b, (IMAGE, IMAGE)),
    Row('type: "Eltwise" eltwise_param { operation: MAX }', lambda m, a, b: torch.where(a > b, a, b), (IMAGE, IMAGE)),
    Row(
        'type: "Eltwise" eltwise_param { operation: MAX }',
        lambda m, a, b: torch.maximum(a, b),
        (IMAGE, IMAGE),
        differs="(maximum: other NaNs)",
    ),
    Row('type: "Eltwise" eltwise_param { coeff: 2 coeff: -1 }', lambda m, a, b: 2 * a - b, (IMAGE, IMAGE)),
    Row('type: "Axpy"', lambda m, a, x, y: torch.addcmul(y, a, x), ((8, 64, 1, 1), IMAGE, IMAGE)),
]
MOVED = [
    Row('type: "Concat"', lambda m, a, b: torch.cat((a, b), 1), (IMAGE, IMAGE)),
    Row('type: "Slice" top: "a" top: "b"', lambda m, x: x.chunk(2, 1)),
    Row('type: "Crop" crop_param { offset: 2 }', lambda m, x, y: x[:, :, 2:22, 2:22], (IMAGE, (8, 64, 20, 20))),
    Row('type: "Tile" tile_param { tiles: 2 }', lambda m, x: x.repeat(1, 2, 1, 1)),
    Row('type: "BatchReindex"', lambda m, x, i: x[i.long()], (IMAGE, (12,)), {1: 8}),
    Row('type: "Filter"', lambda m, x, keep: x[keep != 0], (IMAGE, (8,)), {1: 2}),
    Row('type: "Permute" permute_param { order: [0, 2, 3, 1] }', lambda m, x: x.permute(0, 2, 3, 1).contiguous()),
    Row('type: "ShuffleChannel" shuffle_channel_param { group: 4 }', lambda m, x: F.channel_shuffle(x, 4)),
    Row('type: "Reorg" reorg_param { stride: 2 }', lambda m, x: F.pixel_unshuffle(x, 2)),
    Row('type: "Upsample" upsample_param { scale: 2 }', lambda m, x: F.interpolate(x, scale_factor=2.0)),
    Row(
        'type: "Upsample" upsample_param { scale: 2 }',
        lambda m, x, mask: F.max_unpool2d(x, mask.long(), 2),
        (IMAGE, IMAGE),
        {1: 784},
    ),
    Row(
        'type: "Unpooling" unpooling_param { kernel_size: 2 unpool_size: 56 }',
        lambda m, x, mask: F.max_unpool2d(x, mask.long(), 2),
        (IMAGE, IMAGE),
        {1: 784},
    ),
    Row('type: "Reverse" reverse_param { axis: 1 }', lambda m, x: x.flip(1)),
    Row('type: "Transpose" transpose_param { dim: [3, 0, 2, 1] }', lambda m, x: x.permute(3, 0, 2, 1).contiguous()),
    Row(
        'type: "Interp" interp_param { zoom_factor: 2 }',
        lambda m, x: F.interpolate(x, (55, 55), mode="bilinear", align_corners=True),
    ),
    Row('type: "Reduction" reduction_param { axis: 1 }', lambda m, x: x.flatten(1).sum(1)),
    Row('type: "Reduction" reduction_param { axis: 1 operation: ASUM }', lambda m, x: x.flatten(1).abs().sum(1)),
    Row('type: "Reduction" reduction_param { operation: SUMSQ }', lambda m, x: x.square().sum()),
    Row('type: "ArgMax"', lambda m, x: x.flatten(1).argmax(1), (ROWS,)),
    Row('type: "Softmax"', lambda m, x: x.softmax(1), (ROWS,)),
    Row('type: "Softmax"', lambda m, x: x.softmax(1)),
]
LOSSES = [
    Row('type: "SoftmaxWithLoss"', lambda m, x, y: F.cross_entropy(x, y.long()), (ROWS, (256,)), {1: 1000}),
    Row('type: "SoftmaxWithLoss"', lambda m, x, y: F.cross_entropy(x, y.long()), (IMAGE, PLANE), {1: 64}),
    Row(
        'type: "SoftmaxWithLoss" loss_param { ignore_label: 3 }',
        lambda m, x, y: F.cross_entropy(x, y.long(), ignore_index=3),
        (IMAGE, PLANE),
        {1: 64},
    ),
    Row(
        'type: "SigmoidCrossEntropyLoss"',
        lambda m, x, y: F.binary_cross_entropy_with_logits(x, y, reduction="sum") / len(x),
        (ROWS, ROWS),
        {1: 2},
    ),
    Row('type: "EuclideanLoss"', lambda m, a, b: (a - b).square().sum() / (2 * len(a)), (ROWS, ROWS)),
    Row('type: "ContrastiveLoss"', contrastive, (ROWS, ROWS, (256,)), {2: 2}),
    Row('type: "HingeLoss"', hinge, (ROWS, (256,)), {1: 1000}),
    Row(
        'type: "MultinomialLogisticLoss"',
        lambda m, x, y: F.nll_loss(x.clamp(min=1e-20).log(), y.long()),
        (ROWS, (256,)),
        {1: 1000},
    ),
    Row(
        'type: "InfogainLoss"',
        lambda m, x, y, h: -(h[y.long()] * x.log_softmax(1)).sum() / len(x),
        (ROWS, (256,), (1000, 1000)),
        {1: 1000, 2: 2},
    ),
    Row('type: "SmoothL1Loss"', lambda m, a, b: F.smooth_l1_loss(a, b, reduction="sum") / len(a), (ROWS, ROWS)),
    Row('type: "Accuracy"', lambda m, x, y: (x.argmax(1) == y).float().mean(), (ROWS, (256,)), {1: 1000}),
]


def times(sides: Sequence[Callable[[], object]], rounds: int) -> list[tuple[float, ...]]:
    """Seconds a call of each side, ``rounds`` times in turns; each turn is as many calls as take some milliseconds."""
    for side in sides:
        side()
    start = time.process_time()
    sides[-1]()
    calls = max(1, min(50, int(0.004 / (time.process_time() - start))))
    found = []
    for number in range(rounds):
        turn = [0.0] * len(sides)
        for index in sorted(range(len(sides)), reverse=bool(number % 2)):
            start = time.process_time()
            for _ in range(calls):
                sides[index]()
            turn[index] = (time.process_time() - start) / calls
        found.append(tuple(turn))
    return found


def both_ways(run: Callable[[], Any], leaves: Sequence[Tensor]) -> Callable[[], object] | None:
    """Forward and backward from ones in every top that has a gradient; None if none has."""
    tops = [top for top in _tops(run()) if top.requires_grad]
    ones = [torch.ones_like(top) for top in tops]

    def step() -> object:
        made = [top for top in _tops(run()) if top.requires_grad]
        return torch.autograd.grad(made, leaves, ones, allow_unused=True)

    return step if tops else None


def _tops(result: Any) -> Sequence[Tensor]:
    return result if isinstance(result, (tuple, list)) else (result,)


def without_gradient(run: Callable[[], Any]) -> Callable[[], object]:
    def step() -> object:
        with torch.no_grad():
            return run()

    return step


def measure(row: Row, rounds: int) -> list[tuple[str, float, float, float]]:
    """(which, our milliseconds, torch's, ratio) of the forward pass and of forward and backward."""
    torch.manual_seed(0)
    layer, bottoms = row.build(), row.inputs()
    if row.type == "LSTM":
        bottoms[1] += 1  # the usual case; streams that restart on the way take a loop

    def ours() -> Any:
        return layer(*bottoms)

    def plain() -> Any:
        return row.plain(layer, *bottoms)

    module = getattr(row.plain, "module", None)
    leaves = [x for x in (*bottoms, *layer.parameters()) if x.requires_grad]
    others = [x for x in bottoms if x.requires_grad] + (
        list(module.parameters()) if module else list(layer.parameters())
    )
    sides = {
        "forward": (without_gradient(ours), without_gradient(plain)),
        "both": (both_ways(ours, leaves), both_ways(plain, others)),
    }
    found = []
    for which, (mine, theirs) in sides.items():
        if mine is None or theirs is None:
            continue
        turns = times((mine, theirs), rounds)
        a, b = (1e3 * statistics.median(turn[index] for turn in turns) for index in range(2))
        found.append((which, a, b, statistics.median(x / y for x, y in turns)))
    return found


MEMORY = {"MALLOC_MMAP_THRESHOLD_": 1 << 30, "MALLOC_TRIM_THRESHOLD_": 1 << 32, "MALLOC_TOP_PAD_": 1 << 28}
"""glibc gives memory back to the system and takes it again page by page, which costs more than a small layer, at one
side or the other as chance has it: these keep it."""


def in_process(options: argparse.Namespace) -> list[list[tuple[str, float, float, float]]]:
    """The figures of all rows, measured in a process of their own."""
    command = [sys.executable, __file__, "--only", options.only, "--rounds", str(options.rounds), "--processes", "0"]
    environment = os.environ | {name: str(value) for name, value in MEMORY.items()}
    found = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(found.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="types that contain this")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--processes", type=int, default=3, help="default: 3; 0 measures in this one and prints JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = [*WEIGHTED, *POOLED, *ELEMENTWISE, *MOVED, *LOSSES, *recurrences()]
    rows = [row for row in rows if options.only.lower() in row.type.lower()]
    if not options.processes:
        print(json.dumps([measure(row, options.rounds) for row in rows]))
        return
    runs = [in_process(options) for _ in range(options.processes)]
    print(f"torch {torch.__version__}, one thread; CPU times in ms, medians of {len(runs)} x {options.rounds} rounds")
    slow = []
    for row, *same in zip(rows, *runs, strict=True):
        line = f"{str(row)[:66]:66s}"
        for which, *values in zip(("forward", "both"), *same, strict=False):
            ours, theirs, ratio = (statistics.median(value[part] for value in values) for part in (1, 2, 3))
            line += f"{which:>9s} {ours:7.3f} /{theirs:7.3f} ={ratio:5.2f}"
            if ratio > TARGET and theirs > VIEW:
                slow.append(f"{row} ({which}) {ratio:.2f}")
        print(line)
    print(f"over {TARGET} x: " + ("; ".join(slow) or "none"))


if __name__ == "__main__":
    main()
