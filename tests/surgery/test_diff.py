"""Two nets or weights files compared: by meaning, field by field, and to the bit."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe2torch import cli, prototxt, surgery
from caffe2torch.caffemodel import open_weights, write_caffemodel
from caffe2torch.hdf5 import write_hdf5
from caffe2torch.surgery.compare_nets import compare_nets
from caffe2torch.surgery.compare_weights import different_bits
from caffe2torch.upgrade import upgrade_net
from surgery.nets import INPUT, model

V2 = (
    INPUT
    + """
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" param { lr_mult: 2 }
  convolution_param { num_output: 3 kernel_size: 3 stride: 1 } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "fc" type: "InnerProduct" bottom: "conv" top: "fc" inner_product_param { num_output: 2 } }
"""
)
V1 = """
input: "data" input_dim: 2 input_dim: 4 input_dim: 6 input_dim: 6
layers { name: "conv" type: CONVOLUTION bottom: "data" top: "conv" blobs_lr: 2
  convolution_param { num_output: 3 kernel_size: 3 } }
layers { name: "relu" type: RELU bottom: "conv" top: "conv" relu_param { negative_slope: 0 } }
layers { name: "fc" type: INNER_PRODUCT bottom: "conv" top: "fc" inner_product_param { num_output: 2 } }
"""


def _compared(first: str, second: str) -> list[str]:
    found = compare_nets(prototxt.parse(first), prototxt.parse(second))
    return [f"{name}: {change}" for name, changes in found.changed for change in changes]


def test_syntaxes_and_defaults_make_no_difference() -> None:
    inner = V2.replace('name: "data" type: "Input"', 'name: "input" type: "Input"')
    assert compare_nets(prototxt.parse(V1), prototxt.parse(inner)).equal


def test_changed_settings_are_told_field_by_field() -> None:
    other = (
        V2.replace("stride: 1", "stride: 2 group: 1").replace("lr_mult: 2", "lr_mult: 3").replace("2 } }\n", "5 } }\n")
    )
    assert _compared(V2, other) == [
        "conv: param[0].lr_mult: 2 -> 3",
        "conv: convolution_param.stride: absent -> 2",
        "fc: inner_product_param.num_output: 2 -> 5",
    ]


def test_a_default_says_so() -> None:
    other = V2.replace("num_output: 2", "num_output: 2 bias_term: false")
    assert _compared(V2, other) == ["fc: inner_product_param.bias_term: true (default) -> false"]


def test_layers_of_one_side_and_another_order_are_told() -> None:
    extra = 'layer { name: "t" type: "TanH" bottom: "data" top: "t" }'
    found = compare_nets(prototxt.parse(V2), prototxt.parse(INPUT + extra + V2.removeprefix(INPUT)))
    assert (found.only_first, found.only_second, found.order) == ((), ("t",), False)
    one, other = extra, extra.replace('"t"', '"u"')
    assert compare_nets(prototxt.parse(INPUT + one + other), prototxt.parse(INPUT + other + one)).order


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=9), st.lists(st.integers(0, 2**32 - 1), min_size=9))
def test_bits_are_those_of_the_integers(first: list[int], second: list[int]) -> None:
    a, b = np.array(first, np.uint32), np.array(second[: len(first)], np.uint32)
    found = different_bits(a.view(np.float32), b.view(np.float32))
    crossed = [x ^ y for x, y in zip(first, second, strict=False)]
    assert found == (sum(x != 0 for x in crossed), sum(bin(x).count("1") for x in crossed))


def _files(folder: Path, *, seed: int = 0) -> tuple[Path, Path]:
    net = model(V2, seed=seed)
    assert net.weights is not None
    (folder / f"net{seed}").write_text(V2)
    write_caffemodel(folder / f"weights{seed}", net.net, net.weights)
    return folder / f"net{seed}", folder / f"weights{seed}"


def test_weights_are_the_same_in_every_form(tmp_path: Path) -> None:
    _, path = _files(tmp_path)
    net = model(V2)
    write_caffemodel(tmp_path / "v1", net.net, net.weights or {}, syntax="V1")
    write_hdf5(tmp_path / "h5", net.net, net.weights or {})
    doubles = {name: [blob.astype(np.float64) for blob in blobs] for name, blobs in (net.weights or {}).items()}
    write_caffemodel(tmp_path / "double", net.net, doubles)
    for other in ("v1", "h5", "double"):
        found = surgery.compare(path, tmp_path / other)
        assert found.equal()
        assert len(found.weights or ()) == 4


def test_figures_of_weights_are_those_of_numpy(tmp_path: Path) -> None:
    paths = [_files(tmp_path, seed=seed)[1] for seed in (0, 1)]
    found = {(blob.layer, blob.index): blob for blob in surgery.compare(*paths).weights or ()}
    a, b = ((model(V2, seed=seed).weights or {})["conv"][0].astype(np.float64) for seed in (0, 1))
    conv = found["conv", 0]
    assert conv.largest == np.abs(a - b).max()
    np.testing.assert_allclose(conv.mean, np.abs(a - b).mean())
    np.testing.assert_allclose(conv.cosine, (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))
    assert conv.values == conv.count == 108


def test_a_last_bit_and_the_sign_of_zero_count_unless_tolerated(tmp_path: Path) -> None:
    net = model(V2)
    weights = {name: [blob.copy() for blob in blobs] for name, blobs in (net.weights or {}).items()}
    weights["conv"][1][:] = [0.0, np.nan, 1.0]
    write_caffemodel(tmp_path / "a", net.net, weights)
    weights["conv"][1][:] = [-0.0, np.nan, np.nextafter(np.float32(1), np.float32(2))]
    write_caffemodel(tmp_path / "b", net.net, weights)
    found = surgery.compare(tmp_path / "a", tmp_path / "b")
    bias = next(blob for blob in found.weights or () if (blob.layer, blob.index) == ("conv", 1))
    assert (bias.values, bias.bits, bias.largest) == (2, 2, 2.0**-23)
    assert not found.equal()
    assert found.equal(1e-6)
    weights["conv"][1][1] = 0
    write_caffemodel(tmp_path / "c", net.net, weights)
    worst = surgery.compare(tmp_path / "a", tmp_path / "c").weights or ()
    assert max(blob.largest or 0 for blob in worst) == math.inf


def test_blobs_without_a_counterpart_are_not_among_those_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = model(V2)
    weights = net.weights or {}
    write_caffemodel(tmp_path / "a", net.net, weights)
    changed = {"conv": [weights["conv"][0] + 1, weights["conv"][1][:2]]}
    write_caffemodel(tmp_path / "b", net.net, changed)
    assert cli.main(["diff", str(tmp_path / "a"), str(tmp_path / "b")]) == 1
    assert "weights: 1 blobs compared, 1 differ; 3 have no counterpart of their shape\n" in capsys.readouterr().out


def test_the_command_tells_by_its_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (net, weights), (other, changed) = _files(tmp_path), _files(tmp_path, seed=1)
    assert cli.main(["diff", str(net), str(other)]) == 0
    assert "the same" in capsys.readouterr().out
    assert cli.main(["diff", str(weights), str(changed)]) == 1
    shown = capsys.readouterr().out
    assert "they differ" in shown
    assert "108 of 108" in shown
    assert cli.main(["diff", str(weights), str(changed), "--tolerance", "100"]) == 0
    assert "the same (within 100)" in capsys.readouterr().out
    assert cli.main(["diff", str(net), str(weights), str(other), str(changed), "--json"]) == 1
    facts = json.loads(capsys.readouterr().out)
    assert facts["nets"]["equal"]
    assert [blob["layer"] for blob in facts["weights"] if blob["differs"]] == ["conv", "conv", "fc", "fc"]


def test_settings_in_the_files_are_compared_on_request(
    reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = reference / "goldens" / "layers" / "v1_net_v1_weights" / "weights.caffemodel"
    with open_weights(old) as file:
        net = upgrade_net(file.net_message())
        arrays = {x.name: [b.read().reshape(b.shape) for b in x.blobs] for x in file.layers}
    arrays = {name: [blobs[0], *(bias.reshape(-1) for bias in blobs[1:])] for name, blobs in arrays.items() if blobs}
    arrays["fc"][0] = arrays["fc"][0].reshape(arrays["fc"][0].shape[2:])
    write_caffemodel(tmp_path / "new", net, arrays)
    assert cli.main(["diff", str(old), str(tmp_path / "new"), "--settings"]) == 0
    assert "nets: " in capsys.readouterr().out
    net.layer[2].name = "other"
    write_caffemodel(tmp_path / "other", net, {name: arrays.get(name, []) for name in (x.name for x in net.layer)})
    assert cli.main(["diff", str(old), str(tmp_path / "other"), "--settings", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["nets"]["only_second"] == ["other"]


@pytest.mark.parametrize(
    "arguments, problem",
    [
        (["net0"], "diff takes two files, or NET WEIGHTS NET WEIGHTS; 1 were given"),
        (["net0", "weights0"], "give two of a kind"),
        (["net0", "net0", "--tolerance", "-1"], "--tolerance -1.0: expected"),
        (["net0", "absent"], "absent: cannot be read: No such file"),
        (["net0", "weights0", "net0", "other"], "other does not fit net '':"),
        (["net0", "weights0", "net0", "weights0", "--input", "dat=1,4,6,6"], "neither net has such an input; did you"),
    ],
)
def test_wrong_arguments_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], problem: str
) -> None:
    _files(tmp_path)
    net = model(V2.replace("num_output: 2", "num_output: 3"))
    write_caffemodel(tmp_path / "other", net.net, net.weights or {})
    files = [str(tmp_path / a) if a in ("net0", "weights0", "other", "absent") else a for a in arguments]
    assert cli.main(["diff", *files]) in (1, 2)
    assert problem in capsys.readouterr().err
