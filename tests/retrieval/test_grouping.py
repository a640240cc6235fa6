"""Groups of equal codes against a dictionary, and when they are made."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe2torch.retrieval import grouping
from caffe2torch.retrieval.engine_numpy import NumpyEngine
from caffe2torch.retrieval.grouping import GroupedEngine, build_engine, expected_size, group_codes
from retrieval.naive import draw_codes, naive_search


def random_codes(count: int) -> np.ndarray:
    return np.frombuffer(np.random.RandomState(0).bytes(count * 8), np.uint8).reshape(count, 8).copy()


def naive_groups(codes: np.ndarray) -> list[list[int]]:
    groups: dict[bytes, list[int]] = {}
    for place, code in enumerate(codes):
        groups.setdefault(code.tobytes(), []).append(place)
    return list(groups.values())


@pytest.mark.parametrize("bits", [1, 8, 12, 48, 64, 65, 200])
@pytest.mark.parametrize("count", [0, 1, 2, 300])
def test_groups_are_in_the_order_of_their_first_members(bits: int, count: int) -> None:
    codes = draw_codes(count, bits, distinct=30)
    groups = group_codes(codes, bits)
    found = [part.tolist() for part in np.split(groups.members, groups.starts[1:-1])] if count else []
    assert found == naive_groups(codes)
    inverse = groups.inverse()
    assert all(inverse[place] == number for number, members in enumerate(found) for place in members)


def test_codes_with_the_same_mix_are_told_apart() -> None:
    def mixed(word: int) -> int:
        return ((word ^ (word >> 29)) * 0x9E3779B97F4A7C15) % (1 << 64)

    words = [(3, 5), (9, 5 ^ mixed(3) ^ mixed(9)), (3, 5), (9, 5 ^ mixed(3) ^ mixed(9)), (0, 0)]
    codes = np.array(words, np.uint64).view(np.uint8)
    groups = group_codes(codes, 128)
    assert [part.tolist() for part in np.split(groups.members, groups.starts[1:-1])] == [[0, 2], [1, 3], [4]]


@pytest.mark.parametrize("count", [1, 2, 500])
def test_expected_size_of_few_codes_is_exact(count: int) -> None:
    codes = draw_codes(count, 16, distinct=20)
    sizes = [len(members) for members in naive_groups(codes)]
    assert expected_size(codes, 16) == pytest.approx(sum(size**2 for size in sizes) / count)


def test_expected_size_is_estimated_from_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "SAMPLE", 2000)
    codes = np.repeat(random_codes(5000), 4, axis=0)  # equal codes side by side
    assert expected_size(codes, 64) == pytest.approx(4, rel=0.3)


@pytest.mark.parametrize(("repeat", "name"), [(1, "numpy"), (3, "numpy, grouped")])
def test_grouping_is_used_where_codes_repeat(repeat: int, name: str) -> None:
    codes = np.repeat(random_codes(400)[:, :6], repeat, axis=0)
    assert build_engine(codes, 48, NumpyEngine, grouped=None).name == name


def test_few_codes_with_many_equals_do_not_mislead() -> None:
    codes = random_codes(1000)[:, :6]
    codes[:100] = codes[0]  # a code has 11 equals on average, but there are 901 groups
    assert expected_size(codes, 48) > 10
    assert build_engine(codes, 48, NumpyEngine, grouped=None).name == "numpy"


@pytest.mark.parametrize(("grouped", "name"), [(True, "numpy, grouped"), (False, "numpy")])
def test_grouping_can_be_asked_for_and_forbidden(grouped: bool, name: str) -> None:
    assert build_engine(draw_codes(50, 12, distinct=9), 12, NumpyEngine, grouped=grouped).name == name


@given(data=st.data(), count=st.integers(1, 120), distinct=st.integers(1, 40))
@settings(max_examples=80, deadline=None)
def test_expanding_keeps_the_order(data: st.DataObject, count: int, distinct: int) -> None:
    codes = draw_codes(count, 6, distinct=distinct, seed=data.draw(st.integers(0, 999)))
    k = data.draw(st.integers(1, max(1, count // 4)))
    queries = draw_codes(3, 6, distinct=3, seed=data.draw(st.integers(0, 999)))
    positions, distances = GroupedEngine(codes, 6, NumpyEngine).search(queries, k)
    expected = naive_search(queries, codes, 6, k)
    np.testing.assert_array_equal(positions, expected[0])
    np.testing.assert_array_equal(distances, expected[1])


def test_keys_too_long_for_one_integer_are_sorted_all_the_same() -> None:
    from caffe2torch.retrieval.hamming import in_order

    rows = np.array([1, 0, 0, 1 << 30])
    distances, positions = np.array([1 << 16, 5, 5, 0]), np.array([1 << 40, 1 << 39, 7, 3])
    found = in_order(rows, distances, positions)
    assert [column.tolist() for column in found] == [[0, 0, 1, 1 << 30], [5, 5, 1 << 16, 0], [7, 1 << 39, 1 << 40, 3]]
