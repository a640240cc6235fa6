"""From what the user names to a job: the model, the pictures, the released codes, each refused with a reason."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from caffe2torch import zoo
from caffe2torch.data.cifar10 import open_cifar10
from caffe2torch.errors import FormatError, UsageError
from caffe2torch.extract.model import Model, parse_spec
from caffe2torch.release import facts
from caffe2torch.release.facts import PARTS, Known, Release
from caffe2torch.release.pictures import Form, FromCifar, FromFolder, Pictures

REFERENCE_VARIABLE = "CAFFE2TORCH_REFERENCE"


def model(
    name: str | None,
    *,
    net: str | None = None,
    weights: str | None = None,
    mean: str | None = None,
    mean_layout: str | None = None,
    settings: Sequence[str] = (),
) -> Model:
    """The model called ``name``, or of the user's files, with ``settings`` KEY=VALUE over its preprocessing."""
    if name is None:
        if not net or not weights or not settings:
            raise UsageError(
                "--net needs --weights FILE and --set with the preprocessing (dialect=matcaffe resize=256 ...)"
            )
        spec, image = parse_spec(settings)
        found = Model.from_files(net, weights, spec, mean=mean or image)
    else:
        found = Model.from_zoo(name, weights=weights, mean=mean)
        if found.blob is None:
            raise UsageError(f"{name} makes no codes; choose a hashing model")
        found = _changed(found, settings, mean)
    return found.with_mean_layout(mean_layout) if mean_layout else found


def _changed(found: Model, settings: Sequence[str], mean: str | None) -> Model:
    """With each KEY=VALUE in place of the model's own; KEY=none takes a setting away."""
    removed = {key for key, _, value in (setting.partition("=") for setting in settings) if value == "none"}
    values = found.spec.to_dict()
    if any(setting.startswith("mean_values=") for setting in settings):
        removed |= {"mean_layout", "mean_file"}
    if mean is not None:
        removed.add("mean_values")
        values["mean_file"] = Path(mean).name
    kept = [f"{key}={_text(value)}" for key, value in values.items() if key not in removed]
    spec, _ = parse_spec([*kept, *(setting for setting in settings if not setting.endswith("=none"))])
    return replace(found, spec=spec, mean=found.mean if spec.mean_file is not None else None)


def _text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def release(name: str, *, explicit: bool) -> Release:
    """What is known of the release; with codes named explicitly nothing needs to be."""
    try:
        return facts.release(name)
    except UsageError:
        if not explicit:
            raise
        return facts.unknown(name)


def reference_folder(given: Path | None) -> Path | None:
    """Where the reference material lies: as given, by the environment, or beside the checkout; None where nowhere."""
    if given is not None:
        if not given.is_dir():
            raise FormatError(
                f"{given}: is no folder; `python tools/fetch_reference.py {given}` fetches the released codes"
            )
        return given
    named = os.environ.get(REFERENCE_VARIABLE)
    folder = Path(named) if named else zoo.data_root().parent / "shared"
    return folder if folder.is_dir() else None


def codes(release: Release, root: Path | None, explicit: Mapping[str, str]) -> dict[str, str]:
    """The files of the released codes by part: those named, or those of the facts below ``root``.

    Empty where no codes are public. FormatError where they should be there and are not.
    """
    if explicit:
        return dict(explicit)
    if not release.codes:
        return {}
    how = "`python tools/fetch_reference.py FOLDER` fetches them; then give --reference FOLDER (or --codes TRAIN TEST)"
    start = zoo.data_root() if release.bundled else root
    if start is None:
        raise FormatError(f"the released codes of {release.model} are not here: {how}")
    found = {part: str(start / release.codes[part]) for part in PARTS}
    for place in found.values():
        if not Path(place.partition("#")[0]).is_file():
            raise FormatError(f"{place}: the released codes of {release.model} are not here: {how}")
    return found


def others(release: Release, root: Path | None) -> tuple[Known, ...]:
    """Other codes to compare with, where they are here."""
    if root is None:
        return ()
    return tuple(
        Known(known.name, {part: str(root / place) for part, place in known.files.items()}) for known in release.others
    )


def pictures(
    release: Release,
    *,
    images: Path | None,
    cifar10: Path | None,
    jpeg: int | None = None,
    mirrored: bool | None = None,
) -> Pictures:
    """From folders or from CIFAR-10; in the release's form unless ``jpeg`` or ``mirrored`` say otherwise."""
    if images is None and cifar10 is None:
        raise UsageError(
            "give --cifar10 with cifar-10-python.tar.gz (or what it unpacks to), or --images with the folder that "
            "tools/make_cifar10.py built"
        )
    if images is not None and (jpeg is not None or mirrored is not None):
        raise UsageError(
            "--jpeg and --mirrored are for pictures made from --cifar10; those of --images are as they are"
        )
    form = Form(
        release.mirrored if mirrored is None else mirrored,
        release.jpeg if jpeg is None else jpeg,
    )
    cifar = open_cifar10(cifar10) if cifar10 is not None else None
    if images is not None:
        # What make_cifar10 wrote, whatever the release was hashed on: the trial is to find out.
        return FromFolder(images, Form(), cifar)
    assert cifar is not None
    return FromCifar(cifar, form)
