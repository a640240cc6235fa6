"""SegAccuracy against a confusion matrix counted place by place."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from caffe2torch.errors import LayerError

from .messages import layer

Array = NDArray[np.float64]


def count(x: Array, labels: Array, ignored: tuple[int, ...]) -> list[list[int]]:
    """Labels x predictions; of equal scores the class that comes last wins."""
    items, classes, height, width = x.shape
    matrix = [[0] * classes for _ in range(classes)]
    for n, i, j in np.ndindex(items, height, width):
        label = int(labels[n, 0, i, j])
        if label in ignored:
            continue
        ranked = sorted(((x[n, c, i, j], c) for c in range(classes)), reverse=True)
        matrix[label][ranked[0][1]] += 1
    return matrix


def measures(matrix: list[list[int]]) -> list[float]:
    classes = range(len(matrix))
    total, right = sum(map(sum, matrix)), sum(matrix[c][c] for c in classes)
    rows = [sum(matrix[c]) for c in classes]
    columns = [sum(row[c] for row in matrix) for c in classes]
    recalls = [matrix[c][c] / rows[c] for c in classes if rows[c]]
    unions = [rows[c] + columns[c] - matrix[c][c] for c in classes]
    jaccards = [1.0 if unions[c] == matrix[c][c] else matrix[c][c] / unions[c] for c in classes]
    return [
        right / total if total else 0.0,
        sum(recalls) / len(recalls) if recalls else 0.0,
        sum(jaccards) / len(classes),
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("ignored", [(), (1,), (0, 255), (0, 1, 2, 3)], ids=str)
def test_measures_equal_their_definition(ignored: tuple[int, ...], dtype: torch.dtype) -> None:
    random = np.random.RandomState(0)
    x = random.randint(0, 3, (2, 5, 4, 6)).astype(float)  # with many equal scores
    x[:, 4] = -1.0  # never predicted, and never a label: its Jaccard index is 1
    labels = random.choice([0, 1, 2, 3, *((255,) if 255 in ignored else ())], (2, 1, 4, 6)).astype(float)
    settings = " ".join(f"ignore_label: {label}" for label in ignored)
    made = layer(f'type: "SegAccuracy" seg_accuracy_param {{ {settings} }}', [x.shape, labels.shape])
    top = made(torch.from_numpy(x).to(dtype), torch.from_numpy(labels).to(dtype))
    assert top.shape == (1, 1, 1, 3)
    assert top.dtype == dtype
    np.testing.assert_allclose(top.flatten().numpy(), measures(count(x, labels, ignored)), rtol=1e-6)


def test_a_class_that_is_only_predicted_or_only_a_label_has_a_jaccard_index_of_0() -> None:
    made = layer('type: "SegAccuracy"', [(1, 2, 1, 1), (1, 1, 1, 1)])
    top = made(torch.tensor([1.0, 0.0]).view(1, 2, 1, 1), torch.ones(1, 1, 1, 1))
    assert top.flatten().tolist() == [0, 0, 0]


@pytest.mark.parametrize("reset", [False, True])
def test_without_reset_the_passes_add_up(reset: bool) -> None:
    random = np.random.RandomState(1)
    settings = f"seg_accuracy_param {{ reset: {str(reset).lower()} }}"
    made = layer(f'type: "SegAccuracy" {settings}', [(2, 3, 4, 5), (2, 1, 4, 5)])
    total = np.zeros((3, 3), int)
    for _ in range(3):
        x, labels = random.randn(2, 3, 4, 5), random.randint(0, 3, (2, 1, 4, 5)).astype(float)
        matrix = np.array(count(x, labels, ()))
        total = matrix if reset else total + matrix
        top = made(torch.from_numpy(x), torch.from_numpy(labels))
        np.testing.assert_allclose(top.flatten().numpy(), measures(total.tolist()))
    assert not made.state_dict()


@pytest.mark.parametrize("wrong", [3.0, -1.0])
def test_labels_out_of_range_are_named_and_not_counted(wrong: float) -> None:
    made = layer(
        'type: "SegAccuracy" seg_accuracy_param { ignore_label: 255 ignore_label: 7 reset: false }',
        [(1, 3, 1, 2), (1, 1, 1, 2)],
    )
    labels = torch.tensor([255.0, wrong]).view(1, 1, 1, 2)
    reason = rf"the label {wrong:g} at \(0, 0, 0, 1\); 1 of 2 .* expected 0 to 2, or ignore_label 255, 7"
    with pytest.raises(LayerError, match=reason):
        made(torch.rand(1, 3, 1, 2), labels)
    assert not made.confusion.any()  # type: ignore[operator]


@pytest.mark.parametrize(
    "scores, labels, reason",
    [
        ((2, 3, 4, 5), (2, 4, 5), r"expected \(N, C, H, W\) and \(N, 1, H, W\)"),
        ((2, 3, 4, 5), (2, 1, 4, 6), r"expected \(N, C, H, W\) and \(N, 1, H, W\)"),
        ((2, 3), (2, 1), r"expected \(N, C, H, W\) and \(N, 1, H, W\)"),
        ((2, 1, 4, 5), (2, 1, 4, 5), "expected 2 or more"),
    ],
)
def test_other_shapes_are_refused(scores: tuple[int, ...], labels: tuple[int, ...], reason: str) -> None:
    with pytest.raises(LayerError, match=reason):
        layer('type: "SegAccuracy"', [scores, labels])
