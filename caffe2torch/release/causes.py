"""What is usually done otherwise when codes differ: changes of the run's setup, each with the mistake behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from caffe2torch import preprocess, zoo
from caffe2torch.errors import UsageError, ZooError
from caffe2torch.extract.model import Model
from caffe2torch.preprocess.spec import Spec, crop_place
from caffe2torch.release.pictures import Form
from caffe2torch.release.resizing import OWN, RULES
from caffe2torch.release.setup import Setup, mean_words

IMAGENET_VALUES = (104.0, 117.0, 123.0)
"""The usual B, G, R means of ImageNet, rounded as Caffe's examples have them."""
ZOO = "the zoo"

WHY = {
    "mean": "a mean image is easily transposed (SSDH's own evaluation does it), replaced by its averages, left out "
    "because its file was not found, or taken from another release",
    "scale": "a scale (1/255, 1/256 or a standard deviation) belongs to the net it was trained with and to no other",
    "crop": "MATLAB's scripts crop at floor((256 - 227 + 1) / 2) = 15, Caffe's C++ side at floor((256 - 227) / 2) = 14",
    "resize": "every library resizes in its own way, and a picture of 32x32 enlarged to 256x256 shows it in each pixel",
    "channels": "Caffe's nets take B, G, R (OpenCV's order); Pillow, torchvision and MATLAB's imread give R, G, B",
    "mirror": "the papers' CIFAR-10 pictures are mirrored left-right, the pictures of CIFAR-10 are not",
    "jpeg": "the papers' pictures went through JPEG twice; lossless pictures, or pictures coded once, are other pixels",
    "exif": "MATLAB does not turn pictures by their EXIF orientation, most viewers and many libraries do",
    "precision": "reduced precision moves outputs that lie near the threshold to its other side",
    "threshold": "a code is the sigmoid above 0.5 in float32",
    "weights": "these are codes of other weights: the file is not the one that made the released codes",
    "all": "this run was told several things that differ from what the zoo knows of the model",
}


@dataclass(frozen=True, eq=False)
class Variation:
    """``setup`` differs from the run's in one ``topic``; ``text`` says how, ``who`` by whom it is usually done so."""

    topic: str
    setup: Setup
    who: str = ""

    @property
    def text(self) -> str:
        return self.setup.words(self.topic)


def variations(
    setup: Setup, forms: Sequence[Form], *, own: Setup | None = None, others: Sequence[Model] = ()
) -> list[Variation]:
    """Every change of ``setup`` worth trying, likely ones first.

    ``forms`` are those in which the pictures can be had, ``own`` is how the zoo says it, ``others`` are other models
    whose weights are here. What cannot be prepared (a mean image of another size) is left out.
    """
    every = [
        *_as_the_zoo(setup, own),
        *_means(setup),
        *_crops(setup),
        *_resizes(setup),
        *_channels(setup),
        *_scales(setup),
        *_forms(setup, forms),
        *_numbers(setup),
        *(Variation("weights", replace(setup, model=model)) for model in others),
    ]
    return [variation for variation in every if _possible(variation.setup)]


def _possible(setup: Setup) -> bool:
    try:
        setup.prepare()
    except UsageError:
        return False
    return True


def _with_spec(setup: Setup, **changes: object) -> Iterator[Setup]:
    """The setup with another Spec, nothing where such a Spec cannot be."""
    with suppress(UsageError):
        yield replace(setup, spec=replace(setup.spec, **changes))  # type: ignore[arg-type]


def _as_the_zoo(setup: Setup, own: Setup | None) -> Iterator[Variation]:
    """What this run was told otherwise than the zoo has it."""
    if own is None:
        return
    who = ZOO
    there, differs = own.spec, []
    if setup.words("mean") != own.words("mean"):
        differs.append("mean")
        spec = replace(
            setup.spec, mean_file=there.mean_file, mean_values=there.mean_values, mean_layout=there.mean_layout
        )
        yield Variation("mean", replace(setup, spec=spec, mean=own.mean, mean_text=own.mean_text), who)
    pieces: dict[str, dict[str, object]] = {
        "crop": {"resize": there.resize, "crop": there.crop, "crop_offset": there.crop_offset},
        "scale": {"scale": there.scale},
        "channels": {"order": there.order},
    }
    for topic, changes in pieces.items():
        if setup.words(topic) != own.words(topic):
            differs.append(topic)
            yield from (Variation(topic, changed, who) for changed in _with_spec(setup, **changes))
    if (setup.rule or OWN[setup.spec.dialect]) != OWN[there.dialect]:
        differs.append("resize")
    if len(differs) > 1:
        yield Variation("all", replace(own, form=setup.form, precision=setup.precision), who)


def _means(setup: Setup) -> Iterator[Variation]:
    image, spec = setup.mean, setup.spec
    if image is not None and image.shape[1:] != (1, 1):
        yield Variation("mean", setup.transposed(), "files of [W, H, C] read as [H, W, C], and the reverse")
        values = tuple(float(value) for value in image.mean(axis=(1, 2)))
        text = "the average of each channel of " + setup.mean_text.removeprefix("the ")
        yield Variation(
            "mean", setup.with_mean(text, values=values), "np.load(mean).mean(1).mean(1) of Caffe's examples"
        )
        swapped = np.ascontiguousarray(image[::-1])
        text = f"{setup.mean_text} with red and blue exchanged"
        yield Variation("mean", setup.with_mean(text, image=swapped), "a mean in R, G, B")
    yield from _values(setup)
    if image is not None or spec.mean_values is not None:
        yield Variation("mean", setup.with_mean("no mean"), "the mean file was not found, or never read")
    yield from _files(setup)


def _values(setup: Setup) -> Iterator[Variation]:
    values = setup.spec.mean_values
    sets = [(IMAGENET_VALUES, "Caffe's ImageNet examples"), (IMAGENET_VALUES[::-1], "the same in R, G, B")]
    if values is not None and len(values) == 3:
        sets += [(values[::-1], "the same in R, G, B"), ((sum(values) / 3,) * 3, "one number for all channels")]
    if setup.spec.channels == 3:
        for numbers, who in sets:
            if numbers != values:
                text = "the mean values " + ", ".join(f"{value:g}" for value in numbers)
                yield Variation("mean", setup.with_mean(text, values=tuple(numbers)), who)


def _files(setup: Setup) -> Iterator[Variation]:
    """The mean images of the zoo that are on this machine, upright and transposed."""
    known = {entry.mean.name: entry.mean for entry in map(zoo.entry, zoo.names()) if entry.mean is not None}
    for name, file in known.items():
        if setup.mean_text.endswith(f" {name}") or not zoo.is_here(file):
            continue
        changed = setup.with_mean(f"the mean image {name}", image=preprocess.load_mean(zoo.find_file(file)))
        yield Variation("mean", changed, "another release")
        yield Variation("mean", changed.transposed(), "another release, transposed")


def _crops(setup: Setup) -> Iterator[Variation]:
    spec = setup.spec
    if spec.crop is None or spec.resize is None:
        return
    top, left, *_ = crop_place(spec, spec.resize)
    spare = (spec.resize[0] - spec.crop[0], spec.resize[1] - spec.crop[1])
    places = {
        (top - 1, left - 1): "counting from 1 instead of 0",
        (top + 1, left + 1): "counting from 0 instead of 1",
        (spare[0] // 2, spare[1] // 2): "Caffe's C++ side",
        ((spare[0] + 1) // 2, (spare[1] + 1) // 2): "MATLAB's scripts",
        (0, 0): "the top left corner",
        spare: "the bottom right corner",
        (0, spare[1]): "the top right corner",
        (spare[0], 0): "the bottom left corner",
    }
    for place, who in places.items():
        if place != (top, left):
            yield from (Variation("crop", changed, who) for changed in _with_spec(setup, crop_offset=place))
    for changed in _with_spec(setup, resize=spec.crop, crop=None, crop_offset=None):
        image = changed.mean
        if image is not None and image.shape[1:] == spec.resize:  # the part that belongs to a centre crop
            rows, columns = (
                slice(spare[0] // 2, spare[0] // 2 + spec.crop[0]),
                slice(spare[1] // 2, spare[1] // 2 + spec.crop[1]),
            )
            changed = replace(changed, mean=np.ascontiguousarray(image[:, rows, columns]))
        yield Variation("crop", changed, "resizing straight to the net's input")


def _resizes(setup: Setup) -> Iterator[Variation]:
    if setup.spec.resize is None:
        return
    now = setup.rule or OWN[setup.spec.dialect]
    for name, rule in RULES.items():
        if name != now:
            yield Variation("resize", replace(setup, rule=name), rule.who)


def _channels(setup: Setup) -> Iterator[Variation]:
    if setup.spec.channels == 3:
        other = "rgb" if setup.spec.order == "bgr" else "bgr"
        yield from (Variation("channels", changed) for changed in _with_spec(setup, order=other))


def _scales(setup: Setup) -> Iterator[Variation]:
    for scale in (1.0, 1 / 255, 1 / 256, 0.017):
        if scale != setup.spec.scale:
            yield from (Variation("scale", changed) for changed in _with_spec(setup, scale=scale))


def _forms(setup: Setup, forms: Sequence[Form]) -> Iterator[Variation]:
    """Forms that differ in one respect; the search puts several together."""
    for form in forms:
        if form.mirrored != setup.form.mirrored and form.jpeg == setup.form.jpeg:
            yield Variation("mirror", replace(setup, form=form))
        elif form.exif != setup.form.exif:
            yield Variation("exif", replace(setup, form=form))
        elif form.mirrored == setup.form.mirrored and form.jpeg != setup.form.jpeg:
            yield Variation("jpeg", replace(setup, form=form))


def _numbers(setup: Setup) -> Iterator[Variation]:
    for precision in ("float32", "bf16", "fp16"):
        if precision != setup.precision:
            yield Variation("precision", replace(setup, precision=precision))
    before_sigmoid = float(1 / (1 + np.exp(-0.5)))
    for threshold, who in (
        (before_sigmoid, "the layer before the sigmoid compared with 0.5"),
        (0.0, "a sign of the output"),
    ):
        if threshold != setup.threshold:
            yield Variation("threshold", replace(setup, threshold=threshold), who)


def other_models(model: Model, bits: int) -> list[Model]:
    """Models of the zoo with as long a code and as large an input whose files are here, but for ``model`` itself."""
    found = []
    for name in zoo.names():
        entry = zoo.entry(name)
        if name == model.name or entry.bits != bits:
            continue
        spec = Spec.from_dict(entry.preprocessing)
        if (spec.crop or spec.resize) == (model.spec.crop or model.spec.resize):
            with suppress(ZooError):
                found.append(Model.from_zoo(name))
    return found


def own_setup(setup: Setup) -> Setup | None:
    """How the zoo says it, None for a model that is not of the zoo or whose mean file is not here."""
    if setup.model.name not in zoo.names():
        return None
    entry = zoo.entry(setup.model.name)
    spec = Spec.from_dict(entry.preprocessing)
    try:
        mean = zoo.find_file(entry.mean) if entry.mean else None
    except ZooError:
        return None
    model = replace(setup.model, spec=spec, mean=mean)
    image = preprocess.load_mean(mean) if mean else None
    return Setup(model, spec, image, mean_words(model), setup.form, precision="float32")
