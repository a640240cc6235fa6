"""The bundled model, and the one before it that real Caffe ran: codes, accuracy and MAP.

Of the model before, which lies in the reference material, real Caffe recorded the codes. Of the bundled one OpenCV did
(tools/record_codes.py), which shares nothing with this package but the files.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from caffe2torch import zoo
from caffe2torch.extract import Hasher, Model
from caffe2torch.extract.hasher import Output
from caffe2torch.retrieval.codes import pack, threshold, unpack
from cifar import held_out_images, held_out_labels, labels, train_images

NEAR = 1e-5  # a value this close to the threshold may fall on the other side in another order of summation
TRAIN_SAMPLE = 2000
BATCH = 100


def run(model: Model, images: np.ndarray) -> list[Output]:
    """Pictures (N, 32, 32, 3) BGR through preprocessing and net, the way ``extract`` does it."""
    hasher = Hasher(model, device="cpu")
    batch = np.empty((BATCH, *hasher.preprocess.shape), np.float32)
    outputs = []
    for first in range(0, len(images), BATCH):
        for slot, image in zip(batch, images[first : first + BATCH], strict=True):
            hasher.preprocess(image, slot)
        outputs.append(hasher.run(batch))
    return outputs


@dataclass(frozen=True)
class Case:
    """Weights for the net of the zoo, and what another program made of them."""

    model: Model
    recorded: Path
    accuracy: float
    map_at_1000: float


@pytest.fixture(scope="module", params=["real Caffe", "OpenCV"])
def case(request: pytest.FixtureRequest, reference: Path) -> Case:
    if request.param == "real Caffe":
        folder = reference / "models" / "ssdh48_small"
        model = Model.from_zoo("ssdh48_small", weights=folder / "ssdh48_small.caffemodel")
        return Case(model, folder / "reference.npz", 0.9142, 0.900479)
    stated = {(figure.metric, figure.k): figure.value for figure in zoo.entry("ssdh48_small").published}
    recorded = zoo.data_root() / "weights" / "ssdh48_small_codes.npz"
    return Case(Model.from_zoo("ssdh48_small"), recorded, stated["accuracy", None], stated["MAP", 1000])


@pytest.fixture(scope="module")
def test_output(reference: Path, case: Case) -> list[Output]:
    """All test images through the net with the classifier: codes and class scores in one pass."""
    entry = zoo.entry("ssdh48_small")
    assert entry.with_classifier is not None
    return run(replace(case.model, net=entry.with_classifier, features="classifier"), held_out_images(reference))


@pytest.fixture(scope="module")
def test_values(test_output: list[Output]) -> np.ndarray:
    """Sigmoid values (10,000, 48)."""
    return np.concatenate([output.values for output in test_output])


def assert_codes_equal(values: np.ndarray, packed: np.ndarray) -> None:
    differ = threshold(values) != unpack(packed, 48)
    assert np.abs(values[differ] - 0.5).max(initial=0.0) < NEAR
    assert np.count_nonzero(differ) <= 2


def test_the_codes_of_all_test_images_are_those_recorded(case: Case, test_values: np.ndarray) -> None:
    with np.load(case.recorded) as stored:
        assert_codes_equal(test_values, stored["test_codes"])
        if "test_sigmoid_first500" in stored:
            np.testing.assert_allclose(test_values[:500], stored["test_sigmoid_first500"], atol=1e-5, rtol=0)


def test_the_codes_of_training_images_are_those_recorded(reference: Path, case: Case) -> None:
    values = np.concatenate([output.values for output in run(case.model, train_images(reference, TRAIN_SAMPLE))])
    with np.load(case.recorded) as stored:
        assert_codes_equal(values, stored["train_codes"][:TRAIN_SAMPLE])


def test_accuracy_on_all_test_images(reference: Path, case: Case, test_output: list[Output]) -> None:
    scores = np.concatenate([output.features for output in test_output if output.features is not None])
    correct = np.count_nonzero(scores.argmax(axis=1) == held_out_labels(reference))
    assert abs(correct / 10_000 - case.accuracy) <= 0.0001


def test_map_at_1000_by_the_papers_protocol(reference: Path, case: Case, test_values: np.ndarray) -> None:
    """Queries are our codes of the 10,000 test images; the database is the recorded codes of the 50,000 others.

    (Ours of the database are equal to those, which the tests above show on a part and a run by hand on all.)
    """
    with np.load(case.recorded) as stored:
        database = stored["train_codes"]
    with np.load(reference / "cifar10" / "cvprw15_order.npz") as order:
        train, test = order["train_index"], order["test_index"]
    value = mean_average_precision(
        pack(threshold(test_values))[test],
        held_out_labels(reference)[test],
        database[train],
        labels(reference)[:50_000][train],
        1000,
    )
    assert value == pytest.approx(case.map_at_1000, abs=5e-7)


def mean_average_precision(
    queries: np.ndarray, query_labels: np.ndarray, database: np.ndarray, database_labels: np.ndarray, k: int
) -> float:
    """MAP@k: database ranked by Hamming distance, ties in list order; AP = sum(P@i * rel_i) / relevant among k."""
    popcount = np.array([bin(byte).count("1") for byte in range(256)], np.uint8)
    ranks = np.arange(1, k + 1)
    total = 0.0
    # Equal codes have equal rankings, so each distinct query is ranked once.
    distinct, inverse = np.unique(queries, axis=0, return_inverse=True)
    for index, query in enumerate(distinct):
        distance = popcount[database ^ query].sum(axis=1, dtype=np.uint8)
        # No rank below k lies beyond the k-th smallest distance, and those up to it are few: sort only them.
        limit = np.flatnonzero(np.cumsum(np.bincount(distance, minlength=256)) >= k)[0]
        near = np.flatnonzero(distance <= limit)
        ranked = database_labels[near[np.argsort(distance[near], kind="stable")[:k]]]
        for label in query_labels[inverse.ravel() == index]:
            relevant = ranked == label
            if relevant.any():
                total += float((np.cumsum(relevant)[relevant] / ranks[relevant]).mean())
    return total / len(queries)
