"""DummyData: blobs that need no file."""

from __future__ import annotations

import torch

from .messages import layer


def dummy(settings: str, tops: int = 1) -> str:
    return " ".join(f'top: "t{i}"' for i in range(tops)) + f' type: "DummyData" dummy_data_param {{ {settings} }}'


def test_one_shape_and_filler_serve_every_top() -> None:
    tops = layer(dummy("shape { dim: 2 dim: 3 } data_filler { value: 1.5 }", tops=2), [])()
    assert [top.tolist() for top in tops] == [[[1.5] * 3] * 2] * 2


def test_the_old_four_dimensions_are_understood() -> None:
    tops = layer(dummy("num: 2 num: 1 channels: 3 height: 4 width: 5", tops=2), [])()
    assert [top.shape for top in tops] == [(2, 3, 4, 5), (1, 3, 4, 5)]


def test_without_a_filler_the_values_are_zero() -> None:
    assert layer(dummy("shape { dim: 3 }"), [])().tolist() == [0.0, 0.0, 0.0]


def test_random_values_are_new_in_every_pass() -> None:
    built = layer(dummy('shape { dim: 8 } data_filler { type: "uniform" min: 2 max: 3 }'), [])
    first, second = built(), built()
    assert not torch.equal(first, second)
    assert first.min() >= 2
    assert first.max() < 3


def test_the_blobs_follow_the_type_of_the_net_and_are_no_part_of_its_state() -> None:
    built = layer(dummy("shape { dim: 2 }"), []).double()
    assert built().dtype == torch.float64
    assert not built.state_dict()
