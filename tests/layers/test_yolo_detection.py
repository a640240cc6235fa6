"""The YOLO forks' detections against loops over their rule."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from caffe2torch.errors import LayerError
from caffe2torch.layers.registry import Message

from .messages import layer, message

Array = NDArray[Any]
Shape = tuple[int, ...]

BIASES = " ".join(f"biases: {value}" for value in (10, 14, 23, 27, 37, 58, 81, 82, 135, 169, 344, 319))


@dataclass
class Box:
    """A prediction that passed the threshold."""

    label: int
    score: float
    x: float
    y: float
    width: float
    height: float


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def v2_boxes(p: Message, maps: Sequence[Array]) -> list[Box]:
    found = []
    for blob in maps:
        images, channels, side, _ = blob.shape
        values = channels // p.num_box
        for b, row, column, n in np.ndindex(images, side, side, p.num_box):
            own = [float(v) for v in blob[b, n * values : (n + 1) * values, row, column]]
            likely = [math.exp(v - max(own[5:])) for v in own[5:]]
            label = likely.index(max(likely))
            score = sigmoid(own[4]) * likely[label] / sum(likely)
            if score >= p.confidence_threshold:
                width = math.exp(own[2]) * p.biases[2 * n] / side
                height = math.exp(own[3]) * p.biases[2 * n + 1] / side
                x, y = (column + sigmoid(own[0])) / side, (row + sigmoid(own[1])) / side
                found.append(Box(label, score, x, y, width, height))
    return found


def v3_boxes(p: Message, maps: Sequence[Array]) -> list[Box]:
    found = []
    for index, blob in enumerate(maps):
        images, _, side, _ = blob.shape
        first = index * (len(p.mask) // p.mask_group_num)
        pixels = side * p.anchors_scale[index]
        for b, place, n in np.ndindex(images, side * side, p.num_box):
            row, column = divmod(place, side)
            start, anchor = n * (5 + p.num_classes), p.mask[first + n]
            own = [float(v) for v in blob[b, start : start + 5 + p.num_classes, row, column]]
            for label in range(p.num_classes):
                score = sigmoid(own[5 + label]) * sigmoid(own[4])
                if score > p.confidence_threshold:
                    width = math.exp(own[2]) * p.biases[2 * anchor] / pixels
                    height = math.exp(own[3]) * p.biases[2 * anchor + 1] / pixels
                    x, y = (column + sigmoid(own[0])) / side, (row + sigmoid(own[1])) / side
                    found.append(Box(label, score, x, y, width, height))
    return found


def overlap(a: Box, b: Box) -> float:
    width = min(a.x + a.width / 2, b.x + b.width / 2) - max(a.x - a.width / 2, b.x - b.width / 2)
    height = min(a.y + a.height / 2, b.y + b.height / 2) - max(a.y - a.height / 2, b.y - b.height / 2)
    shared = 0.0 if width < 0 or height < 0 else width * height
    return shared / (a.width * a.height + b.width * b.height - shared)


def naive(text: str, maps: Sequence[Array]) -> Array:
    made = message(text, bottoms=len(maps))
    if made.type == "YoloDetectionOutput":
        p = made.yolo_detection_output_param
        boxes = v2_boxes(p, maps)
    else:
        p = made.yolov3_detection_output_param
        boxes = v3_boxes(p, maps)
    boxes.sort(key=lambda box: -box.score)
    dropped = [False] * len(boxes)
    for i in range(len(boxes)):
        for j in range(i + 1, len(boxes)):
            if not dropped[i] and overlap(boxes[i], boxes[j]) >= p.nms_threshold:
                dropped[j] = True
    rows = [
        (0, b.label + 1, b.score, b.x - b.width / 2, b.y - b.height / 2, b.x + b.width / 2, b.y + b.height / 2)
        for b, gone in zip(boxes, dropped, strict=True)
        if not gone
    ]
    return np.array(rows).reshape(1, 1, -1, 7)


def maps(*shapes: Shape) -> list[Array]:
    random = np.random.RandomState(0)
    return [(random.randn(*shape) * 1.5).astype(np.float32) for shape in shapes]


def found(text: str, inputs: Sequence[Array]) -> Array:
    top = layer(text, [x.shape for x in inputs])(*[torch.from_numpy(x) for x in inputs])
    return np.asarray(top.numpy())


def v2(settings: str) -> str:
    return f'type: "YoloDetectionOutput" yolo_detection_output_param {{ {settings} }}'


def v3(settings: str) -> str:
    return f'type: "Yolov3DetectionOutput" yolov3_detection_output_param {{ {settings} }}'


ANCHORS = "num_box: 2 biases: [1.1, 0.4, 0.7, 2]"
TWO_SCALES = f"{BIASES} anchors_scale: [32, 16] mask: [3, 4, 5, 0, 1, 2]"
USES = [
    (v2(f"num_classes: 4 {ANCHORS}"), [(1, 18, 5, 5)]),
    (v2(f"num_classes: 1 {ANCHORS} confidence_threshold: 0.6 nms_threshold: 0.2"), [(2, 12, 4, 4)]),
    (v2(f"num_classes: 3 {ANCHORS} confidence_threshold: 0.4 nms_threshold: 0.7"), [(1, 16, 3, 3), (1, 16, 6, 6)]),
    (v3(f"num_classes: 3 {TWO_SCALES}"), [(1, 24, 3, 3), (1, 24, 6, 6)]),
    (v3(f"num_classes: 3 {TWO_SCALES} confidence_threshold: 0.5 nms_threshold: 0.2"), [(2, 24, 3, 3), (2, 24, 6, 6)]),
    (v3(f"num_classes: 2 num_box: 2 {BIASES} anchors_scale: 8 mask_group_num: 1 mask: [2, 0]"), [(1, 14, 5, 5)]),
    # Each map has a share of three anchors, of which num_box takes the first two.
    (v3(f"num_classes: 2 num_box: 2 nms_threshold: 0.8 {TWO_SCALES}"), [(1, 14, 2, 2), (1, 14, 4, 4)]),
    (
        v3(f"num_classes: 1 num_box: 1 {BIASES} mask_group_num: 3 anchors_scale: [32, 16, 8] mask: [5, 1, 0]"),
        [(1, 6, 1, 1), (1, 6, 2, 2), (1, 6, 4, 4)],
    ),
]


@pytest.mark.parametrize("text, shapes", USES)
def test_detections_equal_their_definition(text: str, shapes: list[Shape]) -> None:
    inputs = maps(*shapes)
    expected = naive(text, inputs)
    assert expected.shape[2] > 1
    top = found(text, inputs)
    assert top.shape == expected.shape
    np.testing.assert_allclose(top, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("text, shapes", USES)
def test_the_largest_number_of_detections_is_known(text: str, shapes: list[Shape]) -> None:
    bare = re.sub(r"(confidence|nms)_threshold: [\d.]+", "", text).rstrip(" }")
    everything = found(f"{bare} confidence_threshold: 0 nms_threshold: 2 }}", maps(*shapes))
    assert layer(text, shapes).top_shapes(shapes) == [everything.shape]


@pytest.mark.parametrize("text, shapes", USES)
def test_in_float64_only_the_corners_are_rounded(text: str, shapes: list[Shape]) -> None:
    inputs = [x.astype(np.float64) for x in maps(*shapes)]
    expected, top = naive(text, inputs), found(text, inputs)
    assert top.dtype == np.float64
    np.testing.assert_allclose(top[..., :3], expected[..., :3], rtol=1e-14)
    np.testing.assert_array_equal(top[..., 3:], top[..., 3:].astype(np.float32))
    np.testing.assert_allclose(top[..., 3:], expected[..., 3:], rtol=1e-6, atol=1e-6)


def one_cell(*boxes: Sequence[float]) -> list[Array]:
    """A map of one place; each box gives its channels."""
    return [np.array(boxes, np.float32).reshape(1, -1, 1, 1)]


@pytest.mark.parametrize("threshold, rows", [(0.5, 1), (0.50001, 0)])
def test_a_score_of_v2_that_equals_the_threshold_passes(threshold: float, rows: int) -> None:
    text = v2(f"num_classes: 1 num_box: 1 biases: [1, 1] confidence_threshold: {threshold}")
    top = found(text, one_cell([0, 0, 0, 0, 0, 3]))
    assert (top[0, 0, :, 1] == 1).sum() == rows


@pytest.mark.parametrize("threshold, rows", [(0.25, 0), (0.24999, 1)])
def test_a_score_of_v3_that_equals_the_threshold_does_not_pass(threshold: float, rows: int) -> None:
    settings = "num_classes: 1 num_box: 1 biases: [1, 1] anchors_scale: 1 mask_group_num: 1 mask: 0"
    top = found(v3(f"{settings} confidence_threshold: {threshold}"), one_cell([0, 0, 0, 0, 0, 0]))
    assert (top[0, 0, :, 1] == 1).sum() == rows


@pytest.mark.parametrize("threshold, labels", [(0.5, [1]), (0.50001, [1, 2])])
def test_an_overlap_that_equals_the_threshold_drops_whatever_the_label(threshold: float, labels: list[int]) -> None:
    text = v2(f"num_classes: 2 num_box: 2 biases: [1, 1, 1, 0.5] nms_threshold: {threshold}")
    top = found(text, one_cell([0, 0, 0, 0, 2, 9, 0], [0, 0, 0, 0, 1, 0, 9]))
    assert top[0, 0, :, 1].tolist() == labels


def test_a_box_of_v3_drops_itself_under_a_lesser_label() -> None:
    settings = "num_classes: 3 num_box: 1 biases: [1, 1] anchors_scale: 1 mask_group_num: 1 mask: 0"
    values = one_cell([0, 0, 0, 0, 5, 1, 3, 2])
    assert found(v3(settings), values)[0, 0, :, 1].tolist() == [2]
    assert found(v3(f"{settings} nms_threshold: 1.5"), values)[0, 0, :, 1].tolist() == [2, 3, 1]


def test_boxes_drop_those_of_other_images_and_all_are_of_image_0() -> None:
    text = v2("num_classes: 1 num_box: 1 biases: [1, 1]")
    same = np.concatenate([one_cell([0, 0, 0, 0, score, 0])[0] for score in (1, 2)])
    apart = same.copy()
    apart[1, 2:4] = -3  # much smaller
    assert found(text, [same])[0, 0, :, :3].tolist() == [[0, 1, pytest.approx(sigmoid(2))]]
    assert found(text, [apart])[0, 0, :, 0].tolist() == [0, 0]


def test_nothing_is_cut_at_the_edges() -> None:
    top = found(v2("num_classes: 1 num_box: 1 biases: [2, 3]"), one_cell([0, 0, 0, 0, 0, 0]))
    assert top[0, 0, :, 3:].tolist() == [[-0.5, -1.0, 1.5, 2.0]]


def test_equally_likely_labels_give_the_first() -> None:
    text = v2("num_classes: 3 num_box: 1 biases: [1, 1]")
    assert found(text, one_cell([0, 0, 0, 0, 5, 1, 2, 2]))[0, 0, :, 1].tolist() == [2]


def test_boxes_of_infinite_sides_stay() -> None:
    text = v2("num_classes: 1 num_box: 2 biases: [1, 1, 1, 1]")
    top = found(text, one_cell([0, 0, 99, 99, 2, 0], [0, 0, 99, 99, 1, 0]))
    assert top[0, 0, :, 3].tolist() == [-math.inf] * 2


def test_half_precision_gives_what_its_values_give_in_float32() -> None:
    text, shapes = USES[3]
    inputs = [x.astype(np.float16) for x in maps(*shapes)]
    expected = found(text, [x.astype(np.float32) for x in inputs])
    np.testing.assert_array_equal(found(text, inputs), expected.astype(np.float16))


@pytest.mark.parametrize("text, shapes", [USES[1], USES[4]], ids=["v2", "v3"])
def test_where_nothing_is_found_every_image_has_a_row_of_minus_one(text: str, shapes: list[Shape]) -> None:
    top = found(text, [np.full(shape, -9, np.float32) for shape in shapes])
    assert top.tolist() == [[[[0, -1, -1, -1, -1, -1, -1], [1, -1, -1, -1, -1, -1, -1]]]]


@pytest.mark.parametrize(
    "text, shapes, reason",
    [
        (v2(ANCHORS), [(1, 18, 5, 5)], "no num_classes"),
        (v2(f"num_classes: 0 {ANCHORS}"), [(1, 10, 5, 5)], "no num_classes"),
        (v2(f"num_classes: 4 {ANCHORS}"), [(1, 17, 5, 5)], r"\(N, 18, side, side\)"),
        (v2(f"num_classes: 4 {ANCHORS}"), [(1, 18, 5)], r"\(N, 18, side, side\)"),
        (v2("num_classes: 4 num_box: 0"), [(1, 0, 5, 5)], "0 boxes"),
        (v2(f"num_classes: 4 {ANCHORS}"), [(1, 18, 5, 4)], "not square"),
        (v2(f"num_classes: 4 {ANCHORS}"), [(1, 18, 5, 5), (2, 18, 5, 5)], "the same for all bottoms"),
        (v2("num_classes: 4 num_box: 2 biases: [1, 1, 1]"), [(1, 18, 5, 5)], "anchor 1 is missing"),
        (v3(TWO_SCALES), [(1, 24, 3, 3), (1, 24, 6, 6)], "no num_classes"),
        (v3(f"num_classes: 3 {TWO_SCALES}"), [(1, 24, 3, 3)], "1 bottoms, mask_group_num 2"),
        (v3(f"num_classes: 3 {BIASES} anchors_scale: 32 mask: 0"), [(1, 24, 3, 3), (1, 24, 6, 6)], "1 anchors_scale"),
        (v3(f"num_classes: 3 {TWO_SCALES} gaussian_box: true"), [(1, 24, 3, 3), (1, 24, 6, 6)], "gaussian_box"),
        (v3(f"num_classes: 3 {TWO_SCALES}"), [(1, 24, 3, 2), (1, 24, 6, 6)], "not square"),
        (
            v3(f"num_classes: 3 {BIASES} anchors_scale: [32, 16] mask: [0, 1, 2, 3]"),
            [(1, 24, 3, 3), (1, 24, 6, 6)],
            "expected num_box 3",
        ),
        (
            v3(f"num_classes: 3 {BIASES} anchors_scale: [32, 0] mask: [0, 1, 2, 3, 4, 5]"),
            [(1, 24, 3, 3), (1, 24, 6, 6)],
            "anchors_scale 0",
        ),
        (
            v3(f"num_classes: 3 {BIASES} anchors_scale: [32, 16] mask: [0, 1, 2, 3, 4, 6]"),
            [(1, 24, 3, 3), (1, 24, 6, 6)],
            "anchor 6 is missing",
        ),
    ],
)
def test_impossible_detections_are_refused(text: str, shapes: list[Shape], reason: str) -> None:
    with pytest.raises(LayerError, match=reason):
        layer(text, shapes)
