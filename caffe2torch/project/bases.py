"""What a project can start from: a net of the zoo, and the numbers it is trained with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from caffe2torch import zoo
from caffe2torch.errors import UsageError


@dataclass(frozen=True)
class Base:
    """``model`` is the zoo's name of the net; pictures are resized to ``size`` pixels square and ``crop`` cut of them.

    Iterations come from ``epochs``, but there are at least ``least`` of them. ``solver`` has the fields of the solver
    that do not depend on the data; ``halve`` divides the rate by ten half-way. ``weights`` are the zoo's name of the
    model to fine-tune, and ``weights_from`` says where these are had if not from the zoo; with neither it learns from
    nothing. ``mean_image`` subtracts the mean image, otherwise the mean of each channel.
    """

    name: str
    model: str
    method: str
    size: int
    crop: int
    batch: int
    test_batch: int
    epochs: int
    least: int
    solver: Mapping[str, Any]
    halve: bool = False
    weights: str | None = None
    weights_from: str | None = None
    weights_file: str | None = None
    mean_image: bool = True
    paper: str | None = None
    """What to cite, where it is not what the zoo says of the net."""
    moving_average: float | None = None
    """The moving_average_fraction of BatchNorm layers, where it is not Caffe's."""

    @property
    def entry(self) -> zoo.Entry:
        """The zoo's."""
        return zoo.entry(self.model)

    @property
    def scale(self) -> float:
        """What pixels are multiplied with after the mean is subtracted."""
        return float(self.entry.preprocessing.get("scale", 1.0))


_paper = partial(
    Base,
    size=256,
    test_batch=50,
    least=2000,
    solver={"type": "SGD", "base_lr": 0.001, "momentum": 0.9, "weight_decay": 0.0005},
    halve=True,
)
_alexnet = partial(_paper, crop=227, batch=32, epochs=32, weights="caffenet")

BASES = {
    base.name: base
    for base in (
        Base(
            "ssdh_small",
            "ssdh48_small",
            "compact SSDH net",
            size=36,
            crop=32,
            batch=64,
            test_batch=100,
            epochs=20,
            least=500,
            solver={
                "type": "Nesterov",
                "base_lr": 0.05,
                "momentum": 0.9,
                "weight_decay": 0.0005,
                "lr_policy": "poly",
                "power": 1.0,
            },
            mean_image=False,
            paper="The objective of Yang, Lin and Chen, arXiv:1507.00101",
            moving_average=0.95,  # Caffe's 0.999 averages over more batches than a short training has
        ),
        _alexnet("ssdh", "ssdh_cifar10_48", "SSDH on AlexNet"),
        _alexnet("kevinnet", "kevinnet_cifar10_48", "KevinNet"),
        _paper(
            "ssdh_vgg16",
            "ssdh_vgg16_48",
            "SSDH on VGG-16",
            crop=224,
            batch=40,
            epochs=20,
            weights_file="VGG_ILSVRC_16_layers.caffemodel",
            weights_from="the authors' page, https://www.robots.ox.ac.uk/~vgg/research/very_deep/",
        ),
    )
}


def base(name: str) -> Base:
    """The base called ``name``; UsageError where there is none."""
    if name not in BASES:
        raise UsageError(f"--base {name}: expected one of {', '.join(BASES)}")
    return BASES[name]
