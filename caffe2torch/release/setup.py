"""One way to come from a picture to a code: everything that the trial changes, and how it is said in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from caffe2torch import preprocess
from caffe2torch.errors import UsageError
from caffe2torch.extract.model import Model
from caffe2torch.preprocess.mean import mean_planes
from caffe2torch.preprocess.pixels import finish
from caffe2torch.preprocess.spec import Spec, crop_place
from caffe2torch.release.pictures import Form
from caffe2torch.release.resizing import OWN, RULES

Mean = NDArray[np.float32]
"""(C, H, W) upright, B, G, R."""
Prepare = Callable[[NDArray[np.uint8], NDArray[np.float32]], object]
"""A picture into a slot (C, H, W) of a batch."""


@dataclass(frozen=True, eq=False)
class Setup:
    """The form of the pictures, what is done to them, the weights, and how bits are made of the net's output."""

    model: Model
    spec: Spec
    mean: Mean | None
    mean_text: str
    form: Form
    rule: str | None = None
    """A resize of ``resizing.RULES`` in place of the dialect's own."""
    precision: str = "float32"
    threshold: float = 0.5

    def with_mean(self, text: str, *, image: Mean | None = None, values: tuple[float, ...] | None = None) -> Setup:
        """The same with another mean, or with none."""
        name = "mean" if image is not None else None
        spec = replace(self.spec, mean_file=None, mean_values=None, mean_layout="hwc")
        return replace(self, spec=replace(spec, mean_file=name, mean_values=values), mean=image, mean_text=text)

    def transposed(self) -> Setup:
        """The same with the mean image's rows and columns exchanged."""
        layout = "hwc" if self.spec.mean_layout == "whc" else "whc"
        return replace(self, spec=replace(self.spec, mean_layout=layout))

    def prepare(self) -> Prepare:
        """What is done to a picture. UsageError where the parts do not fit together."""
        if self.rule is None:
            return preprocess.make(self.spec, self.mean)
        return _prepare_by_rule(self.spec, self.mean, self.rule)

    def words(self, topic: str) -> str:
        """How this setup treats one topic, for the report."""
        spec = self.spec
        return {
            "mean": self.mean_text + (", rows and columns exchanged" if spec.mean_layout == "whc" else ""),
            "scale": f"values times {spec.scale:g}" if spec.scale != 1.0 else "values that are not scaled",
            "crop": _crop_words(spec),
            "resize": _resize_words(spec, self.rule or OWN[spec.dialect]),
            "channels": "channels in the order " + " ".join(spec.order.upper()).replace(" ", ", "),
            "mirror": "pictures mirrored left-right" if self.form.mirrored else "pictures that are not mirrored",
            "jpeg": _jpeg_words(self.form.jpeg),
            "exif": "pictures turned by EXIF" if self.form.exif else "pictures not turned by EXIF",
            "precision": f"arithmetic in {self.precision}",
            "threshold": f"a bit for an output above {self.threshold:g}",
            "weights": f"weights {self.model.weights.name}",
            "all": "everything as the zoo has it",
        }[topic]


def starting(model: Model, form: Form, *, precision: str = "float32") -> Setup:
    """The setup that a run with ``model`` amounts to."""
    mean = preprocess.load_mean(model.mean) if model.mean else None
    return Setup(model, model.spec, mean, mean_words(model), form, precision=precision)


def mean_words(model: Model) -> str:
    """The mean of a model, in words."""
    if model.mean is not None:
        return f"the mean image {model.mean.name}"
    if model.spec.mean_values is not None:
        return "the mean values " + ", ".join(f"{value:g}" for value in model.spec.mean_values)
    return "no mean"


def _prepare_by_rule(spec: Spec, mean: Mean | None, rule: str) -> Prepare:
    """As `preprocess.matcaffe.Matcaffe`, with another resize."""
    if spec.resize is None:
        raise UsageError("preprocessing: no size to resize to")
    size, resize = spec.resize, RULES[rule].resize
    top, left, height, width = crop_place(spec, size)
    window = (slice(None), slice(top, top + height), slice(left, left + width))
    whole = mean_planes(spec, mean, None if spec.dialect == "pycaffe" else size)
    if whole is not None and whole.shape[1:] == size:
        whole = whole[window]

    def prepare(image: NDArray[np.uint8], out: NDArray[np.float32]) -> object:
        finish(resize(image, spec.order, size)[window], whole, spec.scale, out)
        return out

    return prepare


def _crop_words(spec: Spec) -> str:
    if spec.crop is None:
        return f"no crop: pictures of {_size(spec.resize)} pixels" if spec.resize else "no crop"
    if spec.resize is None:
        return f"a crop of {_size(spec.crop)}"
    top, left, height, width = crop_place(spec, spec.resize)
    return f"a crop of {height}x{width} at row {top}, column {left} (from 0) of {_size(spec.resize)}"


def _resize_words(spec: Spec, rule: str) -> str:
    return f"pictures resized to {_size(spec.resize)}: {RULES[rule].text}" if spec.resize else "no resize"


def _jpeg_words(passes: int) -> str:
    times = {0: "pictures never through JPEG", 1: "pictures once through JPEG", 2: "pictures twice through JPEG"}
    return times.get(passes, f"pictures {passes} times through JPEG")


def _size(size: tuple[int, int] | None) -> str:
    return "x".join(map(str, size or ()))
