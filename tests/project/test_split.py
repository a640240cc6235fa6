"""The split into training and test pictures, and the numbers of a training."""

from __future__ import annotations

import numpy as np
import pytest

from caffe2torch.errors import UsageError
from caffe2torch.project.bases import BASES, base
from caffe2torch.project.plan import convenient, divisor, plan
from caffe2torch.project.split import split, strata, trim


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.999])
def test_every_class_keeps_its_share(share: float) -> None:
    counts = [1, 2, 3, 10, 57, 200]
    labels = np.repeat(np.arange(len(counts)), counts)
    train, test = split(labels, share, 3)
    assert sorted([*train, *test]) == list(range(len(labels)))
    tested = np.bincount(labels[test], minlength=len(counts))
    for count, found in zip(counts, tested.tolist(), strict=True):
        assert found == (0 if count == 1 else min(max(1, round(count * share)), count - 1))


def test_the_same_seed_splits_alike_and_one_class_does_not_move_another() -> None:
    labels = np.repeat([0, 1], [50, 70])
    assert split(labels, 0.2, 1)[1].tolist() == split(labels, 0.2, 1)[1].tolist()
    assert split(labels, 0.2, 1)[1].tolist() != split(labels, 0.2, 2)[1].tolist()
    first = [row for row in split(labels, 0.2, 1)[1].tolist() if row < 50]
    assert [row for row in split(labels[:100], 0.2, 1)[1].tolist() if row < 50] == first


def test_several_labels_are_divided_by_the_rarest() -> None:
    labels = np.array([[1, -1, 1], [1, -1, -1], [1, 1, -1], [-1, -1, -1], [1, 0, 1], [1, -1, -1]])
    assert strata(labels).tolist() == [2, 0, 1, -1, 2, 0]  # of labels 0, 1, 2 there are 5, 1, 2
    many = np.where(np.random.default_rng(0).random((400, 6)) < [0.5, 0.3, 0.2, 0.1, 0.05, 0.02], 1, -1)
    train, test = split(many, 0.25, 0)
    assert sorted([*train, *test]) == list(range(400))
    assert ((many[train] > 0).sum(axis=0) > 0).all()
    assert ((many[test] > 0).sum(axis=0) > 0).all()


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_shares_that_leave_nothing(share: float) -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        split(np.zeros(9, np.int64), share, 0)


def test_trimming_moves_as_few_as_possible_from_the_largest() -> None:
    labels = np.repeat([0, 1], [1000, 500])
    train, test = split(labels, 0.1327, 0)
    assert len(test) == 199  # a prime
    train, test = trim(train, test, labels, lambda count: convenient(count, 100))
    assert (len(train), len(test)) == (1500 - 198, 198)
    assert sorted([*train, *test]) == list(range(1500))
    assert np.bincount(labels[test]).tolist() == [132, 66]


@pytest.mark.parametrize("count", [1, 2, 7, 60, 61, 97, 101, 600, 1009, 10_000])
def test_a_test_runs_over_every_picture_once(count: int) -> None:
    for chosen in BASES.values():
        found = plan(chosen, 500, count)
        assert found.test_batch * found.test_iter == count
        assert found.test_batch <= chosen.test_batch


def test_divisors() -> None:
    for count in range(1, 130):
        for most in (1, 10, 50):
            assert divisor(count, most) == max(d for d in range(1, most + 1) if count % d == 0)


def test_numbers_from_epochs() -> None:
    found = plan(base("ssdh"), 50_000, 10_000)
    assert (found.max_iter, found.rate_step(), found.test_iter) == (50_000, 25_000, 200)  # as published
    found = plan(base("ssdh"), 640, 100, epochs=2.5)
    assert (found.max_iter, found.epochs) == (50, 2.5)
    assert plan(base("ssdh"), 5, 1, epochs=0.01).max_iter == 1
    small = plan(base("ssdh_small"), 20, 5)
    assert (small.batch, small.max_iter) == (20, BASES["ssdh_small"].least)
    assert 1 <= small.display <= small.test_interval <= small.max_iter


@pytest.mark.parametrize("wrong", [{"epochs": 0.0}, {"epochs": -1.0}, {"epochs": float("nan")}, {"batch": 0}])
def test_numbers_that_make_no_training(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        plan(base("ssdh"), 100, 10, **wrong)  # type: ignore[arg-type]
