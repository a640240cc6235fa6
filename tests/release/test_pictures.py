"""Pictures from CIFAR-10 in memory and from folders: the same pixels, in every form."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from caffe2torch.data.cifar10 import BATCHES, Cifar10, papers_jpeg
from caffe2torch.errors import ImageError
from caffe2torch.release.pictures import Form, FromCifar, FromFolder, row_order

POSITIONS = np.arange(4)


@pytest.fixture
def folder(tmp_path: Path, cifar: Cifar10) -> Path:
    """The first test pictures as make_cifar10 writes them, below empty folders for the rest."""
    dataset = tmp_path / "root" / "examples/cvprw15-cifar10/dataset"
    for name in BATCHES:
        (dataset / name).mkdir(parents=True)
    for position in POSITIONS:
        (dataset / f"test/{position + 1}.jpg").write_bytes(papers_jpeg(cifar.test.images[position]))
    return tmp_path / "root"


def test_made_in_memory_they_are_the_very_pixels_of_the_files(folder: Path, cifar: Cifar10) -> None:
    made, read = FromCifar(cifar, Form()), FromFolder(folder, Form())
    for position in POSITIONS:
        image = made.read("test", int(position), Form())
        np.testing.assert_array_equal(image, read.read("test", int(position), Form()))
        np.testing.assert_array_equal(image, cv2.imread(str(read.path("test", int(position)))))


def test_forms(cifar: Cifar10, folder: Path) -> None:
    made, read = FromCifar(cifar, Form()), FromFolder(folder, Form(), cifar)
    plain = cifar.test.images[0]
    np.testing.assert_array_equal(made.read("test", 0, Form(mirrored=False, jpeg=0)), plain[..., ::-1])
    np.testing.assert_array_equal(made.read("test", 0, Form(mirrored=True, jpeg=0)), plain[:, ::-1, ::-1])
    coded = cv2.imdecode(cv2.imencode(".jpg", plain[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 75])[1], 1)
    np.testing.assert_array_equal(made.read("test", 0, Form(mirrored=False, jpeg=1)), coded)
    np.testing.assert_array_equal(read.read("test", 0, Form(mirrored=False)), read.read("test", 0, Form())[:, ::-1])
    for form in read.forms():
        assert read.read("test", 0, form).shape == (32, 32, 3)
    assert len(set(made.forms())) == 7


def test_missing_pictures_are_counted_and_named(folder: Path) -> None:
    pictures = FromFolder(folder, Form())
    pictures.check("test", POSITIONS)
    with pytest.raises(ImageError, match=r"2 of 3 test pictures are missing, such as test/5.jpg, test/6.jpg"):
        pictures.check("test", np.array([3, 4, 5]))
    with pytest.raises(ImageError, match="has no folder batch1"):
        FromFolder(folder / "examples", Form())


def test_labels_of_the_lists_are_cifars(folder: Path, cifar: Cifar10) -> None:
    pictures = FromFolder(folder, Form())
    assert pictures.labels("test") is None
    listed = cifar.test.labels[row_order("test", "papers")]
    np.savetxt(pictures.folder / "test-label.txt", listed, "%d")
    found = FromFolder(folder, Form()).labels("test")
    assert found is not None
    np.testing.assert_array_equal(found, cifar.test.labels)
