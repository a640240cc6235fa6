"""Which model makes the codes: files, preprocessing and blobs, from the zoo or from what the user names."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from caffe2torch import preprocess, zoo
from caffe2torch.errors import FormatError, UsageError


@dataclass(frozen=True)
class Model:
    """A net, its weights, what is done to pictures before it, and the blobs wanted from it.

    ``blob`` None means the net's only output. ``aliases`` maps layer names of the net to those in the weights file.
    """

    name: str
    net: Path
    weights: Path
    spec: preprocess.Spec
    mean: Path | None = None
    blob: str | None = None
    features: str | None = None
    exif: bool = False
    aliases: Mapping[str, str] = field(default_factory=dict)
    allow_missing: bool = False
    ignore_extra: bool | tuple[str, ...] = False
    """Layers of the weights file that the net may lack; True for any."""
    allow_unknown: bool = False
    protos: tuple[Path, ...] = ()
    """A fork's ``.proto`` files that add fields to the schema."""
    imports: tuple[str, ...] = ()
    """Modules, or ``.py`` files, that register layer classes."""

    @classmethod
    def from_zoo(cls, name: str, *, weights: str | Path | None = None, mean: str | Path | None = None) -> Model:
        """The model the zoo knows as ``name``; ``weights`` and ``mean`` replace its files. ZooError without them here.

        Raises UsageError for a model that makes no codes: its features can still be had with ``blob`` set.
        """
        entry = zoo.entry(name)
        # The weights first: where both are missing, the command that fetches them brings the mean image too.
        return cls(
            name=entry.name,
            net=entry.deploy,
            weights=Path(weights) if weights else zoo.find_file(entry.weights),
            spec=preprocess.Spec.from_dict(entry.preprocessing),
            mean=Path(mean) if mean else zoo.find_file(entry.mean) if entry.mean else None,
            blob=entry.code_blob,
            aliases=dict(entry.aliases),
            ignore_extra=(*entry.extra_layers, *entry.aliases.values()),
        )

    @classmethod
    def from_files(
        cls, net: str | Path, weights: str | Path, spec: preprocess.Spec, *, mean: str | Path | None = None
    ) -> Model:
        """A model of the user's own. ``mean`` is its mean image, or else the spec's ``mean_file`` is."""
        if mean is None and spec.mean_file is not None:
            mean = spec.mean_file
        elif mean is not None and spec.mean_file is None:
            spec = replace(spec, mean_file=Path(mean).name)
        return cls(Path(net).stem, Path(net), Path(weights), spec, Path(mean) if mean else None)

    def with_mean_layout(self, layout: str) -> Model:
        """The same model with the mean image subtracted upright (``hwc``) or transposed (``whc``)."""
        return replace(self, spec=replace(self.spec, mean_layout=layout))

    def identity(self) -> dict[str, Any]:
        """What decides the codes, for provenance and for telling one job from another: hashes, spec, blobs."""
        return {
            "model": self.name,
            "net": str(self.net),
            "net_sha256": file_sha256(self.net),
            "weights": str(self.weights),
            "weights_sha256": file_sha256(self.weights),
            "mean": str(self.mean) if self.mean else None,
            "mean_sha256": file_sha256(self.mean) if self.mean else None,
            "preprocessing": self.spec.to_dict(),
            "exif": self.exif,
            "blob": self.blob,
            "features": self.features,
            **self._custom(),
        }

    def _custom(self) -> dict[str, Any]:
        """What a net of a fork needs besides itself; nothing for others."""
        files = [*self.protos, *(Path(source) for source in self.imports if source.endswith(".py"))]
        found: dict[str, Any] = {"protos": [str(path) for path in self.protos], "imports": list(self.imports)}
        return {**found, "custom_sha256": [file_sha256(path) for path in files]} if self.protos or self.imports else {}


def parse_spec(items: Sequence[str]) -> tuple[preprocess.Spec, Path | None]:
    """``--preprocess``: the name of a zoo model whose preprocessing to take, and ``key=value`` settings over it.

    Values are words, numbers, or several numbers with commas: ``dialect=transformer crop=227 mean_values=104,117,123``.
    The path is that of the zoo model's mean image, None where there is none or a setting replaces it.
    """
    values: dict[str, Any] = {}
    mean: zoo.FileEntry | None = None
    for item in items:
        key, equals, text = item.partition("=")
        if not equals:
            entry = zoo.entry(item)
            values, mean = {**values, **entry.preprocessing}, entry.mean
            continue
        values[key] = _value(text)
        if key in ("mean_file", "mean_values"):
            mean = None
            values.pop("mean_file" if key == "mean_values" else "mean_values", None)
    if isinstance(values.get("mean_values"), (int, float)):
        values["mean_values"] = [values["mean_values"]]
    return preprocess.Spec.from_dict(values), zoo.find_file(mean) if mean else None


def _value(text: str) -> Any:
    parts = text.split(",")
    values = [_number(part.strip()) for part in parts]
    return values if len(values) > 1 else values[0]


def _number(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror or error}") from error
    return digest.hexdigest()


def check_blob_name(name: str | None, outputs: tuple[str, ...]) -> str:
    """The blob to read codes from: ``name``, or the only output; UsageError lists the outputs otherwise."""
    if name is not None:
        return name
    if len(outputs) == 1:
        return outputs[0]
    raise UsageError(f"the net has the outputs {', '.join(outputs)}; say which one holds the code with --blob")
