"""CIFAR-10: read from any of its forms, and turned into the pictures and lists of the papers."""

from __future__ import annotations

from caffe2torch.data.cifar10.dataset import CLASSES, Batch, Cifar10, open_cifar10
from caffe2torch.data.cifar10.papers import (
    TEST_WALK,
    TRAIN_WALK,
    Layout,
    papers_file,
    papers_jpeg,
    papers_order,
)
from caffe2torch.data.cifar10.records import BATCHES
from caffe2torch.data.cifar10.writing import Written, write_papers_dataset

__all__ = [
    "BATCHES",
    "CLASSES",
    "TEST_WALK",
    "TRAIN_WALK",
    "Batch",
    "Cifar10",
    "Layout",
    "Written",
    "open_cifar10",
    "papers_file",
    "papers_jpeg",
    "papers_order",
    "write_papers_dataset",
]
