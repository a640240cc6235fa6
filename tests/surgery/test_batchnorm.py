"""BatchNorm and Scale folded: the same values as Caffe's formula, and what cannot be folded is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from caffe2torch import surgery
from caffe2torch.errors import GraphError, UsageError
from surgery.nets import INPUT, model, names, values

CONV = """layer { name: "p" type: "Convolution" bottom: "data" top: "p"
  convolution_param { num_output: 6 kernel_size: 3 %s } }"""
PRODUCT = """layer { name: "p" type: "InnerProduct" bottom: "data" top: "p"
  inner_product_param { num_output: 6 %s } }"""
IN_PLACE = """
layer { name: "bn" type: "BatchNorm" bottom: "p" top: "p" }
layer { name: "sc" type: "Scale" bottom: "p" top: "p" scale_param { bias_term: true } }
layer { name: "relu" type: "ReLU" bottom: "p" top: "p" }
"""
APART = """
layer { name: "bn" type: "BatchNorm" bottom: "p" top: "b" batch_norm_param { eps: 0.1 } }
layer { name: "sc" type: "Scale" bottom: "b" top: "s" }
layer { name: "relu" type: "ReLU" bottom: "s" top: "s" }
"""
ALONE = 'layer { name: "bn" type: "BatchNorm" bottom: "p" top: "b" }'
PRODUCTS = {
    "plain": CONV % "",
    "no bias": CONV % "bias_term: false",
    "groups": CONV % "group: 2 stride: 2 pad: 1",
    "deconvolution": (CONV % "group: 2 stride: 2").replace("Convolution", "Deconvolution"),
    "inner product": PRODUCT % "",
    "transposed": PRODUCT % "transpose: true bias_term: false",
}


@pytest.mark.parametrize("tail", [IN_PLACE, APART, ALONE], ids=["in place", "apart", "no scale"])
@pytest.mark.parametrize("product", PRODUCTS.values(), ids=PRODUCTS)
def test_the_folded_net_computes_the_same(product: str, tail: str) -> None:
    net = model(INPUT + product + tail)
    folded = surgery.fold_batchnorm(net)
    assert names(folded) == [name for name in names(net) if name not in ("bn", "sc")]
    end = net.net.layer[-1].top[0]
    expected = values(net, end)[0]
    np.testing.assert_allclose(values(folded, end)[0], expected, rtol=0, atol=2e-6 * np.abs(expected).max())
    assert "largest difference on random input" in folded.notes[-1]


def test_the_weights_are_the_formula_in_double_precision() -> None:
    net = model(INPUT + PRODUCTS["plain"] + APART)
    assert net.weights is not None
    weight, bias = (blob.astype(np.float64) for blob in net.weights["p"])
    mean, variance, factor = (blob.astype(np.float64) for blob in net.weights["bn"])
    gain = net.weights["sc"][0].astype(np.float64) / np.sqrt(variance / factor + np.float64(np.float32(0.1)))
    folded = surgery.fold_batchnorm(net).weights or {}
    np.testing.assert_array_equal(folded["p"][0], (weight * gain[:, None, None, None]).astype(np.float32))
    np.testing.assert_allclose(folded["p"][1], (bias - mean / factor) * gain, rtol=1e-7, atol=1e-7)


def test_a_factor_of_zero_divides_as_zero() -> None:
    net = model(INPUT + PRODUCTS["plain"] + ALONE)
    weights = dict(net.weights or {})
    weights["bn"] = (*weights["bn"][:2], np.zeros(1, np.float32))
    net = replace(net, weights=weights)
    folded = surgery.fold_batchnorm(net)
    np.testing.assert_allclose(values(folded, "b")[0], values(net, "b")[0], rtol=1e-5, atol=1e-2)


CONV_W = (CONV % "")[:-1] + 'param { name: "w" } }'
READS = 'layer { name: "other" type: "Power" bottom: "%s" top: "other" }'
CANNOT = {
    "another reader": (CONV % "" + READS % "p" + APART, "bn: 'p' is read by other too"),
    "a later reader": (CONV % "" + APART + READS % "p", "bn: 'p' is read by other too"),
    "no product": (IN_PLACE.replace('"p"', '"data"'), r"bn: it follows data \(Input\), expected a Convolution"),
    "relu between": (
        CONV % "" + 'layer { name: "r" type: "ReLU" bottom: "p" top: "p" }' + IN_PLACE,
        r"bn: it follows r \(ReLU\)",
    ),
    "batch statistics": (CONV % "" + ALONE[:-1] + "batch_norm_param { use_global_stats: false } }", "of each batch"),
    "shared": (CONV_W + ALONE + CONV_W.replace('"p"', '"q"'), "p shares the parameter 'w' with another layer"),
    "a rule": (CONV % "" + ALONE[:-1] + "include { phase: TEST } }", "different include or exclude rules"),
    "another axis": (PRODUCT % "axis: 2" + ALONE, "p has its channels at axis 2"),
}


@pytest.mark.parametrize("text, problem", CANNOT.values(), ids=CANNOT)
def test_what_cannot_be_folded_is_refused(text: str, problem: str) -> None:
    with pytest.raises(GraphError, match=problem):
        surgery.fold_batchnorm(model(INPUT + text))


def test_a_scale_that_is_not_alone_stays() -> None:
    text = INPUT + CONV % "" + APART + READS % "b"
    net = model(text)
    folded = surgery.fold_batchnorm(net)
    assert names(folded) == ["data", "p", "sc", "relu", "other"]
    np.testing.assert_allclose(values(folded, "s")[0], values(net, "s")[0], rtol=1e-4, atol=1e-5)


def test_where_possible_leaves_and_lists_the_others() -> None:
    text = INPUT + CONV % "" + ALONE + ALONE.replace("bn", "bn2").replace('"p"', '"b"').replace('top: "b"', 'top: "c"')
    folded = surgery.fold_batchnorm(model(text), where_possible=True)
    assert names(folded) == ["data", "p", "bn2"]
    assert folded.notes[-1].startswith("not folded: bn2: it follows bn (BatchNorm)")


def test_folding_needs_weights_and_batchnorm() -> None:
    with pytest.raises(UsageError, match="needs the weights"):
        surgery.fold_batchnorm(replace(model(INPUT + CONV % "" + ALONE), weights=None))
    with pytest.raises(GraphError, match="has no BatchNorm layers"):
        surgery.fold_batchnorm(model(INPUT + CONV % ""))


def test_the_released_small_net_keeps_its_codes() -> None:
    root = Path(__file__).resolve().parent.parent.parent
    net = surgery.read(
        root / "prototxt" / "ssdh48_small" / "deploy.prototxt",
        root / "weights" / "ssdh48_small.caffemodel",
        ignore_extra=True,
    )
    folded = surgery.fold_batchnorm(net)
    assert len(net.net.layer) - len(folded.net.layer) == 16
    before, after = (values(each, "latent")[0] for each in (net, folded))
    assert np.abs(before - after).max() < 1e-5 * np.abs(before).max()
