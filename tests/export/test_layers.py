"""Every printer against the CaffeNet: on the golden nets of real Caffe, and on every layer in use."""

from __future__ import annotations

import pytest
import torch

from caffe2torch.errors import UnsupportedLayerError
from caffe2torch.layers import registry
from caffe2torch.verify.case import Case, bundled, discover
from caffe2torch.verify.nets import build
from layers.table import USES, Use

from .running import layer_net, run_written

CASES = [case for case in discover(bundled()) if case.kind in ("net", "weights") and case.phase == "test"]
REFUSED = {
    *("Accuracy", "MultiLabelAccuracy", "SegAccuracy", "DetectionEvaluate", "DetectionOutput", "HDF5Output"),
    *("LargeMarginInnerProduct", "MarginInnerProduct", "Proposal", "Python", "PSROIPooling", "ROIAlign", "ROIPooling"),
    *("CenterLoss", "ScaleTanH", "YoloDetectionOutput", "Yolov3DetectionOutput", "Downsample"),
}
"""Types that have no printer, besides all losses."""
WRITTEN = [use for use in USES if not use.training and use.type not in ("Silence", "HDF5Output")]  # those have no top
ROUNDED = {"InnerProduct": 1e-6, "LSTM": 1e-5, "Lstm": 1e-5}
"""A transposed weight is stored upright, and torch's own LSTM kernel takes its sums in another order."""


def has_no_printer(name: str) -> bool:
    found = registry.find(name)
    return name in REFUSED or (found is not None and found.loss)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_golden_net_as_source_gives_what_the_caffe_net_gives(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(case.path)
    net = build(case)
    given = [case.blobs[f"in:{blob}"] for blob in net.inputs if f"in:{blob}" in case.blobs]
    inputs = [torch.from_numpy(value) for value in given] if len(given) == len(net.inputs) else None
    types = {node.type for node, _ in net.built()}
    unwritten = {name for name in types if has_no_printer(name)}
    if unwritten:
        with pytest.raises(UnsupportedLayerError, match=rf"\(({'|'.join(unwritten)})\)"):
            run_written(net, inputs)
        return
    _, check = run_written(net, inputs)
    assert check.equal or check.relative <= max((ROUNDED.get(name, 0.0) for name in types), default=0.0), check.text()


@pytest.mark.parametrize("use", WRITTEN, ids=str)
def test_a_layer_in_use_as_source_gives_what_the_layer_gives(use: Use) -> None:
    net = layer_net(use.text, list(use.shapes))
    if has_no_printer(use.type) or unwritable(use):
        with pytest.raises(UnsupportedLayerError, match=f"layers? 'l' \\({use.type}\\)"):
            run_written(net, use.bottoms())
        return
    _, check = run_written(net, use.bottoms())
    assert check.equal or check.relative <= ROUNDED.get(use.type, 0.0), check.text()


@pytest.mark.parametrize("size", [1, 3, 5, 7, 9, 33])
@pytest.mark.parametrize("shape", [(2, 8, 1, 1), (1, 5, 1, 7), (300, 16, 2, 2), (7, 64, 9, 9)], ids=str)
def test_lrn_adds_the_channels_in_the_order_of_the_layer(size: int, shape: tuple[int, ...]) -> None:
    """Also where planes are so small, or windows so long, that torch's own sum takes another order."""
    net = layer_net(f'type: "LRN" lrn_param {{ local_size: {size} beta: 0.5 }}', [shape])
    _, check = run_written(net, [torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 10])
    assert check.equal, check.text()


@pytest.mark.parametrize("per_pixel", ["true", "false"])
def test_a_trained_mean_of_images_is_written(per_pixel: str) -> None:
    shape = (2, 3, 4, 5)
    settings = f"recompute_mean: 10 mean_per_pixel: {per_pixel}"
    net = layer_net(f'type: "DataAugmentation" augmentation_param {{ {settings} }}', [shape])
    ((_, layer),) = net.built()
    layer.count.fill_(10)
    _, check = run_written(net, [torch.randn(shape, generator=torch.Generator().manual_seed(0))])
    assert check.equal, check.text()


def test_brackets_around_a_long_sum_do_not_make_a_tuple() -> None:
    values = "value: [0.1, -2.3] output_scale: 0.1"
    net = layer_net(f'type: "Mean" mean_param {{ operation: ADD {values} }}', [(1, 4, 3, 3)])
    _, check = run_written(net)
    assert check.equal, check.text()


def unwritable(use: Use) -> bool:
    """Settings that torch's modules do not have."""
    axes = len(use.shapes[0]) if use.shapes else 0
    return (
        ("onvolution" in use.type and axes == 6)
        or (use.type == "Im2col" and "axis" in use.text)
        or (use.type == "BN" and "LEARN" in use.text)
        or (use.type == "DataAugmentation" and "recompute_mean" in use.text)  # of weights that counted no batches
        or "SUBTRACT" in use.text.replace("operation: SUBTRACT", "")
        or "uniform" in use.text
        or "sample_weights_test" in use.text
    )
