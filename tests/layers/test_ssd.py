"""SSD's layers on feature maps against their definitions and OpenCV."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from caffe2torch.errors import LayerError
from caffe2torch.layers.ssd import PriorBox

from .messages import layer, message
from .opencv import run


def values(*shape: int) -> np.ndarray:
    return np.random.RandomState(0).randn(*shape).astype(np.float32)


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("eps", [1e-10, 0.5])
def test_normalize_equals_its_definition(across: bool, shared: bool, eps: float) -> None:
    x, gradient = values(2, 3, 4, 5), np.random.RandomState(1).randn(2, 3, 4, 5)
    settings = f"across_spatial: {across} channel_shared: {shared} eps: {eps}".lower()
    made = layer(f'type: "Normalize" norm_param {{ {settings} }}', (x.shape,))
    scale = made.scale.detach().double().reshape(1, -1, 1, 1).numpy()
    norm = np.sqrt((x.astype(np.float64) ** 2).sum((1, 2, 3) if across else 1, keepdims=True) + eps)
    dot = (x * gradient * scale).sum((1, 2, 3) if across else 1, keepdims=True)
    bottom = torch.from_numpy(x).requires_grad_()
    top = made(bottom)
    top.backward(torch.from_numpy(gradient).float())
    np.testing.assert_allclose(top.detach().numpy(), x / norm * scale, atol=1e-6)
    assert bottom.grad is not None
    np.testing.assert_allclose(bottom.grad.numpy(), gradient * scale / norm - x * dot / norm**3, atol=2e-6)
    own = (x / norm * gradient).sum() if shared else (x / norm * gradient).sum((0, 2, 3))
    assert made.scale.grad is not None
    np.testing.assert_allclose(made.scale.grad.numpy(), own, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("across, shared", list(itertools.product(["true", "false"], repeat=2)))
def test_normalize_equals_opencv(across: str, shared: str, tmp_path: Path) -> None:
    x = values(2, 3, 4, 5)
    text = (
        f'type: "Normalize" norm_param {{ across_spatial: {across} channel_shared: {shared} '
        'scale_filler { type: "constant" value: 1 } }'
    )
    made = layer(text, (x.shape,))
    torch.nn.init.ones_(made.scale)
    np.testing.assert_allclose(made(torch.from_numpy(x)).detach().numpy(), run(tmp_path, text, [x]), atol=1e-6)


@pytest.mark.parametrize("field", ["norm_param", "normalize_param"])
def test_normalize_fills_its_scale(field: str) -> None:
    text = f'type: "Normalize" {field} {{ channel_shared: false scale_filler {{ value: 20 }} }}'
    made = layer(text, ((2, 3, 4, 5),))
    made.fill(message(text))
    assert made.scale.tolist() == [20, 20, 20]


def test_normalize_starts_at_one() -> None:
    made = layer('type: "Normalize"', ((2, 3),))
    made.fill(message('type: "Normalize"'))
    assert made.scale.item() == 1


@pytest.mark.parametrize("order, expected", [((0, 2, 3, 1), (0, 2, 3, 1)), ((2,), (2, 0, 1, 3)), ((), (0, 1, 2, 3))])
def test_permute_orders_axes_and_keeps_the_rest(order: tuple[int, ...], expected: tuple[int, ...]) -> None:
    x = values(2, 3, 4, 5)
    settings = " ".join(f"order: {axis}" for axis in order)
    top = layer(f'type: "Permute" permute_param {{ {settings} }}', (x.shape,))(torch.from_numpy(x))
    assert top.is_contiguous()
    np.testing.assert_array_equal(top.numpy(), x.transpose(expected))


@pytest.mark.parametrize("order", ["order: 1 order: 1", "order: 4"])
def test_permute_refuses_impossible_orders(order: str) -> None:
    with pytest.raises(LayerError, match="different axes, 0 to 3"):
        layer(f'type: "Permute" permute_param {{ {order} }}', ((2, 3, 4, 5),))


PRIORS = [
    "min_size: 10",
    "min_size: 10 max_size: 20 aspect_ratio: 2 aspect_ratio: 3",
    "min_size: 10 min_size: 13 aspect_ratio: 2 flip: false",
    "min_size: 10 min_size: 13 max_size: 20 max_size: 30 aspect_ratio: 3 aspect_ratio: 0.5",
    "min_size: 10 step: 9 offset: 0.3 variance: 0.1 variance: 0.2 variance: 0.3 variance: 0.4",
    "min_size: 10 step_h: 9 step_w: 7 aspect_ratio: 1 aspect_ratio: 2 aspect_ratio: 2",
]


def naive_priors(text: str, rows: int, columns: int, height: int, width: int) -> np.ndarray:
    p = message(f'type: "PriorBox" prior_box_param {{ {text} }}').prior_box_param
    ratios: list[float] = []
    for ratio in p.aspect_ratio:
        if abs(ratio - 1) >= 1e-6 and all(abs(ratio - r) >= 1e-6 for r in ratios):
            ratios += [ratio, 1 / ratio] if p.flip else [ratio]
    height, width = p.img_h or p.img_size or height, p.img_w or p.img_size or width
    step_y, step_x = p.step_h or p.step or height / rows, p.step_w or p.step or width / columns
    boxes = []
    for i, j, s in itertools.product(range(rows), range(columns), range(len(p.min_size))):
        y, x, least = (i + p.offset) * step_y, (j + p.offset) * step_x, int(p.min_size[s])
        sizes = [(least, least)]
        if p.max_size:
            sizes.append((math.sqrt(least * int(p.max_size[s])),) * 2)
        sizes += [(least * math.sqrt(r), least / math.sqrt(r)) for r in ratios]
        boxes += [
            [(x - w / 2) / width, (y - h / 2) / height, (x + w / 2) / width, (y + h / 2) / height] for w, h in sizes
        ]
    corners = np.clip(boxes, 0, 1) if p.clip else np.array(boxes)
    variance = list(p.variance) or [0.1]
    return np.stack([corners.ravel(), np.tile(variance, corners.size // len(variance))])[None]


@pytest.mark.parametrize(
    "text",
    [
        *PRIORS,
        "min_size: 10.7 max_size: 20.6 aspect_ratio: 2",
        "min_size: 10 img_size: 300 clip: true",
        "min_size: 10 img_h: 200 img_w: 300",
    ],
)
def test_prior_boxes_equal_their_definition(text: str) -> None:
    made = layer(f'type: "PriorBox" prior_box_param {{ {text} }}', ((2, 5, 3, 4), (2, 3, 60, 80)))
    top = made(torch.zeros(2, 5, 3, 4), torch.zeros(2, 3, 60, 80))
    np.testing.assert_allclose(top.numpy(), naive_priors(text, 3, 4, 60, 80), atol=3e-7)


@pytest.mark.parametrize("clip", ["true", "false"])
@pytest.mark.parametrize("text", PRIORS)
def test_prior_boxes_equal_opencv(text: str, clip: str, tmp_path: Path) -> None:
    text = f'type: "PriorBox" prior_box_param {{ {text} clip: {clip} {"" if "variance" in text else "variance: 0.1"} }}'
    bottoms = values(1, 5, 3, 4), values(1, 3, 60, 80)
    made = layer(text, [x.shape for x in bottoms])
    np.testing.assert_allclose(made(*map(torch.from_numpy, bottoms)).numpy(), run(tmp_path, text, bottoms), atol=3e-7)


@pytest.mark.parametrize(
    "text, bottoms, reason",
    [
        ("", 2, "min_size"),
        ("min_size: 0", 2, "min_size"),
        ("min_size: 5 max_size: 5", 2, "max_size"),
        ("min_size: 5 max_size: 6 max_size: 7", 2, "max_size"),
        ("min_size: 5 aspect_ratio: 0", 2, "aspect_ratio"),
        ("min_size: 5 variance: 1 variance: 2", 2, "variance"),
        ("min_size: 5 img_size: 9 img_h: 9 img_w: 9", 2, "img_size"),
        ("min_size: 5 step_h: 9", 2, "step_h and step_w"),
        ("min_size: 5", 1, "img_size"),
    ],
)
def test_impossible_prior_boxes_are_refused(text: str, bottoms: int, reason: str) -> None:
    with pytest.raises(LayerError, match=reason):
        layer(f'type: "PriorBox" prior_box_param {{ {text} }}', [(1, 3, 4, 5)] * bottoms)


def test_prior_boxes_need_no_image_where_its_size_is_given() -> None:
    assert PriorBox([(2, 2)], image=(8, 8))(torch.zeros(1, 1, 1, 1))[0, 0].tolist() == [0.375, 0.375, 0.625, 0.625]
