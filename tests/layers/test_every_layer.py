"""What every layer must be able to do: compile, export, run on meta tensors and in float64, spare its inputs."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from caffe2torch.layers import registry

from .table import IMAGE, MATRIX, USES, Use

RANDOM = ("Dropout", "DummyData")


def tops(result: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


def random(use: Use) -> bool:
    drawn = use.type == "Dropout" or "STOCHASTIC" in use.text
    return (drawn and (use.training or "sample_weights_test" in use.text)) or (
        use.type == "DummyData" and "uniform" in use.text
    )


CAPTURED = [
    use for use in USES if "Not captured by torch.export because" not in (registry.find(use.type).__doc__ or "")
]
"""Uses of layers whose class does not say that they cannot be captured."""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some layers write files below the current folder."""
    monkeypatch.chdir(tmp_path)


def test_the_table_has_every_type() -> None:
    assert {use.type for use in USES} == set(registry.types()) - {"Python"}


@pytest.mark.parametrize("use", CAPTURED, ids=str)
def test_layer_compiles_to_one_graph(use: Use) -> None:
    layer, bottoms = use.build(), use.bottoms()
    expected = tops(copy.deepcopy(layer)(*bottoms))
    torch.compiler.reset()
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):  # of itself from 2.5 on
        found = tops(torch.compile(layer, fullgraph=True, backend="eager")(*bottoms))
    assert len(found) == len(expected)
    if not random(use):
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, equal_nan=True)


@pytest.mark.parametrize("use", [u for u in CAPTURED if u.type != "Silence"], ids=str)
def test_layer_exports_with_a_dynamic_batch(use: Use) -> None:
    if torch.__version__.startswith("2.4.") and use.training and use.type in ("BatchNorm", "BN"):
        pytest.skip("torch.export of torch 2.4 fails on torch.batch_norm in training")
    layer, bottoms = use.build(), use.bottoms()
    batch = torch.export.Dim("batch", min=2)
    dynamic = (tuple({0: batch} if x.shape[0] == IMAGE[0] else {} for x in bottoms),) if bottoms else None
    program = torch.export.export(_Positional(layer), tuple(bottoms), dynamic_shapes=dynamic, strict=False)
    larger = [torch.cat((x, x[:3])) if x.shape[0] == IMAGE[0] else x for x in bottoms]
    # Running statistics move in each pass, so each gets its own copy.
    expected = tops(copy.deepcopy(layer)(*larger))
    found = tops(program.module()(*larger))
    if not random(use):
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, equal_nan=True)


class _Positional(torch.nn.Module):
    """Takes ``*bottoms`` as one argument tree, so that the table of dynamic shapes fits every layer."""

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.train(layer.training)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        return tops(self.layer(*bottoms))


@pytest.mark.parametrize("use", USES, ids=str)
def test_layer_finds_its_shapes_on_meta_tensors(use: Use) -> None:
    expected = [tuple(top.shape) for top in tops(use.build()(*use.bottoms()))]
    known = use.build().top_shapes(use.shapes)
    if known is not None:  # no net asks the layer for more
        assert len(known) == len(expected)
        assert all(
            a <= b for given, most in zip(expected, known, strict=True) for a, b in zip(given, most, strict=True)
        )
        return
    with torch.device("meta"):
        found = tops(use.build()(*[torch.empty(shape) for shape in use.shapes]))
    assert [tuple(top.shape) for top in found] == expected
    assert all(top.is_meta for top in found)


@pytest.mark.parametrize("use", USES, ids=str)
def test_layer_computes_in_float64(use: Use) -> None:
    layer, double = use.build(), use.build().double()
    expected = tops(layer(*use.bottoms()))
    for a, b in zip(tops(double(*use.bottoms(torch.float64))), expected, strict=True):
        assert a.dtype == torch.float64
        if not random(use):
            torch.testing.assert_close(a, b.double(), rtol=1e-4, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("use", USES, ids=str)
def test_layer_leaves_its_bottoms_alone(use: Use) -> None:
    bottoms = use.bottoms()
    before = [x.clone() for x in bottoms]
    use.build()(*bottoms)
    assert all(torch.equal(x, y) for x, y in zip(bottoms, before, strict=True))


@pytest.mark.parametrize("use", [u for u in USES if u.shapes], ids=str)
def test_layer_gives_gradients_where_it_says_so(use: Use) -> None:
    layer = use.build()
    bottoms = [x.requires_grad_() for x in use.bottoms()]
    total = sum(top.sum() for top in tops(layer(*bottoms)))
    propagated = [index for index in range(len(bottoms)) if index not in layer.no_gradient]
    if not isinstance(total, Tensor) or not total.requires_grad:
        assert not propagated or use.type == "Silence"
        return
    total.backward()
    for index, x in enumerate(bottoms):
        assert (x.grad is not None) == (index in propagated)


def test_the_table_has_one_batch_size() -> None:
    assert IMAGE[0] == MATRIX[0]
