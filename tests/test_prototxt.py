"""The text parser against protobuf's own, its errors, and the printer."""

from __future__ import annotations

import contextlib
import math
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf import text_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from caffe2torch import prototxt, schema
from caffe2torch.errors import PrototxtError

# ------------------------------------------------------------------------------------------- what protobuf accepts

ACCEPTED = {
    "empty": "",
    "comments": "# first\nname: 'a' # then\n#last",
    "colon_before_message": "layer: { name: 'a' }",
    "angle_brackets": "layer < name: 'a' convolution_param < pad: 1 > >",
    "one_line": 'name:"a"layer{name:"b"type:"ReLU"relu_param{negative_slope:1}}',
    "separators": "name: 'a'; input_dim: 1, input_dim: 2; layer { name: 'x', type: 'y'; };",
    "list": "input_dim: [1, 2, -3] input: ['a', \"b\"] input_dim: []",
    "list_of_messages": "layer: [{ name: 'a' }, < name: 'b' >] layer [] layer [{}]",
    "list_of_enums": "layers { blob_share_mode: [STRICT, PERMISSIVE, 0] }",
    "joined_strings": "name: 'a' \"b\"\n  # between\n 'c'",
    "escapes": r"""name: "tab\t nl\n q\" q\' b\\ oct\101\7 hex\x41\xa u\u00e9\U0001F600 \a\b\f\r\v" """,
    "utf8": "name: 'caffè ☕ 層'",
    "quote_in_other_quote": """name: "it's" layer { name: 'a "b"' }""",
    "crlf": "name: 'a'\r\n# c\r\nlayer {\r\n  name: 'b'\r\n}\r\n",
    "hex_and_octal": "input_dim: 0x1F input_dim: 017 input_dim: -0x10 input_dim: 0",
    "enum_by_number": "layer { pooling_param { pool: 1 } }",
    "bools": "layer { propagate_down: [true, false, t, f, True, False, 0, 1] }",
    "floats": "layer { loss_weight: [1, 1., .5, 1e3, 1E-3, -2.5e+2, 1f, inf, -inf, infinity, 0] }",
    "int_limits": "input_dim: 2147483647 input_dim: -2147483648",
    "empty_messages": "layer {} state <> layer: { }",
    "form_feed": "name:\f'a'\v",
}


def outcome(action: Callable[[], schema.Message]) -> tuple[schema.Message, PrototxtError | None]:
    """What ``action`` gives, or our error; any other exception passes."""
    try:
        return action(), None
    except PrototxtError as error:
        return None, error


def plain(text: str, message_type: str = "NetParameter") -> schema.Message:
    return text_format.Parse(text, schema.new(message_type))


@pytest.mark.parametrize("text", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_reads_what_protobuf_reads(text: str) -> None:
    assert prototxt.parse(text) == plain(text)


# What only protobuf's C++ parser reads, and Caffe with it
@pytest.mark.parametrize(
    "text, same",
    [
        ("input_dim: - 3", "input_dim: -3"),
        (r"name: 'a\?b'", "name: 'a?b'"),
        (r"name: '\ud83d\ude00 \\ud83d'", "name: '\N{GRINNING FACE} \\\\ud83d'"),
        (r"name: '\X41'", "name: 'A'"),
        ("layer { loss_weight: 1.5F }", "layer { loss_weight: 1.5 }"),
    ],
)
def test_reads_what_only_the_cpp_parser_reads(text: str, same: str) -> None:
    assert prototxt.parse(text) == plain(same)


def test_nan_is_read() -> None:
    assert math.isnan(prototxt.parse("loss_weight: [nan, -NaN]", "LayerParameter").loss_weight[1])


@pytest.mark.parametrize("message_type", ["SolverParameter", "BlobProto", "Datum", "SolverState"])
def test_reads_any_message_type(message_type: str) -> None:
    assert prototxt.parse("", message_type) == schema.new(message_type)


def test_bytes_field_keeps_every_byte() -> None:
    written = schema.new("Datum")
    written.data = bytes(range(256))
    assert prototxt.parse(prototxt.to_text(written), "Datum") == written


def test_float_is_rounded_to_float32_once() -> None:
    assert prototxt.parse("base_lr: 0.1", "SolverParameter").base_lr == plain("base_lr: 0.1", "SolverParameter").base_lr


# ------------------------------------------------------------------------------------------- errors: place and words

REFUSED = {
    "near_name": ("layer {\n  convolution_param { kernal_size: 3 }\n}", 2, 23, "no field 'kernal_size' in Convolution"),
    "near_name_hint": ("layer {\n  convolution_param { kernal_size: 3 }\n}", 2, 23, "did you mean 'kernel_size'"),
    "capitals": ("Layer { }", 1, 1, "did you mean 'layer'"),
    "v1_field_in_v2": ("layer { blobs_lr: 1 }", 1, 9, "no field 'blobs_lr' in LayerParameter; .* the older form"),
    "v2_field_in_v1": ("layers { reshape_param { } }", 1, 10, "in V1LayerParameter; .* the current form"),
    "v0_field_in_v2": ("layer { kernelsize: 1 }", 1, 9, "the inner 'layer' of the oldest form"),
    "wrong_block": ("layer { num_output: 3 }", 1, 9, "belongs inside 'convolution_param' or 'inner_product_param'"),
    "solver_as_net": ("\nbase_lr: 0.1", 2, 1, "no field 'base_lr' in NetParameter; SolverParameter has one"),
    "v1_type_in_v2": ("layer { type: CONVOLUTION }", 1, 15, "expected a string in quotes .*'layers {'"),
    "v2_type_in_v1": ("layers { type: 'Convolution' }", 1, 16, "without quotes .*'layer {'"),
    "enum_near": ("layer { pooling_param { pool: max } }", 1, 31, "found 'max', expected one of AVE, MAX.* mean MAX"),
    "enum_number": ("layer { pooling_param { pool: 9 } }", 1, 31, "found '9', expected one of"),
    "twice": ("name: 'a'\nname: 'b'", 2, 1, "'name' is given twice .*first on line 1"),
    "message_twice": ("layer {\n pooling_param { }\n pooling_param { }\n}", 3, 2, "'pooling_param' is given twice"),
    "list_for_single": ("name: ['a']", 1, 7, "found '\\[', expected a string"),
    "no_colon": ("name 'a'", 1, 6, "found 'a', expected ':' and a string"),
    "no_value": ("name:", 1, 6, "found the end of the file, expected a string"),
    "unclosed": ("layer {\n name: 'a'\n", 3, 1, "found the end of the file, expected a field of LayerParameter or '}'"),
    "closed_twice": ("layer { } }", 1, 11, "found '}', expected a field of NetParameter or the end"),
    "wrong_closer": ("layer { >", 1, 9, "found '>'"),
    "open_string": ("name: 'a\nlayer { }", 1, 7, "without its closing quote"),
    "bad_escape": (r"name: 'a\qb'", 1, 7, "unknown escape"),
    "octal_too_big": (r"name: '\777'", 1, 7, "unknown escape"),
    "surrogate": (r"name: '\ud800'", 1, 7, "no Unicode character"),
    "escape_not_utf8": (r"name: '\377'", 1, 7, "not UTF-8"),
    "curly_quotes": ("name: “a”", 1, 7, "U\\+201C.*, a quote of the wrong kind, expected a string"),
    "float_for_int": ("input_dim: 3.0", 1, 12, "found '3.0', expected an integer"),
    "int_too_big": ("input_dim: 2147483648", 1, 12, "2147483648 is out of range .*-2147483648 to 2147483647"),
    "int_huge": ("input_dim: " + "9" * 100_000, 1, 12, "out of range"),
    "negative_unsigned": ("layer { convolution_param { num_output: -1 } }", 1, 42, "-1 is out of range"),
    "bad_octal": ("input_dim: 089", 1, 12, "found '089', expected an integer"),
    "number_and_name": ("input_dim: 3layer { }", 1, 12, "found '3layer', expected an integer"),
    "octal_float": ("layer { loss_weight: 010 }", 1, 22, "found '010', expected a number"),
    "two_dots": ("layer { loss_weight: 1.2.3 }", 1, 22, "found '1.2.3', expected a number"),
    "float_too_big": ("layer { loss_weight: 1e39 }", 1, 22, "1e39 is too large"),
    "bool_word": ("force_backward: TRUE", 1, 17, "found 'TRUE', expected true or false"),
    "bool_two": ("force_backward: 2", 1, 17, "expected true or false"),
    "trailing_comma": ("input_dim: [1, ]", 1, 16, "expected an integer"),
    "list_without_comma": ("input_dim: [1 2]", 1, 15, "expected ',' or '\\]'"),
    "message_for_number": ("input_dim { }", 1, 11, "found '{', expected ':' and an integer"),
    "number_for_message": ("layer: 3", 1, 8, "found '3', expected '{' to open 'layer'"),
    "two_semicolons": ("name: 'a';;", 1, 11, "found ';'"),
    "extension": ("[caffe.x]: 3", 1, 1, "expected a field of NetParameter"),
    "required": ("layer {\n clip_param {\n  min: 0\n }\n}", 4, 2, "ClipParameter lacks its required field max"),
    "slashes": ("// comment", 1, 1, "found '/', expected a field"),
}  # fmt: skip


@pytest.mark.parametrize("text, line, column, words", REFUSED.values(), ids=REFUSED.keys())
def test_error_says_where_and_what(text: str, line: int, column: int, words: str) -> None:
    with pytest.raises(PrototxtError, match=words) as caught:
        prototxt.parse(text, path="net.prototxt")
    assert (caught.value.line, caught.value.column) == (line, column)
    assert str(caught.value).startswith(f"net.prototxt:{line}:{column}: ")


# Refused by protobuf's C++ parser, or by us on purpose, but not by the Python one
ONLY_HERE = {"float_too_big", "octal_float", "octal_too_big", "bad_escape", "required"}


@pytest.mark.parametrize("name", sorted(set(REFUSED) - ONLY_HERE))
def test_protobuf_refuses_it_too(name: str) -> None:
    with pytest.raises((text_format.ParseError, ValueError)):
        plain(REFUSED[name][0])


def test_all_unknown_fields_are_named_at_once() -> None:
    text = "layer {\n  foo: 3\n  pooling_param { bar { x: [1, 'a' 'b', -inf] } }\n}\nbaz <a {} b: [{c: 1}]>\n"
    with pytest.raises(PrototxtError) as caught:
        prototxt.parse(text, path="n")
    lines = str(caught.value).split("\n")
    assert [line.split(": ")[0] for line in lines] == ["n:2:3", "n:3:19", "n:5:1"]
    assert [line.split("'")[1] for line in lines] == ["foo", "bar", "baz"]


def test_unknown_fields_before_a_syntax_error_are_named_too() -> None:
    with pytest.raises(PrototxtError, match=r"(?s)^n:1:1: no field 'foo'.*n:1:8: found '\}'"):
        prototxt.parse("foo: 3 }", path="n")


def test_very_many_unknown_fields_are_counted() -> None:
    with pytest.raises(PrototxtError, match=r"\nand 980 more unknown fields$"):
        prototxt.parse("foo: 3\n" * 1000)


def test_unknown_fields_are_listed_where_a_list_is_given() -> None:
    unknown: list[prototxt.UnknownField] = []
    net = prototxt.parse("name: 'a'\nlayer { foo: -3; name: 'b' }", path="n", unknown=unknown)
    assert unknown == [prototxt.UnknownField("n", 2, 9, "foo", "LayerParameter")]
    assert str(unknown[0]) == "n:2:9: no field 'foo' in LayerParameter"
    assert net.layer[0].name == "b"


def test_unknown_list_does_not_excuse_syntax_errors() -> None:
    with pytest.raises(PrototxtError, match=r"n:1:10: found '3', expected ':' or '{' after 'ab'"):
        prototxt.parse("foo { ab 3 }", path="n", unknown=[])


@pytest.mark.parametrize("opening", ["x {", "x: [", "x: [{ x: ", "layer { x {"])
def test_nesting_without_end_is_refused_at_once(opening: str) -> None:
    with pytest.raises(PrototxtError, match=r"deep|expected"):
        prototxt.parse(opening * 50_000, unknown=[])


@pytest.mark.parametrize(
    "text",
    [
        "#\n" * 100_000,
        "a:1\n" * 20_000,
        "name: " + "'a' " * 20_000,
        "name: '" + r"\n" * 50_000 + "'",
        "'" + "\\" * 100_000,
    ],
    ids=["comments", "unknown_fields", "joined_strings", "escapes", "open_string"],
)
@pytest.mark.parametrize("tolerant", [False, True])
def test_long_monotonous_text_needs_little_memory(text: str, tolerant: bool) -> None:
    tracemalloc.start()
    outcome(lambda: prototxt.parse(text, unknown=[] if tolerant else None))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 60 * len(text) + (1 << 20)


# ------------------------------------------------------------------------------------------- files


def save(folder: Path, data: bytes) -> Path:
    path = folder / "net.prototxt"
    path.write_bytes(data)
    return path


NET = "name: 'n' layer { name: 'a' type: 'ReLU' bottom: 'x' top: 'y' }"


def test_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    assert prototxt.read(save(tmp_path, b"\xef\xbb\xbf" + NET.encode())) == plain(NET)


def test_lines_that_end_in_carriage_return_alone_keep_their_comments_apart(tmp_path: Path) -> None:
    assert prototxt.read(save(tmp_path, b"# a\rname: 'n'\r")).name == "n"


def test_latin1_comment_and_name_are_read(tmp_path: Path) -> None:
    net = prototxt.read(save(tmp_path, "# café\nname: 'é' input: '\\351'".encode("latin-1")))
    assert (net.name, list(net.input)) == ("é", ["é"])


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_utf16_is_refused_with_advice(tmp_path: Path, encoding: str) -> None:
    with pytest.raises(PrototxtError, match="UTF-16, expected UTF-8; save the file as UTF-8"):
        prototxt.read(save(tmp_path, NET.encode(encoding)))


def test_binary_file_is_refused(tmp_path: Path) -> None:
    net = schema.new("NetParameter")
    net.layer.add(name="a").blobs.add(data=[1.5] * 10)
    with pytest.raises(PrototxtError, match=r"binary file .*, expected a prototxt"):
        prototxt.read(save(tmp_path, net.SerializeToString()))


def test_hdf5_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PrototxtError, match="HDF5 file"):
        prototxt.read(save(tmp_path, b"\x89HDF\r\n\x1a\n" + bytes(100)))


def test_zero_byte_far_inside_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PrototxtError, match="byte 0x00 at offset 10000"):
        prototxt.read(save(tmp_path, b" " * 10000 + b"\0"))


def test_huge_file_is_refused_unread(tmp_path: Path) -> None:
    path = save(tmp_path, b" " * 5000)
    with path.open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(PrototxtError, match="1099511627776 bytes, expected a prototxt of at most"):
        prototxt.read(path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PrototxtError, match=r"none\.prototxt: cannot be read: No such file"):
        prototxt.read(tmp_path / "none.prototxt")


def test_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(PrototxtError, match="cannot be read: Is a directory"):
        prototxt.read(tmp_path)


@pytest.mark.parametrize("text", ["", "# nothing\n", "name: 'n' input: 'data'"])
def test_net_without_layers_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(PrototxtError, match=r"net\.prototxt: no layers in this file"):
        prototxt.read_net(save(tmp_path, text.encode()))


def test_read_net_upgrades(tmp_path: Path) -> None:
    net = prototxt.read_net(save(tmp_path, b"layers { name: 'a' type: RELU bottom: 'x' top: 'x' }"))
    assert net.layer[0].type == "ReLU"


def test_read_solver_upgrades(tmp_path: Path) -> None:
    assert prototxt.read_solver(save(tmp_path, b"net: 'n' solver_type: ADAGRAD")).type == "AdaGrad"


def test_upgrade_error_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(PrototxtError, match=r"net\.prototxt: both 'layers'"):
        prototxt.read_net(save(tmp_path, b"layers { type: RELU } layer { type: 'ReLU' }"))


# ------------------------------------------------------------------------------------------- printing


def test_prints_as_caffe_does() -> None:
    net = prototxt.parse(
        "layer{name:'c' type:'Convolution' include{phase:TEST} param{lr_mult:.1} convolution_param{pad:[1,2] "
        "bias_term:false weight_filler{type:'gaussian' std:0.01}}} name:'n' input_dim:[1]"
    )
    assert prototxt.to_text(net) == (
        'name: "n"\n'
        "input_dim: 1\n"
        "layer {\n"
        '  name: "c"\n'
        '  type: "Convolution"\n'
        "  param {\n"
        "    lr_mult: 0.1\n"
        "  }\n"
        "  include {\n"
        "    phase: TEST\n"
        "  }\n"
        "  convolution_param {\n"
        "    bias_term: false\n"
        "    pad: 1\n"
        "    pad: 2\n"
        "    weight_filler {\n"
        '      type: "gaussian"\n'
        "      std: 0.01\n"
        "    }\n"
        "  }\n"
        "}\n"
    )


@pytest.mark.parametrize(
    "value, text",
    [
        (0.0005, "0.0005"),
        (1e-8, "1e-08"),
        (1.0, "1"),
        (-0.0, "-0"),
        (16777217.0, "16777216"),
        (1 / 3, "0.33333334"),
        (3.4028235e38, "3.4028235e+38"),
        (1e-45, "1.4013e-45"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        (math.nan, "nan"),
    ],
)
def test_prints_the_shortest_float_that_reads_back(value: float, text: str) -> None:
    solver = schema.new("SolverParameter")
    solver.base_lr = value
    printed = prototxt.to_text(solver)
    assert printed == f"base_lr: {text}\n"
    again = prototxt.parse(printed, "SolverParameter")
    assert again.SerializeToString() == solver.SerializeToString()


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@settings(max_examples=150, deadline=None)
@given(texts, st.lists(st.floats(width=32, allow_nan=False)), st.lists(st.floats(allow_nan=False)), st.binary())
def test_printing_and_parsing_gives_the_message_back(
    name: str, floats: list[float], doubles: list[float], raw: bytes
) -> None:
    layer = schema.new("LayerParameter")
    layer.name = name
    layer.loss_weight.extend(floats)
    layer.blobs.add(data=floats, double_data=doubles, raw_data=raw)
    text = prototxt.to_text(layer)
    assert prototxt.parse(text, "LayerParameter") == layer
    assert plain(text, "LayerParameter") == layer


# ------------------------------------------------------------------------------------------- hostile text

SEED = """
name: "n" # comment
input: "data" input_shape { dim: [1, 3, 8, 8] }
layer { name: "c" type: "Convolution" bottom: "data" top: "c" param { lr_mult: 1.5e-3 decay_mult: 0x1 }
  convolution_param { num_output: 4 kernel_size: 3 pad: 1 weight_filler < type: 'xavier' > engine: CAFFE } }
layers { layer { name: "p" type: "pool" pool: AVE kernelsize: 2 } bottom: "c" top: "p\\n\\x41\\101" }
layer { name: "r" type: "ReLU" bottom: "c" top: "c" propagate_down: true; include { phase: TEST, stage: "a" "b" } }
"""

pieces = st.one_of(
    st.sampled_from(
        ["{", "}", "<", ">", "[", "]", ":", ",", ";", "-", "'", '"', "#", "\\", "\n", "\r", "\0", "\ufeff"]
    ),
    st.sampled_from(["layer {", "9" * 30, "1e999", "nan", "foo: [[", "\ud800", "é", "0x", "name:", "\\777", "é\\x"]),
    st.text(max_size=4),
)
edits = st.lists(st.tuples(st.integers(0, len(SEED)), st.integers(0, 30), pieces), min_size=1, max_size=6)


def mutate(text: str, changes: list[tuple[int, int, str]]) -> str:
    for start, length, piece in changes:
        text = text[:start] + piece + text[start + length :]
    return text


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(edits, st.booleans())
def test_damaged_text_is_read_or_refused_by_our_error(changes: list[tuple[int, int, str]], tolerant: bool) -> None:
    text = mutate(SEED, changes)
    net, error = outcome(lambda: prototxt.parse(text, unknown=[] if tolerant else None))
    if error is None:
        assert prototxt.parse(prototxt.to_text(net)).SerializeToString() == net.SerializeToString()
    else:
        assert min(error.line, error.column) >= 1


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(edits)
def test_strict_parsing_accepts_nothing_that_protobuf_reads_otherwise(changes: list[tuple[int, int, str]]) -> None:
    text = mutate(SEED, changes)
    ours, error = outcome(lambda: prototxt.parse(text))
    if error is None:
        with contextlib.suppress(text_format.ParseError):  # the Python parser refuses some of what the C++ one reads
            theirs = plain(text.removeprefix("\ufeff"))
            assert ours.SerializeToString() == theirs.SerializeToString()


@settings(max_examples=150, deadline=None)
@given(data=st.binary(max_size=300), at=st.integers(0, len(SEED)))
def test_damaged_file_is_read_or_refused_by_our_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, at: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.prototxt"
    path.write_bytes(SEED.encode()[:at] + data + SEED.encode()[at:])
    _, error = outcome(lambda: prototxt.read_net(path))
    assert error is None or str(path) in str(error)
