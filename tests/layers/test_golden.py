"""Every small net of the goldens: values, gradients and changed parameters equal real Caffe's."""

from __future__ import annotations

import pytest

from caffe2torch.layers import registry
from caffe2torch.prototxt import read_net
from caffe2torch.verify.case import Case, bundled, discover
from caffe2torch.verify.report import failure_lines
from caffe2torch.verify.runner import run_case

PENDING = frozenset(
    [
        "BatchReindex",
        "Crop",
        "Deconvolution",
        "Embed",
        "Filter",
        "HDF5Output",
        "HingeLoss",
        "Im2col",
        "InfogainLoss",
        "MVN",
        "MultinomialLogisticLoss",
        "Parameter",
        "Reduction",
        "SPP",
        "Swish",
        "Tile",
    ]
)
"""Layer types that no class computes yet."""

CASES = discover(bundled() / "layers")


def test_there_are_cases() -> None:
    assert len(CASES) > 200


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.path.name)
def test_case_equals_caffe(case: Case) -> None:
    types = {layer.type for layer in read_net(case.path / "net.prototxt").layer}
    pending = sorted(types & PENDING - set(registry.types()))
    if pending:
        pytest.skip(f"no class computes {', '.join(pending)} yet")
    assert failure_lines(run_case(case)) == []
