"""What there is to convert: a model of the zoo, or a prototxt and its weights, with its preprocessing where known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from caffe2torch import zoo
from caffe2torch.errors import UsageError
from caffe2torch.export.preprocessing import Written, write_preprocessing
from caffe2torch.export.source import Origin
from caffe2torch.extract.model import file_sha256, parse_spec
from caffe2torch.loading import load
from caffe2torch.net import CaffeNet
from caffe2torch.preprocess import Spec, load_mean
from caffe2torch.prototxt import UnknownField


@dataclass(frozen=True)
class Convertible:
    """A net that can be loaded, and all that a conversion wants to know of it."""

    name: str
    files: tuple[Path, ...]
    load: Callable[[], CaffeNet]
    spec: Spec | None = None
    mean: Path | None = None
    notes: list[str] = field(default_factory=list)
    """What was passed over while loading."""
    stand_in: bool = False
    """Whether a mean image that is not here is replaced by a grey one, for measurements."""

    def origins(self) -> tuple[Origin, ...]:
        """The files with their hashes."""
        files = (*self.files, self.mean) if self.mean else self.files
        return tuple(Origin(path.name, file_sha256(path)) for path in files)

    def preprocessing(self) -> Written | None:
        """The written preprocessing; None where it is not known. UsageError where it has no written form."""
        if self.spec is None:
            return None
        mean = load_mean(self.mean) if self.mean else None
        if mean is None and self.stand_in and self.spec.mean_file and self.spec.resize:
            mean = np.full((3, *self.spec.resize), 120, np.float32)
        return write_preprocessing(self.spec, mean)


def from_zoo(name: str, *, blobs: Sequence[str] = (), random: bool = False) -> Convertible:
    """A model of the zoo. ``random``: with weights from the prototxt's fillers, for a model whose own are not here."""
    entry = zoo.entry(name)
    weights = None if random else zoo.find_file(entry.weights)
    has_mean = entry.mean is not None and (not random or zoo.is_here(entry.mean))
    mean = zoo.find_file(entry.mean) if entry.mean is not None and has_mean else None
    spec = Spec.from_dict(entry.preprocessing)

    def make() -> CaffeNet:
        extra = (*entry.extra_layers, *entry.aliases.values())
        return load(entry.deploy, weights, aliases=dict(entry.aliases), ignore_extra=extra, outputs=blobs or None)

    files = (entry.deploy,) if weights is None else (entry.deploy, weights)
    return Convertible(entry.name, files, make, spec, mean, stand_in=random)


def from_files(
    net: str | Path,
    weights: str | Path | None,
    *,
    blobs: Sequence[str] = (),
    preprocess: Sequence[str] = (),
    mean: str | None = None,
    level: int = 0,
    stages: Sequence[str] = (),
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    allow_unknown: bool = False,
    allow_missing: bool = False,
    ignore_extra: bool = False,
    protos: Sequence[str] = (),
) -> Convertible:
    """A net and its weights; ``preprocess`` is what the option of that name takes."""
    if mean is not None and not preprocess:
        raise UsageError("--mean needs --preprocess, which says what is done with the mean")
    spec, found = parse_spec([*preprocess, *([f"mean_file={mean}"] if mean else [])]) if preprocess else (None, None)
    image = Path(mean) if mean else found
    if image is None and spec is not None and spec.mean_file is not None:
        image = Path(spec.mean_file)
    notes: list[str] = []

    def make() -> CaffeNet:
        unknown: list[UnknownField] | None = [] if allow_unknown else None
        made = load(
            net,
            weights,
            level=level,
            stages=stages,
            input_shapes=input_shapes,
            allow_missing=allow_missing,
            ignore_extra=ignore_extra,
            unknown_fields=unknown,
            protos=protos,
            outputs=blobs or None,
        )
        for name, layers in (("filled", made.report.filled), ("ignored", made.report.ignored)):
            if layers and weights is not None:
                notes.append(f"{name}: {', '.join(layers)}")
        notes.extend(f"{f.path}:{f.line}: unknown field {f.name}" for f in unknown or ())
        return made

    files = (Path(net),) if weights is None else (Path(net), Path(weights))
    return Convertible(Path(net).stem, files, make, spec, image, notes)
