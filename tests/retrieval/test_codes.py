"""Thresholding and packing against definitions written out in Python."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caffe2torch.retrieval.codes import as_text, pack, packed_width, threshold, unpack


def test_threshold_is_strict() -> None:
    above = np.nextafter(np.float32(0.5), np.float32(1))
    assert threshold(np.array([[0.5, above, 0.0, 1.0, 0.49999997]], np.float32)).tolist() == [[0, 1, 0, 1, 0]]


def test_threshold_rounds_to_float32_first() -> None:
    assert threshold(np.array([[0.5 + 1e-12]])).tolist() == [[False]]


def test_pack_puts_bit_0_into_the_most_significant_bit_of_byte_0() -> None:
    bits = np.zeros((1, 12), np.bool_)
    bits[0, [0, 9]] = True
    assert pack(bits).tolist() == [[0b1000_0000, 0b0100_0000]]


@given(st.lists(st.lists(st.booleans(), min_size=13, max_size=13), min_size=1, max_size=5))
def test_pack_equals_the_definition(rows: list[list[bool]]) -> None:
    expected = [[sum(row[8 * k + i] << (7 - i) for i in range(8) if 8 * k + i < 13) for k in range(2)] for row in rows]
    assert pack(np.array(rows)).tolist() == expected


@pytest.mark.parametrize("bits", [1, 7, 8, 12, 48, 64, 1024])
def test_unpack_undoes_pack(bits: int) -> None:
    codes = np.random.RandomState(bits).rand(9, bits) > 0.5
    packed = pack(codes)
    assert packed.shape == (9, packed_width(bits))
    np.testing.assert_array_equal(unpack(packed, bits), codes)


def test_unpack_refuses_another_width() -> None:
    with pytest.raises(ValueError, match="48-bit codes are"):
        unpack(np.zeros((2, 5), np.uint8), 48)


def test_as_text_writes_bit_0_first() -> None:
    assert as_text(np.array([[0b1010_0000, 0b0001_0000]], np.uint8), 12) == ["101000000001"]
