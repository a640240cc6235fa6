"""Thousands of damaged pictures: an array or ImageError, nothing else, and never more pixels than allowed."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from caffe2torch.errors import ImageError
from caffe2torch.preprocess import decode, image

from .test_image import COLOUR, GREYS, HAS_GIF, jpeg, palette, saved

FILES = [
    *COLOUR.values(),
    *GREYS.values(),
    jpeg(),
    jpeg(progressive=True),
    *([saved(palette(), "GIF", transparency=3)] if HAS_GIF else []),
]


@pytest.fixture(autouse=True)
def few_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes that pass the header's checks are decoded; keep them small here."""
    monkeypatch.setattr(image, "MAX_PIXELS", 1 << 20)


def checksummed(data: bytes) -> bytes:
    """A PNG with all checksums made right again, so that the damage gets past them; other files as they are."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    result, position = bytearray(data), 8
    while position + 12 <= len(data):
        end = position + 8 + int.from_bytes(data[position : position + 4], "big")
        result[end : end + 4] = zlib.crc32(data[position + 4 : end]).to_bytes(4, "big")[: max(0, len(data) - end)]
        position = end + 4
    return bytes(result)


def check(data: bytes, exif: bool = False) -> None:
    try:
        result = decode(data, "x", exif=exif)
    except ImageError:
        return
    assert isinstance(result, np.ndarray)
    assert result.dtype == np.uint8
    assert result.ndim == 2 or result.shape[2] == 3
    assert 0 < result.shape[0] * result.shape[1] <= 1 << 20


@settings(max_examples=1500, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_changed_bytes(data: st.DataObject) -> None:
    damaged = bytearray(data.draw(st.sampled_from(FILES)))
    near_start = st.integers(0, min(80, len(damaged) - 1))
    for _ in range(data.draw(st.integers(1, 5))):
        damaged[data.draw(near_start | st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    check(checksummed(bytes(damaged)), exif=True)


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_cut_out_and_doubled_parts(data: st.DataObject) -> None:
    original = data.draw(st.sampled_from(FILES))
    low, high = sorted(data.draw(st.lists(st.integers(0, len(original)), min_size=2, max_size=2)))
    check(
        data.draw(st.sampled_from([original[:low], original[:low] + original[high:], original[:high] + original[low:]]))
    )


@settings(max_examples=300, deadline=None)
@given(start=st.sampled_from([data[:16] for data in FILES] + [b""]), rest=st.binary(max_size=200))
def test_noise_behind_a_true_beginning(start: bytes, rest: bytes) -> None:
    check(start + rest)
