"""Our caffe.proto against Caffe's facts and files, and the .proto files a user may add."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FieldDescriptor as Field
from google.protobuf.unknown_fields import UnknownFieldSet

from caffe2torch import prototxt, schema
from caffe2torch.errors import SchemaError
from caffe2torch.schema import Schema, is_repeated

ROOT = Path(__file__).resolve().parent.parent


# Facts of Caffe 1.0: message, field, number, type, default
FACTS = [
    ("BlobProto", "data", 5, Field.TYPE_FLOAT, None),
    ("BlobProto", "shape", 7, Field.TYPE_MESSAGE, None),
    ("BlobProto", "double_data", 8, Field.TYPE_DOUBLE, None),
    ("BlobProto", "raw_data_type", 10, Field.TYPE_ENUM, None),
    ("BlobProto", "raw_data", 12, Field.TYPE_BYTES, b""),
    ("BlobProto", "num", 1, Field.TYPE_INT32, 0),
    ("BlobShape", "dim", 1, Field.TYPE_INT64, None),
    ("Datum", "float_data", 6, Field.TYPE_FLOAT, None),
    ("Datum", "encoded", 7, Field.TYPE_BOOL, False),
    ("FillerParameter", "type", 1, Field.TYPE_STRING, "constant"),
    ("FillerParameter", "sparse", 7, Field.TYPE_INT32, -1),
    ("FillerParameter", "variance_norm", 8, Field.TYPE_ENUM, 0),
    ("NetParameter", "layers", 2, Field.TYPE_MESSAGE, None),
    ("NetParameter", "input_dim", 4, Field.TYPE_INT32, None),
    ("NetParameter", "layer", 100, Field.TYPE_MESSAGE, None),
    ("SolverParameter", "random_seed", 20, Field.TYPE_INT64, -1),
    ("SolverParameter", "solver_mode", 17, Field.TYPE_ENUM, 1),
    ("SolverParameter", "snapshot_format", 37, Field.TYPE_ENUM, 1),
    ("SolverParameter", "type", 40, Field.TYPE_STRING, "SGD"),
    ("SolverParameter", "layer_wise_reduce", 41, Field.TYPE_BOOL, True),
    ("SolverParameter", "weights", 42, Field.TYPE_STRING, None),
    ("SolverParameter", "rms_decay", 38, Field.TYPE_FLOAT, pytest.approx(0.99)),
    ("SolverState", "current_step", 4, Field.TYPE_INT32, 0),
    ("LayerParameter", "propagate_down", 11, Field.TYPE_BOOL, None),
    ("LayerParameter", "transform_param", 100, Field.TYPE_MESSAGE, None),
    ("LayerParameter", "clip_param", 148, Field.TYPE_MESSAGE, None),
    ("ConvolutionParameter", "kernel_size", 4, Field.TYPE_UINT32, None),
    ("ConvolutionParameter", "dilation", 18, Field.TYPE_UINT32, None),
    ("PoolingParameter", "round_mode", 13, Field.TYPE_ENUM, 0),
    ("PoolingParameter", "stride", 3, Field.TYPE_UINT32, 1),
    ("BatchNormParameter", "moving_average_fraction", 2, Field.TYPE_FLOAT, pytest.approx(0.999)),
    ("LossParameter", "normalization", 3, Field.TYPE_ENUM, 1),
    ("InfogainLossParameter", "axis", 2, Field.TYPE_INT32, 1),
    ("CropParameter", "axis", 1, Field.TYPE_INT32, 2),
    ("MVNParameter", "eps", 3, Field.TYPE_FLOAT, pytest.approx(1e-9)),
    ("WindowDataParameter", "crop_mode", 11, Field.TYPE_STRING, "warp"),
    ("V1LayerParameter", "layer", 1, Field.TYPE_MESSAGE, None),
    ("V1LayerParameter", "blob_share_mode", 1002, Field.TYPE_ENUM, None),
    ("V0LayerParameter", "hdf5_output_param", 1001, Field.TYPE_MESSAGE, None),
    ("V0LayerParameter", "k", 22, Field.TYPE_FLOAT, 1.0),
    ("PriorBoxParameter", "min_size", 1, Field.TYPE_FLOAT, None),
    ("LayerParameter", "norm_param", 206, Field.TYPE_MESSAGE, None),
    ("LayerParameter", "yolov3_detection_output_param", 602, Field.TYPE_MESSAGE, None),
]


@pytest.mark.parametrize("message, name, number, kind, default", FACTS, ids=[f"{f[0]}.{f[1]}" for f in FACTS])
def test_field_is_caffes(message: str, name: str, number: int, kind: int, default: object) -> None:
    field = schema.message_type(message).DESCRIPTOR.fields_by_name[name]
    assert (field.number, field.type) == (number, kind)
    if default is not None:
        assert field.default_value == default


@pytest.mark.parametrize("name", ["data", "diff", "double_data", "double_diff"])
def test_blob_numbers_are_written_packed(name: str) -> None:
    blob = schema.new("BlobProto")
    getattr(blob, name).extend([1.0, 2.0, 3.0])
    size = 8 if name.startswith("double") else 4
    assert len(blob.SerializeToString()) == 2 + 3 * size


def test_enum_of_v1_types_has_caffes_numbers() -> None:
    types = schema.message_type("V1LayerParameter").LayerType
    assert (types.Value("CONVOLUTION"), types.Value("SOFTMAX_LOSS"), types.Value("DECONVOLUTION")) == (4, 21, 39)
    assert sorted(types.values()) == list(range(40))


def test_every_layer_setting_of_v1_exists_in_the_current_layer() -> None:
    new = schema.message_type("LayerParameter").DESCRIPTOR.fields_by_name
    for field in schema.message_type("V1LayerParameter").DESCRIPTOR.fields:
        if field.name.endswith("_param"):
            assert new[field.name].message_type is field.message_type


@pytest.mark.parametrize(
    "case", ["conv_hw", "v1_net_v1_weights", "lstm_basic", "bn_test", "weights_double", "shared_within_net_tied"]
)
def test_weights_by_real_caffe_read_without_rest_and_write_back_byte_for_byte(reference: Path, case: str) -> None:
    data = (reference / "goldens/layers" / case / "weights.caffemodel").read_bytes()
    net = schema.message_type("NetParameter").FromString(data)
    assert net.SerializeToString() == data
    assert not _unknown(net)


def _unknown(message: schema.Message) -> list[int]:
    found = [field.field_number for field in UnknownFieldSet(message)]
    for field, value in message.ListFields():
        if field.message_type:
            for item in value if is_repeated(field) else [value]:
                found += _unknown(item)
    return found


def test_solver_state_by_real_caffe_writes_back_byte_for_byte(reference: Path) -> None:
    path = next((reference / "goldens/formats/state_adam").glob("*.solverstate"))
    data = path.read_bytes()
    state = schema.message_type("SolverState").FromString(data)
    assert state.SerializeToString() == data
    assert state.iter == 3


def test_unknown_message_is_named() -> None:
    with pytest.raises(SchemaError, match="no message 'NetParam'"):
        schema.new("NetParam")


def test_lives_beside_a_caffe_in_the_default_pool() -> None:
    other = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe", syntax="proto2")
    other.message_type.add(name="NetParameter")
    descriptor_pool.Default().AddSerializedFile(other.SerializeToString())
    net = Schema().new("NetParameter")
    net.layer.add(name="conv1")
    assert net.layer[0].name == "conv1"


def test_works_with_protobufs_pure_python_implementation() -> None:
    program = (
        "from caffe2torch import prototxt, schema\n"
        "from google.protobuf.internal import api_implementation\n"
        "assert api_implementation.Type() == 'python'\n"
        'net = prototxt.parse(\'layers { type: RELU name: "r" bottom: "a" top: "a" relu_param { engine: CAFFE } }\')\n'
        "from caffe2torch.upgrade import upgrade_net\n"
        "print(prototxt.to_text(upgrade_net(net)))\n"
    )
    environment = {**os.environ, "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert 'type: "ReLU"' in done.stdout


# ------------------------------------------------------------------------------------------- a fork's own .proto


def write(folder: Path, text: str) -> Path:
    path = folder / "fork.proto"
    path.write_text(text, encoding="utf-8")
    return path


def test_extra_fragment_adds_message_and_field(tmp_path: Path) -> None:
    fork = write(
        tmp_path,
        """
        // a fragment: no syntax line, no package
        message LayerParameter { optional HashParameter hash_param = 900; }
        message HashParameter {
          enum Norm { L1 = 1; L2 = 2; }
          optional uint32 bits = 1 [default = 0x30];  /* hexadecimal
                                                         and a comment over two lines */
          optional Norm norm = 2 [default = L2];
          optional string label = 3 [default = "a // b; ] c"];
          repeated float margin = 4 [packed = true];
        }
        """,
    )
    extended = Schema(extra=[fork])
    net = prototxt.parse('layer { name: "h" hash_param { margin: [1, 2] } }', schema=extended)
    hashing = net.layer[0].hash_param
    assert (hashing.bits, hashing.norm, hashing.label, list(hashing.margin)) == (48, 2, "a // b; ] c", [1, 2])
    assert net.layer[0].DESCRIPTOR.fields_by_name["hash_param"].number == 900


def test_extra_field_whose_number_is_taken_gets_a_private_one(tmp_path: Path) -> None:
    fork = write(tmp_path, "message LayerParameter { optional float tau = 148; optional float rho = 147; }")
    fields = Schema(extra=[fork]).message_type("LayerParameter").DESCRIPTOR.fields_by_name
    assert fields["clip_param"].number == 148
    assert fields["tau"].number >= 20000
    assert fields["rho"].number >= 20000


def test_extra_whole_file_may_repeat_everything(tmp_path: Path) -> None:
    own = (ROOT / "caffe2torch/schema/caffe.proto").read_text(encoding="utf-8")
    repeated = Schema(extra=[write(tmp_path, own)])
    ours, theirs = descriptor_pb2.FileDescriptorProto(), descriptor_pb2.FileDescriptorProto()
    schema.message_type("NetParameter").DESCRIPTOR.file.CopyToProto(ours)
    repeated.message_type("NetParameter").DESCRIPTOR.file.CopyToProto(theirs)
    assert ours == theirs


def test_extra_gives_its_own_default_and_width(tmp_path: Path) -> None:
    fork = write(
        tmp_path,
        "message PriorBoxParameter { optional bool clip = 5 [default = true]; }\n"
        "message ConvolutionParameter { optional int64 num_output = 1; }",
    )
    extended = Schema(extra=[fork])
    assert extended.new("PriorBoxParameter").clip is True
    assert prototxt.parse("num_output: -5", "ConvolutionParameter", schema=extended).num_output == -5


def test_extra_enum_value_is_added_beside_ours(tmp_path: Path) -> None:
    fork = write(
        tmp_path,
        "message V1LayerParameter { enum LayerType { CONVOLUTION = 4; TRIPLET_LOSS = 39; HASH = 77; } }",
    )
    types = Schema(extra=[fork]).message_type("V1LayerParameter").LayerType
    assert (types.Value("DECONVOLUTION"), types.Value("HASH")) == (39, 77)
    assert types.Value("TRIPLET_LOSS") >= 20000


@pytest.mark.parametrize(
    "text, expected",
    [
        (
            "message LayerParameter {\n  optional float pooling_param = 121;\n}",
            r":2: the field 'pooling_param' .* float",
        ),
        ("message PoolingParameter {\n  repeated uint32 pad = 4;\n}", r":2: .*'pad' .* repeated here, but single"),
        ("message PoolingParameter { enum PoolMethod { AVE = 0; } }", r":1: AVE is 0 here, but 1 in Caffe"),
        ("message A {\n\n  optional Missing m = 1;\n}", r":3: unknown type 'Missing'"),
        (
            "message A {\n  optional int32 a = 1;\n  optional int32 a = 2;\n}",
            r":3: A.a is declared twice \(first on line 2",
        ),
        ("message A {\n  optional int32 a = 1;\n  optional int32 b = 1;\n}", r":3: A.1 \(a number\) is declared twice"),
        ("message A {\n  optional int32 a = ;\n}", r":2: cannot read 'optional int32 a = ;'"),
        ("message A {\n  oneof x { int32 a = 1; }\n}", r":2: cannot read 'oneof x"),
        ("message A {\n  optional int32 a = 1;\n", r":3: the file ends inside A"),
        ("optional int32 a = 1;", r":1: 'a' stands outside a message"),
        ("enum E { message M { } }", r":1: 'M' stands inside the enum E"),
        ("message M { X = 3; }", r":1: the value 'X' stands outside an enum"),
        ("message A { optional int32 a = 1 [default = many]; }", r":1: found 'many', expected a number"),
        ("message A { optional float a = 1 [default = many]; }", r":1: found 'many', expected a number as default"),
        ("}", r":1: '}' without '{'"),
        ("message A { optional int32 a = 99999999999; }", r":1: 99999999999 cannot be the number"),
        ("message A { optional int32 a = 1 [default = 99999999999]; }", r":1: the default 99999999999 is out"),
        ("message A { optional uint32 a = 1 [default = -1]; }", r":1: the default -1 is out of range, expected 0 to"),
        ("message A { optional bool a = 1 [default = maybe]; }", r":1: found 'maybe', expected true or false"),
        ("message A { optional string a = 1 [default = abc]; }", r":1: found 'abc', expected a string in quotes"),
        ("message A { optional Phase a = 1 [default = NEVER]; }", r":1: the default 'NEVER' .* is no value of Phase"),
        ("\0\1garbage", r":1: cannot read"),
    ],
)
def test_bad_extra_is_refused_with_its_line(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(SchemaError, match=f"fork.proto{expected}"):
        Schema(extra=[write(tmp_path, text)])


def test_missing_extra_is_named(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match=r"none\.proto: cannot be read: No such file"):
        Schema(extra=[tmp_path / "none.proto"])


def test_extra_that_is_not_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.proto").write_bytes(b"message \xff")
    with pytest.raises(SchemaError, match=r"x\.proto: not UTF-8 text \(byte 8\)"):
        Schema(extra=[tmp_path / "x.proto"])
