"""Writing caffemodels: what Caffe and protobuf read, to the byte where Caffe wrote it first."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from caffe2torch import prototxt, schema, wire
from caffe2torch.caffemodel import open_weights, write_caffemodel
from caffe2torch.caffemodel.downgrade import downgrade_net
from caffe2torch.errors import OutputError, WeightsError
from caffe2torch.upgrade import upgrade_net
from weights_files import Message, golden_files, layers_of, parsed

# Not written by Caffe: unpacked or split on purpose, and one by another program that puts the shape before the data.
NOT_CANONICAL = {"weights_unpacked", "weights_split_packed", "squeezenet_v1.0"}

NET = """
name: "small"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 2 dim: 5 dim: 5 } } }
layer {
  name: "conv" type: "Convolution" bottom: "data" top: "conv"
  param { lr_mult: 1 decay_mult: 1 } param { lr_mult: 2 decay_mult: 0 }
  convolution_param { num_output: 3 kernel_size: 3 weight_filler { type: "gaussian" std: 0.01 } }
}
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" relu_param { negative_slope: 0.5 } }
layer {
  name: "ip" type: "InnerProduct" bottom: "conv" top: "ip" include { phase: TEST }
  param { name: "w" lr_mult: 1 share_mode: PERMISSIVE } param { name: "b" lr_mult: 3 }
  inner_product_param { num_output: 4 }
}
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" loss_weight: 0.5 }
"""


def _net() -> Message:
    return upgrade_net(prototxt.parse(NET))


def _weights() -> dict[str, list[np.ndarray]]:
    rng = np.random.default_rng(0)
    shapes = {"conv": [(3, 2, 3, 3), (3,)], "ip": [(4, 27), (4,)]}
    return {name: [rng.standard_normal(shape, np.float32) for shape in blobs] for name, blobs in shapes.items()}


def _without_blobs(net: Message) -> Message:
    result = type(net)()
    result.CopyFrom(net)
    for layer in (*result.layer, *result.layers):
        layer.ClearField("blobs")
    return result


def _is_canonical(path: Path) -> bool:
    return not {path.stem, path.parent.name} & NOT_CANONICAL


def _write_again(path: Path, target: Path, *, upgrade: bool = False) -> None:
    with open_weights(path) as file:
        stored = {x.name: [b.read(np.float64 if b.dtype == "f8" else np.float32) for b in x.blobs] for x in file.layers}
        net = file.net_message()
        write_caffemodel(target, upgrade_net(net) if upgrade else net, stored, syntax=file.syntax)


def test_caffes_own_files_are_written_again_to_the_byte(reference: Path, tmp_path: Path) -> None:
    files = [path for path in golden_files(reference) if _is_canonical(path)]
    assert len(files) > 100
    for path in files:
        _write_again(path, tmp_path / "again")
        assert (tmp_path / "again").read_bytes() == path.read_bytes(), path


def test_old_files_of_caffe_are_written_again_to_the_byte_by_way_of_v2(reference: Path, tmp_path: Path) -> None:
    files = [path for path in golden_files(reference) if parsed(path.read_bytes()).layers]
    assert len(files) == 4
    for path in files:
        _write_again(path, tmp_path / "again", upgrade=True)
        assert (tmp_path / "again").read_bytes() == path.read_bytes(), path


def test_other_encodings_are_written_as_an_equal_message(reference: Path, tmp_path: Path) -> None:
    files = [path for path in golden_files(reference) if not _is_canonical(path)]
    assert len(files) == len(NOT_CANONICAL)
    for path in files:
        _write_again(path, tmp_path / "again", upgrade=False)
        again, before = parsed((tmp_path / "again").read_bytes()), parsed(path.read_bytes())
        assert _without_blobs(again) == _without_blobs(before)
        for (name, got), (expected_name, expected) in zip(layers_of(again), layers_of(before), strict=True):
            assert name == expected_name
            for a, b in zip(got, expected, strict=True):
                np.testing.assert_array_equal(a, b)


def test_protobuf_reads_settings_and_weights(tmp_path: Path) -> None:
    write_caffemodel(tmp_path / "net", _net(), _weights())
    net = parsed((tmp_path / "net").read_bytes())
    assert _without_blobs(net) == _net()
    for name, blobs in layers_of(net):
        assert len(blobs) == len(_weights().get(name, []))
        for a, b in zip(blobs, _weights().get(name, []), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("syntax", ["V1", "V2"])
def test_bytes_equal_protobufs_own_encoding(tmp_path: Path, syntax: str) -> None:
    write_caffemodel(tmp_path / "net", _net_without_input(), _weights(), syntax=syntax)
    data = (tmp_path / "net").read_bytes()
    assert parsed(data).SerializeToString(deterministic=True) == data


def _net_without_input() -> Message:
    net = _net()
    del net.layer[0]  # V1 has no Input layers
    return net


def test_v1_is_the_same_net_after_the_upgrade(tmp_path: Path) -> None:
    write_caffemodel(tmp_path / "net", _net_without_input(), _weights(), syntax="V1")
    old = _without_blobs(parsed((tmp_path / "net").read_bytes()))
    assert len(old.layers) == 4
    assert not old.layer
    assert upgrade_net(old) == _net_without_input()


def test_v1_blobs_have_four_axes(tmp_path: Path) -> None:
    write_caffemodel(tmp_path / "net", _net_without_input(), _weights(), syntax="V1")
    with open_weights(tmp_path / "net") as file:
        assert file.syntax == "V1"
        found = {layer.name: [blob.shape for blob in layer.blobs] for layer in file.layers if layer.blobs}
        assert all(blob.legacy for layer in file.layers for blob in layer.blobs)
    assert found == {"conv": [(3, 2, 3, 3), (1, 1, 1, 3)], "ip": [(1, 1, 4, 27), (1, 1, 1, 4)]}


@pytest.mark.filterwarnings("ignore:.*mean nothing to a")
def test_every_old_net_of_the_reference_survives_the_way_there_and_back(reference: Path) -> None:
    nets = [prototxt.read(path) for path in sorted(reference.glob("**/*.prototxt")) if "solver" not in path.name]
    old = [upgrade_net(net) for net in nets if net.layers]
    assert len(old) > 8
    assert any(layer.type == "Input" for net in old for layer in net.layer)
    for net in old:
        assert upgrade_net(downgrade_net(net)) == net


def test_doubles_are_written_as_doubles(tmp_path: Path) -> None:
    weights = {name: [blob.astype(np.float64) / 3 for blob in blobs] for name, blobs in _weights().items()}
    write_caffemodel(tmp_path / "net", _net(), weights)
    layer = parsed((tmp_path / "net").read_bytes()).layer[1]
    assert list(layer.blobs[1].double_data) == weights["conv"][1].tolist()
    assert not layer.blobs[1].data


def test_halves_big_endian_and_transposed_arrays_keep_their_values(tmp_path: Path) -> None:
    plain = _weights()
    plain["conv"][0] = plain["conv"][0].astype(np.float16).astype(np.float32)
    odd = {
        "conv": [plain["conv"][0].astype(np.float16), plain["conv"][1].astype(">f4")],
        "ip": [np.asfortranarray(plain["ip"][0]), np.repeat(plain["ip"][1], 2)[::2]],
    }
    write_caffemodel(tmp_path / "plain", _net(), plain)
    write_caffemodel(tmp_path / "odd", _net(), odd)
    assert (tmp_path / "odd").read_bytes() == (tmp_path / "plain").read_bytes()


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1,), (1, 2, 1, 2, 1)])
def test_unusual_shapes_are_read_back(tmp_path: Path, shape: tuple[int, ...]) -> None:
    value = np.arange(np.prod(shape), dtype=np.float32).reshape(shape) + 1
    write_caffemodel(tmp_path / "net", _net(), {"conv": [value]})
    with open_weights(tmp_path / "net") as file:
        blob = file.layers[1].blobs[0].read()
    assert blob.shape == shape
    np.testing.assert_array_equal(blob, value)


def test_weights_of_a_layer_the_net_lacks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no layer for these weights: 'fc9'"):
        write_caffemodel(tmp_path / "net", _net(), {"fc9": [np.zeros(3, np.float32)]})
    assert list(tmp_path.iterdir()) == []


def test_integers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="layer 'conv', blob 0 is int64, expected float32 or float64"):
        write_caffemodel(tmp_path / "net", _net(), {"conv": [np.arange(3)]})


def test_input_layers_become_input_fields(tmp_path: Path) -> None:
    write_caffemodel(tmp_path / "net", _net(), _weights(), syntax="V1")
    net = parsed((tmp_path / "net").read_bytes())
    assert (list(net.input), list(net.input_dim)) == (["data"], [1, 2, 5, 5])
    assert [layer.name for layer in net.layers] == ["conv", "relu", "ip", "loss"]


def test_inputs_of_other_ranks_become_shapes() -> None:
    text = 'layer { name: "x" type: "Input" top: "a" top: "b" input_param { shape { dim: 2 dim: 3 } } }'
    net = downgrade_net(prototxt.parse(text))
    assert list(net.input) == ["a", "b"]
    assert [list(shape.dim) for shape in net.input_shape] == [[2, 3], [2, 3]]
    assert not net.input_dim


@pytest.mark.parametrize(
    "change, problem",
    [
        ('layer { name: "bn" type: "BatchNorm" }', "no layer type 'BatchNorm'"),
        ('layer { name: "bn" type: "ReLU" propagate_down: true }', "no field 'propagate_down'"),
        ('layer { name: "bn" type: "ReLU" elu_param { } }', "no field 'elu_param'"),
    ],
)
def test_what_v1_cannot_say_is_refused(tmp_path: Path, change: str, problem: str) -> None:
    with pytest.raises(WeightsError, match=f"layer 'bn': the V1 syntax has {problem}"):
        write_caffemodel(tmp_path / "net", prototxt.parse(change), {}, syntax="V1")
    assert list(tmp_path.iterdir()) == []


def test_five_axes_do_not_fit_v1(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="blob 0 has 5 axes, the V1 syntax holds at most 4"):
        write_caffemodel(tmp_path / "net", _net_without_input(), {"conv": [np.zeros([1] * 5, np.float32)]}, syntax="V1")


def test_an_old_net_is_not_written_as_v2_by_accident(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="old `layers` syntax"):
        write_caffemodel(tmp_path / "net", prototxt.parse('layers { name: "a" type: RELU }'), {})


def _broadcast(count: int) -> np.ndarray:
    """Many values in four bytes of memory."""
    return np.broadcast_to(np.float32(0), (count,))


def test_a_file_caffe_could_not_read_is_refused(tmp_path: Path) -> None:
    weights = {name: [_broadcast(2**28)] for name in ("conv", "ip")}
    with pytest.raises(OutputError, match="Caffe reads at most 2 GB"):
        write_caffemodel(tmp_path / "net", _net(), weights)
    assert list(tmp_path.iterdir()) == []


def test_a_layer_protobuf_could_not_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"layer 'conv': .* protobuf's limit is 2 GB"):
        write_caffemodel(tmp_path / "net", _net(), {"conv": [_broadcast(2**28)] * 2}, allow_large=True)


def test_fields_below_and_above_the_layers_stay_in_order(tmp_path: Path) -> None:
    net = prototxt.parse('name: "n" force_backward: true layers { name: "a" type: RELU } debug_info: true')
    write_caffemodel(tmp_path / "net", net, {}, syntax="V1")
    numbers = [item.number for item in wire.fields((tmp_path / "net").read_bytes())]
    assert numbers == [1, 2, 5, 7]


_LIMITED = """
import resource, signal, sys
import numpy as np
from caffe2torch import schema, write_caffemodel
from caffe2torch.errors import OutputError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 10000))
net = schema.new("NetParameter")
net.layer.add(name="a", type="InnerProduct")
try:
    write_caffemodel(sys.argv[1], net, {"a": [np.zeros(100000, np.float32)]})
except OutputError as error:
    print(error)
"""


def test_a_write_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "net").write_bytes(b"the old file")
    root = Path(__file__).resolve().parent.parent
    command = [sys.executable, "-c", _LIMITED, str(tmp_path / "net")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    assert "net: cannot be written: the file would exceed the size limit" in done.stdout
    assert (tmp_path / "net").read_bytes() == b"the old file"
    assert list(tmp_path.iterdir()) == [tmp_path / "net"]


def test_a_full_disk_is_an_output_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: object) -> bytes:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("caffe2torch.caffemodel.write._bytes", full)
    with pytest.raises(OutputError, match="the disk is full"):
        write_caffemodel(tmp_path / "net", _net(), _weights())
    assert list(tmp_path.iterdir()) == []


def test_an_unset_schema_field_is_not_invented(tmp_path: Path) -> None:
    net = schema.new("NetParameter")
    net.layer.add(name="a")
    write_caffemodel(tmp_path / "net", net, {})
    assert (tmp_path / "net").read_bytes() == b"\xa2\x06\x03\x0a\x01a"
