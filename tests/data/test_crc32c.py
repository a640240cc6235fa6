"""LevelDB's checksum."""

from __future__ import annotations

import random

import pytest

from caffe2torch.data.crc32c import crc32c, masked


def by_bits(data: bytes) -> int:
    """The definition: division of polynomials, lowest bit first."""
    state = 0xFFFFFFFF
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (0x82F63B78 if state & 1 else 0)
    return state ^ 0xFFFFFFFF


@pytest.mark.parametrize(
    "data, expected",
    [
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),  # this and the next three: RFC 3720, B.4
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (b"", 0),
    ],
)
def test_published_values(data: bytes, expected: int) -> None:
    assert crc32c(data) == expected


@pytest.mark.parametrize("size", [1, 2047, 2048, 2049, 4096, 4097, 5001, 12_345])
def test_any_length_equals_the_definition(size: int) -> None:
    data = random.Random(size).randbytes(size)
    assert crc32c(data) == by_bits(data)


def test_mask_turns_by_15_and_adds() -> None:
    assert masked(b"123456789") == (((0xE3069283 >> 15) | (0xE3069283 << 17 & 0xFFFFFFFF)) + 0xA282EAD8) % 2**32
