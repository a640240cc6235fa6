"""Distances, words and checks against definitions written out in Python."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe2torch.errors import RetrievalError
from caffe2torch.retrieval import hamming
from caffe2torch.retrieval.codes import packed_width

WIDTHS = [1, 7, 8, 9, 12, 16, 17, 24, 32, 33, 48, 64, 65, 100, 128, 255, 256, 1000]


def naive(first: bytes, second: bytes) -> int:
    return sum((a ^ b).bit_count() for a, b in zip(first, second, strict=True))


def draw(count: int, bits: int, seed: int = 0) -> np.ndarray:
    return np.packbits(np.random.RandomState(seed).rand(count, bits) > 0.5, axis=1)


@pytest.mark.parametrize("bits", WIDTHS)
def test_distances_equal_the_definition(bits: int) -> None:
    codes, query = draw(40, bits, 1), draw(1, bits, 2)
    scanner = hamming.Scanner(hamming.as_words(codes, bits), bits, 40)
    found = scanner.distances(hamming.as_words(query, bits)[0], 3, 37)
    assert found.tolist() == [naive(row.tobytes(), query[0].tobytes()) for row in codes[3:37]]


@pytest.mark.parametrize("bits", [255, 256, 65535, 65536])
def test_the_largest_distance_does_not_overflow(bits: int) -> None:
    codes = np.packbits(np.ones((1, bits), bool), axis=1)
    scanner = hamming.Scanner(hamming.as_words(codes, bits), bits, 1)
    assert scanner.distances(hamming.as_words(np.zeros_like(codes), bits)[0], 0, 1).tolist() == [bits]


@given(st.integers(1, 200), st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_the_table_counts_as_the_instruction_does(bits: int, count: int) -> None:
    words = hamming.as_words(draw(count, bits), bits)
    out = np.empty(words.shape, np.uint8)
    hamming._count_by_table(words, out)
    assert out.tolist() == [[int(word).bit_count() for word in row] for row in words]


@pytest.mark.parametrize("bits", WIDTHS)
def test_padding_adds_zero_bytes_only(bits: int) -> None:
    codes = draw(5, bits)
    padded = hamming.pad(codes, bits)
    assert padded.shape[1] in {1, 2, 4} or padded.shape[1] % 8 == 0
    assert padded[:, : packed_width(bits)].tobytes() == codes.tobytes()
    assert not padded[:, packed_width(bits) :].any()


def test_codes_that_are_whole_words_are_not_copied() -> None:
    padded = hamming.pad(draw(5, 48), 48)
    assert hamming.pad(padded, 48) is padded
    assert np.shares_memory(hamming.as_words(padded, 48), padded)


@pytest.mark.parametrize(
    ("codes", "bits", "message"),
    [
        (np.zeros((3, 5), np.uint8), 48, "5 bytes each, codes of 48 bits have 6"),
        (np.zeros((3, 6), np.int64), 48, "int64"),
        (np.zeros(6, np.uint8), 48, r"\(6,\)"),
        (np.full((3, 2), 255, np.uint8), 12, "beyond the first 12"),
        (np.zeros((3, 0), np.uint8), 0, "0 bits"),
        (np.zeros((3, 9000), np.uint8), 72000, "72000 bits"),
    ],
    ids=["width", "type", "one dimension", "bits beyond", "no bits", "too many bits"],
)
def test_what_is_no_code_is_refused(codes: np.ndarray, bits: int, message: str) -> None:
    with pytest.raises(RetrievalError, match=message):
        hamming.check_codes(codes, bits)
