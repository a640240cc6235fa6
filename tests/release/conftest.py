"""Stand-ins for a release whose weights nobody has here."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io

from caffe2torch.data.cifar10 import Cifar10, open_cifar10
from caffe2torch.release.pictures import Form, FromCifar, row_order

from .standin import StandIn, make

COUNT = 120


@pytest.fixture(scope="session")
def cifar(reference: Path) -> Cifar10:
    """All of CIFAR-10, read when asked for; tests here read the test images only."""
    return open_cifar10(reference / "cifar10" / "cifar10_lossless_webp.zip")


@pytest.fixture(scope="session")
def standin(reference: Path, cifar: Cifar10, tmp_path_factory: pytest.TempPathFactory) -> StandIn:
    """A release of a small net with KevinNet's preprocessing and KevinNet's mean image, of COUNT test pictures."""
    if not hasattr(cv2.dnn, "readNetFromCaffe"):
        pytest.skip("OpenCV 5 has no Caffe importer")
    stored = scipy.io.loadmat(reference / "published" / "means" / "kevinnet-ilsvrc_2012_mean.mat")
    mean = stored["image_mean"].transpose(2, 0, 1).astype(np.float64)
    order = row_order("test", "papers")[:COUNT]
    images = [_twice_through_jpeg(cifar.test.images[position][:, ::-1, ::-1]) for position in order]
    return make(tmp_path_factory.mktemp("standin"), images, mean)


def _twice_through_jpeg(image: np.ndarray) -> np.ndarray:
    """A mirrored BGR picture coded as the authors' are, by a second hand."""
    for _ in range(2):
        options = [cv2.IMWRITE_JPEG_QUALITY, 75]
        image = cv2.imdecode(cv2.imencode(".jpg", np.ascontiguousarray(image), options)[1], cv2.IMREAD_COLOR)
    return image


@pytest.fixture(scope="session")
def papers_pictures(cifar: Cifar10) -> FromCifar:
    """The pictures as the papers had them."""
    return FromCifar(cifar, Form())
