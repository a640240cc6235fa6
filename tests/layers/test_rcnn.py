"""SmoothL1Loss and Proposal against their definitions, and Proposal against OpenCV."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from caffe2torch.errors import LayerError
from caffe2torch.layers.rcnn import Proposal, make_anchors, parse_settings

from .messages import layer
from .opencv import run


@pytest.mark.parametrize("sigma", [1.0, 3.0, 0.5])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_smooth_l1_equals_its_definition(sigma: float, count: int) -> None:
    random = np.random.RandomState(0)
    a, b, inside, outside = (random.randn(3, 5, 2, 2).astype(np.float32) for _ in range(4))
    w, v = inside if count > 2 else np.ones_like(a), outside if count > 3 else np.ones_like(a)
    total, gradient, square = 0.0, np.zeros(a.shape), sigma * sigma
    for place in np.ndindex(*a.shape):
        d = float(w[place] * (a[place] - b[place]))
        near = abs(d) < 1 / square
        total += v[place] * (0.5 * square * d * d if near else abs(d) - 0.5 / square)
        slope = square * d if near else math.copysign(1, d)
        gradient[place] = slope * v[place] * (w[place] if count == 4 else 1)  # three bottoms: as in Fast R-CNN
    bottoms = [torch.from_numpy(x).requires_grad_() for x in (a, b, inside, outside)][:count]
    loss = layer(f'type: "SmoothL1Loss" smooth_l1_loss_param {{ sigma: {sigma} }}', [a.shape] * count)(*bottoms)
    loss.backward()
    assert loss.item() == pytest.approx(total / 3, rel=1e-5)
    for sign, bottom in zip((1, -1), bottoms[:2], strict=True):
        assert bottom.grad is not None
        np.testing.assert_allclose(bottom.grad.numpy(), sign * gradient / 3, atol=2e-6)
    assert all(bottom.grad is None for bottom in bottoms[2:])


@pytest.mark.parametrize(
    "text, shapes, reason",
    [
        ("", [(2, 3), (2, 4)], "equally many"),
        ("", [(2, 3), (2, 3), (2, 1)], "equally many"),
        ("loss_param { normalization: VALID }", [(2, 3), (2, 3)], "normalization"),
    ],
)
def test_impossible_smooth_l1_is_refused(text: str, shapes: list[tuple[int, ...]], reason: str) -> None:
    with pytest.raises(LayerError, match=reason):
        layer(f'type: "SmoothL1Loss" {text}', shapes)


def test_anchors_are_those_of_faster_rcnn() -> None:
    # The list printed in the header of its generate_anchors.py counts from 1; this one from 0.
    assert make_anchors(16, (0.5, 1, 2), (8, 16, 32)) == [
        (-84, -40, 99, 55),
        (-176, -88, 191, 103),
        (-360, -184, 375, 199),
        (-56, -56, 71, 71),
        (-120, -120, 135, 135),
        (-248, -248, 263, 263),
        (-36, -80, 51, 95),
        (-80, -168, 95, 183),
        (-168, -344, 183, 359),
    ]


ANCHORS = "ratio: 0.5 ratio: 1 ratio: 2 scale: 2 scale: 3"


def bottoms(images: int = 1) -> list[np.ndarray]:
    random = np.random.RandomState(0)
    info = np.tile([96, 112, 1.5], (images, 1))
    parts = (random.rand(images, 12, 6, 7), random.randn(images, 24, 6, 7) * 0.4, info)
    return [x.astype(np.float32) for x in parts]


def naive(p: Proposal, scores: np.ndarray, offsets: np.ndarray, info: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Regions and their scores, one image after the other."""
    rows = []
    for image in range(len(scores)):
        height, width, scale = info[image]
        found = []
        for y, x, k in np.ndindex(*scores.shape[2:], len(p.anchors)):
            left, upper, right, lower = np.array(p.anchors[k]) + np.array([x, y, x, y]) * p.stride
            dx, dy, dw, dh = offsets[image, 4 * k : 4 * k + 4, y, x].astype(np.float64)
            w, h = right - left + 1, lower - upper + 1
            centre = dx * w + left + w / 2, dy * h + upper + h / 2
            half = math.exp(dw) * w / 2, math.exp(dh) * h / 2
            box = [
                min(max(c + side * s, 0), most - 1)
                for side in (-1, 1)
                for c, s, most in zip(centre, half, (width, height), strict=True)
            ]
            large = min(box[2] - box[0], box[3] - box[1]) + 1 >= p.min_size * scale
            if large or not p.drop_small:
                found.append((scores[image, len(p.anchors) + k, y, x] * large, image, *box))
        found.sort(key=lambda row: -row[0])
        kept: list[tuple[float, ...]] = []
        for row in found[: p.before or None]:
            if len(kept) < (p.after or math.inf) and all(iou(row[2:], other[2:]) <= p.overlap for other in kept):
                kept.append(row)
        rows += kept
    table = np.array(rows)
    return table[:, 1:], table[:, 0]


def iou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width < 0 or height < 0:
        return 0.0
    shared = (width + 1) * (height + 1)
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (a, b)]
    return shared / (sum(areas) - shared)


@pytest.mark.parametrize(
    "settings",
    [
        "min_size: 1 pre_nms_topn: 100 post_nms_topn: 20",
        "min_size: 20 nms_thresh: 0.5",
        "min_size: 60 feat_stride: 8 base_size: 20 nms_thresh: 0.9",
    ],
)
@pytest.mark.parametrize("images", [1, 2])
def test_proposals_equal_their_definition(settings: str, images: int) -> None:
    inputs = bottoms(images)
    setting = f'type: "Proposal" top: "a" top: "b" proposal_param {{ {ANCHORS} {settings} }}'
    made = layer(setting, [x.shape for x in inputs])
    assert isinstance(made, Proposal)
    regions, scores = made(*map(torch.from_numpy, inputs))
    expected = naive(made, *inputs)
    assert scores.shape == expected[1].shape
    np.testing.assert_allclose(scores.numpy(), expected[1])
    if "60" not in settings:  # boxes of score 0 come in any order
        np.testing.assert_allclose(regions.numpy(), expected[0], atol=1e-4)


@pytest.mark.parametrize("settings", ["pre_nms_topn: 100 post_nms_topn: 20", "post_nms_topn: 15 nms_thresh: 0.5"])
def test_proposals_equal_opencv(settings: str, tmp_path: Path) -> None:
    inputs = bottoms()
    inputs[2][:, 2] = 0  # OpenCV drops no small boxes
    setting = f'type: "Proposal" proposal_param {{ {ANCHORS} {settings} }}'
    regions = layer(setting, [x.shape for x in inputs])(*map(torch.from_numpy, inputs))
    np.testing.assert_allclose(regions.numpy(), run(tmp_path, setting, inputs), atol=1e-4)


def python_layer(settings: str) -> Proposal:
    shapes = [(1, 18, 6, 7), (1, 36, 6, 7), (1, 3)]
    name = 'module: "rpn.proposal_layer" layer: "ProposalLayer"'
    made = layer(f'type: "Python" top: "a" top: "b" python_param {{ {name} {settings} }}', shapes)
    assert isinstance(made, Proposal)
    return made


def test_the_python_layer_drops_small_boxes() -> None:
    made = python_layer("param_str: \"'feat_stride': 16\"")
    random = np.random.RandomState(0)
    parts = (random.rand(1, 18, 6, 7), random.randn(1, 36, 6, 7), np.array([[300, 400, 3.0]]))
    inputs = [x.astype(np.float32) for x in parts]
    regions, scores = made(*map(torch.from_numpy, inputs))
    expected = naive(made, *inputs)
    assert (made.before, made.after, made.overlap, made.min_size) == (6000, 300, 0.7, 16)
    np.testing.assert_allclose(regions.numpy(), expected[0], atol=1e-3)
    np.testing.assert_allclose(scores.numpy(), expected[1][:, None])


def test_the_python_layer_reads_its_scales() -> None:
    made = python_layer("param_str: \"'feat_stride': 8\\n'scales': !!python/tuple [4, 8, 16]\"")
    assert made.stride == 8
    assert made.anchors == tuple(make_anchors(16, (0.5, 1, 2), (4, 8, 16)))


@pytest.mark.parametrize("text", ["param_str: \"'feat_stride': x\"", "", "param_str: \"'feat_stride': 16, 'more': 1\""])
def test_other_settings_of_the_python_layer_are_refused(text: str) -> None:
    with pytest.raises(LayerError, match="param_str"):
        python_layer(text)


def test_settings_may_be_on_one_line_or_several() -> None:
    assert parse_settings("{'a': 1, 'b': [2, 3]}") == parse_settings("'a': 1\n'b': [2, 3]\n") == {"a": 1, "b": [2, 3]}


@pytest.mark.parametrize(
    "shapes, reason",
    [
        ([(1, 11, 6, 7), (1, 24, 6, 7), (1, 3)], "for 6 anchors"),
        ([(1, 12, 6, 7), (1, 24, 7, 7), (1, 3)], "for 6 anchors"),
        ([(2, 12, 6, 7), (2, 24, 6, 7), (1, 3)], "third bottom"),
        ([(1, 12, 6, 7), (1, 24, 6, 7), (1, 2)], "third bottom"),
    ],
)
def test_impossible_proposals_are_refused(shapes: list[tuple[int, ...]], reason: str) -> None:
    with pytest.raises(LayerError, match=reason):
        layer(f'type: "Proposal" proposal_param {{ {ANCHORS} }}', shapes)


def test_proposals_need_ratios_and_scales() -> None:
    with pytest.raises(LayerError, match="ratio is"):
        layer('type: "Proposal"', [(1, 12, 6, 7), (1, 24, 6, 7), (1, 3)])


def test_the_largest_number_of_proposals_is_known() -> None:
    shapes = [x.shape for x in bottoms(2)]
    made = layer(f'type: "Proposal" top: "a" top: "b" proposal_param {{ {ANCHORS} post_nms_topn: 9 }}', shapes)
    assert made.top_shapes(shapes) == [(18, 5), (18,)]
