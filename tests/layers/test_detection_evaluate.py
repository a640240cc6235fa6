"""DetectionEvaluate against loops over every detection, with and without the sizes of the images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from caffe2torch.errors import LayerError

from .messages import layer

CLASSES = 4


def bottoms(seed: int = 0, images: int = 4, difficult: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """Many detections near few objects; image 2 has no object, image 0 no detection, scores are often equal."""
    random = np.random.RandomState(seed)
    low = random.rand(14, 2) * 0.8 - 0.1  # some leave the picture
    objects = np.zeros((14, 8))
    objects[:, 0], objects[:, 1] = random.choice([0, 1, 3, 5], 14), random.randint(1, CLASSES + 1, 14)
    objects[:, 3:5], objects[:, 5:7] = low, low + 0.1 + 0.3 * random.rand(14, 2)
    objects[:, 7] = random.rand(14) < difficult
    found = np.zeros((60, 7))
    near = objects[random.randint(0, 14, 60)]
    found[:, 0], found[:, 1] = random.randint(1, images, 60), near[:, 1]
    found[:, 0] = np.where(random.rand(60) < 0.8, np.where(near[:, 0] > 0, near[:, 0], 1), found[:, 0])
    found[:, 2], found[:, 3:] = random.randint(0, 9, 60) / 10, near[:, 3:7] + random.randn(60, 4) * 0.03
    return found.astype(np.float32)[None, None], objects.astype(np.float32)[None, None]


def text(settings: str = "") -> str:
    return f'type: "DetectionEvaluate" detection_evaluate_param {{ num_classes: {CLASSES} {settings} }}'


def run(setting: str, found: np.ndarray, objects: np.ndarray) -> np.ndarray:
    made = layer(setting, [found.shape, objects.shape])
    return made(torch.from_numpy(found), torch.from_numpy(objects)).numpy()


def pixels(box: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    box = box.astype(np.float64)
    return box if size is None else box.clip(0, 1) * [size[1], size[0], size[1], size[0]]


def shared(a: np.ndarray, b: np.ndarray, edge: int) -> float:
    def area(box: np.ndarray) -> float:
        return 0.0 if (box[2:] < box[:2]).any() else float((box[2] - box[0] + edge) * (box[3] - box[1] + edge))

    if a[0] > b[2] or b[0] > a[2] or a[1] > b[3] or b[1] > a[3]:
        inner = np.zeros(4)
    else:
        inner = np.array([max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])])
    width, height = inner[2] - inner[0] + edge, inner[3] - inner[1] + edge
    return width * height / (area(a) + area(b) - width * height) if min(width, height) > 0 else 0.0


def naive(
    found: np.ndarray, objects: np.ndarray, *, background: int, least: float, difficult: bool, sizes: list
) -> np.ndarray:
    """``sizes``: of the images that have a row, in their order."""
    true = []
    for row in objects[0, 0]:
        if row[0] == -1:
            break
        true.append(row)
    top = []
    for label in range(CLASSES):
        if label != background:
            count = sum(1 for row in true if row[1] == label and (difficult or not row[7]))
            top.append((-1, label, count, -1, -1))
    rows = [row for row in found[0, 0] if row[0] != -1]
    for place, image in enumerate(sorted({row[0] for row in rows})):
        size = sizes[place] if sizes else None
        for label in sorted({row[1] for row in rows if row[0] == image and row[1] != -1}):
            own = [row for row in rows if row[0] == image and row[1] == label]
            there = [row for row in true if row[0] == image and row[1] == label]
            taken = set()
            for row in sorted(own, key=lambda row: -row[2]) if there else own:
                overlaps = [shared(pixels(row[3:], size), pixels(one[3:7], size), int(bool(sizes))) for one in there]
                best = int(np.argmax(overlaps)) if there else -1
                if not there or overlaps[best] < least:
                    right, wrong = 0, 1
                elif not difficult and there[best][7]:
                    right, wrong = 0, 0
                else:
                    right, wrong = int(best not in taken), int(best in taken)
                    taken.add(best)
                top.append((image, label, row[2], right, wrong))
    top += [(0, 0, 0, 0, 0)] * sum(1 for row in found[0, 0] if row[0] == -1 and row[1] != -1)
    return np.array(top, np.float32)[None, None]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("difficult", [True, False])
@pytest.mark.parametrize("least", [0.5, 0.7, 0.02])
def test_rows_equal_their_definition(seed: int, difficult: bool, least: float) -> None:
    settings = f"overlap_threshold: {least} evaluate_difficult_gt: {str(difficult).lower()}"
    expected = naive(*bottoms(seed), background=0, least=least, difficult=difficult, sizes=[])
    assert set(map(tuple, expected[0, 0, :, 3:])) == {(-1, -1), (1, 0), (0, 1)} | (set() if difficult else {(0, 0)})
    np.testing.assert_array_equal(run(text(settings), *bottoms(seed)), expected)


def test_the_background_may_be_another_class() -> None:
    found, objects = bottoms()
    found[..., 1] -= 1
    objects[..., 1] -= 1
    keep = [found[:, :, found[0, 0, :, 1] != 3], objects[:, :, objects[0, 0, :, 1] != 3]]
    expected = naive(*keep, background=3, least=0.5, difficult=True, sizes=[])
    np.testing.assert_array_equal(run(text("background_label_id: 3"), *keep), expected)


def test_rows_of_no_detection_and_of_no_image_count_as_in_ssd() -> None:
    found, objects = bottoms()
    found[0, 0, 3] = [1, -1, -1, -1, -1, -1, -1]  # DetectionOutput's row for an image without any
    found[0, 0, 5, 0] = -1
    expected = naive(found, objects, background=0, least=0.5, difficult=True, sizes=[])
    assert expected.shape == (1, 1, CLASSES - 1 + 59, 5)
    np.testing.assert_array_equal(run(text(), found, objects), expected)


def test_ground_truth_ends_at_the_first_row_of_item_minus_one() -> None:
    found, objects = bottoms()
    objects[0, 0, 6, 0] = -1
    expected = naive(found, objects, background=0, least=0.5, difficult=True, sizes=[])
    np.testing.assert_array_equal(run(text(), found, objects), expected)


def test_without_any_ground_truth_every_detection_is_wrong() -> None:
    found, _ = bottoms()
    top = run(text(), found, np.full((1, 1, 1, 8), -1, np.float32))
    assert top[0, 0, :3].tolist() == [[-1, 1, 0, -1, -1], [-1, 2, 0, -1, -1], [-1, 3, 0, -1, -1]]
    assert (top[0, 0, 3:, 3:] == [0, 1]).all()


def test_without_any_detection_the_classes_alone_are_left() -> None:
    nothing = np.array([[[[0, -1, -1, -1, -1, -1, -1]]]], np.float32)
    top = run(text(), nothing, bottoms()[1])
    np.testing.assert_array_equal(top, naive(nothing, bottoms()[1], background=0, least=0.5, difficult=True, sizes=[]))
    assert top.shape == (1, 1, 3, 5)


@pytest.mark.parametrize("least", [0.5, 0.02])
@pytest.mark.parametrize("resize", ["", "resize_param { height: 300 width: 300 }"])
def test_boxes_are_compared_in_pixels_where_sizes_are_given(
    least: float, resize: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sizes = [(10, 7), (3, 4), (20, 9), (2, 5), (6, 6)]
    Path("sizes.txt").write_text("".join(f"image{i} {h} {w}\n" for i, (h, w) in enumerate(sizes)), "utf-8")
    found, objects = bottoms()
    setting = text(f'name_size_file: "sizes.txt" overlap_threshold: {least} {resize}')
    made = layer(setting, [found.shape, objects.shape])
    place, differs = 0, False
    for seed in range(4):  # the file starts again after its last line
        found, objects = bottoms(seed)
        if seed == 1:
            found[0, 0, 0] = [0, -1, -1, -1, -1, -1, -1]  # such a row uses up a line too
        images = len(set(found[0, 0, :, 0]))
        own = [sizes[(place + i) % 5] for i in range(images)]
        place += images
        settings = {"background": 0, "least": least, "difficult": True}
        expected = naive(found, objects, **settings, sizes=own)
        differs |= not np.array_equal(expected, naive(found, objects, **settings, sizes=[]))
        top = made(torch.from_numpy(found), torch.from_numpy(objects)).numpy()
        np.testing.assert_array_equal(top, expected)
    assert differs


@pytest.mark.parametrize(
    "line",
    ["name 3", "name 3 x", "name 3 0", "name 1 1", "a b 3 4", "name 3 " + "9" * 5000],
    ids=lambda line: line[:10],
)
def test_a_line_that_gives_no_size_is_refused(line: str, tmp_path: Path) -> None:
    path = tmp_path / "sizes.txt"
    path.write_text(f"first 3 4\n{line}\n", "utf-8")
    with pytest.raises(LayerError, match="line 2: found"):
        run(text(f'name_size_file: "{path}"'), *bottoms())


def test_a_missing_file_of_sizes_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(LayerError, match=r"absent\.txt: no such file.*remove name_size_file"):
        run(text(f'name_size_file: "{tmp_path / "absent.txt"}"'), *bottoms())


@pytest.mark.parametrize("place, reason", [(0, "a detection has label 0"), (1, "box of the ground truth has label 0")])
def test_the_background_among_the_boxes_is_refused(place: int, reason: str) -> None:
    inputs = bottoms()
    inputs[place][0, 0, 2, 1] = 0
    with pytest.raises(LayerError, match=reason):
        run(text(), *inputs)


@pytest.mark.parametrize(
    "settings, reason",
    [
        ("background_label_id: 4", "num_classes 4 and background_label_id 4"),
        ("overlap_threshold: 0", "overlap_threshold is 0"),
        ("resize_param { resize_mode: FIT_SMALL_SIZE }", "only WARP is supported"),
    ],
)
def test_settings_it_cannot_follow_are_refused(settings: str, reason: str) -> None:
    with pytest.raises(LayerError, match=reason):
        run(text(settings), *bottoms())


@pytest.mark.parametrize("shapes", [((1, 1, 3, 8), (1, 1, 2, 8)), ((1, 1, 3, 7), (2,)), ((2, 1, 3, 7), (1, 1, 2, 8))])
def test_bottoms_of_other_shapes_are_refused(shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(LayerError, match=r"bottom has shape .* expected \(1, 1, rows, [78]\)"):
        layer(text(), shapes)


def test_an_overlap_of_just_the_threshold_is_enough() -> None:
    found = np.array([[0, 1, 0.9, 0, 0, 1, 0.5]], np.float32)[None, None]
    objects = np.array([[0, 1, 0, 0, 0, 1, 1, 0]], np.float32)[None, None]
    assert run(text("overlap_threshold: 0.5"), found, objects)[0, 0, -1].tolist() == [0, 1, np.float32(0.9), 1, 0]
