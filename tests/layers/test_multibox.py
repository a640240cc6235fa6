"""MultiBoxLoss against loops over every box, with gradients, for all matchings, minings, codes and losses."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from caffe2torch.errors import LayerError
from caffe2torch.layers.registry import Message

from .messages import layer, message
from .test_detection import decoded, iou

BOXES, CLASSES, IMAGES = 30, 3, 4
FLT_MIN = 1.17549435e-38


def bottoms(share: bool = True, classes: int = CLASSES, seed: int = 0) -> list[np.ndarray]:
    """Images 0, 1 and 3 have objects, two of image 1 on one place; there is one of image 9 and a row of item -1."""
    random = np.random.RandomState(seed)
    low = random.rand(BOXES, 2) * 0.8 - 0.05
    prior = np.concatenate([low, low + 0.1 + 0.3 * random.rand(BOXES, 2)], 1)
    priors = np.stack([prior.ravel(), np.tile([0.1, 0.15, 0.2, 0.3], BOXES)])[None]
    rows = []
    for place, image in enumerate((3, 0, -1, 1, 0, 1, 3, 9, 3, 0)):
        corner = random.rand(2) * 0.6
        box = prior[7] if image == 1 else (*corner, *(corner + 0.1 + 0.3 * random.rand(2)))
        rows.append((image, 1 + place % (classes - 1), 0, *box, place % 3 == 0))
    offsets = random.randn(IMAGES, BOXES * 4 * (1 if share else classes)) * 0.8
    scores = random.randn(IMAGES, BOXES * classes) * 3
    return [x.astype(np.float32) for x in (offsets, scores, priors, np.array(rows)[None, None])]


def text(settings: str, outside: str = "") -> str:
    classes = "" if "num_classes" in settings else f"num_classes: {CLASSES}"
    return f'type: "MultiBoxLoss" {outside} multibox_loss_param {{ {classes} {settings} }}'


def run(setting: str, inputs: list[np.ndarray], dtype: torch.dtype = torch.float32) -> list[np.ndarray]:
    """The top and the gradients of offsets and scores, of twice the top."""
    blobs = [torch.from_numpy(x).to(dtype).requires_grad_(index < 2) for index, x in enumerate(inputs)]
    top = layer(setting, [x.shape for x in inputs], training=True)(*blobs)
    (top * 2).backward()
    return [x.numpy() for x in (top.detach(), *(blob.grad for blob in blobs[:2]))]


# The definition: what SSD does for each image, box by box.


def pairs(p: Message, boxes: np.ndarray, objects: list[np.ndarray]) -> tuple[list[int], list[float]]:
    """The object each box is matched with (-1: none, -2: left out) and its largest overlap."""
    index, largest, overlaps = [-1] * len(boxes), [0.0] * len(boxes), {}
    for i, box in enumerate(boxes):
        if p.ignore_cross_boundary_bbox and (min(box) < 0 or max(box) > 1):
            index[i] = -2
            continue
        for j, one in enumerate(objects):
            if one is not None and iou(box, one[3:7]) > 1e-6:
                overlaps[i, j] = iou(box, one[3:7])
                largest[i] = max(largest[i], overlaps[i, j])
    waiting = dict(overlaps)
    while waiting:
        i, j = max(waiting, key=lambda pair: (waiting[pair], -pair[0], -pair[1]))
        index[i] = j
        waiting = {pair: value for pair, value in waiting.items() if pair[0] != i and pair[1] != j}
    if p.match_type == 1:
        for i in range(len(boxes)):
            near = {j: value for (k, j), value in overlaps.items() if k == i and value >= p.overlap_threshold}
            if index[i] == -1 and near:
                index[i] = max(near, key=lambda j: (near[j], -j))
    return index, largest


def encoded(p: Message, box: np.ndarray, prior: np.ndarray, variance: np.ndarray) -> np.ndarray:
    size = prior[2:] - prior[:2]
    if p.code_type == 2:
        centre = ((box[:2] + box[2:]) - (prior[:2] + prior[2:])) / 2 / size
        found = np.concatenate([centre, np.log((box[2:] - box[:2]) / size)])
    else:
        found = (box - prior) / (np.concatenate([size, size]) if p.code_type == 3 else 1)
    return found / variance


def distance(p: Message, d: np.ndarray) -> tuple[float, np.ndarray]:
    """The loss of a difference of offsets, and its gradient."""
    if p.loc_loss_type == 0:
        return float((d * d).sum() / 2), d
    return float(np.where(abs(d) < 1, d * d / 2, abs(d) - 0.5).sum()), np.where(abs(d) < 1, d, np.sign(d))


def softmax_loss(scores: np.ndarray, label: int) -> tuple[float, np.ndarray]:
    likely = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
    return -math.log(max(likely[label], FLT_MIN)), likely - np.eye(len(scores))[label]


def logistic_loss(scores: np.ndarray, target: np.ndarray) -> tuple[float, np.ndarray]:
    likely = 1 / (1 + np.exp(-scores))
    return float(-(target * np.log(likely) + (1 - target) * np.log(1 - likely)).sum()), likely - target


def mined(p: Message, losses: list[float], index: list[int], largest: list[float], boxes: np.ndarray) -> set[int]:
    hard = p.mining_type == 2
    able = [i for i in range(BOXES) if hard or (index[i] == -1 and largest[i] < p.neg_overlap)]
    most = p.sample_size if hard else int(np.float32(sum(j > -1 for j in index)) * np.float32(p.neg_pos_ratio))
    order = sorted(able, key=lambda i: (-losses[i], i))
    if p.HasField("nms_param"):
        kept: list[int] = []
        for i in order[: p.nms_param.top_k] if p.nms_param.top_k > -1 else order:
            area = np.prod(np.maximum(boxes[i, 2:] - boxes[i, :2], 0))
            if area >= 1e-5 and all(iou(boxes[i], boxes[k]) <= p.nms_param.nms_threshold for k in kept):
                kept.append(i)
        order = kept
    return set(order[:most])


def naive(setting: str, offsets: np.ndarray, scores: np.ndarray, priors: np.ndarray, rows: np.ndarray) -> list:
    made = message(setting, bottoms=4, phase="TRAIN")
    p, background = made.multibox_loss_param, made.multibox_loss_param.background_label_id
    prior, variance = priors.astype(np.float64).reshape(2, BOXES, 4)
    moves = offsets.astype(np.float64).reshape(IMAGES, BOXES, -1, 4)
    confidence = scores.astype(np.float64).reshape(IMAGES, BOXES, -1)
    classes = confidence.shape[2]
    columns = range(moves.shape[2])
    of_places = of_scores = 0.0
    matches = 0
    place_gradient, score_gradient = np.zeros(moves.shape), np.zeros(confidence.shape)
    flat = np.full(confidence.size, float(background))  # LOGISTIC's targets where nothing is mined
    for image in range(IMAGES):
        objects = [r.astype(np.float64) for r in rows[0, 0] if r[0] == image and (p.use_difficult_gt or not r[7])]
        predicted = np.array(
            [[decode(p, moves[image, i, c], prior[i], variance[i]) for i in range(BOXES)] for c in columns]
        )
        found: dict[int, list[int]] = {}
        largest = [0.0] * BOXES
        if p.use_prior_for_matching or p.share_location:
            index, largest = pairs(p, prior if p.use_prior_for_matching else predicted[0], objects)
            for c in columns:
                own = [j if p.share_location or j < 0 or objects[j][1] == c else -1 for j in index]
                found[c] = own
        else:
            for c in columns:
                found[c], _ = pairs(p, predicted[c], [one if one[1] == c else None for one in objects])
        labels = [background] * BOXES
        ones: list[tuple[int, int]] = []
        for c, i in itertools.product(columns, range(BOXES)):
            if found[c][i] > -1:
                labels[i] = background + 1 if p.map_object_to_agnostic else int(objects[found[c][i]][1])
                ones.append((i, labels[i]))
        differences = {}
        for c, i in itertools.product(columns, range(BOXES)):
            if found[c][i] > -1:
                d = moves[image, i, c] / (variance[i] if p.encode_variance_in_target else 1)
                d = d - encoded(p, objects[found[c][i]][3:7], prior[i], variance[i])
                box = prior[i] if p.use_prior_for_matching else predicted[c, i]
                differences[c, i] = np.where((box < 0) | (box > 1), 0, d) if p.bp_inside else d
        chosen = set(range(BOXES))
        if p.mining_type:
            eye = np.eye(classes)
            losses = [
                logistic_loss(confidence[image, i], eye[labels[i]])[0]
                if p.conf_loss_type
                else softmax_loss(confidence[image, i], labels[i])[0]
                for i in range(BOXES)
            ]
            if p.mining_type == 2:
                losses = [losses[i] + distance(p, differences.get((0, i), np.zeros(1)))[0] for i in range(BOXES)]
            taken = mined(p, losses, found[0], largest, prior if p.use_prior_for_nms else predicted[0])
            if p.mining_type == 2:
                differences = {(c, i): d for (c, i), d in differences.items() if i in taken}
            chosen = {i for _, i in differences} | {i for i in taken if found[0][i] == -1} if objects else set()
        matches += len(differences)
        for (c, i), d in differences.items():
            loss, place_gradient[image, i, c] = distance(p, d)
            of_places += loss
        for i, label in ones:
            flat[image * BOXES + i * classes + label] = 1
        for i in chosen:
            if not p.conf_loss_type:
                loss, score_gradient[image, i] = softmax_loss(confidence[image, i], labels[i])
                of_scores += loss
            elif p.mining_type:
                target = np.full(classes, float(background))
                target[labels[i]] = 1
                loss, score_gradient[image, i] = logistic_loss(confidence[image, i], target)
                of_scores += loss
    if p.conf_loss_type and not p.mining_type:
        of_scores, gradient = logistic_loss(confidence.reshape(-1), flat)
        score_gradient = gradient.reshape(confidence.shape)
    mode = made.loss_param.normalization
    by = max(1, {0: IMAGES * BOXES, 1: matches, 2: IMAGES, 3: 1}[mode])
    first, second = list(made.propagate_down)[:2] or (True, True)
    top = (p.loc_weight * of_places * first + of_scores * second) / by
    place_gradient *= 2 * p.loc_weight * first / by
    score_gradient *= 2 * second / by
    return [top, place_gradient.reshape(offsets.shape), score_gradient.reshape(scores.shape), matches]


def decode(p: Message, move: np.ndarray, prior: np.ndarray, variance: np.ndarray) -> np.ndarray:
    scaled = move if p.encode_variance_in_target else move * variance
    return decoded(_coded(p.code_type), scaled, prior, np.ones(4))


def _coded(code: int) -> Message:
    made = message(f'type: "DetectionOutput" detection_output_param {{ num_classes: 2 code_type: {code} }}')
    return made.detection_output_param


def check(setting: str, inputs: list[np.ndarray], *, matches: bool = True) -> None:
    *expected, count = naive(setting, *inputs)
    assert bool(count) == matches
    for dtype, tolerance in ((torch.float32, 2e-5), (torch.float64, 1e-5)):  # offsets wanted are float32 in both
        for found, value in zip(run(setting, inputs, dtype), expected, strict=True):
            np.testing.assert_allclose(found, value, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("code", ["CORNER", "CENTER_SIZE", "CORNER_SIZE"])
@pytest.mark.parametrize("match_type", ["BIPARTITE", "PER_PREDICTION"])
@pytest.mark.parametrize("mining", ["NONE", "MAX_NEGATIVE", "HARD_EXAMPLE sample_size: 9"])
@pytest.mark.parametrize("by_prior", ["true", "false"])
def test_loss_and_gradients_equal_their_definition(code: str, match_type: str, mining: str, by_prior: str) -> None:
    settings = f"code_type: {code} match_type: {match_type} mining_type: {mining} use_prior_for_matching: {by_prior}"
    check(text(f"{settings} overlap_threshold: 0.3"), bottoms())


SETTINGS = [
    "",
    "loc_loss_type: L2 loc_weight: 0.7",
    "conf_loss_type: LOGISTIC",
    "conf_loss_type: LOGISTIC mining_type: NONE",
    "conf_loss_type: LOGISTIC mining_type: HARD_EXAMPLE sample_size: 5 loc_loss_type: L2",
    "use_difficult_gt: false",
    "neg_pos_ratio: 1.7 neg_overlap: 0.2",
    "neg_pos_ratio: 100 neg_overlap: 0.1",
    "encode_variance_in_target: true",
    "encode_variance_in_target: true code_type: CENTER_SIZE use_prior_for_matching: false",
    "bp_inside: true",
    "bp_inside: true use_prior_for_matching: false encode_variance_in_target: true",
    "ignore_cross_boundary_bbox: true",
    "ignore_cross_boundary_bbox: true mining_type: HARD_EXAMPLE sample_size: 25",
    "nms_param { nms_threshold: 0.2 top_k: -1 }",
    "nms_param { nms_threshold: 0.2 top_k: 12 } use_prior_for_nms: true",
    "nms_param { nms_threshold: 0.2 }",
    "nms_param { nms_threshold: 0.1 top_k: 20 } mining_type: HARD_EXAMPLE code_type: CENTER_SIZE",
    "mining_type: MAX_NEGATIVE do_neg_mining: true",
]


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("settings", SETTINGS)
def test_settings_do_what_their_definition_says(settings: str, seed: int) -> None:
    check(text(f"{settings} overlap_threshold: 0.3"), bottoms(seed=seed))


@pytest.mark.parametrize("by_prior", ["true", "false"])
@pytest.mark.parametrize("loss", ["SOFTMAX", "LOGISTIC"])
def test_classes_may_have_offsets_of_their_own(by_prior: str, loss: str) -> None:
    settings = f"share_location: false mining_type: NONE use_prior_for_matching: {by_prior} conf_loss_type: {loss}"
    check(text(f"{settings} overlap_threshold: 0.2"), bottoms(share=False))


@pytest.mark.parametrize("loss", ["SOFTMAX", "LOGISTIC"])
@pytest.mark.parametrize("mining", ["NONE", "MAX_NEGATIVE"])
def test_the_background_may_be_another_class(loss: str, mining: str) -> None:
    inputs = bottoms()
    inputs[3][..., 1] -= 1
    check(text(f"background_label_id: 2 conf_loss_type: {loss} mining_type: {mining}"), inputs)


@pytest.mark.parametrize("mining", ["NONE", "MAX_NEGATIVE"])
def test_objects_may_be_mapped_to_one_class(mining: str) -> None:
    inputs = bottoms(classes=2)
    check(text(f"num_classes: 2 map_object_to_agnostic: true mining_type: {mining}"), inputs)


def test_objects_that_are_mapped_to_one_class_may_have_any_label_where_nothing_is_mined() -> None:
    inputs = bottoms(classes=2)
    inputs[3][..., 1] += 5
    check(text("num_classes: 2 map_object_to_agnostic: true mining_type: NONE"), inputs)
    with pytest.raises(LayerError, match="has label 6: expected 0 to 1"):
        run(text("num_classes: 2 map_object_to_agnostic: true"), inputs)


@pytest.mark.parametrize("overlap, matches", [(0.5, 2), (0.51, 1)])
def test_an_overlap_of_just_the_threshold_is_a_match_and_too_much_for_a_negative(overlap: float, matches: int) -> None:
    """The second box overlaps the object by 0.5; it is mined only where more is allowed."""
    prior = [[0, 0, 1, 1, 0, 0, 1, 0.5], [0.1] * 8]
    blobs = torch.zeros(1, 8), torch.zeros(1, 4), torch.tensor([prior]), torch.tensor([[[[0.0, 1, 0, 0, 0, 1, 1, 0]]]])
    settings = f"num_classes: 2 overlap_threshold: {overlap} loc_weight: 0 code_type: CENTER_SIZE"
    for negative, boxes in ((0.5, matches), (0.51, 2)):
        setting = text(f"{settings} neg_overlap: {negative}", "loss_param { normalization: NONE }")
        top = layer(setting, [x.shape for x in blobs], training=True)(*blobs)
        assert top.item() == pytest.approx(boxes * math.log(2))


@pytest.mark.parametrize("mode", ["FULL", "VALID", "BATCH_SIZE", "NONE"])
def test_the_sum_is_divided_by_the_matches_unless_loss_param_says_otherwise(mode: str) -> None:
    check(text("", f"loss_param {{ normalization: {mode} }}"), bottoms())


@pytest.mark.parametrize("normalize, same", [("true", "VALID"), ("false", "BATCH_SIZE")])
def test_the_older_form_of_normalization_is_read(normalize: str, same: str) -> None:
    old = text("", f"loss_param {{ normalize: {normalize} }}")
    new = text("", f"loss_param {{ normalization: {same} }}")
    assert (
        run(old, bottoms())[0]
        == run(new, bottoms())[0]
        != run(text("", "loss_param { normalization: NONE }"), bottoms())[0]
    )


@pytest.mark.parametrize("propagated", ["true, false", "false, true", "false, false"])
def test_a_bottom_without_propagation_has_no_part_in_the_loss(propagated: str) -> None:
    check(text("", f"propagate_down: [{propagated}, false, false]"), bottoms())


@pytest.mark.parametrize("settings", ["mining_type: MAX_NEGATIVE", "mining_type: HARD_EXAMPLE"])
def test_without_ground_truth_the_loss_is_zero(settings: str) -> None:
    inputs = bottoms()
    inputs[3] = np.full((1, 1, 1, 8), -1, np.float32)
    top, offsets, scores = run(text(settings), inputs)
    assert top == 0
    assert not offsets.any()
    assert not scores.any()


def test_without_ground_truth_and_mining_every_box_is_background() -> None:
    inputs = bottoms()
    inputs[3] = np.full((1, 1, 1, 8), -1, np.float32)
    check(text("mining_type: NONE"), inputs, matches=False)


def test_hard_examples_of_an_image_without_matches_are_background() -> None:
    inputs = bottoms()
    inputs[3] = np.array([[[[2, 1, 0, 5, 5, 6, 6, 0]]]], np.float32)
    check(text("mining_type: HARD_EXAMPLE sample_size: 3"), inputs, matches=False)


def test_a_certain_score_counts_as_at_least_flt_min() -> None:
    inputs = bottoms()
    inputs[1] *= 200
    check(text("mining_type: NONE"), inputs)


@pytest.mark.parametrize("label", [3, -2])
def test_a_matched_label_that_is_no_class_is_refused(label: int) -> None:
    inputs = bottoms()
    inputs[3][0, 0, 3, 1] = label
    with pytest.raises(LayerError, match=f"has label {label}: expected 0 to 2"):
        run(text(""), inputs)


def test_ground_truth_of_the_background_is_refused() -> None:
    inputs = bottoms()
    inputs[3][0, 0, 0, 1] = 0
    with pytest.raises(LayerError, match="label 0, which is background_label_id"):
        run(text(""), inputs)


@pytest.mark.parametrize(
    "settings, row, value, reason",
    [
        ("", 1, 0, "variance that is not positive"),
        ("code_type: CENTER_SIZE use_prior_for_matching: false", 0, 0.5, "no area"),
    ],
)
def test_impossible_prior_boxes_are_refused(settings: str, row: int, value: float, reason: str) -> None:
    inputs = bottoms()
    inputs[2][0, row] = value
    if row == 1:
        assert naive(text(""), *bottoms())[3]  # there are matches, whose variances are read
    with pytest.raises(LayerError, match=reason):
        run(text(settings), inputs)


@pytest.mark.parametrize(
    "setting, reason",
    [
        (text("num_classes: 0"), "num_classes is 0"),
        (text("background_label_id: 3"), "background_label_id is 3: expected 0 to 2"),
        (text("background_label_id: 3 conf_loss_type: LOGISTIC"), "background_label_id is 3"),
        (text("do_neg_mining: false"), "do_neg_mining: false, but mining_type is MAX_NEGATIVE"),
        (text("do_neg_mining: true mining_type: NONE"), "do_neg_mining: true, but mining_type is NONE"),
        (text("share_location: false"), "only mining_type NONE goes with share_location: false"),
        (text("mining_type: HARD_EXAMPLE sample_size: 0"), "sample_size is 0"),
        (text("map_object_to_agnostic: true"), "expected num_classes 2"),
        (text("normalize: true"), "normalize, of the first SSD alone"),
        (text("", "propagate_down: [true, true, true, false]"), "propagate_down: true for its prior boxes"),
    ],
)
def test_settings_that_ssd_refuses_are_refused(setting: str, reason: str) -> None:
    with pytest.raises(LayerError, match=reason):
        layer(setting, [x.shape for x in bottoms()])


@pytest.mark.parametrize(
    "bottom, shape, reason",
    [
        (0, (IMAGES, 119), "need 120 offsets"),
        (1, (IMAGES, 91), "and 90 scores"),
        (1, (IMAGES + 1, 90), "need 120 offsets"),
        (2, (1, 1, 120), "expected prior boxes"),
        (3, (IMAGES,), r"fourth bottom has shape \(4,\): expected \(1, 1, rows, 8\)"),
    ],
)
def test_bottoms_of_other_shapes_are_refused(bottom: int, shape: tuple[int, ...], reason: str) -> None:
    shapes = [x.shape for x in bottoms()]
    shapes[bottom] = shape
    with pytest.raises(LayerError, match=reason):
        layer(text(""), shapes)
