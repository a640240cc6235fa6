"""Spec: strict keys and values, and the way to plain values and back."""

from __future__ import annotations

from typing import Any

import pytest

from caffe2torch.errors import UsageError
from caffe2torch.preprocess import Spec


@pytest.mark.parametrize(
    "spec",
    [
        Spec(dialect="matcaffe", resize=(256, 256), crop=(227, 227), mean_file="m.mat", mean_layout="whc"),
        Spec(dialect="transformer", crop=(28, 28), channels=1, scale=1 / 256, mirror=True),
        Spec(dialect="pycaffe", resize=(256, 256), raw_scale=255.0, mean_values=(104.0, 117.0, 123.0), order="rgb"),
        Spec(dialect="transformer", resize=(9, 8), crop=(4, 4), crop_offset=(5, 0)),
    ],
    ids=lambda spec: spec.dialect,
)
def test_plain_values_and_back(spec: Spec) -> None:
    assert Spec.from_dict(spec.to_dict()) == spec


def test_plain_values_leave_defaults_out() -> None:
    assert Spec(dialect="transformer", crop=(2, 3)).to_dict() == {"dialect": "transformer", "crop": [2, 3]}


def test_one_number_is_a_square() -> None:
    assert Spec.from_dict({"dialect": "matcaffe", "resize": 256}).resize == (256, 256)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"resize": 8}, "no dialect"),
        ({"dialect": "matlab"}, "'matlab', expected one of 'matcaffe'"),
        ({"dialect": "matcaffe", "resize": 8, "size": 3}, "unknown key size"),
        ({"dialect": "matcaffe"}, "needs resize"),
        ({"dialect": "pycaffe"}, "needs resize"),
        ({"dialect": "matcaffe", "resize": "256"}, "resize is '256'"),
        ({"dialect": "matcaffe", "resize": [1, 2, 3]}, "resize"),
        ({"dialect": "matcaffe", "resize": True}, "resize"),
        ({"dialect": "matcaffe", "resize": [8.0, 8.0]}, "whole numbers"),
        ({"dialect": "matcaffe", "resize": 0}, "at least 1"),
        ({"dialect": "matcaffe", "resize": 8, "crop": 9}, "does not fit"),
        ({"dialect": "matcaffe", "resize": 8, "crop": 4, "crop_offset": 5}, "does not fit"),
        ({"dialect": "matcaffe", "resize": 8, "crop": 4, "crop_offset": -1}, "at least 0"),
        ({"dialect": "matcaffe", "resize": 8, "crop_offset": 1}, "without crop"),
        ({"dialect": "matcaffe", "resize": 8, "channels": 1}, "three channels"),
        ({"dialect": "matcaffe", "resize": 8, "channels": 3.0}, "expected int"),
        ({"dialect": "matcaffe", "resize": 8, "raw_scale": 255}, "pycaffe"),
        ({"dialect": "matcaffe", "resize": 8, "mirror": True}, "transformer"),
        ({"dialect": "matcaffe", "resize": 8, "mean_values": [1, 2]}, "expected 1 or 3"),
        ({"dialect": "matcaffe", "resize": 8, "mean_values": "1"}, "list of numbers"),
        ({"dialect": "matcaffe", "resize": 8, "mean_values": [1], "mean_file": "m"}, "exclude"),
        ({"dialect": "matcaffe", "resize": 8, "mean_layout": "whc"}, "no mean_file"),
        ({"dialect": "matcaffe", "resize": 8, "mean_layout": "chw"}, "'chw'"),
        ({"dialect": "matcaffe", "resize": 8, "scale": "1"}, "scale is '1', expected a number"),
        ({"dialect": "matcaffe", "resize": 8, "scale": float("nan")}, "expected a number"),
        ({"dialect": "matcaffe", "resize": 8, "mean_file": 3}, "expected str"),
        ({"dialect": "transformer", "order": "gbr"}, "'gbr'"),
        ({"dialect": "transformer", "channels": 4}, "channels is 4"),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else "",
)
def test_bad_values_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Spec.from_dict(values)
