"""Every small net of the goldens: values, gradients and changed parameters equal real Caffe's."""

from __future__ import annotations

import pytest

from caffe2torch.verify.case import Case, bundled, discover
from caffe2torch.verify.report import failure_lines
from caffe2torch.verify.runner import run_case

CASES = discover(bundled() / "layers")


def test_there_are_cases() -> None:
    assert len(CASES) > 200


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.path.name)
def test_case_equals_caffe(case: Case) -> None:
    assert failure_lines(run_case(case)) == []
