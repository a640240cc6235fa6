"""Training runs of real Caffe: every loss, rate and weight of ten iterations, its snapshots, and going on from them."""

from __future__ import annotations

import pytest

from caffe2torch.verify.case import Case, bundled, discover
from caffe2torch.verify.report import failure_lines
from caffe2torch.verify.runner import run_case

CASES = [*discover(bundled() / "solvers"), *(c for c in discover(bundled() / "formats") if c.kind == "state")]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_training_is_caffes(case: Case) -> None:
    assert failure_lines(run_case(case)) == []
