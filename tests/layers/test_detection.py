"""DetectionOutput against a loop over all boxes, and against OpenCV."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from caffe2torch.errors import LayerError
from caffe2torch.layers.registry import Message

from .messages import layer, message
from .opencv import run

BOXES, CLASSES = 40, 3
CODES = ("CORNER", "CENTER_SIZE", "CORNER_SIZE")


def bottoms(images: int, share: str, spread: float = 1.0) -> list[np.ndarray]:
    random = np.random.RandomState(0)
    low = random.rand(BOXES, 2) * 0.7
    prior = np.concatenate([low, low + 0.1 + 0.2 * random.rand(BOXES, 2)], 1)
    priors = np.stack([prior.ravel(), np.tile([0.1, 0.1, 0.2, 0.3], BOXES)])[None]
    offsets = random.randn(images, BOXES * 4 * (1 if share == "true" else CLASSES)) * spread
    return [x.astype(np.float32) for x in (offsets, random.rand(images, BOXES * CLASSES), priors)]


def text(code: str, share: str, settings: str) -> str:
    if "nms_param" not in settings:
        settings += " nms_param { nms_threshold: 0.4 top_k: 30 }"
    if "background" not in settings:
        settings += " background_label_id: 0"
    return (
        'type: "DetectionOutput" detection_output_param { '
        f"num_classes: {CLASSES} code_type: {code} share_location: {share} {settings} }}"
    )


def iou(a: np.ndarray, b: np.ndarray) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return float(shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared))


def decoded(p: Message, offset: np.ndarray, prior: np.ndarray, variance: np.ndarray) -> np.ndarray:
    move = offset if p.variance_encoded_in_target else offset * variance
    size = prior[2:] - prior[:2]
    if p.code_type == 1:
        return prior + move
    if p.code_type == 3:
        return prior + move * np.concatenate([size, size])
    centre, half = (prior[:2] + prior[2:]) / 2 + move[:2] * size, size * np.exp(move[2:]) / 2
    return np.concatenate([centre - half, centre + half])


def best(p: Message, boxes: list[np.ndarray], scores: np.ndarray) -> list[int]:
    order = [i for i in np.argsort(-scores, kind="stable") if scores[i] > p.confidence_threshold]
    kept: list[int] = []
    limit = p.nms_param.nms_threshold
    for i in order[: p.nms_param.top_k] if p.nms_param.top_k > 0 else order:
        if all(iou(boxes[i], boxes[j]) <= limit for j in kept):
            kept.append(int(i))
            limit *= p.nms_param.eta if limit > 0.5 else 1
    return kept


def naive(setting: str, offsets: np.ndarray, scores: np.ndarray, priors: np.ndarray) -> np.ndarray:
    p = message(setting, bottoms=3).detection_output_param
    prior, variance = priors.astype(np.float64).reshape(2, BOXES, 4)
    rows = []
    for image in range(len(offsets)):
        moves = offsets[image].reshape(BOXES, -1, 4).astype(np.float64)
        own = scores[image].reshape(BOXES, CLASSES)
        found = []
        for label in range(CLASSES):
            if label == p.background_label_id:
                continue
            place = 0 if p.share_location else label
            boxes = [decoded(p, moves[i, place], prior[i], variance[i]) for i in range(BOXES)]
            found += [(image, label, own[i, label], *boxes[i]) for i in best(p, boxes, own[:, label])]
        if p.keep_top_k > -1:
            found = sorted(found, key=lambda row: -row[2])[: p.keep_top_k]
        rows += sorted(found, key=lambda row: (row[1], -row[2]))
    return np.array(rows).reshape(1, 1, -1, 7)


SETTINGS = [
    "confidence_threshold: 0.2 keep_top_k: 20",
    "confidence_threshold: 0.9",
    "keep_top_k: 7 background_label_id: 2",
    "background_label_id: -1 nms_param { nms_threshold: 0.45 }",
    "confidence_threshold: 0.1 nms_param { nms_threshold: 0.7 eta: 0.7 top_k: 25 }",
]


@pytest.mark.parametrize("code, share", list(itertools.product(CODES, ("true", "false"))))
@pytest.mark.parametrize("settings", SETTINGS)
def test_detections_equal_their_definition(code: str, share: str, settings: str) -> None:
    setting, inputs = text(code, share, settings), bottoms(2, share)
    top = layer(setting, [x.shape for x in inputs])(*map(torch.from_numpy, inputs)).numpy()
    expected = naive(setting, *inputs)
    assert top.shape == expected.shape
    np.testing.assert_allclose(top, expected, atol=1e-6)


@pytest.mark.parametrize("code", CODES)
def test_offsets_may_hold_the_variance(code: str) -> None:
    setting, inputs = text(code, "true", "variance_encoded_in_target: true"), bottoms(1, "true", spread=0.2)
    top = layer(setting, [x.shape for x in inputs])(*map(torch.from_numpy, inputs)).numpy()
    np.testing.assert_allclose(top, naive(setting, *inputs), atol=1e-6)


def by_score(rows: np.ndarray) -> np.ndarray:
    """OpenCV lists the boxes of an image by score."""
    rows = rows.reshape(-1, 7)
    return rows[np.lexsort((-rows[:, 2], rows[:, 0]))]


@pytest.mark.parametrize("code, share", list(itertools.product(CODES[:2], ("true", "false"))))
@pytest.mark.parametrize(
    "settings", ["confidence_threshold: 0.2 keep_top_k: 20", "keep_top_k: 7 background_label_id: 2"]
)
def test_detections_equal_opencv(code: str, share: str, settings: str, tmp_path: Path) -> None:
    setting, inputs = text(code, share, settings), bottoms(2, share)
    top = layer(setting, [x.shape for x in inputs])(*map(torch.from_numpy, inputs)).numpy()
    np.testing.assert_allclose(by_score(top), by_score(run(tmp_path, setting, inputs)), atol=1e-6)


def test_where_nothing_is_found_every_image_has_a_row_of_minus_one() -> None:
    setting, inputs = text("CORNER", "true", "confidence_threshold: 2"), bottoms(2, "true")
    top = layer(setting, [x.shape for x in inputs])(*map(torch.from_numpy, inputs))
    assert top.tolist() == [[[[0, -1, -1, -1, -1, -1, -1], [1, -1, -1, -1, -1, -1, -1]]]]


@pytest.mark.parametrize(
    "settings, most",
    [("", 2 * 2 * 30), ("keep_top_k: 20", 2 * 20), ("nms_param { } background_label_id: -1", 2 * 3 * 40)],
)
def test_the_largest_number_of_detections_is_known(settings: str, most: int) -> None:
    shapes = [x.shape for x in bottoms(2, "true")]
    assert layer(text("CORNER", "true", settings), shapes).top_shapes(shapes) == [(1, 1, most, 7)]


@pytest.mark.parametrize(
    "settings, shapes, reason",
    [
        ("num_classes: 0", None, "num_classes"),
        ("", [(1, 160), (1, 120), (1, 160)], "prior boxes"),
        ("", [(1, 160), (1, 80), (1, 2, 160)], "120 scores"),
        ("share_location: false", [(1, 160), (1, 120), (1, 2, 160)], "480 offsets"),
        ("nms_param { eta: 0 }", None, "eta"),
        ("biases: 1", None, "biases"),
    ],
)
def test_impossible_detections_are_refused(settings: str, shapes: list[tuple[int, ...]] | None, reason: str) -> None:
    setting = f'type: "DetectionOutput" detection_output_param {{ num_classes: {CLASSES} {settings} }}'
    if "num_classes: 0" in settings:
        setting = 'type: "DetectionOutput"'
    with pytest.raises(LayerError, match=reason):
        layer(setting, shapes or [x.shape for x in bottoms(1, "true")])
