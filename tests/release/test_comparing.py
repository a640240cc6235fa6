"""Codes against codes: what differs, what was exchanged, and which files can be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from caffe2torch.errors import Caffe2TorchError, FormatError, RetrievalError
from caffe2torch.release.comparing import compare, first_names, mix_ups, read_reference
from caffe2torch.release.pictures import file_name, row_order


def codes(count: int = 10_000, bits: int = 48, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, bits)) < 0.5


def test_every_bit_that_differs_is_counted_and_the_first_pictures_are_named() -> None:
    ours, positions = codes(), row_order("test", "papers")
    theirs = ours.copy()
    theirs[7, :3] ^= True
    theirs[9_000, 5] ^= True
    found = compare("test", ours, theirs)
    assert (found.count, found.rows.tolist(), found.bits.tolist(), found.total) == (4, [7, 9000], [3, 1], 480_000)
    seventh = f"test/{positions[7] + 1}.jpg"
    assert first_names(found, positions, 1) == [f"{seventh} (3 bits)"]


def test_names_are_the_papers(reference: Path) -> None:
    for part in ("test", "train"):
        listed = (reference / f"published/cifar10_lists/cvprw15-{part}-file-list.txt").read_text("ascii").split()
        order = row_order(part, "papers")
        assert [f"/examples/cvprw15-cifar10/dataset/{file_name(part, int(i))}" for i in order] == listed


@pytest.mark.parametrize(
    ("exchange", "word"),
    [
        (lambda bits, order: ~bits, "inverted"),
        (lambda bits, order: bits[:, ::-1], "reverse order"),
        (lambda bits, order: np.unpackbits(np.packbits(bits, axis=1), axis=1, bitorder="little") > 0, "other end"),
        (lambda bits, order: standard(bits, order), "CIFAR-10's own order"),
        (lambda bits, order: standard(bits, order)[(order + 1) % 10_000], "off by one"),
    ],
    ids=["inverted", "reversed", "bytes", "order", "shifted"],
)
def test_exchanges_are_seen_in_the_codes(exchange: object, word: str) -> None:
    ours, order = codes(), row_order("test", "papers")
    theirs = exchange(ours, order).copy()  # type: ignore[operator]
    theirs[3, 3] ^= True
    found = mix_ups("test", ours, theirs, order, whole=True)
    assert found is not None
    assert word in found.text
    assert found.left == 1


def standard(bits: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Rows in the papers' order to CIFAR-10's own."""
    found = np.empty_like(bits)
    found[order] = bits
    return found


def test_ordinary_differences_are_no_exchange() -> None:
    ours = codes()
    theirs = ours ^ (np.random.default_rng(1).random(ours.shape) < 0.01)
    assert mix_ups("test", ours, theirs, row_order("test", "papers"), whole=True) is None


def test_codes_in_any_file(tmp_path: Path, reference: Path) -> None:
    bits = codes()
    np.save(tmp_path / "bits.npy", bits)
    np.save(tmp_path / "digits.npy", bits.astype(np.int64))
    np.save(tmp_path / "packed.npy", np.packbits(bits, axis=1))
    np.savez(tmp_path / "x.npz", a=np.packbits(bits, axis=1))
    for name in ("bits.npy", "digits.npy", "packed.npy", "x.npz#a"):
        np.testing.assert_array_equal(read_reference(str(tmp_path / name), "test", 48), bits)
    assert read_reference(str(reference / "published/kevinnet48/binary-test.mat"), "test", 48).shape == (10_000, 48)


def test_what_cannot_be_the_released_codes_is_refused(tmp_path: Path, reference: Path) -> None:
    train = str(reference / "published/kevinnet48/binary-train.mat")
    with pytest.raises(
        RetrievalError, match="50,000 codes, expected 10,000 of the test images; --codes takes the train"
    ):
        read_reference(train, "test", 48)
    with pytest.raises(RetrievalError, match="codes of 48 bits, the model makes 12"):
        read_reference(train, "train", 12)
    np.save(tmp_path / "floats.npy", np.zeros((10_000, 48)))
    np.save(tmp_path / "wide.npy", np.full((10_000, 48), 2))
    for name in ("floats.npy", "wide.npy"):
        with pytest.raises(RetrievalError, match="expected \\(pictures, 48 bits"):
            read_reference(str(tmp_path / name), "test", 48)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "wide.npy").read_bytes()[:1000])
    (tmp_path / "none.npy").write_bytes(b"")
    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    for name in ("cut.npy", "none.npy", "absent.npy", "x.npz#b", "absent.npz#b"):
        with pytest.raises(FormatError, match="cannot be read as an array"):
            read_reference(str(tmp_path / name), "test", 48)


def test_with_a_limit_the_first_codes_are_enough(tmp_path: Path) -> None:
    np.save(tmp_path / "some.npy", codes(200))
    assert len(read_reference(str(tmp_path / "some.npy"), "test", 48, limit=150)) == 150
    with pytest.raises(Caffe2TorchError, match="200 codes, expected 10,000"):
        read_reference(str(tmp_path / "some.npy"), "test", 48, limit=201)
