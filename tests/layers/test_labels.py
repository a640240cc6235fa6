"""Labels that are no class."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

import caffe2torch
from caffe2torch.errors import LayerError

from .messages import layer

HINGE, MULTINOMIAL, INFOGAIN = 'type: "HingeLoss"', 'type: "MultinomialLogisticLoss"', 'type: "InfogainLoss"'
SOFTMAX, ACCURACY = 'type: "SoftmaxWithLoss"', 'type: "Accuracy"'


@pytest.mark.parametrize("wrong, written", [(5, "5"), (3, "3"), (-1, "-1"), (math.nan, "nan")])
@pytest.mark.parametrize("text", [SOFTMAX, HINGE, MULTINOMIAL, INFOGAIN, ACCURACY])
def test_labels_out_of_range_are_named(text: str, wrong: float, written: str) -> None:
    others = [torch.eye(3)] if text == INFOGAIN else []
    made = layer(text, [(4, 3), (4, 1), *(tuple(x.shape) for x in others)])
    made.caffe_name = "judge"
    labels = torch.tensor([[0.0], [2.0], [wrong], [wrong]])
    kind, end = made.caffe_type, "$" if text in (HINGE, MULTINOMIAL) else ", and no ignore_label is set$"
    reason = rf"layer 'judge' \({kind}\) found the label {written} at \(2, 0\); 2 of 4 .* expected 0 to 2{end}"
    with pytest.raises(LayerError, match=reason) as caught:
        made(torch.rand(4, 3), labels, *others)
    assert isinstance(caught.value.__cause__, (IndexError, RuntimeError))


@pytest.mark.parametrize("message, text", [("loss", SOFTMAX), ("loss", INFOGAIN), ("accuracy", ACCURACY)])
def test_the_label_to_ignore_is_told(message: str, text: str) -> None:
    others = [torch.eye(3)] if text == INFOGAIN else []
    shapes = [(2, 3, 2), (2, 2), *(tuple(x.shape) for x in others)]
    made = layer(f"{text} {message}_param {{ ignore_label: 255 }}", shapes)
    x, labels = torch.rand(2, 3, 2), torch.tensor([[255.0, 1.0], [254.0, 0.0]])
    with pytest.raises(LayerError, match=r"254 at \(1, 0\); 1 of 4 .* expected 0 to 2, or ignore_label 255$"):
        made(x, labels, *others)
    labels[1, 0] = 255.0
    assert torch.isfinite(made(x, labels, *others))


def test_the_classes_are_those_of_the_axis() -> None:
    made = layer('type: "SoftmaxWithLoss" softmax_param { axis: -1 }', [(2, 3, 4), (2, 3)])
    assert torch.isfinite(made(torch.rand(2, 3, 4), torch.full((2, 3), 3.0)))
    with pytest.raises(LayerError, match="expected 0 to 3"):
        made(torch.rand(2, 3, 4), torch.full((2, 3), 4.0))


def test_errors_of_other_kinds_pass() -> None:
    made = layer(SOFTMAX, [(2, 3), (2,)])
    with pytest.raises(RuntimeError, match="shape"):
        made(torch.rand(2, 3), torch.zeros(5))


def test_a_net_names_its_layer(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(
        """input: "x" input_shape { dim: 2 dim: 3 } input: "l" input_shape { dim: 2 }
        layer { name: "cost" type: "SoftmaxWithLoss" bottom: "x" bottom: "l" top: "cost" }""",
        "utf-8",
    )
    net = caffe2torch.load(path)
    with pytest.raises(LayerError, match="layer 'cost'"):
        net({"x": torch.rand(2, 3), "l": torch.tensor([0.0, 7.0])})
