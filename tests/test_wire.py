"""The wire walker: every field where it is, and no length believed."""

from __future__ import annotations

import random

import numpy as np
import pytest

from caffe2torch import wire
from caffe2torch.errors import FormatError


def test_each_wire_type_is_found_with_its_place() -> None:
    message = b"\x08\x96\x01" + b"\x12\x03abc" + b"\x1d\x01\x02\x03\x04" + b"\x21" + bytes(8)
    found = list(wire.fields(message))
    assert [(f.number, f.wire, f.begin, f.start, f.stop) for f in found] == [
        (1, wire.VARINT, 0, 1, 3),
        (2, wire.LENGTH, 3, 5, 8),
        (3, wire.FIXED32, 8, 9, 13),
        (4, wire.FIXED64, 13, 14, 22),
    ]
    assert found[0].value == 150


def test_an_empty_message_has_no_fields() -> None:
    assert list(wire.fields(b"")) == []


def test_only_the_given_range_is_walked() -> None:
    message = b"\xff\xff" + b"\x08\x05" + b"\xff"
    assert [f.value for f in wire.fields(message, 2, 4)] == [5]


@pytest.mark.parametrize("length", [1, 2, 3, 64, 65, 66, 1000, 5000])
def test_a_row_of_equal_fixed_fields_comes_as_one(length: int) -> None:
    values = np.arange(length, dtype="<f4")
    message = b"\x08\x01" + b"".join(b"\x2d" + value.tobytes() for value in values) + b"\x08\x02"
    first, row, last = wire.fields(message)
    assert (first.value, last.value) == (1, 2)
    assert (row.number, row.repeats, row.stride) == (5, length, 5)
    got = [message[row.start + i * row.stride : row.start + i * row.stride + 4] for i in range(length)]
    assert b"".join(got) == values.tobytes()


def test_a_row_ends_where_the_tag_changes() -> None:
    message = (b"\x2d" + bytes(4)) * 70 + (b"\x35" + bytes(4)) * 3 + (b"\x29" + bytes(8)) * 2
    assert [(f.number, f.repeats) for f in wire.fields(message)] == [(5, 70), (6, 3), (5, 2)]


def test_a_row_cut_off_within_a_value_is_refused() -> None:
    with pytest.raises(FormatError, match="field 5 claims 4 bytes, but its message has only 3 left"):
        list(wire.fields((b"\x2d" + bytes(4)) * 70 + b"\x2d" + bytes(3)))


@pytest.mark.parametrize(
    "message, problem",
    [
        (b"\x08", "byte 1: a number is cut off"),
        (b"\x08\x80\x80", "byte 1: a number is cut off"),
        (b"\x80", "byte 0: a number is cut off"),
        (b"\x08" + b"\x80" * 10 + b"\x01", "more than 10 bytes"),
        (b"\x08" + b"\xff" * 9 + b"\x02", "more than 64 bits"),
        (b"\x12\x05abc", "field 2 claims 5 bytes, but its message has only 3 left"),
        (b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "field 2 claims 18446744073709551615 bytes"),
        (b"\x12", "byte 1: a number is cut off"),
        (b"\x0d\x00\x00", "field 1 claims 4 bytes"),
        (b"\x09\x00\x00\x00\x00", "field 1 claims 8 bytes"),
        (b"\x00\x01", "field number 0"),
        (b"\xf8\xff\xff\xff\xff\x01\x01", "field number"),
        (b"\x0b\x0c", "wire type 3"),
        (b"\x0c", "wire type 4"),
        (b"\x0e", "wire type 6"),
        (b"\x0f", "wire type 7"),
    ],
)
def test_damage_is_named(message: bytes, problem: str) -> None:
    with pytest.raises(FormatError, match=problem):
        list(wire.fields(message))


def test_a_length_may_not_pass_the_end_of_the_enclosing_message() -> None:
    message = b"\x12\x04\x12\x03ab" + b"more"
    outer = next(wire.fields(message))
    with pytest.raises(FormatError, match="claims 3 bytes, but its message has only 2 left"):
        list(wire.fields(message, outer.start, outer.stop))


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**31 - 1, 2**32, 2**63 - 1, 2**64 - 1])
def test_a_number_is_read_back(value: int) -> None:
    encoded = wire.varint(value)
    assert wire.read_varint(encoded, 0, len(encoded)) == (value, len(encoded))


@pytest.mark.parametrize("value", [-1, -5, -(2**31), -(2**63)])
def test_a_negative_number_takes_ten_bytes(value: int) -> None:
    encoded = wire.varint(value)
    assert len(encoded) == 10
    assert wire.signed(wire.read_varint(encoded, 0, 10)[0]) == value


def test_int32_is_read_from_the_lower_bits() -> None:
    assert wire.signed(2**64 - 7, 32) == -7
    assert wire.signed(2**32 + 7, 32) == 7


def test_the_longest_encoding_of_a_number_is_accepted() -> None:
    assert wire.read_varint(b"\x81" + b"\x80" * 8 + b"\x00", 0, 10) == (1, 10)


def test_random_bytes_raise_nothing_but_our_error() -> None:
    generator = random.Random(0)
    for _ in range(3000):
        message = generator.randbytes(generator.randrange(40))
        try:
            covered = [(f.begin, f.stop) for f in wire.fields(message)]
        except FormatError:
            continue
        edges = [0, *(stop for _, stop in covered)]
        assert [begin for begin, _ in covered] == edges[:-1]
        assert edges[-1] == len(message)
